// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package flights

import (
	"math/rand/v2"
	"testing"

	"fulmar/schema"
)

// TestSubtract holds the arithmetic of spans against a set of numbers.
func TestSubtract(t *testing.T) {
	t.Parallel()
	draw := rand.New(rand.NewPCG(3, 4))
	spans := func() (out []Span) {
		for at := uint64(1 + draw.IntN(5)); at < 60; at += uint64(2 + draw.IntN(8)) {
			end := at + uint64(draw.IntN(9))
			out = append(out, Span{at, end})
			at = end
		}
		return out
	}
	set := func(s []Span) map[uint64]bool {
		out := map[uint64]bool{}
		for _, r := range s {
			for n := r[0]; n <= r[1]; n++ {
				out[n] = true
			}
		}
		return out
	}
	for range 5000 {
		a, b := spans(), spans()
		got := Subtract(a, b)
		in, out, left := set(a), set(b), set(got)
		for n := range uint64(100) {
			if left[n] != (in[n] && !out[n]) {
				t.Fatalf("%v less %v is %v, wrong at %d", a, b, got, n)
			}
		}
		for i, r := range got {
			if r[1] < r[0] || i > 0 && r[0] <= got[i-1][1] {
				t.Fatalf("%v less %v is %v, not rising", a, b, got)
			}
		}
	}
}

// TestUnsure: what ended unacknowledged and goes out again is a repeat, once for
// each time it went out.
func TestUnsure(t *testing.T) {
	t.Parallel()
	flight := func(first, last uint64) *Flight {
		f := &Flight{Class: schema.ClassEvent, Epoch: 1}
		for n := first; n <= last; n++ {
			f.Add(n)
		}
		return f
	}
	var u Unsure
	for _, r := range []Span{{5, 9}, {100, 120}, {1, 4}, {8, 12}} {
		u.Add(flight(r[0], r[1]))
	}
	for _, c := range []struct{ first, last, again uint64 }{{13, 99, 0}, {3, 6, 4}, {3, 6, 0}, {1, 110, 19}, {1, 200, 10}} {
		if n := u.Again(flight(c.first, c.last)); n != c.again {
			t.Errorf("%d to %d: %d repeats, wants %d", c.first, c.last, n, c.again)
		}
	}
	for n := range uint64(3 * maxUnsure) {
		u.Add(flight(2*n+1, 2*n+1))
	}
	if n := len(u[schema.ClassEvent].runs); n != maxUnsure {
		t.Errorf("%d runs are remembered, at most %d", n, maxUnsure)
	}
}
