// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package predict

import (
	"encoding/binary"
	"errors"
	"io"
)

// Machines whose instructions are understood: e_machine of ELF.
const (
	AMD64 = 62
	ARM64 = 183
)

// maxSegments is more than any linker makes; each reference is looked for in all.
const maxSegments = 8

// Segment is a part of the file that is loaded (PT_LOAD): File bytes from Off in the
// file stand at Addr, and zeros behind them up to Mem bytes.
type Segment struct{ Off, Addr, File, Mem uint64 }

// Range is a part of the file in bytes.
type Range struct{ Off, Size uint64 }

func (r Range) end() uint64 { return r.Off + r.Size }

// Layout is where in an ELF file its references are. The patch carries the layouts of
// both files, so that a board needs no parser of ELF and the new one is known before
// the first byte of the new file is. They are hints: wrong ones make wrong
// predictions and no harm. Zero means absent.
type Layout struct {
	Machine  uint64
	Segments []Segment
	Text     Range  // instructions
	TextBase uint64 // address that Go's offsets of functions count from
	Pcln     Range  // .gopclntab
	NFunc    uint64 // functions in its table
	// Where in Pcln its tables begin: names, compilation units, files, tables of
	// program counters, functions.
	Names, Units, Files, PCs, Funcs uint64
	GoFunc                          uint64 // offset in the file of go:func.*
	Types, TypeLinks                Range  // types of Go and the offsets to them
}

// fields lists the numbers of a layout in the order they are kept in.
func (l *Layout) fields() []*uint64 {
	return []*uint64{
		&l.Machine, &l.Text.Off, &l.Text.Size, &l.TextBase, &l.Pcln.Off, &l.Pcln.Size, &l.NFunc, &l.Names, &l.Units, &l.Files,
		&l.PCs, &l.Funcs, &l.GoFunc, &l.Types.Off, &l.Types.Size, &l.TypeLinks.Off, &l.TypeLinks.Size,
	}
}

// Append writes the layout; segments behind the eighth are left out.
func (l *Layout) Append(b []byte) []byte {
	for _, f := range l.fields() {
		b = binary.AppendUvarint(b, *f)
	}
	segs := l.Segments[:min(len(l.Segments), maxSegments)]
	b = binary.AppendUvarint(b, uint64(len(segs)))
	for _, s := range segs {
		for _, v := range []uint64{s.Off, s.Addr, s.File, s.Mem} {
			b = binary.AppendUvarint(b, v)
		}
	}
	return b
}

// ReadLayout reads what Append wrote.
func ReadLayout(r io.ByteReader) (*Layout, error) {
	l := new(Layout)
	for _, f := range l.fields() {
		v, err := binary.ReadUvarint(r)
		if err != nil {
			return nil, err
		}
		*f = v
	}
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	if n > maxSegments {
		return nil, errors.New("too many segments")
	}
	for range n {
		var v [4]uint64
		for i := range v {
			if v[i], err = binary.ReadUvarint(r); err != nil {
				return nil, err
			}
		}
		l.Segments = append(l.Segments, Segment{v[0], v[1], v[2], v[3]})
	}
	return l, nil
}

// addr is the address of a place in the file, 0 if it is not loaded.
func (l *Layout) addr(off uint64) uint64 {
	for _, s := range l.Segments {
		if d := off - s.Off; d < s.File {
			return s.Addr + d
		}
	}
	return 0
}

// off is the place in the file of an address.
func (l *Layout) off(addr uint64) (uint64, bool) {
	for _, s := range l.Segments {
		if d := addr - s.Addr; d < s.File {
			return s.Off + d, true
		}
	}
	return 0, false
}

// zeros is the segment in whose zeros an address lies, which no file holds.
func (l *Layout) zeros(addr uint64) (int, bool) {
	for i, s := range l.Segments {
		if d := addr - s.Addr; d >= s.File && d < s.Mem {
			return i, true
		}
	}
	return 0, false
}
