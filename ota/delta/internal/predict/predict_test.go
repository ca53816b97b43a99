// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package predict

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"fulmar/ota/delta/internal/format"
)

// TestMoves paints the copies byte by byte, shortest first, and compares.
func TestMoves(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(5, 5))
	for range 300 {
		var ops []format.Op
		for range rng.IntN(20) {
			ops = append(ops, format.Op{Old: rng.Uint32N(500), Len: rng.Uint32N(100), Extra: rng.Uint32N(10)})
		}
		type painted struct {
			n, shift uint32
			old      uint32
		}
		var all []painted
		at := uint32(0)
		for _, o := range ops {
			if o.Len >= minCopy {
				all = append(all, painted{o.Len, at - o.Old, o.Old})
			}
			at += o.Len + o.Extra
		}
		slices.SortStableFunc(all, func(a, b painted) int {
			return cmp.Or(cmp.Compare(a.n, b.n), cmp.Compare(b.old, a.old), cmp.Compare(b.shift, a.shift))
		})
		shifts, known := make([]uint32, 700), make([]bool, 700)
		for _, p := range all {
			for i := p.old; i < p.old+p.n; i++ {
				shifts[i], known[i] = p.shift, true
			}
		}
		m := NewMoves(ops)
		last, any := uint32(0), false
		for i := range shifts {
			if known[i] {
				last, any = shifts[i], true
			}
			want := uint64(i)
			if any {
				want = uint64(uint32(i) + last)
			}
			if got := m.to(uint64(i)); got != want {
				t.Fatalf("%v: %d moves to %d, not %d", ops, i, got, want)
			}
		}
	}
}

func TestLayoutRoundTrip(t *testing.T) {
	t.Parallel()
	l := &Layout{}
	for i, f := range l.fields() {
		*f = uint64(i)*1000 + 1
	}
	l.Segments = []Segment{{1, 2, 3, 4}, {5, 6, 7, 1 << 63}}
	got, err := ReadLayout(bytes.NewReader(l.Append(nil)))
	if err != nil || !reflect.DeepEqual(got, l) {
		t.Errorf("%+v, %v", got, err)
	}
	b := l.Append(nil)
	for i := range b {
		if _, err := ReadLayout(bytes.NewReader(b[:i])); err == nil {
			t.Errorf("no error at %d of %d bytes", i, len(b))
		}
	}
	nine := append(slices.Clone((&Layout{}).Append(nil)[:17]), 9)
	if _, err := ReadLayout(bytes.NewReader(append(nine, make([]byte, 100)...))); err == nil {
		t.Error("no error at nine segments")
	}
	if n := reflect.TypeFor[Layout]().NumField(); n != 14 {
		t.Errorf("%d fields: are all of them in fields()?", n)
	}
}

// rewritten moves all of a text by 0x40 bytes and data by 0x80 and says what becomes of
// one piece of it.
func rewritten(t *testing.T, machine uint64, b []byte, at uint64) []byte {
	t.Helper()
	file := make([]byte, 0x4000)
	copy(file[at:], b)
	prev := &Layout{
		Machine: machine, Text: Range{0x1000, 0x1000}, TextBase: 0x11000,
		Segments: []Segment{{0x1000, 0x11000, 0x1000, 0x1000}, {0x2000, 0x42000, 0x2000, 0x3000}},
	}
	next := &Layout{
		Machine: machine, Text: Range{0x1000, 0x1040}, TextBase: 0x11000,
		Segments: []Segment{{0x1000, 0x11000, 0x1040, 0x1040}, {0x2080, 0x52080, 0x2000, 0x3000}},
	}
	ops := []format.Op{{Old: 0, Len: 0x1000, Extra: 0x40}, {Old: 0x1000, Len: 0x1000, Extra: 0x40}, {Old: 0x2000, Len: 0x2000}}
	c := NewRewriter(bytes.NewReader(file), prev, next, ops)
	var out []byte
	to := uint64(0)
	for _, o := range ops {
		if err := c.Copy(o, to, func(b []byte) error { out = append(out, b...); return nil }); err != nil {
			t.Fatal(err)
		}
		to += uint64(o.Len + o.Extra)
		out = append(out, make([]byte, o.Extra)...)
	}
	i := c.p.moves.to(at)
	return out[i : i+uint64(len(b))]
}

func words32(v ...uint32) (b []byte) {
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, x)
	}
	return b
}

