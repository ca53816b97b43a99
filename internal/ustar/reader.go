// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ustar

import (
	"errors"
	"fmt"
	"io"
)

// Reader reads a tar from its beginning to its end.
type Reader struct {
	r      io.Reader
	limits Limits
	seen   names
	at     int64 // where r is
	left   int64 // bytes of the file that were not read
	pad    int64
	files  int
	total  int64
	err    error // the last word
}

// NewReader begins to read. Where r is an [io.Seeker], what is not asked for is passed
// over without being read.
func NewReader(r io.Reader, l Limits) *Reader { return &Reader{r: r, limits: l, seen: names{}} }

// Next goes to the next file: [io.EOF] after the last one of a whole tar, behind which
// nothing follows; [ErrForm] for all else that this package did not write.
func (r *Reader) Next() (e Entry, err error) {
	if r.err != nil {
		return e, r.err
	}
	if e, err = r.next(); err != nil {
		r.err = err
	}
	return e, err
}

func (r *Reader) next() (e Entry, err error) {
	if err := r.skip(); err != nil {
		return e, err
	}
	var b [block]byte
	if err := r.full(b[:]); err != nil {
		return e, err
	}
	if b == [block]byte{} {
		return e, r.end()
	}
	if e.Name, e.Size, err = parse(&b); err != nil {
		return e, err
	}
	r.files++
	switch {
	case r.files > r.limits.Files:
		return e, fmt.Errorf("%w: more than %d files", ErrForm, r.limits.Files)
	case e.Size > r.limits.Total-r.total:
		return e, fmt.Errorf("%w: more than %d bytes", ErrForm, r.limits.Total)
	case !r.limits.Name(e.Name):
		return e, fmt.Errorf("%w: a file may not be called %.80q", ErrForm, e.Name)
	}
	r.total += e.Size
	if err := r.seen.add(e.Name); err != nil {
		return e, err
	}
	e.Offset, r.left, r.pad = r.at, e.Size, padding(e.Size)
	return e, nil
}

// Read reads of the file that Next gave.
func (r *Reader) Read(b []byte) (int, error) {
	if r.left == 0 || r.err != nil {
		return 0, io.EOF
	}
	n, err := r.r.Read(b[:min(int64(len(b)), r.left)])
	r.left -= int64(n)
	r.at += int64(n)
	if err == io.EOF && r.left > 0 {
		err = r.cut()
	} else if err == io.EOF {
		err = nil
	}
	return n, err
}

// skip passes over the rest of a file and finds its last block filled with zeros.
func (r *Reader) skip() error {
	if s, ok := r.r.(io.Seeker); ok && r.left > 0 {
		if _, err := s.Seek(r.left, io.SeekCurrent); err != nil {
			return err
		}
		r.at += r.left
	} else if n, err := io.CopyN(io.Discard, r.r, r.left); err != nil {
		r.at += n
		return r.short(err)
	} else {
		r.at += n
	}
	r.left = 0
	var b [block]byte
	if err := r.full(b[:r.pad]); err != nil {
		return err
	}
	if b != [block]byte{} {
		return fmt.Errorf("%w: bytes between its files", ErrForm)
	}
	r.pad = 0
	return nil
}

// end finds the second block of zeros, and nothing behind it.
func (r *Reader) end() error {
	var b [block]byte
	if err := r.full(b[:]); err != nil {
		return err
	}
	if b != [block]byte{} {
		return fmt.Errorf("%w: bytes after its end", ErrForm)
	}
	switch n, err := io.ReadFull(r.r, b[:1]); {
	case n > 0:
		return fmt.Errorf("%w: bytes after its end", ErrForm)
	case err != io.EOF:
		return err
	}
	return io.EOF
}

func (r *Reader) full(b []byte) error {
	n, err := io.ReadFull(r.r, b)
	r.at += int64(n)
	return r.short(err)
}

func (r *Reader) short(err error) error {
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return r.cut()
	}
	return err
}

func (r *Reader) cut() error { return fmt.Errorf("%w: it ends at byte %d, too early", ErrForm, r.at) }
