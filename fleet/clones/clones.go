// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package clones finds two boards that use one identity: a disk that was copied with
// the key on it.
//
// Each says hello with the boot of its own kernel, and a boot that is over does not come
// back. So a board that says hello with boot A, then B, then A again, is two. It takes
// two such returns within an hour, for a virtual machine put back to an earlier state
// brings one. Two that share a kernel (containers) have one boot and are not found.
package clones

import (
	"slices"
	"sync"
	"time"

	"fulmar/fleet/ingest"
)

const (
	// window is how long a return counts, and how long two boards are told of after the
	// last one.
	window = time.Hour
	// enough returns within window make two boards.
	enough = 2
	// boots remembered of each board: copies made of one disk.
	boots = 4
	// maxBoards bounds those remembered: as many as may connect. 100 bytes each.
	maxBoards = 50_000
)

// Clone is a board that is two.
type Clone struct {
	Board   string
	Since   time.Time // first return of this time
	Last    time.Time // newest
	Returns int       // since then
}

type board struct {
	boots   [boots]uint64 // newest first
	returns int
	since   time.Time
	last    time.Time
}

// Watch remembers the boots of boards. Its methods may be called from several goroutines.
type Watch struct {
	now func() time.Time

	mu sync.Mutex
	by map[ingest.BoardKey]*board
}

// New makes a watch.
func New() *Watch { return &Watch{now: time.Now, by: map[ingest.BoardKey]*board{}} }

// Heard notes the boot of a hello (0: the board could not tell), and tells when it is
// found out that a board is two.
func (w *Watch) Heard(key ingest.BoardKey, boot uint64) (found bool) {
	if boot == 0 {
		return false
	}
	now := w.now()
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.by[key]
	if b == nil {
		if len(w.by) >= maxBoards {
			return false
		}
		b = &board{}
		w.by[key] = b
	}
	i := slices.Index(b.boots[:], boot)
	switch {
	case i == 0:
		return false
	case i > 0: // it was over
		if now.Sub(b.last) > window {
			b.returns, b.since = 0, now
		}
		b.returns, b.last = b.returns+1, now
		copy(b.boots[1:i+1], b.boots[:i])
	default:
		copy(b.boots[1:], b.boots[:])
	}
	b.boots[0] = boot
	return i > 0 && b.returns == enough
}

// Forget lets a board go that was removed.
func (w *Watch) Forget(key ingest.BoardKey) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.by, key)
}

// Clones lists a tenant's boards that are two, by name.
func (w *Watch) Clones(tenant string) (out []Clone) {
	now := w.now()
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, b := range w.by {
		if k.Tenant == tenant && b.returns >= enough && now.Sub(b.last) <= window {
			out = append(out, Clone{Board: k.Board, Since: b.since, Last: b.last, Returns: b.returns})
		}
	}
	slices.SortFunc(out, func(a, b Clone) int {
		if a.Board < b.Board {
			return -1
		}
		return 1
	})
	return out
}
