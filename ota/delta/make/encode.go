// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package maker

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"fulmar/ota/delta"
	"fulmar/ota/delta/internal/format"
	"fulmar/ota/delta/internal/predict"
)

// fullWindow is what the decoder of a whole file has to remember.
const fullWindow = 8 << 20

// packer is a stream of zstd into memory. Two effort levels are tried side by side:
// the strongest is not always the shortest, on planes of few values most of all.
type packer struct {
	bufs [2]bytes.Buffer
	encs [2]*zstd.Encoder
}

func newPacker(window int) (*packer, error) {
	p := &packer{}
	for i, level := range []zstd.EncoderLevel{zstd.SpeedBestCompression, zstd.SpeedDefault} {
		// One goroutine: the bytes are the same each time.
		e, err := zstd.NewWriter(&p.bufs[i], zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(window), zstd.WithEncoderCRC(false), zstd.WithZeroFrames(true))
		if err != nil {
			return nil, err
		}
		p.encs[i] = e
	}
	return p, nil
}

func (p *packer) Write(b []byte) (int, error) {
	for _, e := range p.encs {
		if _, err := e.Write(b); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// bytes ends the stream and returns the shorter.
func (p *packer) bytes() ([]byte, error) {
	for _, e := range p.encs {
		if err := e.Close(); err != nil {
			return nil, err
		}
	}
	if p.bufs[1].Len() < p.bufs[0].Len() {
		return p.bufs[1].Bytes(), nil
	}
	return p.bufs[0].Bytes(), nil
}

func pack(b []byte) ([]byte, error) {
	p, err := newPacker(format.Window)
	if err != nil {
		return nil, err
	}
	if _, err := p.Write(b); err != nil {
		return nil, err
	}
	return p.bytes()
}

// whole packs a whole file, for a codec without base.
func whole(ctx context.Context, target *io.SectionReader) ([]byte, error) {
	var buf bytes.Buffer
	e, err := zstd.NewWriter(&buf, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(fullWindow), zstd.WithZeroFrames(true))
	if err != nil {
		return nil, err
	}
	piece := make([]byte, 256<<10)
	for at := int64(0); at < target.Size(); {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n := min(int64(len(piece)), target.Size()-at)
		if _, err := io.ReadFull(io.NewSectionReader(target, at, n), piece[:n]); err != nil {
			return nil, err
		}
		if _, err := e.Write(piece[:n]); err != nil {
			return nil, err
		}
		at += n
	}
	err = e.Close()
	return buf.Bytes(), err
}

// planePacker packs a plane dense and sparse, and keeps the shorter.
type planePacker struct {
	dense, gaps, values *packer
	zeros               uint64
	buf                 []byte
}

func newPlanePacker() (*planePacker, error) {
	p := &planePacker{}
	for _, to := range []**packer{&p.dense, &p.gaps, &p.values} {
		q, err := newPacker(format.Window)
		if err != nil {
			return nil, err
		}
		*to = q
	}
	return p, nil
}

func (p *planePacker) Write(b []byte) (int, error) {
	gaps, values := p.buf[:0], []byte(nil)
	for _, v := range b {
		if v == 0 {
			p.zeros++
			continue
		}
		gaps = binary.AppendUvarint(gaps, p.zeros)
		values = append(values, v)
		p.zeros = 0
	}
	p.buf = gaps
	if _, err := p.gaps.Write(gaps); err != nil {
		return 0, err
	}
	if _, err := p.values.Write(values); err != nil {
		return 0, err
	}
	return p.dense.Write(b)
}

func (p *planePacker) streams() (out [][]byte, sparse bool, err error) {
	var b [3][]byte
	for i, q := range []*packer{p.dense, p.gaps, p.values} {
		if b[i], err = q.bytes(); err != nil {
			return nil, false, err
		}
	}
	if len(b[1])+len(b[2]) < len(b[0]) {
		return b[1:], true, nil
	}
	return b[:1], false, nil
}

// pair is what a patch is made of.
type pair struct {
	base, target *io.SectionReader
	from, to     delta.Target
}

// encode writes a patch from a list of copies, reading both files once.
func (p *pair) encode(ctx context.Context, codec byte, width int, ops []format.Op, control []byte, c *predict.Copier) ([]byte, error) {
	h := &format.Header{Codec: codec, Width: width, Base: format.File(p.from), Out: format.File(p.to)}
	extra, err := newPacker(format.Window)
	if err != nil {
		return nil, err
	}
	planes := make([]*planePacker, width)
	for i := range planes {
		if planes[i], err = newPlanePacker(); err != nil {
			return nil, err
		}
	}
	target := make([]byte, 64<<10)
	diff := make([][]byte, width)
	at := int64(0)
	for _, op := range ops {
		err := c.Copy(op, uint64(at), func(pred []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			b := target[:len(pred)]
			if _, err := p.target.ReadAt(b, at); err != nil && err != io.EOF {
				return err
			}
			at += int64(len(b))
			for i := range diff {
				diff[i] = diff[i][:0]
			}
			format.Sub(diff, b, pred, width)
			for i, d := range diff {
				if _, err := planes[i].Write(d); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if _, err := io.Copy(extra, io.NewSectionReader(p.target, at, int64(op.Extra))); err != nil {
			return nil, err
		}
		at += int64(op.Extra)
	}
	return p.assemble(h, format.AppendOps(control, ops), extra, planes)
}

func (p *pair) assemble(h *format.Header, control []byte, extra *packer, planes []*planePacker) ([]byte, error) {
	first, err := pack(control)
	if err != nil {
		return nil, err
	}
	second, err := extra.bytes()
	if err != nil {
		return nil, err
	}
	streams := [][]byte{first, second}
	for i, q := range planes {
		s, sparse, err := q.streams()
		if err != nil {
			return nil, fmt.Errorf("plane %d: %w", i, err)
		}
		if sparse {
			h.Sparse |= 1 << i
		}
		streams = append(streams, s...)
	}
	return h.Encode(streams), nil
}
