// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package predict

import "encoding/binary"

// funcSize is the fixed part of a _func in bytes.
const funcSize = 44

// none is how Go says that an entry of a table is absent.
const none = 1<<32 - 1

// smallest is the least number that is taken for an address or an offset of a type:
// lower ones are counts far more often.
const smallest = 0x1000

// words is a piece of one region: bytes i to end of old, which are at from in the base.
type words struct {
	p         *predictor
	pred, old []byte
	i, end    int
	from, to  uint64
}

// each calls f with each aligned word of 4 bytes that is wholly there, until skip.
func (w *words) each(f func(i int, v uint32) (words int)) {
	for i := w.i + int(-(w.from+uint64(w.i))&3); i < w.end && i+4 <= len(w.old); {
		i += 4 * f(i, binary.LittleEndian.Uint32(w.old[i:]))
	}
}

func (w *words) put(i int, v uint32) int {
	binary.LittleEndian.PutUint32(w.pred[i:], v)
	return 1
}

// arm64 rewrites B and BL, and ADRP with the instruction that uses it, the next or the
// one after it: Go and GCC both emit them so. (Arm ARM, C4.1 and C6.2.)
func (w *words) arm64() {
	p := w.p
	w.each(func(i int, v uint32) int {
		from, to := w.from+uint64(i), w.to+uint64(i)
		switch {
		case v&0x7c000000 == 0x14000000:
			target := from + uint64(int64(int32(v<<6)>>6)*4)
			if target < 1<<32 {
				v = v&0xfc000000 | uint32((p.moves.to(target)-to)/4)&0x03ffffff
				w.put(i, v)
			}
		case v&0x9f000000 == 0x90000000:
			imm := int64(int32((v>>5&0x7ffff<<2|v>>29&3)<<11) >> 11)
			w.page(i, v, p.old.addr(from)&^0xfff+uint64(imm<<12), p.new.addr(to)&^0xfff)
		}
		return 1
	})
}

// page rewrites an ADRP at i, which makes the address page, and its user.
func (w *words) page(i int, adrp uint32, page, here uint64) {
	for _, k := range []int{i + 4, i + 8} {
		if k+4 > len(w.old) {
			return
		}
		v := binary.LittleEndian.Uint32(w.old[k:])
		scale, uses := pageUser(v)
		if !uses || v>>5&31 != adrp&31 {
			continue
		}
		addr, ok := w.p.addr(page + uint64(v>>10&0xfff)<<scale)
		if !ok {
			return
		}
		imm := uint32(int64(addr&^0xfff-here) >> 12)
		w.put(i, adrp&0x9f00001f|(imm&3)<<29|(imm>>2&0x7ffff)<<5)
		w.put(k, v&^(0xfff<<10)|uint32(addr&0xfff>>scale)<<10)
		return
	}
}

// pageUser tells ADD (immediate, 64 bits) and loads and stores with an unsigned
// offset, and by how much their offset is shifted.
func pageUser(v uint32) (scale uint32, ok bool) {
	switch {
	case v&0xffc00000 == 0x91000000:
		return 0, true
	case v&0x3b000000 != 0x39000000:
		return 0, false
	case v&0x04800000 == 0x04800000: // 128 bits of SIMD
		return 4, true
	}
	return v >> 30, true
}

// amd64 rewrites what looks like a displacement of 4 bytes from the next instruction:
// CALL and JMP, Jcc, and ModRM bytes for RIP behind an opcode that takes one. Without
// a disassembler some are chance; they are wrong only if they also point into the file.
func (w *words) amd64() {
	for i := w.i; i < w.end; {
		n := 1 // bytes before the displacement
		op := w.old[i]
		switch {
		case op == 0xe8 || op == 0xe9:
		case i+2 > len(w.old):
			return
		case op == 0x0f && w.old[i+1]&0xf0 == 0x80:
			n = 2
		case takesModRM(op) && w.old[i+1]&0xc7 == 0x05:
			n = 2
		default:
			i++
			continue
		}
		if i+n+4 > len(w.old) {
			return
		}
		if w.relative(i + n) {
			i += n + 4
		} else {
			i++
		}
	}
}

// takesModRM: MOV, LEA, ADD, CMP, XOR, TEST and the SSE moves behind 0x0f.
func takesModRM(op byte) bool {
	switch op {
	case 0x8b, 0x8d, 0x89, 0x03, 0x3b, 0x39, 0x33, 0x85, 0x63, 0x10, 0x11, 0x28, 0x29, 0x6f, 0x7f, 0xb6, 0xb7:
		return true
	}
	return false
}

