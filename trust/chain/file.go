// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"fulmar/trust"
)

// The file of an exported log is one JSON object a line:
//
//	{"fulmar_audit":1,"base":{"seq":0,"hash":"..."}}     where the rows begin
//	{"row":{"seq":1,"at":...,"hash":"..."}}              in order, no holes
//	{"head":{...DSSE...},"key":"-----BEGIN PUBLIC..."}   of the row above it
//
// and it ends with the head of its last row. Without that it was cut off.
const (
	version = 1
	// maxLine bounds a line: texts of 1 KiB, each byte six characters of JSON at worst.
	maxLine = 16 << 10
	// maxRows bounds a file: a hundred times what a server keeps.
	maxRows = 10_000_000
)

type line struct {
	V    int             `json:"fulmar_audit,omitempty"`
	Base *Head           `json:"base,omitempty"`
	Row  *Entry          `json:"row,omitempty"`
	Head json.RawMessage `json:"head,omitempty"`
	Key  string          `json:"key,omitempty"`
}

// Writer writes an exported log.
type Writer struct{ enc *json.Encoder }

// NewWriter begins a file whose rows follow base.
func NewWriter(w io.Writer, base Head) (*Writer, error) {
	out := &Writer{json.NewEncoder(w)}
	return out, out.enc.Encode(line{V: version, Base: &base})
}

// Row writes the next row.
func (w *Writer) Row(e *Entry) error { return w.enc.Encode(line{Row: e}) }

// Head writes the head of the row that was written last.
func (w *Writer) Head(s *Signed) error {
	return w.enc.Encode(line{Head: s.Envelope, Key: string(s.Key)})
}

// Report is what a verified file is.
type Report struct {
	First, Last int64 // rows; First is above Last where there are none
	Since       time.Time
	Heads       int
	Tip         Signed   // the head at its end
	Keys        []string // ids of all keys that signed heads, in order of the first one
}

// Verify reads an exported log and finds it whole, or says where it is not: [ErrBroken].
// key (PEM) must have signed the head at its end; nil takes the key in the file, and the
// caller compares Report.Tip.KeyID with what it knows. noted, if its Seq is not 0, must be
// a row of it. Each row is given to each as it is found good; nil is no one.
func Verify(r io.Reader, key []byte, noted Head, each func(*Entry)) (*Report, error) {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4<<10), maxLine)
	v := &verifier{noted: noted, each: each}
	for n := 1; s.Scan(); n++ {
		if err := v.line(n, s.Bytes()); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	switch err := s.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, fmt.Errorf("%w: a line of over %d bytes", trust.ErrMalformed, maxLine)
	case err != nil:
		return nil, fmt.Errorf("read audit log: %w", err)
	case !v.begun:
		return nil, fmt.Errorf("%w: the file is empty", trust.ErrMalformed)
	case v.last == nil:
		return nil, fmt.Errorf("%w: it ends at row %d without a signed head: it was cut off there", ErrBroken, v.tip.Seq)
	case noted.Seq != 0 && !v.found && noted.Seq < v.out.First-1:
		return nil, fmt.Errorf("row %d is older than all that is in the file (%d is the oldest): note a newer head", noted.Seq, v.out.First)
	case noted.Seq != 0 && !v.found && noted.Seq > v.tip.Seq:
		return nil, fmt.Errorf("%w: it ends at row %d and row %d was noted: an older log, or one made anew", ErrBroken, v.tip.Seq, noted.Seq)
	case noted.Seq != 0 && !v.found:
		return nil, fmt.Errorf("%w: row %d is not the one that was noted", ErrBroken, noted.Seq)
	}
	v.out.Last, v.out.Tip = v.tip.Seq, *v.last
	if key != nil {
		if _, err := Open(v.last.Envelope, key); err != nil {
			return nil, err
		}
	}
	return &v.out, nil
}

type verifier struct {
	noted Head
	each  func(*Entry)
	begun bool
	found bool
	tip   Head
	last  *Signed // of tip; nil where rows follow it
	out   Report
}

func (v *verifier) line(n int, b []byte) error {
	var l line
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil || d.InputOffset() != int64(len(bytes.TrimRight(b, " \r"))) {
		return fmt.Errorf("%w: not a line of an exported audit log", trust.ErrMalformed)
	}
	switch {
	case n == 1:
		if l.V != version || l.Base == nil || l.Base.Seq < 0 || len(l.Base.Hash) == 0 || l.Row != nil || l.Head != nil {
			return fmt.Errorf("%w: not the first line of an exported audit log of version %d", trust.ErrMalformed, version)
		}
		v.begun, v.tip, v.out.First = true, *l.Base, l.Base.Seq+1
		v.found = v.noted.Equal(v.tip)
		return nil
	case l.V != 0 || l.Base != nil || (l.Row == nil) == (l.Head == nil):
		return fmt.Errorf("%w: neither a row nor a head", trust.ErrMalformed)
	case l.Row != nil:
		return v.row(l.Row)
	}
	return v.head(&l)
}

func (v *verifier) row(e *Entry) (err error) {
	if v.tip, err = v.tip.Next(e); err != nil {
		return err
	}
	if v.tip.Seq-v.out.First >= maxRows {
		return fmt.Errorf("%w: over %d rows", trust.ErrMalformed, maxRows)
	}
	if e.Seq == v.out.First {
		v.out.Since = e.At
	}
	v.last, v.found = nil, v.found || v.noted.Equal(v.tip)
	if v.each != nil {
		v.each(e)
	}
	return nil
}

func (v *verifier) head(l *line) error {
	s, err := Open(l.Head, []byte(l.Key))
	if err != nil {
		return err
	}
	if !s.Head.Equal(v.tip) {
		return fmt.Errorf("%w: the signed head is of row %d (%.16x) and stands after row %d (%.16x)", ErrBroken, s.Seq, []byte(s.Hash), v.tip.Seq, []byte(v.tip.Hash))
	}
	if !slices.Contains(v.out.Keys, s.KeyID) {
		v.out.Keys = append(v.out.Keys, s.KeyID)
	}
	if len(v.out.Keys) > 100 { // a key lives for years
		return fmt.Errorf("%w: heads of over 100 keys", trust.ErrMalformed)
	}
	v.last = s
	v.out.Heads++
	return nil
}
