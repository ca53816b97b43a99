// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package ustar is plain tar in one form alone: regular files by clean names, without
// owners, times, links or extensions, each under the one header that [Writer] writes for
// its name and size. The same files give the same bytes, any tar lists them, and a reader
// need not know what tar can do beside that: all else is refused.
package ustar

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	block     = 512
	maxName   = 100 // bytes of a name without its folder, where it is split
	maxFolder = 155
	maxOctal  = 1<<33 - 1 // bytes; a longer size is binary, as GNU and BSD tar write it
	sumAt     = 148
	sizeAt    = 124
	folderAt  = 345
)

// ErrForm: not a tar that this package wrote, or one beyond the limits.
var ErrForm = errors.New("not a plain tar")

// Limits bound what a reader takes.
type Limits struct {
	Files int   // at most so many
	Total int64 // bytes of all of them
	// Name tells whether a file may be called so; it has to refuse what leaves a folder.
	Name func(string) bool
}

// Entry is a file of a tar.
type Entry struct {
	Name   string
	Size   int64
	Offset int64 // of its first byte, from the beginning of the tar
}

// header is what stands before a file: 512 bytes that name and size determine.
func header(name string, size int64) (b [block]byte, err error) {
	folder, base := "", name
	if len(name) > maxName {
		i := strings.IndexByte(name[len(name)-maxName-1:], '/')
		if i < 0 {
			return b, fmt.Errorf("%w: name of %d bytes without a slash in the last %d", ErrForm, len(name), maxName+1)
		}
		i += len(name) - maxName - 1
		folder, base = name[:i], name[i+1:]
	}
	if base == "" || len(folder) > maxFolder || size < 0 || strings.IndexByte(name, 0) >= 0 {
		return b, fmt.Errorf("%w: %.40q of %d bytes", ErrForm, name, size)
	}
	copy(b[:maxName], base)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	if size <= maxOctal {
		copy(b[sizeAt:], fmt.Sprintf("%011o\x00", size))
	} else {
		b[sizeAt] = 0x80
		binary.BigEndian.PutUint64(b[sizeAt+4:], uint64(size))
	}
	copy(b[136:], "00000000000\x00        0")
	copy(b[257:], "ustar\x0000")
	copy(b[329:], "0000000\x000000000\x00")
	copy(b[folderAt:], folder)
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[sumAt:], fmt.Sprintf("%06o\x00 ", sum))
	return b, nil
}

// parse reads a header: name and size, if it is the very header that those have.
func parse(b *[block]byte) (name string, size int64, err error) {
	text := func(at, n int) string {
		s, _, _ := bytes.Cut(b[at:at+n], []byte{0})
		return string(s)
	}
	name = text(0, maxName)
	if folder := text(folderAt, maxFolder); folder != "" {
		name = folder + "/" + name
	}
	if b[sizeAt] == 0x80 {
		size = int64(binary.BigEndian.Uint64(b[sizeAt+4:]))
	} else {
		for _, c := range b[sizeAt : sizeAt+11] {
			size = size<<3 | int64(c-'0')&7
		}
	}
	want, err := header(name, size)
	if err != nil || want != *b {
		return "", 0, fmt.Errorf("%w: a header of another form, as of a link, a folder, or with an owner or a time", ErrForm)
	}
	return name, size, nil
}

func padding(size int64) int64 { return -size & (block - 1) }

// names refuses what cannot lie beside what is there: the same file in any case of
// letters, or one that is another one's folder.
type names map[string]bool // true: a file; false: a folder of one

func (n names) add(name string) error {
	name = strings.ToLower(name)
	if _, there := n[name]; there {
		return fmt.Errorf("%w: %.80s is there twice, or as a folder", ErrForm, name)
	}
	for i := range len(name) {
		if name[i] != '/' {
			continue
		}
		if n[name[:i]] {
			return fmt.Errorf("%w: %.80s lies in a file", ErrForm, name)
		}
		n[name[:i]] = false
	}
	n[name] = true
	return nil
}

// Writer writes a tar.
type Writer struct {
	w    io.Writer
	seen names
	left int64 // bytes that the file still gets
	pad  int64
	at   int64
}

// NewWriter begins a tar.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w, seen: names{}} }

// Create begins a file, whose size bytes are then written.
func (w *Writer) Create(name string, size int64) error {
	if err := w.end(); err != nil {
		return err
	}
	b, err := header(name, size)
	if err != nil {
		return err
	}
	if err := w.seen.add(name); err != nil {
		return err
	}
	if _, err := w.w.Write(b[:]); err != nil {
		return err
	}
	w.at += block
	w.left, w.pad = size, padding(size)
	return nil
}

// Offset is where the next byte goes, from the beginning of the tar.
func (w *Writer) Offset() int64 { return w.at }

// Write writes bytes of the file that was begun last.
func (w *Writer) Write(b []byte) (int, error) {
	if int64(len(b)) > w.left {
		return 0, fmt.Errorf("%w: more bytes than its header says", ErrForm)
	}
	n, err := w.w.Write(b)
	w.left -= int64(n)
	w.at += int64(n)
	return n, err
}

// end fills the last block of a file.
func (w *Writer) end() error {
	if w.left > 0 {
		return fmt.Errorf("%w: %d bytes fewer than its header says", ErrForm, w.left)
	}
	n, err := w.w.Write(make([]byte, w.pad))
	w.pad = 0
	w.at += int64(n)
	return err
}

// Close ends the tar; the writer below stays open.
func (w *Writer) Close() error {
	if err := w.end(); err != nil {
		return err
	}
	n, err := w.w.Write(make([]byte, 2*block))
	w.at += int64(n)
	return err
}
