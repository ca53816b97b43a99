// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package files

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sort"

	"fulmar/schema"
	"fulmar/storage/internal/disk"
	"fulmar/storage/internal/segment"
)

// Segment is one file of the chain.
type Segment struct {
	First uint64 // lowest number it may hold: its name
	Last  uint64 // highest number it may hold; of the newest: not set
	Bytes int64
	Path  string
}

// Chain is the files of one class, oldest first. Set the fields before use; Epoch
// when it is known.
type Chain struct {
	Class      schema.Class
	Epoch      uint64
	Dir        string
	Quarantine string // folder for files that cannot be opened
	Opts       segment.Options
	Log        *slog.Logger

	segs []Segment
	w    *segment.DB // the newest segment; nil: it is sealed, the next record begins another
	r    *segment.DB // the sealed segment that was read last, or nil
}

// List finds the files of the class, and gives the paths of others in the folder.
func (c *Chain) List() (foreign []string, err error) {
	found, foreign, err := segment.List(c.Dir)
	if err != nil {
		return nil, err
	}
	c.segs = c.segs[:0]
	for i, f := range found {
		if i > 0 {
			c.segs[i-1].Last = f.First - 1
		}
		c.segs = append(c.segs, Segment{First: f.First, Bytes: f.Bytes, Path: f.Path})
	}
	return foreign, nil
}

// Len is the number of files.
func (c *Chain) Len() int { return len(c.segs) }

// At is the i-th file, oldest first.
func (c *Chain) At(i int) Segment { return c.segs[i] }

// Newest is the last file; there must be one.
func (c *Chain) Newest() Segment { return c.segs[len(c.segs)-1] }

// Find is the index of the file that holds number n if any does; -1: n lies before
// the oldest.
func (c *Chain) Find(n uint64) int {
	return sort.Search(len(c.segs), func(i int) bool { return c.segs[i].First > n }) - 1
}

// Bytes is what the files take on disk.
func (c *Chain) Bytes() (n int64) {
	for i := range c.segs {
		n += c.segs[i].Bytes
	}
	return n
}

// Path is where the segment that begins with first lies.
func (c *Chain) Path(first uint64) string { return filepath.Join(c.Dir, segment.Name(first)) }

// Writer is the open newest segment; nil where the next record begins another.
func (c *Chain) Writer() *segment.DB { return c.w }

// Append adds records to the newest segment, which must be open.
func (c *Chain) Append(recs []segment.Record) error {
	err := c.w.Append(recs)
	if err == nil {
		c.segs[len(c.segs)-1].Bytes = c.w.Size()
	}
	return err
}

// Room tells whether the newest segment takes more records. A file that was closed
// is never appended to again: bbolt, writing to a file that was damaged meanwhile,
// may follow a wild page number through all the memory there is.
func (c *Chain) Room() bool { return c.w != nil && c.w.Size() < c.Opts.MaxBytes }

// Roll seals the newest segment and begins a new one, whose first number is first.
func (c *Chain) Roll(first uint64) error {
	c.CloseWriter()
	db, err := segment.Create(c.Path(first), segment.Header{Class: c.Class, Epoch: c.Epoch, First: first}, c.Opts)
	if err != nil {
		return err
	}
	c.w = db
	if n := len(c.segs); n > 0 {
		if c.segs[n-1].First == first { // it held nothing and has been replaced
			c.closeReader()
			c.segs = c.segs[:n-1]
		} else {
			c.segs[n-1].Last = first - 1
		}
	}
	c.segs = append(c.segs, Segment{First: first, Path: c.Path(first), Bytes: db.Size()})
	return nil
}

// Reader gives the i-th segment opened. At most one sealed segment is open at a
// time: each is a memory map.
func (c *Chain) Reader(i int) (*segment.DB, error) {
	if i == len(c.segs)-1 && c.w != nil {
		return c.w, nil
	}
	if c.r != nil && c.r.Header.First == c.segs[i].First {
		return c.r, nil
	}
	c.closeReader()
	db, err := c.open(c.segs[i])
	if err != nil {
		return nil, err
	}
	c.r = db
	return db, nil
}

// open opens a segment's file and checks that it is what its name says.
func (c *Chain) open(sg Segment) (*segment.DB, error) {
	db, err := segment.Open(sg.Path, c.Opts)
	if err != nil {
		return nil, err
	}
	if h := db.Header; h.Class != c.Class || h.Epoch != c.Epoch || h.First != sg.First {
		_ = db.Close()
		return nil, fmt.Errorf("%w: %s holds class %s, epoch %016x, from %d", segment.ErrDamaged, sg.Path, h.Class, h.Epoch, h.First)
	}
	return db, nil
}

// Wall tells the time of the first sound record of the i-th file from seq on; zero
// where there is none.
func (c *Chain) Wall(i int, seq uint64) (wall int64) {
	if db, err := c.Reader(i); err == nil {
		_ = db.Walk(seq, func(r segment.Record, ok bool) bool {
			if ok {
				wall = r.Wall
			}
			return !ok
		})
	}
	return wall
}

// Walls gives the times of the oldest file's first record from seq on and of the
// first record after that file: about the bounds of what it holds. Zero where they
// cannot be read.
func (c *Chain) Walls(seq uint64) (from, to int64) {
	to = c.Wall(min(1, c.Len()-1), 0)
	return c.Wall(0, seq), to
}

// Drop removes the files of which all numbers are settled, but never the newest. A
// name that comes back after a power loss is drained again at the next start, so
// the folder needs no fsync.
func (c *Chain) Drop(settled func(first, last uint64) bool) error {
	for i := 0; i < len(c.segs)-1; {
		if !settled(c.segs[i].First, c.segs[i].Last) {
			i++
			continue
		}
		c.closeReader()
		if err := os.Remove(c.segs[i].Path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove drained segment: %w", err)
		}
		c.segs = slices.Delete(c.segs, i, i+1)
	}
	return nil
}

// Shelve moves the i-th file to quarantine.
func (c *Chain) Shelve(i int) error {
	c.closeReader()
	sg := c.segs[i]
	if err := disk.Quarantine(sg.Path, c.Quarantine, c.Class.String()+"-"+filepath.Base(sg.Path)); err != nil {
		return err
	}
	c.segs = slices.Delete(c.segs, i, i+1)
	return nil
}

// CloseWriter seals the newest segment.
func (c *Chain) CloseWriter() {
	if c.w == nil {
		return
	}
	if err := c.w.Close(); err != nil {
		c.Log.Error("spool segment did not close", "class", c.Class.String(), "err", err)
	}
	c.w = nil
}

func (c *Chain) closeReader() {
	if c.r != nil {
		_ = c.r.Close() // read only: nothing can be lost
		c.r = nil
	}
}

// CloseReader lets go of the sealed segment that was read last.
func (c *Chain) CloseReader() { c.closeReader() }

// Close lets go of all files.
func (c *Chain) Close() {
	c.closeReader()
	c.CloseWriter()
}
