// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"fulmar/fleet/ingest"
)

const (
	// maxSubscribers bounds open streams; each costs a goroutine and a connection.
	maxSubscribers = 256
	// streamPace is the shortest time between two events of one stream: boards
	// that change in between are told together.
	streamPace = 500 * time.Millisecond
	// heartbeat keeps proxies from closing a quiet stream, and is when the
	// reader's right is checked again.
	heartbeat = 15 * time.Second
	// writeTimeout is how long a reader may be too slow to take an event.
	writeTimeout = 10 * time.Second
)

// Hub tells streams which boards changed. Notify never blocks.
type Hub struct {
	mu      sync.Mutex
	version uint64 // rises with each change
	base    int64  // start of this process: versions of two runs never look alike
	subs    map[*sub]bool
}

type sub struct {
	tenant string
	boards map[string]bool
	wake   chan struct{} // 1-buffered
}

// NewHub makes a hub.
func NewHub() *Hub { return &Hub{base: time.Now().UnixMilli(), subs: map[*sub]bool{}} }

// Notify notes changed boards for all streams of their tenants.
func (h *Hub) Notify(keys []ingest.BoardKey) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.version++
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

func (h *Hub) id() string {
	return strconv.FormatInt(h.base, 36) + "-" + strconv.FormatUint(h.version, 10)
}

func (h *Hub) join(tenant string) (*sub, string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.subs) >= maxSubscribers {
		return nil, "", errInput("too many streams are open; close one")
	}
	s := &sub{tenant: tenant, boards: map[string]bool{}, wake: make(chan struct{}, 1)}
	h.subs[s] = true
	return s, h.id(), nil
}

func (h *Hub) leave(s *sub) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subs, s)
}

func (h *Hub) take(s *sub) (boards []string, id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for b := range s.boards {
		boards = append(boards, b)
	}
	clear(s.boards)
	slices.Sort(boards)
	return boards, h.id()
}

// events streams changes as server-sent events. A reader that comes back with the
// Last-Event-ID of now has missed nothing; any other is told to fetch everything
// anew (event "reset").
func (h *Handler) events(w http.ResponseWriter, r *http.Request, tenant string) error {
	s, id, err := h.hub.join(tenant)
	if err != nil {
		return err
	}
	defer h.hub.leave(s)
	rc := http.NewResponseController(w)
	send := func(text string) error {
		if err := rc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		if _, err := w.Write([]byte(text)); err != nil {
			return err
		}
		return rc.Flush()
	}
	w.Header().Set("Content-Type", "text/event-stream")
	first := "event: reset\nid: " + id + "\ndata: {}\n\n"
	if r.Header.Get("Last-Event-ID") == id {
		first = ": up to date\n\n"
	}
	if send(first) != nil {
		return nil
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	pace := time.NewTimer(0)
	defer pace.Stop()
	for {
		select {
		case <-r.Context().Done():
			return nil
		case <-beat.C:
			if _, err := h.auth.Reader(r); err != nil {
				return nil // logged out or expired meanwhile
			}
			err = send(": still here\n\n")
		case <-s.wake:
			select {
			case <-pace.C:
			case <-r.Context().Done():
				return nil
			}
			boards, id := h.hub.take(s)
			data, _ := json.Marshal(map[string]any{"boards": boards})
			err = send(fmt.Sprintf("event: change\nid: %s\ndata: %s\n\n", id, data))
			pace.Reset(streamPace)
		}
		if err != nil {
			return nil // the reader has gone or is too slow
		}
	}
}
