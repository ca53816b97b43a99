// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package delta_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"fulmar/ota/delta"
	"fulmar/ota/delta/internal/format"
	"fulmar/ota/delta/internal/predict"
	maker "fulmar/ota/delta/make"
)

// fuzzLimits are small, so that what goes beyond them is found soon.
var fuzzLimits = delta.Limits{Memory: 12 << 20, Size: 1 << 16}

// fuzzed applies what a fuzzer made: no panic, no byte too many, no wrong file, and
// an error that callers know.
func fuzzed(t *testing.T, codec string, base, patch []byte, want delta.Target) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	got, err := apply(ctx, codec, base, patch, want, fuzzLimits)
	switch {
	case int64(len(got)) > want.Size:
		t.Fatalf("%d bytes came out, %d are wanted", len(got), want.Size)
	case err == nil && target(t, got) != want:
		t.Fatal("a wrong file was accepted")
	case err != nil && !oneOf(err, typed...):
		t.Fatalf("an error of no kind: %v", err)
	}
}

// fuzzBase is what the streams that a fuzzer makes are applied to: an ELF file with
// code, pointers and what can be taken for Go's tables.
func fuzzBase() []byte {
	rng := rand.New(rand.NewPCG(8, 8))
	b := noise(rng, 8000)
	for i := 0; i+4 < 4000; i += 12 {
		copy(b[i:], []byte{byte(i), 0, 0, 0x94}) // BL
		copy(b[i+4:], []byte{1, byte(i), 0, 0x90, 0x21, 0, 0, 0x91})
	}
	for i := 4000; i+8 < 8000; i += 24 {
		copy(b[i:], []byte{byte(i), byte(i >> 8), 1, 0, 0, 0, 0, 0})
	}
	return elfOf(predict.ARM64, b)
}

// streams makes a patch of raw streams, so that a fuzzer is not held up by zstd and sums.
func streams(t *testing.T, codec byte, width int, sparse byte, base []byte, out delta.Target, all ...[]byte) []byte {
	h := &format.Header{Codec: codec, Width: width, Sparse: sparse}
	for len(all) < 2+width*2 {
		all = append(all, nil)
	}
	n := 2 + width
	for i := range width {
		n += int(sparse >> i & 1)
	}
	return craft(t, h.Codec, width, sparse, base, out, all[:n]...)
}

func FuzzZstd(f *testing.F) {
	for _, b := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("abc"), 3000), noise(rand.New(rand.NewPCG(1, 1)), 500)} {
		f.Add(frame(b), uint16(len(b)))
	}
	f.Fuzz(func(t *testing.T, patch []byte, size uint16) {
		fuzzed(t, delta.Zstd, nil, patch, delta.Target{Size: int64(size)})
	})
}

// FuzzPatch fuzzes whole patches of each codec, also with their sums made right.
func FuzzPatch(f *testing.F) {
	for i, c := range codecs[1:] {
		_, _, p := example(f, c)
		f.Add(byte(i), p.Bytes)
	}
	base, next, _ := example(f, delta.BSDiff)
	want := target(f, next)
	f.Fuzz(func(t *testing.T, c byte, patch []byte) {
		codec := codecs[1+int(c)%3]
		fuzzed(t, codec, base, patch, want)
		fuzzed(t, codec, base, mend(patch), want)
		if _, err := delta.Peek(section(patch)); err != nil && !errors.Is(err, delta.ErrPatch) {
			t.Fatal(err)
		}
	})
}

func FuzzBSDiff(f *testing.F) {
	base := fuzzBase()
	control := format.AppendOps(nil, []format.Op{{Old: 0, Len: 50, Extra: 3}, {Old: 100, Len: 40}})
	f.Add(control, []byte("new"), make([]byte, 90), []byte(nil), false, uint16(93))
	f.Add(control, []byte("new"), uvarints(0, 5, 70), []byte{1, 2, 3}, true, uint16(93))
	f.Fuzz(func(t *testing.T, control, extra, a, b []byte, isSparse bool, size uint16) {
		out := delta.Target{Size: int64(size)}
		sparse := byte(0)
		if isSparse {
			sparse = 1
		}
		fuzzed(t, delta.BSDiff, base, streams(t, format.BSDiff, 1, sparse, base, out, control, extra, a, b), out)
	})
}

func FuzzWords(f *testing.F) {
	base := fuzzBase()
	control := format.AppendOps(nil, []format.Op{{Old: 1, Len: 51, Extra: 3}, {Old: 100, Len: 43}})
	f.Add(control, []byte("new"), make([]byte, 50), make([]byte, 46), byte(1), byte(0), uint16(97))
	f.Add(control, []byte("new"), uvarints(0, 5, 10), []byte{1, 2, 3}, byte(2), byte(15), uint16(97))
	f.Fuzz(func(t *testing.T, control, extra, a, b []byte, width, sparse byte, size uint16) {
		w := []int{1, 2, 4}[width%3]
		sparse &= 1<<w - 1
		out := delta.Target{Size: int64(size)}
		fuzzed(t, delta.Words, base, streams(t, format.Words, w, sparse, base, out, control, extra, a, b, a, b, a, b, a, b), out)
	})
}

// FuzzELF fuzzes layouts and copies: what they say decides where prediction reads.
func FuzzELF(f *testing.F) {
	base := fuzzBase()
	go126 := &predict.Layout{
		Machine: predict.ARM64, Segments: []predict.Segment{{Off: 0, Addr: 0x10000, File: 8000, Mem: 9000}}, Text: predict.Range{Off: 176, Size: 4000}, TextBase: 0x10000 + 176,
		Pcln: predict.Range{Off: 5000, Size: 3000}, NFunc: 20, Names: 72, Units: 200, Files: 300, PCs: 400, Funcs: 800, GoFunc: 7500,
		Types: predict.Range{Off: 4200, Size: 500}, TypeLinks: predict.Range{Off: 4700, Size: 200},
	}
	amd := *go126
	amd.Machine = predict.AMD64
	ops := format.AppendOps(nil, []format.Op{{Old: 0, Len: 4000, Extra: 8}, {Old: 4000, Len: 4000, Extra: 1}})
	for _, l := range []*predict.Layout{go126, &amd, {}} {
		b := l.Append(nil)
		f.Add(append(l.Append(b), ops...), []byte("12345678x"), []byte(nil), []byte(nil), true, uint16(8009))
	}
	f.Fuzz(func(t *testing.T, control, extra, a, b []byte, isSparse bool, size uint16) {
		out := delta.Target{Size: int64(size)}
		sparse := byte(0)
		if isSparse {
			sparse = 1
		}
		fuzzed(t, delta.ELF, base, streams(t, format.ELF, 1, sparse, base, out, control, extra, a, b), out)
	})
}

// FuzzRoundTrip makes patches of what a fuzzer invents; the maker itself checks them.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("the old file, the old file"), []byte("the new file, the old one"), byte(0))
	base, next, _ := example(f, delta.BSDiff)
	for i := range codecs {
		f.Add(base, next, byte(i))
	}
	f.Fuzz(func(t *testing.T, base, next []byte, c byte) {
		codec := codecs[int(c)%len(codecs)]
		p, err := maker.Make(t.Context(), codec, section(base), section(next))
		if codec == delta.ELF && errors.Is(err, maker.ErrKind) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, err := apply(t.Context(), codec, base, p.Bytes, target(t, next), delta.Limits{}); err != nil || !bytes.Equal(got, next) {
			t.Fatal(err)
		}
	})
}
