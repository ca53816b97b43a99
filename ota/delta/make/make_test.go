// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package maker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"fulmar/ota/delta"
	"fulmar/ota/delta/internal/format"
)

func section(b []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b)))
}

func random(rng *rand.Rand, n, values int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.IntN(values))
	}
	return b
}

// TestSuffixes compares with sorting.
func TestSuffixes(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(2, 2))
	texts := [][]byte{nil, {0}, {255}, {1, 1}, {2, 1}, {1, 2}, []byte("mississippi"), bytes.Repeat([]byte("ab"), 300), make([]byte, 1000)}
	for i := range 400 {
		texts = append(texts, random(rng, rng.IntN(300), []int{1, 2, 3, 256}[i%4]))
	}
	for _, s := range texts {
		want := make([]int32, len(s))
		for i := range want {
			want[i] = int32(i)
		}
		slices.SortFunc(want, func(a, b int32) int { return bytes.Compare(s[a:], s[b:]) })
		if got := suffixes(s, 255); !slices.Equal(got, want) {
			t.Fatalf("of %v: %v, want %v", s, got, want)
		}
	}
}

// TestMatch: the copies make the whole file, and find what was moved.
func TestMatch(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 3))
	old := random(rng, 10_000, 256)
	next := slices.Concat(old[5000:], []byte("something new"), old[:5000])
	ops, err := match(t.Context(), old, next)
	if err != nil {
		t.Fatal(err)
	}
	if want := []format.Op{{Old: 5000, Len: 5000, Extra: 13}, {Old: 0, Len: 5000}}; !slices.Equal(ops[len(ops)-2:], want) {
		t.Errorf("%+v", ops)
	}
}

func TestDeterministic(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(4, 4))
	base := random(rng, 200_000, 60)
	next := append(slices.Clone(base[1000:]), random(rng, 3000, 256)...)
	for _, c := range []string{delta.Zstd, delta.BSDiff, delta.Words, Auto} {
		a, err := Make(t.Context(), c, section(base), section(next))
		if err != nil {
			t.Fatal(err)
		}
		b, err := Make(t.Context(), c, section(base), section(next))
		if err != nil || !bytes.Equal(a.Bytes, b.Bytes) || a.Codec != b.Codec {
			t.Errorf("%s: other bytes the second time, %v", c, err)
		}
	}
}

func TestAuto(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(5, 5))
	base := random(rng, 50_000, 256)
	moved := slices.Concat(base[30_000:], base[:30_000])
	other := random(rng, 50_000, 256)
	for want, next := range map[string][]byte{delta.BSDiff: moved, delta.Zstd: other} {
		p, err := Make(t.Context(), Auto, section(base), section(next))
		if err != nil || p.Codec != want || p.Tried[want] != len(p.Bytes) || p.Tried[delta.Words] < len(p.Bytes) {
			t.Errorf("want %s: %+v, %v", want, p.Tried, err)
		}
	}
	if p, err := Make(t.Context(), Auto, nil, section(base)); err != nil || p.Codec != delta.Zstd || p.Base != (delta.Target{}) {
		t.Error(p, err)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	large := io.NewSectionReader(zeros{}, 0, MaxFile+1)
	half := io.NewSectionReader(zeros{}, 0, MaxSuffix+1)
	some := section([]byte("some"))
	for _, c := range []struct {
		codec        string
		base, target *io.SectionReader
		want         error
	}{
		{delta.Zstd, nil, large, ErrTooLarge},
		{Auto, large, some, ErrTooLarge},
		{delta.BSDiff, some, half, ErrTooLarge},
		{delta.ELF, half, some, ErrTooLarge},
		{delta.ELF, some, some, ErrKind},
		{delta.BSDiff, nil, some, ErrKind},
		{"xdelta", some, some, delta.ErrCodec},
	} {
		if _, err := Make(t.Context(), c.codec, c.base, c.target); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.codec, err, c.want)
		}
	}
}

type zeros struct{}

func (zeros) ReadAt(b []byte, _ int64) (int, error) {
	clear(b)
	return len(b), nil
}

// TestCancel: what would take seconds ends with its context, whose end comes while the work is
// under way: in the midst of reading the target again, after the pass for its sum.
func TestCancel(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(6, 6))
	base, next := random(rng, 2_000_000, 256), random(rng, 4_000_000, 256)
	for _, c := range []string{delta.Zstd, delta.BSDiff, delta.Words, Auto} {
		ctx, cancel := context.WithCancel(t.Context())
		target := &ending{b: next, left: len(next) + len(next)/2, end: cancel}
		if _, err := Make(ctx, c, section(base), io.NewSectionReader(target, 0, int64(len(next)))); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", c, err)
		}
		cancel()
		if target.left > 0 {
			t.Errorf("%s ended before its context", c)
		}
	}
}

// ending calls end when so many bytes were read.
type ending struct {
	b    []byte
	left int
	end  func()
}

func (e *ending) ReadAt(b []byte, off int64) (int, error) {
	n, err := bytes.NewReader(e.b).ReadAt(b, off)
	if e.left -= n; e.left <= 0 {
		e.end()
	}
	return n, err
}

// TestManyCopies: what a board could not hold is not made, and auto goes on without it.
func TestManyCopies(t *testing.T) {
	t.Parallel()
	p := &pair{base: section(make([]byte, 10)), target: section(make([]byte, 10))}
	if _, err := p.encode(t.Context(), &plan{codec: format.BSDiff, width: 1, ops: make([]format.Op, maxCopies+1)}); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
}

// TestVerified: a patch of another target is not returned.
func TestVerified(t *testing.T) {
	t.Parallel()
	base, next := []byte("the base"), []byte("the target")
	p, err := Make(t.Context(), delta.BSDiff, section(base), section(next))
	if err != nil {
		t.Fatal(err)
	}
	wrong := &pair{base: section(base), target: section(next), from: p.Base, to: p.Out}
	wrong.to.SHA256[0] ^= 1
	if _, err := wrong.verified(t.Context(), delta.BSDiff, p.Bytes, nil); !errors.Is(err, ErrWrong) {
		t.Error(err)
	}
}
