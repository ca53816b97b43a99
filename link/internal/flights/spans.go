// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package flights

import (
	"cmp"
	"slices"

	"fulmar/schema"
)

// count is how many numbers the spans hold.
func count(s []Span) (n uint64) {
	for _, r := range s {
		n += r[1] - r[0] + 1
	}
	return n
}

// Subtract gives what of the rising spans a is not in the rising spans b.
func Subtract(a, b []Span) []Span {
	var out []Span
	for _, s := range a {
		i, _ := slices.BinarySearchFunc(b, s[0], func(r Span, at uint64) int {
			if r[1] < at {
				return -1
			}
			return 1
		})
		for ; i < len(b) && b[i][0] <= s[1]; i++ {
			if b[i][0] > s[0] {
				out = append(out, Span{s[0], b[i][0] - 1})
			}
			if b[i][1] >= s[1] {
				s = Span{1, 0}
				break
			}
			s[0] = b[i][1] + 1
		}
		if s[0] <= s[1] {
			out = append(out, s)
		}
	}
	return out
}

// maxUnsure bounds the runs remembered of one class. They serve a counter: what is
// forgotten is counted as sent for the first time.
const maxUnsure = 1024

// Unsure are the numbers that were published in a connection which ended before
// their acknowledgement came, of each class in the epoch published last.
type Unsure [schema.NumClasses]struct {
	epoch uint64
	runs  []Span
}

// Add notes a flight that was not acknowledged.
func (u *Unsure) Add(f *Flight) {
	c := &u[f.Class]
	if c.epoch != f.Epoch {
		c.epoch, c.runs = f.Epoch, nil
	}
	runs := append(slices.Clone(c.runs), f.Runs...)
	slices.SortFunc(runs, func(a, b Span) int { return cmp.Compare(a[0], b[0]) })
	c.runs = runs[:0]
	for _, r := range runs {
		if n := len(c.runs); n > 0 && r[0] <= c.runs[n-1][1]+1 {
			c.runs[n-1][1] = max(c.runs[n-1][1], r[1])
		} else if n < maxUnsure {
			c.runs = append(c.runs, r)
		}
	}
}

// Again counts the numbers of a flight that went out before, and forgets them: it
// is noted anew where it is not acknowledged either.
func (u *Unsure) Again(f *Flight) uint64 {
	c := &u[f.Class]
	if c.epoch != f.Epoch || len(c.runs) == 0 {
		return 0
	}
	before := count(c.runs)
	c.runs = Subtract(c.runs, f.Runs)
	return before - count(c.runs)
}
