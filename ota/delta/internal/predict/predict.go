// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package predict guesses what references in an ELF file become in its next version.
//
// One inserted function moves all code behind it, and with it every branch, address
// and table entry that points there: bsdiff alone sees hundreds of thousands of small
// differences. Both sides know the list of copies before the first byte of the new
// file, so both derive from it where things moved (Moves), and rewrite the references
// in what they copy. Only what they guessed wrong is left to send. The idea is
// Courgette's (Stephen Adams, Chromium, 2009), without disassembling: the rewriting
// needs no knowledge of the new file but its layout.
//
// What is rewritten: for arm64 B and BL (26 bits), and ADRP with the ADD, load or
// store behind it; for amd64 CALL, JMP, Jcc and operands relative to RIP; for both
// pointers of 8 bytes, and of Go's tables functab, _func, cutab, inline trees, types
// and typelinks (runtime/symtab.go and internal/abi of Go 1.20 to 1.26).
//
// Nothing here can fail: a wrong layout or a table that does not hold makes wrong
// guesses, and the differences right them. Not safe for concurrent use.
package predict

import (
	"encoding/binary"
	"io"
	"slices"
)

// lookahead is how far behind the bytes at hand a rewriting reads and writes.
const lookahead = 16

// MaxFuncs is the most functions of a Go program that are looked at, 4 bytes each
// twice; the largest programs known have 200,000.
const MaxFuncs = 1 << 19

type kind byte

const (
	raw kind = iota // nothing known: copied
	pointers
	text
	functab
	funcs
	units
	inlined
	types
	typelinks
)

type region struct {
	start, end uint64
	kind       kind
}

// predictor rewrites references of a base with layout old.
type predictor struct {
	old, new *Layout
	moves    *Moves
	base     io.ReaderAt
	regions  []region // sorted, without gaps
	entries  []uint32 // where functions begin behind TextBase, ascending
	structs  []uint32 // their _func behind Pcln + Funcs, ascending
	cur      fn
}

// fn is a _func of the old file: where it is, and how long its two lists are.
type fn struct {
	start, end uint64 // in the file
	pcs        uint64 // offset of the end of pcdata
}

func newPredictor(prev, next *Layout, moves *Moves, base io.ReaderAt) *predictor {
	p := &predictor{old: prev, new: next, moves: moves, base: base}
	p.readFuncs()
	p.regions = p.split()
	return p
}

// readFuncs reads Go's table of functions: pairs of 4 bytes, entry and _func.
func (p *predictor) readFuncs() {
	l := p.old
	if l.NFunc == 0 || l.NFunc > MaxFuncs || l.NFunc*8 > l.Pcln.Size {
		return
	}
	entries, structs := make([]uint32, 0, l.NFunc), make([]uint32, 0, l.NFunc)
	r := io.NewSectionReader(p.base, int64(l.Pcln.Off+l.Funcs), int64(l.NFunc*8))
	buf := make([]byte, 8<<10)
	for len(entries) < int(l.NFunc) {
		n := min(len(buf), 8*(int(l.NFunc)-len(entries)))
		if _, err := io.ReadFull(r, buf[:n]); err != nil {
			return
		}
		for b := buf[:n]; len(b) > 0; b = b[8:] {
			entries = append(entries, binary.LittleEndian.Uint32(b))
			structs = append(structs, binary.LittleEndian.Uint32(b[4:]))
		}
	}
	if slices.IsSorted(entries) && slices.IsSorted(structs) {
		p.entries, p.structs = entries, structs
	}
}

