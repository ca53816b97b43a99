// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ranges_test

import (
	"math/rand/v2"
	"testing"

	"fulmar/storage/internal/ranges"
)

// The set is compared with a plain map over random ranges, every query on each step.
func TestSettledAgainstMap(t *testing.T) {
	t.Parallel()
	const top = 120
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		low := rng.Uint64N(10)
		s := ranges.New(low, nil)
		model := map[uint64]bool{}
		for n := uint64(0); n <= low; n++ {
			model[n] = true
		}
		for range 60 {
			first := rng.Uint64N(top)
			last := first + rng.Uint64N(8)
			var want uint64
			for n := max(first, 1); n <= last; n++ {
				if !model[n] {
					want++
				}
				model[n] = true
			}
			splits, before := s.Splits(first, last), len(s.Above())
			if got := s.Add(first, last); got != want {
				t.Fatalf("seed %d: Add(%d, %d) = %d new, want %d", seed, first, last, got, want)
			}
			if more := len(s.Above()) > before; more != splits {
				t.Fatalf("seed %d: Splits(%d, %d) = %v, one interval more: %v", seed, first, last, splits, more)
			}
			compare(t, seed, &s, model, rng, top+20)
		}
		again := ranges.New(s.Low(), s.Above())
		compare(t, seed, &again, model, rng, top+20)
	}
}

func compare(t *testing.T, seed uint64, s *ranges.Settled, model map[uint64]bool, rng *rand.Rand, top uint64) {
	t.Helper()
	if model[s.Low()+1] {
		t.Fatalf("seed %d: low %d, but %d is settled too", seed, s.Low(), s.Low()+1)
	}
	prev := s.Low()
	for _, r := range s.Above() {
		if r.First <= prev+1 || r.Last < r.First {
			t.Fatalf("seed %d: intervals %v above %d are not in order and apart", seed, s.Above(), s.Low())
		}
		prev = r.Last
	}
	if s.Highest() != prev {
		t.Fatalf("seed %d: highest %d, want %d", seed, s.Highest(), prev)
	}
	var open uint64
	for n := uint64(1); n < top; n++ {
		if s.Has(n) != model[n] {
			t.Fatalf("seed %d: Has(%d) = %v", seed, n, s.Has(n))
		}
		if !model[n] {
			open++
		}
		if s.Open(n) != open {
			t.Fatalf("seed %d: Open(%d) = %d, want %d", seed, n, s.Open(n), open)
		}
		next := n
		for model[next] {
			next++
		}
		if s.Next(n) != next {
			t.Fatalf("seed %d: Next(%d) = %d, want %d", seed, n, s.Next(n), next)
		}
	}
	first := rng.Uint64N(top)
	last := first + rng.Uint64N(40)
	got := map[uint64]bool{}
	for _, r := range s.Missing(first, last) {
		for n := r.First; n <= r.Last; n++ {
			got[n] = true
		}
	}
	for n := max(first, 1); n <= last; n++ {
		if got[n] == model[n] {
			t.Fatalf("seed %d: Missing(%d, %d) = %v is wrong about %d", seed, first, last, s.Missing(first, last), n)
		}
	}
}
