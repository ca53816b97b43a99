// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package book

import (
	"math/rand/v2"
	"testing"
)

// model is the book as plain sets: slow and plain to see.
type model struct {
	heard         uint64
	arrived, lost map[uint64]bool
	dups          uint64
}

func (m *model) arrive(n uint64) Arrival {
	m.heard = max(m.heard, n)
	if m.arrived[n] {
		m.dups++
		return Duplicate
	}
	m.arrived[n] = true
	if m.lost[n] {
		delete(m.lost, n)
		return Returned
	}
	return Fresh
}

func (m *model) lose(first, last uint64) (n uint64) {
	m.heard = max(m.heard, last)
	for i := first; i <= last; i++ {
		if !m.arrived[i] && !m.lost[i] {
			m.lost[i] = true
			n++
		}
	}
	return n
}

// TestBookAgainstSets sends random arrivals, duplicates and gaps, with the book
// packed and opened anew now and then as after a crash.
func TestBookAgainstSets(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		b, m := &Book{}, &model{arrived: map[uint64]bool{}, lost: map[uint64]bool{}}
		top := 1 + r.Uint64N(1500)
		next := uint64(1)
		for step := range 3000 {
			switch k := r.IntN(20); {
			case k < 10: // in order, as boards do
				n := next
				next++
				got, err := b.Arrive(n)
				if want := m.arrive(n); err != nil || got != want {
					t.Fatalf("seed %d step %d: arrive %d gives %v %v, want %v", seed, step, n, got, err, want)
				}
			case k < 17:
				n := 1 + r.Uint64N(top)
				got, err := b.Arrive(n)
				if want := m.arrive(n); err != nil || got != want {
					t.Fatalf("seed %d step %d: arrive %d gives %v %v, want %v", seed, step, n, got, err, want)
				}
			case k < 19:
				first := 1 + r.Uint64N(top)
				last := first + r.Uint64N(30)
				got, err := b.Lose(first, last)
				if want := m.lose(first, last); err != nil || got != want {
					t.Fatalf("seed %d step %d: lose %d-%d gives %d %v, want %d", seed, step, first, last, got, err, want)
				}
			default:
				again, err := Open(b.Heard, b.Floor, b.Arrived, b.Closed, b.Dups, b.spans.pack(), b.gaps.pack())
				if err != nil {
					t.Fatal(err)
				}
				b = again
			}
			from, to := r.Uint64N(top), r.Uint64N(top)
			all := true
			for n := from + 1; n <= to; n++ {
				all = all && (m.arrived[n] || m.lost[n])
			}
			if got := b.Settled(from, to); got != all {
				t.Fatalf("seed %d step %d: settled over %d to %d: %v", seed, step, from, to, got)
			}
			if b.Heard != m.heard || b.Arrived != uint64(len(m.arrived)) || b.Lost() != uint64(len(m.lost)) || b.Dups != m.dups ||
				b.Waiting() != m.heard-uint64(len(m.arrived))-uint64(len(m.lost)) {
				t.Fatalf("seed %d step %d: heard %d arrived %d lost %d dups %d, want %d %d %d %d", seed, step,
					b.Heard, b.Arrived, b.Lost(), b.Dups, m.heard, len(m.arrived), len(m.lost), m.dups)
			}
		}
	}
}

// TestBookStaysBounded sends every second number: the worst a board can do.
func TestBookStaysBounded(t *testing.T) {
	t.Parallel()
	b := &Book{}
	for n := uint64(2); n < 20_000; n += 2 {
		if _, err := b.Arrive(n); err != nil {
			t.Fatal(err)
		}
		if n%10 == 0 {
			if _, err := b.Lose(n+1, n+1); err != nil {
				t.Fatal(err)
			}
		}
		if len(b.spans) > maxSpans+1 || len(b.gaps) > maxSpans+1 {
			t.Fatalf("%d ranges, %d gaps", len(b.spans), len(b.gaps))
		}
		if b.Arrived+b.Lost() > b.Heard {
			t.Fatalf("at %d: arrived %d + lost %d > heard %d", n, b.Arrived, b.Lost(), b.Heard)
		}
	}
	if b.Floor == 0 || b.Closed == 0 {
		t.Fatal("no hole was ever closed")
	}
	// A number of a closed hole is turned away, and nothing is counted twice.
	before := *b
	if got, _ := b.Arrive(1); got != Duplicate || b.Arrived != before.Arrived {
		t.Fatalf("late arrival below the floor: %v", got)
	}
}

func TestBookRefusesWhatCannotBe(t *testing.T) {
	t.Parallel()
	b := &Book{}
	for _, n := range []uint64{0, MaxSeq + 1, 1<<64 - 1} {
		if _, err := b.Arrive(n); err == nil {
			t.Errorf("number %d is taken", n)
		}
	}
	for _, g := range [][2]uint64{{0, 1}, {2, 1}, {1, 1<<64 - 1}} {
		if _, err := b.Lose(g[0], g[1]); err == nil {
			t.Errorf("gap %v is taken", g)
		}
	}
	if b.Heard != 0 {
		t.Errorf("heard of %d", b.Heard)
	}
}

// FuzzUnpackSpans: damaged columns never panic and never give touching ranges.
func FuzzUnpackSpans(f *testing.F) {
	f.Add(spans{{2, 5}, {9, 9}}.pack())
	f.Add([]byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := unpackSpans(b)
		if err != nil {
			return
		}
		for i, r := range s {
			if r.last < r.first || i > 0 && r.first <= s[i-1].last+1 {
				t.Fatalf("%v", s)
			}
		}
	})
}
