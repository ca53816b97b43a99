// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package queue holds the records of a class that wait for a commit. It does no
// locking.
package queue

import (
	"slices"
	"sort"
	"time"
)

// Item is one record on its way to disk.
type Item struct {
	Seq     uint64 // metrics: given at Append; others: at the commit
	Wall    int64  // ms since 1970
	At      time.Time
	Payload []byte
	Done    chan error // 1-buffered; nil where nobody waits
}

// small is the payload that lies in the item itself: one allocation, not two.
const small = 256

type smallItem struct {
	Item
	buf [small]byte
}

// New makes an item with a copy of the payload, made at wall, ms since 1970.
func New(payload []byte, now time.Time, wall int64) *Item {
	var it *Item
	if len(payload) <= small {
		s := &smallItem{}
		it, s.Payload = &s.Item, append(s.buf[:0], payload...)
	} else {
		it = &Item{Payload: slices.Clone(payload)}
	}
	it.Wall, it.At = wall, now
	return it
}

// Queue is bounded by its owner through [Queue.Fits]; its zero value is empty.
type Queue struct {
	items []*Item
	bytes int
}

// Len is how many records wait.
func (q *Queue) Len() int { return len(q.items) }

// Bytes is how much payload waits.
func (q *Queue) Bytes() int { return q.bytes }

// First is the oldest record; there must be one.
func (q *Queue) First() *Item { return q.items[0] }

// Fits tells whether one more record keeps the queue within n records and bytes.
func (q *Queue) Fits(it *Item, n, bytes int) bool {
	return len(q.items) < n && q.bytes+len(it.Payload) <= bytes
}

// Push adds a record at the end.
func (q *Queue) Push(it *Item) {
	q.items = append(q.items, it)
	q.bytes += len(it.Payload)
}

// Peek appends the next batch to dst without taking it: at most n records, and at
// most the given bytes unless the first alone is larger.
func (q *Queue) Peek(dst []*Item, n, bytes int) []*Item {
	for i := range min(n, len(q.items)) {
		if bytes -= len(q.items[i].Payload); i > 0 && bytes < 0 {
			break
		}
		dst = append(dst, q.items[i])
	}
	return dst
}

// Pop takes the first n records off. The array is reused from its front.
func (q *Queue) Pop(n int) {
	for _, it := range q.items[:n] {
		q.bytes -= len(it.Payload)
	}
	left := copy(q.items, q.items[n:])
	clear(q.items[left:])
	q.items = q.items[:left]
}

// PopTo takes out what comes first and has a number of at most seq: for classes
// whose records have their number from the start.
func (q *Queue) PopTo(seq uint64) {
	n := 0
	for n < len(q.items) && q.items[n].Seq <= seq {
		n++
	}
	if n > 0 {
		q.Pop(n)
	}
}

// Each gives the items with a number of at least seq, in order, until fn returns
// false.
func (q *Queue) Each(seq uint64, fn func(*Item) bool) {
	i := sort.Search(len(q.items), func(i int) bool { return q.items[i].Seq >= seq })
	for _, it := range q.items[i:] {
		if !fn(it) {
			return
		}
	}
}