// split cuts the old file into regions. Of those that claim a place the first in the
// list has it, so that a layout which contradicts itself does no harm.
func (p *predictor) split() []region {
	l := p.old
	pc := l.Pcln.Off
	claims := []region{
		{pc + l.Units, pc + l.Files, units},
		{l.GoFunc, l.Pcln.end(), inlined},
		{pc + l.Funcs, pc + l.Funcs + 8*l.NFunc + 4, functab},
		{pc + l.Funcs, l.Pcln.end(), funcs},
		{pc, l.Pcln.end(), raw},
		{l.Text.Off, l.Text.end(), text},
		{l.TypeLinks.Off, l.TypeLinks.end(), typelinks},
		{l.Types.Off, l.Types.end(), types},
		{0, ^uint64(0), pointers},
	}
	var cuts []uint64
	for i, c := range claims {
		if i < 4 && (c.start < pc || c.end > l.Pcln.end()) || c.start >= c.end {
			claims[i].end = claims[i].start // not where it belongs, or turned over
			continue
		}
		cuts = append(cuts, c.start, c.end)
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	var out []region
	for i := range len(cuts) - 1 {
		j := slices.IndexFunc(claims, func(c region) bool { return c.start <= cuts[i] && cuts[i] < c.end })
		out = append(out, region{cuts[i], cuts[i+1], claims[j].kind})
	}
	return out
}

// rewrite guesses the n bytes that stand at to in the new file, from old, which stand
// at from in the base. pred begins as a copy of old; both may be up to lookahead bytes
// longer, and what is rewritten there stays for the next call.
func (p *predictor) rewrite(pred, old []byte, n int, from, to uint64) {
	for i := 0; i < n; {
		r := p.region(from + uint64(i))
		end := n
		if left := r.end - from - uint64(i); left < uint64(n-i) {
			end = i + int(left)
		}
		w := words{p, pred, old, i, end, from, to}
		switch {
		case r.kind == raw:
		case r.kind == text && p.old.Machine == AMD64:
			w.amd64() // the only one that needs no alignment
		case (from^to)&3 != 0:
		case r.kind == text && p.old.Machine == ARM64:
			w.arm64()
		case r.kind == functab:
			w.functab()
		case r.kind == funcs:
			w.funcs()
		case r.kind == units:
			w.units()
		case r.kind == inlined:
			w.inlined()
		case r.kind == types:
			w.types()
		case r.kind == typelinks:
			w.typelinks()
		case r.kind == pointers:
			w.pointers()
		}
		i = end
	}
}

func (p *predictor) region(off uint64) region {
	i, _ := slices.BinarySearchFunc(p.regions, off, func(r region, off uint64) int {
		if r.end <= off {
			return -1
		}
		return 1
	})
	if i == len(p.regions) { // the last byte that can be counted: no file is so long
		return region{off, ^uint64(0), raw}
	}
	return p.regions[i]
}

// addr guesses the new address of an old one. What no file holds (bss) moves with the
// end of the file's part of its segment.
func (p *predictor) addr(addr uint64) (uint64, bool) {
	if off, ok := p.old.off(addr); ok {
		a := p.new.addr(p.moves.to(off))
		return a, a != 0
	}
	if i, ok := p.old.zeros(addr); ok && i < len(p.new.Segments) {
		a, b := p.old.Segments[i], p.new.Segments[i]
		return addr - (a.Addr + a.File) + b.Addr + b.File, true
	}
	return 0, false
}

// inText guesses an offset of code behind TextBase.
func (p *predictor) inText(off uint32) uint32 {
	if a, ok := p.addr(p.old.TextBase + uint64(off)); ok {
		return uint32(a - p.new.TextBase)
	}
	return off
}

// within guesses an index of entries of size bytes into a table that began at prev in
// the old file and begins at next in the new one.
func (p *predictor) within(prev, next uint64, index uint32, size uint64) uint32 {
	return uint32((p.moves.to(prev+uint64(index)*size) - next) / size)
}

// at is the _func that holds a place in the old file.
func (p *predictor) at(off uint64) (fn, bool) {
	if off >= p.cur.start && off < p.cur.end {
		return p.cur, true
	}
	tab := p.old.Pcln.Off + p.old.Funcs
	i, found := slices.BinarySearch(p.structs, uint32(off-tab))
	if !found {
		i--
	}
	if i < 0 || off-tab > 1<<32-1 {
		return fn{}, false
	}
	start := tab + uint64(p.structs[i])
	var b [funcSize]byte
	if _, err := p.base.ReadAt(b[:], int64(start)); err != nil {
		return fn{}, false
	}
	pcs := funcSize + 4*uint64(binary.LittleEndian.Uint32(b[28:]))
	p.cur = fn{start, start + pcs + 4*uint64(b[43]), start + pcs}
	return p.cur, off < p.cur.end
}

// isEntry tells whether a function begins at that offset behind TextBase.
func isEntry(entries []uint32, off uint32) bool {
	_, ok := slices.BinarySearch(entries, off)
	return ok
}
