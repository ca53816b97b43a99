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

// packer compresses one stream after the other into memory. Two levels of effort are
// tried side by side: the strongest is not always the shortest, on planes of few
// values most of all. Its two compressors are most of what words needs: they hold 60 MB.
type packer struct {
	bufs [2]bytes.Buffer
	encs [2]*zstd.Encoder
}

func newPacker() (*packer, error) {
	p := &packer{}
	for i, level := range []zstd.EncoderLevel{zstd.SpeedBestCompression, zstd.SpeedDefault} {
		// One goroutine: the bytes are the same each time.
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(format.Window), zstd.WithEncoderCRC(false), zstd.WithZeroFrames(true))
		if err != nil {
			return nil, err
		}
		p.encs[i] = e
	}
	return p, nil
}

// pack compresses what fill writes, and returns the shorter.
func (p *packer) pack(fill func(w io.Writer) error) ([]byte, error) {
	for i, e := range p.encs {
		p.bufs[i].Reset()
		e.Reset(&p.bufs[i])
	}
	if err := fill(p); err != nil {
		return nil, err
	}
	for _, e := range p.encs {
		if err := e.Close(); err != nil {
			return nil, err
		}
	}
	if p.bufs[1].Len() < p.bufs[0].Len() {
		return bytes.Clone(p.bufs[1].Bytes()), nil
	}
	return bytes.Clone(p.bufs[0].Bytes()), nil
}

// Write is for what fills a stream.
func (p *packer) Write(b []byte) (int, error) {
	for _, e := range p.encs {
		if _, err := e.Write(b); err != nil {
			return 0, err
		}
	}
	return len(b), nil
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

// pair is what a patch is made of.
type pair struct {
	base, target *io.SectionReader
	from, to     delta.Target
	packer       *packer
}

// plan is how a patch is to be made: what differs from what the copies predict.
type plan struct {
	codec   byte
	width   int
	ops     []format.Op
	control []byte // that goes before the list of copies
	copier  *predict.Copier
}

// encode writes a patch. It goes through both files once for each stream, so that
// nothing is held but what was compressed: compressing takes far longer than reading.
func (p *pair) encode(ctx context.Context, pl *plan) ([]byte, error) {
	if len(pl.ops) > maxCopies {
		return nil, fmt.Errorf("%w: %d copies", ErrTooLarge, len(pl.ops))
	}
	if p.packer == nil {
		var err error
		if p.packer, err = newPacker(); err != nil {
			return nil, err
		}
	}
	h := &format.Header{Codec: pl.codec, Width: pl.width, Base: format.File(p.from), Out: format.File(p.to)}
	control, err := p.packer.pack(func(w io.Writer) error {
		_, err := w.Write(format.AppendOps(pl.control, pl.ops))
		return err
	})
	if err != nil {
		return nil, err
	}
	extra, err := p.packer.pack(func(w io.Writer) error { return p.extra(ctx, pl, w) })
	if err != nil {
		return nil, err
	}
	streams := [][]byte{control, extra}
	for i := range pl.width {
		dense, err := p.packer.pack(func(w io.Writer) error { return p.plane(ctx, pl, i, w) })
		if err != nil {
			return nil, err
		}
		gaps, err := p.packer.pack(func(w io.Writer) error { return p.plane(ctx, pl, i, &gapWriter{w: w}) })
		if err != nil {
			return nil, err
		}
		values, err := p.packer.pack(func(w io.Writer) error { return p.plane(ctx, pl, i, &valueWriter{w: w}) })
		if err != nil {
			return nil, err
		}
		if len(gaps)+len(values) < len(dense) {
			h.Sparse |= 1 << i
			streams = append(streams, gaps, values)
		} else {
			streams = append(streams, dense)
		}
	}
	return h.Encode(streams), nil
}

// extra writes the new bytes between the copies.
func (p *pair) extra(ctx context.Context, pl *plan, w io.Writer) error {
	at := int64(0)
	for _, op := range pl.ops {
		if err := ctx.Err(); err != nil {
			return err
		}
		at += int64(op.Len)
		if _, err := io.Copy(w, io.NewSectionReader(p.target, at, int64(op.Extra))); err != nil {
			return err
		}
		at += int64(op.Extra)
	}
	return nil
}

// plane writes one byte of each difference.
func (p *pair) plane(ctx context.Context, pl *plan, i int, w io.Writer) error {
	target := make([]byte, 64<<10)
	diff := make([][]byte, pl.width)
	at := int64(0)
	for _, op := range pl.ops {
		err := pl.copier.Copy(op, uint64(at), func(pred []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			b := target[:len(pred)]
			if n, err := p.target.ReadAt(b, at); n < len(b) {
				return err
			}
			at += int64(len(b))
			for k := range diff {
				diff[k] = diff[k][:0]
			}
			format.Sub(diff, b, pred, pl.width)
			_, err := w.Write(diff[i])
			return err
		})
		if err != nil {
			return err
		}
		at += int64(op.Extra)
	}
	return nil
}

// gapWriter turns a plane into the counts of zeros before each other byte.
type gapWriter struct {
	w     io.Writer
	zeros uint64
	buf   []byte
}

func (g *gapWriter) Write(b []byte) (int, error) {
	g.buf = g.buf[:0]
	for _, v := range b {
		if v == 0 {
			g.zeros++
			continue
		}
		g.buf = binary.AppendUvarint(g.buf, g.zeros)
		g.zeros = 0
	}
	_, err := g.w.Write(g.buf)
	return len(b), err
}

// valueWriter drops the zeros of a plane.
type valueWriter struct {
	w   io.Writer
	buf []byte
}

func (v *valueWriter) Write(b []byte) (int, error) {
	v.buf = v.buf[:0]
	for _, x := range b {
		if x != 0 {
			v.buf = append(v.buf, x)
		}
	}
	_, err := v.w.Write(v.buf)
	return len(b), err
}
