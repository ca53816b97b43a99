// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"fulmar/ota/delta/internal/format"
)

// decoderBytes is what a decoder of zstd holds beside the window: a block of 128 KiB
// twice, its sequences and tables. Measured 0.36 MiB.
const decoderBytes = 512 << 10

// maxWindow is the most that a whole file may make its decoder remember: RFC 8878
// asks that each decoder takes 8 MiB.
const maxWindow = 8 << 20

func decoder(r io.Reader, window uint64) (*zstd.Decoder, error) {
	// One goroutine, so that the caller's memory is all there is, and no dictionary.
	return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window))
}

// full unpacks a whole file.
func full(patch *io.SectionReader, lim Limits, w io.Writer) error {
	window := min(maxWindow, lim.Memory-decoderBytes)
	if window < zstd.MinWindowSize {
		return fmt.Errorf("%w: %d bytes of memory are not enough for zstd", ErrLimit, lim.Memory)
	}
	in := &watched{r: io.NewSectionReader(patch, 0, patch.Size())}
	d, err := decoder(in, uint64(window))
	if err != nil {
		return fmt.Errorf("zstd: %w", err)
	}
	defer d.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := d.Read(buf)
		if _, werr := w.Write(buf[:n]); werr != nil {
			return werr
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return in.fault(err)
		}
	}
}

// watched remembers whether reading failed, so that a bad disk is not told as a bad
// patch.
type watched struct {
	r   io.Reader
	err error
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.r.Read(b)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}

// fault names an error of what reads from w.
func (w *watched) fault(err error) error {
	switch {
	case w.err != nil:
		return fmt.Errorf("read the patch: %w", w.err)
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return fmt.Errorf("%w: %w", ErrLimit, err)
	}
	return fmt.Errorf("%w: %w", ErrPatch, err)
}

// stream is one zstd frame of a patch.
type stream struct {
	*bufio.Reader
	in *watched
	d  *zstd.Decoder
}

func openStream(patch *io.SectionReader, at, size int64) (*stream, error) {
	in := &watched{r: io.NewSectionReader(patch, at, size)}
	d, err := decoder(in, format.Window)
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return &stream{bufio.NewReaderSize(d, 4<<10), in, d}, nil
}

// full reads all of b.
func (s *stream) full(b []byte) error {
	if _, err := io.ReadFull(s, b); err != nil {
		return s.in.fault(err)
	}
	return nil
}

// end makes sure that nothing is left.
func (s *stream) end() error {
	_, err := s.ReadByte()
	switch err {
	case io.EOF:
		return nil
	case nil:
		return fmt.Errorf("%w: a stream is too long", ErrPatch)
	}
	return s.in.fault(err)
}

// plane is one byte of each word's difference.
type plane interface {
	// next fills b with the differences of the next words.
	next(b []byte) error
	end() error
}

// dense is a plane with each byte in it.
type dense struct{ *stream }

func (d dense) next(b []byte) error { return d.full(b) }

// sparse is a plane of which only what is not zero is kept.
type sparse struct {
	gaps, values *stream
	zeros        uint64 // before the next value
	over         bool   // no further value
}

func newSparse(gaps, values *stream) (*sparse, error) {
	s := &sparse{gaps: gaps, values: values}
	return s, s.gap()
}

func (s *sparse) gap() error {
	n, err := binary.ReadUvarint(s.gaps)
	if err == io.EOF {
		s.over = true
		return nil
	}
	if err != nil {
		return s.gaps.in.fault(err)
	}
	s.zeros = n
	return nil
}

func (s *sparse) next(b []byte) error {
	clear(b)
	for {
		if s.over {
			return nil
		}
		if s.zeros >= uint64(len(b)) {
			s.zeros -= uint64(len(b))
			return nil
		}
		v, err := s.values.ReadByte()
		if err != nil {
			return s.values.in.fault(err)
		}
		b[s.zeros] = v
		b = b[s.zeros+1:]
		if err := s.gap(); err != nil {
			return err
		}
	}
}

func (s *sparse) end() error {
	if !s.over {
		return fmt.Errorf("%w: a difference behind the last word", ErrPatch)
	}
	return s.values.end()
}
