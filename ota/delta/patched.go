// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"context"
	"errors"
	"fmt"
	"io"

	"fulmar/ota/delta/internal/format"
	"fulmar/ota/delta/internal/predict"
)

// opBytes is what a copy costs at most: its entry, and where it moves things.
const opBytes = 12 + predict.MoveBytes

// patched applies a patch that has a base: first all that can be refused without
// work, then the copies one by one.
func patched(ctx context.Context, codec string, base, patch *io.SectionReader, want Target, lim Limits, w *output) error {
	h, err := format.Read(patch, patch.Size())
	if err != nil {
		return err
	}
	if name := codecName(h.Codec); name != codec {
		return fmt.Errorf("%w: it is of codec %s, not %s", ErrPatch, name, codec)
	}
	if err := format.Check(patch, patch.Size()); err != nil {
		return err
	}
	switch {
	case Target(h.Out) != want:
		return fmt.Errorf("%w: the patch makes another", ErrMismatch)
	case base == nil:
		return fmt.Errorf("%w: there is none", ErrBase)
	case base.Size() != h.Base.Size:
		return fmt.Errorf("%w: %d bytes, not %d", ErrBase, base.Size(), h.Base.Size)
	case h.Base.Size > maxPatched || h.Out.Size > maxPatched:
		return fmt.Errorf("%w: a patch of more than 4 GiB", ErrLimit)
	}
	sum, err := Sum(ctx, base)
	if err != nil {
		return fmt.Errorf("read the base: %w", err)
	}
	if sum != Target(h.Base) {
		return fmt.Errorf("%w: its SHA-256 is another", ErrBase)
	}
	r, err := open(h, patch)
	defer r.close()
	if err != nil {
		return err
	}
	if err := r.control(h, base, lim.Memory); err != nil {
		return err
	}
	return r.run(w)
}

// reader is an open patch.
type reader struct {
	streams []*stream
	extra   *stream
	planes  []plane
	ops     []format.Op
	copier  *predict.Copier
	width   int
	delta   [format.MaxWidth][]byte // a piece of each plane
}

// open opens all streams; what it returns is to be closed also after an error.
func open(h *format.Header, patch *io.SectionReader) (*reader, error) {
	r := &reader{width: h.Width}
	at := h.Len()
	for _, n := range h.Streams {
		s, err := openStream(patch, at, n)
		if err != nil {
			return r, err
		}
		r.streams = append(r.streams, s)
		at += n
	}
	r.extra = r.streams[1]
	rest := r.streams[2:]
	for i := range h.Width {
		if h.Sparse>>i&1 == 0 {
			r.planes = append(r.planes, dense{rest[0]})
			rest = rest[1:]
			continue
		}
		s, err := newSparse(rest[0], rest[1])
		if err != nil {
			return r, err
		}
		r.planes = append(r.planes, s)
		rest = rest[2:]
	}
	return r, nil
}

func (r *reader) close() {
	for _, s := range r.streams {
		s.d.Close()
	}
}

// control reads layouts and copies, as many as memory allows beside the streams.
func (r *reader) control(h *format.Header, base *io.SectionReader, memory int64) error {
	memory -= int64(len(r.streams)) * (format.Window + decoderBytes)
	c := r.streams[0]
	var prev, next *predict.Layout
	if h.Codec == format.ELF {
		var err error
		if prev, err = predict.ReadLayout(c); err != nil {
			return c.in.fault(err)
		}
		if next, err = predict.ReadLayout(c); err != nil {
			return c.in.fault(err)
		}
		memory -= 8 * int64(min(prev.NFunc, predict.MaxFuncs))
	}
	if memory < 0 {
		return fmt.Errorf("%w: its streams and tables need %d bytes of memory more", ErrLimit, -memory)
	}
	ops, err := format.ReadOps(c, int(min(memory/opBytes, maxPatched)), h.Base.Size, h.Out.Size)
	if errors.Is(err, ErrPatch) || errors.Is(err, ErrLimit) {
		return err
	}
	if err != nil {
		return c.in.fault(err)
	}
	if err := c.end(); err != nil {
		return err
	}
	r.ops = ops
	if h.Codec == format.ELF {
		r.copier = predict.NewRewriter(base, prev, next, ops)
	} else {
		r.copier = predict.NewCopier(base)
	}
	return nil
}

// run makes the file.
func (r *reader) run(w *output) error {
	buf := make([]byte, 32<<10)
	for i := range r.delta {
		r.delta[i] = make([]byte, 0, len(buf))
	}
	at := uint64(0)
	for _, op := range r.ops {
		err := r.copier.Copy(op, at, func(b []byte) error {
			if err := r.add(b); err != nil {
				return err
			}
			_, err := w.Write(b)
			return err
		})
		if err != nil {
			return err
		}
		for left := int(op.Extra); left > 0; {
			b := buf[:min(left, len(buf))]
			if err := r.extra.full(b); err != nil {
				return err
			}
			if _, err := w.Write(b); err != nil {
				return err
			}
			left -= len(b)
		}
		at += uint64(op.Len) + uint64(op.Extra)
	}
	for _, p := range r.planes {
		if err := p.end(); err != nil {
			return err
		}
	}
	return r.extra.end()
}

// add adds the differences to a piece of what was predicted. Bytes behind the last
// whole word have theirs in plane 0.
func (r *reader) add(b []byte) error {
	words, tail := len(b)/r.width, len(b)%r.width
	for i, p := range r.planes {
		n := words
		if i == 0 {
			n += tail
		}
		r.delta[i] = r.delta[i][:n]
		if err := p.next(r.delta[i]); err != nil {
			return err
		}
	}
	format.Add(b, r.width, r.delta[:r.width])
	return nil
}
