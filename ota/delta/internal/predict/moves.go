// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package predict

import (
	"cmp"
	"container/heap"
	"slices"
	"sort"

	"fulmar/ota/delta/internal/format"
)

// minCopy is the shortest copy that says where things moved. Shorter ones are often
// chance: the same few bytes of another function.
const minCopy = 16

// MoveBytes is what a copy costs at most in memory while Moves are made, and Moves
// themselves: its number and its place in the heap, and two spans.
const MoveBytes = 8 + 8 + 2*8

// Moves says where in the new file a place of the old one is now, as sorted spans.
// Where copies overlap in the old file the longest counts: the nearest made text
// twice as bad. Where there is none the span before goes on.
type Moves struct{ spans []span }

// span moves everything from start on by shift, modulo 2^32.
type span struct{ start, shift uint32 }

// NewMoves makes the map from the list of copies, which both sides have before the
// first byte of the new file.
func NewMoves(ops []format.Op) *Moves {
	places := make([]place, 0, len(ops))
	at := uint32(0)
	for _, o := range ops {
		if o.Len >= minCopy {
			places = append(places, place{o.Old, o.Len, at - o.Old})
		}
		at += o.Len + o.Extra
	}
	slices.SortStableFunc(places, func(a, b place) int { return cmp.Compare(a.old, b.old) })
	m := &Moves{}
	open := &longest{} // copies that begin at or before pos, longest first
	for i, pos := 0, uint64(0); ; {
		for i < len(places) && uint64(places[i].old) <= pos {
			heap.Push(open, places[i])
			i++
		}
		for open.Len() > 0 && (*open)[0].end() <= pos {
			heap.Pop(open)
		}
		if open.Len() > 0 {
			m.add(uint32(pos), (*open)[0].shift)
		} else if i == len(places) {
			return m
		}
		// On to where the answer may change: the next begin, or this one's end.
		next := ^uint64(0)
		if i < len(places) {
			next = uint64(places[i].old)
		}
		if open.Len() > 0 {
			next = min(next, (*open)[0].end())
		}
		pos = next
	}
}

func (m *Moves) add(start, shift uint32) {
	if n := len(m.spans); n > 0 && m.spans[n-1].shift == shift {
		return
	}
	m.spans = append(m.spans, span{start, shift})
}

// to is where a place of the old file is in the new one.
func (m *Moves) to(off uint64) uint64 {
	i := sort.Search(len(m.spans), func(i int) bool { return uint64(m.spans[i].start) > off })
	if i == 0 || off > 1<<32-1 {
		return off
	}
	return uint64(uint32(off) + m.spans[i-1].shift)
}

type place struct{ old, n, shift uint32 }

func (p place) end() uint64 { return uint64(p.old) + uint64(p.n) }

// longest is a heap of copies; among equal ones the first in the old file, then the
// least shift, so that both sides agree.
type longest []place

func (l longest) Len() int { return len(l) }
func (l longest) Less(i, j int) bool {
	a, b := l[i], l[j]
	return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.old, b.old), cmp.Compare(a.shift, b.shift)) < 0
}
func (l longest) Swap(i, j int) { l[i], l[j] = l[j], l[i] }
func (l *longest) Push(x any)   { *l = append(*l, x.(place)) }
func (l *longest) Pop() any {
	x := (*l)[len(*l)-1]
	*l = (*l)[:len(*l)-1]
	return x
}