// relative rewrites a displacement at i, if it points into the file.
func (w *words) relative(i int) bool {
	next := uint64(i) + 4
	d := int32(binary.LittleEndian.Uint32(w.old[i:]))
	here := w.p.old.addr(w.from + next - 4)
	if here == 0 {
		return false
	}
	addr, ok := w.p.addr(here + 4 + uint64(int64(d)))
	if ok {
		w.put(i, uint32(addr-w.p.new.addr(w.to+next-4)-4))
	}
	return ok
}

// functab is pairs of where a function begins and where its _func is.
func (w *words) functab() {
	p := w.p
	prev, next := p.old.Pcln.Off+p.old.Funcs, p.new.Pcln.Off+p.new.Funcs
	w.each(func(i int, v uint32) int {
		if (w.from+uint64(i)-prev)/4%2 == 0 {
			return w.put(i, p.inText(v))
		}
		return w.put(i, p.within(prev, next, v, 1))
	})
}

// funcs rewrites the fields of _func that are offsets into other tables.
func (w *words) funcs() {
	p := w.p
	o, n := p.old, p.new
	w.each(func(i int, v uint32) int {
		if v == 0 || v == none {
			return 1
		}
		off := w.from + uint64(i)
		f, ok := p.at(off)
		if !ok {
			return 1
		}
		switch d := off - f.start; {
		case d == 0: // entryOff
			w.put(i, p.inText(v))
		case d == 4: // nameOff
			w.put(i, p.within(o.Pcln.Off+o.Names, n.Pcln.Off+n.Names, v, 1))
		case d == 16, d == 20, d == 24, d >= funcSize && off < f.pcs: // pcsp, pcfile, pcln, pcdata
			w.put(i, p.within(o.Pcln.Off+o.PCs, n.Pcln.Off+n.PCs, v, 1))
		case d == 32: // cuOffset
			w.put(i, p.within(o.Pcln.Off+o.Units, n.Pcln.Off+n.Units, v, 4))
		case d >= funcSize: // funcdata
			w.put(i, p.within(o.GoFunc, n.GoFunc, v, 1))
		}
		return 1
	})
}

// units is cutab: offsets of file names.
func (w *words) units() {
	o, n := w.p.old, w.p.new
	w.each(func(i int, v uint32) int {
		if v != none {
			w.put(i, w.p.within(o.Pcln.Off+o.Files, n.Pcln.Off+n.Files, v, 1))
		}
		return 1
	})
}

// inlined finds entries of inline trees among the data of functions: kind of function
// and three zeros, name, program counter, line. Only the name moves.
func (w *words) inlined() {
	o, n := w.p.old, w.p.new
	w.each(func(i int, v uint32) int {
		if v > 0x3f || i+16 > len(w.old) {
			return 1
		}
		name := binary.LittleEndian.Uint32(w.old[i+4:])
		pc, line := binary.LittleEndian.Uint32(w.old[i+8:]), binary.LittleEndian.Uint32(w.old[i+12:])
		if name == 0 || uint64(name) >= o.Units-o.Names || pc > 1<<20 || line > 1<<17 || line == 0 {
			return 1
		}
		w.put(i+4, w.p.within(o.Pcln.Off+o.Names, n.Pcln.Off+n.Names, name, 1))
		return 4
	})
}

// types is Go's descriptions of types: pointers, and offsets of 4 bytes to other types
// and names, or to code where a function begins there.
func (w *words) types() {
	p := w.p
	w.each(func(i int, v uint32) int {
		if (w.from+uint64(i))%8 == 0 && w.pointer(i) {
			return 2
		}
		if v < smallest {
			return 1
		}
		if isEntry(p.entries, v) {
			w.put(i, p.inText(v))
		} else if uint64(v) < p.old.Types.Size {
			w.put(i, p.within(p.old.Types.Off, p.new.Types.Off, v, 1))
		}
		return 1
	})
}

// typelinks is offsets of types.
func (w *words) typelinks() {
	w.each(func(i int, v uint32) int {
		return w.put(i, w.p.within(w.p.old.Types.Off, w.p.new.Types.Off, v, 1))
	})
}

// pointers is data: each 8 aligned bytes that are an address of the program.
func (w *words) pointers() {
	w.each(func(i int, _ uint32) int {
		if (w.from+uint64(i))%8 == 0 && w.pointer(i) {
			return 2
		}
		return 1
	})
}

func (w *words) pointer(i int) bool {
	if i+8 > len(w.old) {
		return false
	}
	v := binary.LittleEndian.Uint64(w.old[i:])
	if v < smallest {
		return false
	}
	addr, ok := w.p.addr(v)
	if ok {
		binary.LittleEndian.PutUint64(w.pred[i:], addr)
	}
	return ok
}
