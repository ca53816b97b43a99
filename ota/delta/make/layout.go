// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package maker

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"

	"fulmar/ota/delta/internal/predict"
)

// Where words of 8 bytes stand in Go's header of .gopclntab, and in its moduledata
// (runtime/symtab.go, Go 1.20 to 1.26).
const (
	headMagic = 0xfffffff1 // Go 1.20 and later
	headFuncs = 1
	headNames = 4
	headUnits = 5
	headFiles = 6
	headPCs   = 7
	headTab   = 8

	modText   = 22
	modTypes  = 37
	modETypes = 38
	modGoFunc = 40
	modWords  = 41
)

// layout reads where the references of an ELF file are. It fails if it is none, or not
// of 64 bits and little endian; of what it does not know in it, it says nothing.
func layout(r io.ReaderAt) (l *predict.Layout, err error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, err
	}
	if f.Class != elf.ELFCLASS64 || f.ByteOrder != binary.LittleEndian {
		return nil, errors.New("not 64 bits, little endian")
	}
	l = &predict.Layout{Machine: uint64(f.Machine)}
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD {
			l.Segments = append(l.Segments, predict.Segment{Off: p.Off, Addr: p.Vaddr, File: p.Filesz, Mem: p.Memsz})
		}
	}
	if s := elfSection(f, ".text"); s != nil {
		l.Text, l.TextBase = predict.Range{Off: s.Offset, Size: s.Size}, s.Addr
	}
	if s := elfSection(f, ".typelink"); s != nil {
		l.TypeLinks = predict.Range{Off: s.Offset, Size: s.Size}
	}
	if s := elfSection(f, ".gopclntab"); s != nil {
		pclntab(r, l, s)
		if l.NFunc > 0 {
			moduledata(f, l, s.Addr)
		}
	}
	return l, nil
}

// elfSection finds a section whose bytes are in the file.
func elfSection(f *elf.File, name string) *elf.Section {
	s := f.Section(name)
	if s == nil || s.Type == elf.SHT_NOBITS || s.Flags&elf.SHF_COMPRESSED != 0 {
		return nil
	}
	return s
}

func pclntab(r io.ReaderAt, l *predict.Layout, s *elf.Section) {
	var b [9 * 8]byte
	if _, err := r.ReadAt(b[:], int64(s.Offset)); err != nil || binary.LittleEndian.Uint32(b[:]) != headMagic || b[7] != 8 {
		return
	}
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
	l.Pcln = predict.Range{Off: s.Offset, Size: s.Size}
	l.NFunc, l.Names, l.Units = word(headFuncs), word(headNames), word(headUnits)
	l.Files, l.PCs, l.Funcs = word(headFiles), word(headPCs), word(headTab)
}

// moduledata finds Go's own table of its program, which begins with the address of
// .gopclntab, and takes from it what no section says.
func moduledata(f *elf.File, l *predict.Layout, pclntab uint64) {
	for _, name := range []string{".go.module", ".noptrdata", ".data", ".data.rel.ro"} {
		s := elfSection(f, name)
		if s == nil {
			continue
		}
		b, err := s.Data()
		if err != nil {
			continue
		}
		for ; len(b) >= 8*modWords; b = b[8:] {
			word := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
			off := func(addr uint64) uint64 { return fileOff(l, addr) }
			if word(0) != pclntab || off(word(modText)) == 0 {
				continue
			}
			l.TextBase = word(modText)
			l.GoFunc = off(word(modGoFunc))
			if t := off(word(modTypes)); t != 0 && word(modETypes) > word(modTypes) {
				l.Types = predict.Range{Off: t, Size: word(modETypes) - word(modTypes)}
			}
			return
		}
	}
}

func fileOff(l *predict.Layout, addr uint64) uint64 {
	for _, s := range l.Segments {
		if d := addr - s.Addr; d < s.File {
			return s.Off + d
		}
	}
	return 0
}
