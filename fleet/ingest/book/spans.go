// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package book

import (
	"encoding/binary"
	"errors"
	"slices"
)

// span is an inclusive range of sequence numbers.
type span struct{ first, last uint64 }

// spans is a set of numbers as rising ranges that neither touch nor overlap.
type spans []span

// find gives the index of the first range that ends at or after n.
func (s spans) find(n uint64) int {
	i, _ := slices.BinarySearchFunc(s, n, func(r span, n uint64) int {
		if r.last < n {
			return -1
		}
		if r.first > n {
			return 1
		}
		return 0
	})
	return i
}

func (s spans) has(n uint64) bool {
	i := s.find(n)
	return i < len(s) && s[i].first <= n
}

// end gives the last number of the range that holds n, 0 where none does.
func (s spans) end(n uint64) uint64 {
	if i := s.find(n); i < len(s) && s[i].first <= n {
		return s[i].last
	}
	return 0
}

// add puts a range into the set, joining what it touches.
func (s spans) add(r span) spans {
	lo := r.first
	if lo > 0 {
		lo-- // a range that ends just before r is joined to it
	}
	i := s.find(lo)
	j := i
	for j < len(s) && (s[j].first <= r.last || s[j].first == r.last+1) {
		r.first, r.last = min(r.first, s[j].first), max(r.last, s[j].last)
		j++
	}
	return slices.Replace(s, i, j, r)
}

// count is how many numbers the set holds.
func (s spans) count() uint64 {
	n := uint64(0)
	for _, r := range s {
		n += r.last - r.first + 1
	}
	return n
}

// overlap is how many numbers of the range the set holds.
func (s spans) overlap(r span) uint64 {
	n := uint64(0)
	for i := s.find(r.first); i < len(s) && s[i].first <= r.last; i++ {
		n += min(r.last, s[i].last) - max(r.first, s[i].first) + 1
	}
	return n
}

// cut removes all numbers up to n.
func (s spans) cut(n uint64) spans {
	i := s.find(n + 1)
	s = slices.Delete(s, 0, i)
	if len(s) > 0 && s[0].first <= n {
		s[0].first = n + 1
	}
	return s
}

// pack gives the bytes kept in the database: distances as varints.
func (s spans) pack() []byte {
	b := make([]byte, 0, len(s)*4)
	at := uint64(0)
	for _, r := range s {
		b = binary.AppendUvarint(b, r.first-at)
		b = binary.AppendUvarint(b, r.last-r.first)
		at = r.last
	}
	return b
}

var errSpans = errors.New("kept ranges are damaged")

func unpackSpans(b []byte) (spans, error) {
	var s spans
	at := uint64(0)
	for len(b) > 0 {
		d, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, errSpans
		}
		l, m := binary.Uvarint(b[n:])
		if m <= 0 || at+d < at || at+d+l < at+d || (len(s) > 0 && d < 2) {
			return nil, errSpans
		}
		s = append(s, span{at + d, at + d + l})
		at += d + l
		b = b[n+m:]
	}
	return s, nil
}