func TestRewritesARM64(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ old, want []byte }{
		"BL within what moved":  {words32(0x94000010), words32(0x94000010)},
		"BL back to the header": {words32(0x97fffc00), words32(0x97fffc00 - 0x10)}, // from 0x1000 to 0, now from 0x1040
		// ADRP x1, 0x42000; ADD x1, x1, #0x10: now 0x52090 from a page at 0x11000.
		"ADRP and ADD": {words32(0x90000001|0x31>>2<<5|0x31&3<<29, 0x91004021), words32(0x90000001|0x41>>2<<5|0x41&3<<29, 0x91024021)},
		// The same with LDR x2, [x1, #0x18] behind another instruction.
		"ADRP and LDR":                     {words32(0x90000001|0x31>>2<<5|0x31&3<<29, 0xd503201f, 0xf9400c22), words32(0x90000001|0x41>>2<<5|0x41&3<<29, 0xd503201f, 0xf9404c22)},
		"ADRP and ADD of another register": {words32(0x90000001|0x31>>2<<5|0x31&3<<29, 0x91004042), words32(0x90000001|0x31>>2<<5|0x31&3<<29, 0x91004042)},
	} {
		if got := rewritten(t, ARM64, c.old, 0x1000); !bytes.Equal(got, c.want) {
			t.Errorf("%s: %x, want %x", name, got, c.want)
		}
	}
}

// TestRewritesAcrossChunks: an ADRP ends one chunk and its ADD begins the next.
func TestRewritesAcrossChunks(t *testing.T) {
	t.Parallel()
	file := make([]byte, 3*chunk)
	at := 16 + chunk - 4
	copy(file[at:], words32(0x90000001|0x68>>2<<5, 0x91004021)) // 0x80010 from 0x1800c
	prev := &Layout{Machine: ARM64, Text: Range{0, 2 * chunk}, Segments: []Segment{{0, 0x10000, 2 * chunk, 2 * chunk}, {2 * chunk, 0x80000, chunk, chunk}}}
	next := &Layout{Machine: ARM64, Segments: []Segment{{0, 0x10000, 2*chunk + 0x40, 2*chunk + 0x40}, {2*chunk + 0x40, 0x80040, chunk, chunk}}}
	ops := []format.Op{{Old: 0, Len: 16, Extra: 0x40}, {Old: 16, Len: 3*chunk - 16}}
	var out []byte
	if err := NewRewriter(bytes.NewReader(file), prev, next, ops).Copy(ops[1], 16+0x40, func(b []byte) error { out = append(out, b...); return nil }); err != nil {
		t.Fatal(err)
	}
	if got, want := out[at-16:at-8], words32(0x90000001|0x68>>2<<5, 0x91014021); !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

func TestRewritesAMD64(t *testing.T) {
	t.Parallel()
	rel := func(op []byte, d int32) []byte { return binary.LittleEndian.AppendUint32(op, uint32(d)) }
	// LEA of 7 bytes reads 0x43000, which is now at 0x53080.
	lea := func(d int32) []byte { return rel([]byte{0x48, 0x8d, 0x05}, d) }
	for name, c := range map[string]struct{ old, want []byte }{
		"CALL within what moved": {rel([]byte{0xe8}, 0x100), rel([]byte{0xe8}, 0x100)},
		"CALL to nowhere":        {rel([]byte{0xe8}, 0x7fffffff), rel([]byte{0xe8}, 0x7fffffff)},
		"LEA of data":            {lea(0x43000 - 0x11007), lea(0x53080 - 0x11047)},
	} {
		if got := rewritten(t, AMD64, c.old, 0x1000); !bytes.Equal(got, c.want) {
			t.Errorf("%s: %x, want %x", name, got, c.want)
		}
	}
}

func TestRewritesPointers(t *testing.T) {
	t.Parallel()
	p := func(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }
	for old, want := range map[uint64]uint64{
		0x43000:    0x53080,                                         // data
		0x11010:    0x11050,                                         // text
		0x44800:    0x44800 - (0x42000 + 0x2000) + 0x52080 + 0x2000, // zeros behind the data
		0x99999999: 0x99999999,                                      // nothing
		16:         16,                                              // a count
	} {
		if got := rewritten(t, ARM64, p(old), 0x2008); !bytes.Equal(got, p(want)) {
			t.Errorf("%#x became %x, want %#x", old, got, want)
		}
	}
}

// TestChunks: where the file is cut into pieces says nothing of what comes out but the
// sum of it; a copy that begins anywhere is whole.
func TestChunks(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(6, 6))
	file := make([]byte, 3*chunk)
	for i := range file {
		file[i] = byte(rng.Uint32())
	}
	for range 50 {
		old := rng.Uint32N(1000)
		op := format.Op{Old: old, Len: rng.Uint32N(uint32(len(file)) - old)}
		for _, c := range []*Copier{NewCopier(bytes.NewReader(file)), NewRewriter(bytes.NewReader(file), &Layout{}, &Layout{}, nil)} {
			var out []byte
			if err := c.Copy(op, 0, func(b []byte) error { out = append(out, b...); clear(b); return nil }); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(out, file[old:old+op.Len]) {
				t.Fatalf("%+v: %d bytes came out, or others", op, len(out))
			}
		}
	}
	if err := NewCopier(bytes.NewReader(file[:100])).Copy(format.Op{Len: 200}, 0, func([]byte) error { return nil }); err == nil {
		t.Error("no error where the base ended")
	}
}
