// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package presence remembers which boards are there, as far as is known, and tells one coming
// of a board from another: what was sent in the one may be lost in the next.
package presence

import "sync"

// Board names one.
type Board struct{ Tenant, Name string }

// Boards are those that are there. Its methods may be called by several goroutines; none
// waits for more than the others.
type Boards struct {
	mu   sync.Mutex
	last uint64
	new  map[Board]struct{} // came since Fresh was asked
	here map[Board]uint64   // by the number of its coming, which no other coming has
}

// Came notes that a board is there, or there again.
func (b *Boards) Came(k Board) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.here == nil {
		b.new, b.here = map[Board]struct{}{}, map[Board]uint64{}
	}
	b.last++
	b.new[k], b.here[k] = struct{}{}, b.last
}

// Here tells whether a board is there, and the number of its coming.
func (b *Boards) Here(k Board) (coming uint64, is bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	coming, is = b.here[k]
	return coming, is
}

// Gone notes that a board is not there any more, unless it came again after that coming.
func (b *Boards) Gone(k Board, coming uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.here[k] == coming {
		delete(b.here, k)
		delete(b.new, k)
	}
}

// Fresh calls fn for each that came since it was asked last. fn must not ask for boards.
func (b *Boards) Fresh(fn func(Board)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k := range b.new {
		fn(k)
	}
	clear(b.new)
}
