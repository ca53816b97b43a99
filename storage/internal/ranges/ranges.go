// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package ranges keeps which sequence numbers are settled: a low-water mark up to
// which all are, and the intervals above it. It does no I/O and no locking.
package ranges

import "slices"

// Range is the inclusive range of numbers First to Last.
type Range struct{ First, Last uint64 }

// Len is how many numbers the range holds.
func (r Range) Len() uint64 { return r.Last - r.First + 1 }

// Settled is a set of numbers that grows and never shrinks. Its zero value holds
// none. Numbers count from 1.
type Settled struct {
	low   uint64
	above []Range // rising, disjoint, not adjacent, all above low+1
}

// New makes a set of all numbers up to low and those of above, in any order.
func New(low uint64, above []Range) Settled {
	s := Settled{low: low}
	for _, r := range above {
		s.Add(r.First, r.Last)
	}
	return s
}

// Low is the number up to which all are settled.
func (s *Settled) Low() uint64 { return s.low }

// Above are the settled intervals above Low, rising; the caller must not change them.
func (s *Settled) Above() []Range { return s.above }

// Highest is the highest settled number.
func (s *Settled) Highest() uint64 {
	if n := len(s.above); n > 0 {
		return s.above[n-1].Last
	}
	return s.low
}

// Add settles first to last, inclusive, and tells how many of them were not
// settled before.
func (s *Settled) Add(first, last uint64) (added uint64) {
	first = max(first, s.low+1, 1)
	if last < first {
		return 0
	}
	added = last - first + 1
	// i: the first interval that touches or follows the new one; j: one past
	// the last that touches it.
	i, _ := slices.BinarySearchFunc(s.above, first, func(r Range, f uint64) int {
		if r.Last+1 < f {
			return -1
		}
		return 1
	})
	j := i
	merged := Range{first, last}
	for ; j < len(s.above) && s.above[j].First <= last+1; j++ {
		r := s.above[j]
		if lo, hi := max(r.First, first), min(r.Last, last); lo <= hi {
			added -= hi - lo + 1
		}
		merged = Range{min(merged.First, r.First), max(merged.Last, r.Last)}
	}
	s.above = slices.Replace(s.above, i, j, merged)
	if s.above[0].First <= s.low+1 {
		s.low = s.above[0].Last
		s.above = slices.Delete(s.above, 0, 1)
	}
	return added
}

// Splits tells whether Add of first to last would make one more interval above Low:
// it joins none that is there.
func (s *Settled) Splits(first, last uint64) bool {
	if first <= s.low+1 {
		return false
	}
	i, _ := slices.BinarySearchFunc(s.above, first, func(r Range, f uint64) int {
		if r.Last+1 < f {
			return -1
		}
		return 1
	})
	return i == len(s.above) || s.above[i].First > last+1
}

// Has tells whether n is settled.
func (s *Settled) Has(n uint64) bool { return s.Next(n) != n }

// Next is the lowest number at or above n, at least 1, that is not settled.
func (s *Settled) Next(n uint64) uint64 {
	n = max(n, s.low+1)
	i, found := slices.BinarySearchFunc(s.above, n, func(r Range, n uint64) int {
		switch {
		case r.Last < n:
			return -1
		case r.First > n:
			return 1
		}
		return 0
	})
	if found {
		return s.above[i].Last + 1
	}
	return n
}

// Missing are the parts of first to last that are not settled, rising.
func (s *Settled) Missing(first, last uint64) []Range {
	var out []Range
	n := s.Next(first)
	for n <= last {
		end := last
		i, _ := slices.BinarySearchFunc(s.above, n, func(r Range, n uint64) int {
			if r.First < n {
				return -1
			}
			return 1
		})
		if i < len(s.above) && s.above[i].First <= last {
			end = s.above[i].First - 1
		}
		out = append(out, Range{n, end})
		n = s.Next(end + 1)
	}
	return out
}

// Open is how many numbers up to last are not settled.
func (s *Settled) Open(last uint64) uint64 {
	if last <= s.low {
		return 0
	}
	n := last - s.low
	for _, r := range s.above {
		if r.First > last {
			break
		}
		n -= min(r.Last, last) - r.First + 1
	}
	return n
}
