// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"fulmar/fleet/ingest"
)

const (
	// maxSubscribers bounds open streams, maxOfOne those of one caller; each costs a
	// goroutine and a connection.
	maxSubscribers = 256
	maxOfOne       = 16
	// maxPast bounds the changes that are kept for readers that come back, as board names
	// with the version of their last change: all of a full server.
	maxPast = 50_000
)

// Hub tells streams which boards changed. Notify never blocks.
type Hub struct {
	mu      sync.Mutex
	version uint64 // rises with each change
	base    string // start of this process: versions of two runs never look alike
	subs    map[*sub]bool
	past    map[ingest.BoardKey]uint64 // version of the board's last change
	since   uint64                     // past holds all changes after this version
}

type sub struct {
	tenant, who string
	boards      map[string]bool
	wake        chan struct{} // 1-buffered
}

// NewHub makes a hub.
func NewHub() *Hub {
	return &Hub{base: strconv.FormatInt(time.Now().UnixMilli(), 36), subs: map[*sub]bool{}, past: map[ingest.BoardKey]uint64{}}
}

// Notify notes changed boards for all streams of their tenants.
func (h *Hub) Notify(keys []ingest.BoardKey) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.version++
	for _, k := range keys {
		h.past[k] = h.version
	}
	if len(h.past) > maxPast {
		clear(h.past) // readers that come back fetch everything anew
		h.since = h.version
	}
	for s := range h.subs {
		told := false
		for _, k := range keys {
			if k.Tenant == s.tenant {
				s.boards[k.Board] = true // at most as many as the tenant has boards
				told = true
			}
		}
		if told {
			select {
			case s.wake <- struct{}{}:
			default:
			}
		}
	}
}

func (h *Hub) id() string { return h.base + "-" + strconv.FormatUint(h.version, 10) }

// join adds a reader who has read up to last, and gives what changed since then; all is
// false where that is not known. A nil sub means that there are too many.
func (h *Hub) join(tenant, who, last string) (s *sub, id string, missed []string, all bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	mine := 0
	for s := range h.subs {
		if s.who == who {
			mine++
		}
	}
	if len(h.subs) >= maxSubscribers || mine >= maxOfOne {
		return nil, "", nil, false
	}
	s = &sub{tenant: tenant, who: who, boards: map[string]bool{}, wake: make(chan struct{}, 1)}
	h.subs[s] = true
	base, text := cutID(last)
	version, err := strconv.ParseUint(text, 10, 64)
	if err != nil || base != h.base || version < h.since || version > h.version {
		return s, h.id(), nil, false
	}
	for k, v := range h.past {
		if v > version && k.Tenant == tenant {
			missed = append(missed, k.Board)
		}
	}
	slices.Sort(missed)
	return s, h.id(), missed, true
}

func (h *Hub) leave(s *sub) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subs, s)
}

func (h *Hub) take(s *sub) (boards []string, id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	boards = slices.Sorted(maps.Keys(s.boards))
	clear(s.boards)
	return boards, h.id()
}
