// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package maker

// suffixes sorts all suffixes of s, whose values are at most top: by induced sorting
// (Ge Nong, Sen Zhang, Wai Hong Chan, "Two efficient algorithms for linear time suffix
// array construction", 2009), in linear time and about 9 bytes of memory for each of
// s. index/suffixarray of the standard library does it, too, but shows nobody its array.
func suffixes[T uint8 | int32](s []T, top int32) []int32 {
	n := len(s)
	switch {
	case n == 0:
		return nil
	case n == 1:
		return []int32{0}
	}
	x := newInducer(s, top)
	// The left-most S-type suffixes (LMS): each begins a valley.
	number := make([]int32, n/2+1) // two valleys are at least 2 apart
	var valleys []int32
	for i := 1; i < n; i++ {
		if x.valley(int32(i)) {
			number[i/2] = int32(len(valleys))
			valleys = append(valleys, int32(i))
		}
	}
	x.induce(valleys)
	if len(valleys) == 0 {
		return x.sa
	}
	sorted := make([]int32, 0, len(valleys))
	for _, v := range x.sa {
		if v > 0 && x.valley(v) {
			sorted = append(sorted, v)
		}
	}
	names, last := x.name(sorted, valleys, number)
	for i, r := range suffixes(names, last) {
		sorted[i] = valleys[r]
	}
	x.induce(sorted)
	return x.sa
}

// inducer holds the array and where the bucket of each value begins in it.
type inducer[T uint8 | int32] struct {
	s            []T
	sa           []int32
	small        []bool  // the suffix is less than the one behind it (S-type)
	begin, split []int32 // of each bucket: its larger suffixes, its smaller ones
	buf          []int32
}

func newInducer[T uint8 | int32](s []T, top int32) *inducer[T] {
	n := len(s)
	x := &inducer[T]{s: s, sa: make([]int32, n), small: make([]bool, n)}
	x.begin, x.split, x.buf = make([]int32, top+2), make([]int32, top+1), make([]int32, top+2)
	for i := n - 2; i >= 0; i-- {
		x.small[i] = s[i] < s[i+1] || s[i] == s[i+1] && x.small[i+1]
	}
	for i, c := range s {
		if x.small[i] {
			x.begin[c+1]++
		} else {
			x.split[c]++
		}
	}
	for c := range x.split {
		x.split[c] += x.begin[c]
		x.begin[c+1] += x.split[c]
	}
	return x
}

func (x *inducer[T]) valley(i int32) bool { return x.small[i] && !x.small[i-1] }

// induce sorts all suffixes when the valleys are given in order.
func (x *inducer[T]) induce(valleys []int32) {
	s, sa, n := x.s, x.sa, len(x.s)
	for i := range sa {
		sa[i] = -1
	}
	copy(x.buf, x.split)
	for _, v := range valleys {
		c := s[v]
		sa[x.buf[c]] = v
		x.buf[c]++
	}
	copy(x.buf, x.begin)
	c := s[n-1]
	sa[x.buf[c]] = int32(n - 1)
	x.buf[c]++
	for i := range sa {
		if v := sa[i]; v >= 1 && !x.small[v-1] {
			c := s[v-1]
			sa[x.buf[c]] = v - 1
			x.buf[c]++
		}
	}
	copy(x.buf, x.begin)
	for i := n - 1; i >= 0; i-- {
		if v := sa[i]; v >= 1 && x.small[v-1] {
			c := int32(s[v-1]) + 1
			x.buf[c]--
			sa[x.buf[c]] = v - 1
		}
	}
}

// name numbers the stretches from valley to valley in their order, equal ones alike.
func (x *inducer[T]) name(sorted, valleys, number []int32) (names []int32, last int32) {
	names = make([]int32, len(valleys))
	end := func(v int32) int32 {
		if i := number[v/2] + 1; int(i) < len(valleys) {
			return valleys[i]
		}
		return int32(len(x.s))
	}
	for i, v := range sorted[1:] {
		u := sorted[i]
		a, b := x.s[u:end(u)], x.s[v:end(v)]
		// The end of a stretch counts, too, and the last one of all has no such end.
		same := len(a) == len(b) && end(u) < int32(len(x.s)) && end(v) < int32(len(x.s))
		for k := 0; same && k < len(a); k++ {
			same = a[k] == b[k]
		}
		if same {
			same = x.s[end(u)] == x.s[end(v)]
		}
		if !same {
			last++
		}
		names[number[v/2]] = last
	}
	return names, last
}
