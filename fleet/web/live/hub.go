// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package live keeps served pages fresh: one stream of server-sent events for each
// viewer, one reading and one encoding for all viewers of a view.
//
// A viewer gets the whole sheet when it joins and then what changed. One that does
// not keep up is dropped and joins anew: nothing is ever queued for long, and no
// viewer delays another. There is nothing to resume, for a sheet is a state and
// not a history.
package live

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	// beatEvery is how often a quiet stream says that it lives, and how often the
	// session behind it is checked.
	beatEvery = 15 * time.Second
	// writeTimeout ends a viewer whose connection takes nothing any more.
	writeTimeout = 10 * time.Second
	// pending is how many frames wait for one viewer; with one a second, a viewer
	// this far behind is better served by a fresh start.
	pending = 8
	// buildTimeout bounds one reading for all views.
	buildTimeout = 10 * time.Second
)

// Key is one view as the people of one role of a tenant see it.
type Key struct {
	Tenant string
	Role   string
	Who    string // "" for a view that all of the role share
	View   string // path and query
}

// Build makes the sheets of all views that are looked at. A view that cannot be
// made is left out; its viewers are told.
type Build func(ctx context.Context, keys []Key) map[Key]*Sheet

// Config shapes a hub.
type Config struct {
	Tick       time.Duration // how often sheets are built
	MaxViewers int
	Log        *slog.Logger
}

// Hub serves live streams.
type Hub struct {
	cfg   Config
	build Build

	mu      sync.Mutex
	feeds   map[Key]*feed
	viewers int
	stopped bool
}

// feed is one view that somebody looks at.
type feed struct {
	sheet   *Sheet
	full    []byte // the frame of the whole sheet, made when first needed
	viewers map[*viewer]struct{}
}

// viewer is one stream. Closing ch ends it.
type viewer struct{ ch chan []byte }

// New makes a hub.
func New(cfg Config, build Build) *Hub {
	return &Hub{cfg: cfg, build: build, feeds: map[Key]*feed{}}
}

// Run builds and sends until the context ends, then ends all streams.
func (h *Hub) Run(ctx context.Context) error {
	t := time.NewTicker(h.cfg.Tick)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			h.tick(ctx)
		case <-ctx.Done():
			h.stop()
			return nil
		}
	}
}

// Viewers tells how many streams are open.
func (h *Hub) Viewers() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.viewers
}

func (h *Hub) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	for k, f := range h.feeds {
		for v := range f.viewers {
			h.drop(k, f, v)
		}
	}
}

// drop ends a viewer and the feed with its last one. The lock is held.
func (h *Hub) drop(k Key, f *feed, v *viewer) {
	if _, ok := f.viewers[v]; !ok {
		return
	}
	delete(f.viewers, v)
	close(v.ch)
	h.viewers--
	if len(f.viewers) == 0 {
		delete(h.feeds, k)
	}
}

// tick builds all views once, without the lock, and sends what changed.
func (h *Hub) tick(ctx context.Context) {
	h.mu.Lock()
	keys := slices.Collect(maps.Keys(h.feeds))
	h.mu.Unlock()
	if len(keys) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	sheets := h.build(ctx, keys)
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range keys {
		f := h.feeds[k]
		if f == nil {
			continue // the last viewer left meanwhile
		}
		out := []byte("event: trouble\ndata: {}\n\n")
		if s := sheets[k]; s != nil {
			out = encode(frame(f.sheet, s))
			f.sheet, f.full = s, nil
		}
		for v := range f.viewers {
			select {
			case v.ch <- out:
			default: // too slow: it joins anew and starts from the whole sheet
				h.drop(k, f, v)
			}
		}
	}
}

// message is one frame.
type message struct {
	At    int64             `json:"at"`
	Clock string            `json:"clock"`
	Vals  map[string]Value  `json:"v,omitempty"`
	Parts map[string]string `json:"p,omitempty"`
}

// frame gives what changed from old to fresh; all when there is no old one.
func frame(old, fresh *Sheet) message {
	m := message{At: fresh.At.UnixMilli(), Clock: fresh.At.Format("15:04:05 MST"), Vals: fresh.Vals, Parts: fresh.Hash}
	if old == nil {
		return m
	}
	m.Vals, m.Parts = changed(old.Vals, fresh.Vals), changed(old.Hash, fresh.Hash)
	return m
}

func changed[V comparable](old, fresh map[string]V) map[string]V {
	out := map[string]V{}
	for k, v := range fresh {
		if o, ok := old[k]; !ok || o != v {
			out[k] = v
		}
	}
	return out
}

func encode(m message) []byte {
	b, err := json.Marshal(m)
	if err != nil { // texts and finite numbers: only a NaN from a broken source gets here
		return []byte("event: trouble\ndata: {}\n\n")
	}
	return fmt.Appendf(nil, "data: %s\n\n", b)
}

// join adds a viewer whose first frame is the whole sheet; nil when there are too
// many or the hub has stopped.
func (h *Hub) join(k Key, fresh *Sheet) *viewer {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped || h.viewers >= h.cfg.MaxViewers {
		return nil
	}
	f := h.feeds[k]
	if f == nil {
		f = &feed{sheet: fresh, viewers: map[*viewer]struct{}{}}
		h.feeds[k] = f
	}
	if f.full == nil {
		f.full = encode(frame(nil, f.sheet))
	}
	v := &viewer{ch: make(chan []byte, pending)}
	v.ch <- f.full
	f.viewers[v] = struct{}{}
	h.viewers++
	return v
}

func (h *Hub) leave(k Key, v *viewer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f := h.feeds[k]; f != nil {
		h.drop(k, f, v)
	}
}

// Serve streams a view until the viewer leaves, is too slow, or still says that it
// may no longer look.
func (h *Hub) Serve(w http.ResponseWriter, r *http.Request, k Key, still func() bool) {
	fresh := h.build(r.Context(), []Key{k})[k]
	if fresh == nil {
		http.Error(w, "this view cannot be read right now", http.StatusServiceUnavailable)
		return
	}
	v := h.join(k, fresh)
	if v == nil {
		w.Header().Set("Retry-After", "10")
		http.Error(w, "too many live viewers; the page itself works, reload it for new values", http.StatusServiceUnavailable)
		return
	}
	defer h.leave(k, v)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	out := http.NewResponseController(w)
	send := func(b []byte) bool {
		if err := out.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			h.cfg.Log.Error("live stream without a deadline refused", "err", err)
			return false
		}
		_, err := w.Write(b)
		return err == nil && out.Flush() == nil
	}
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	for ok := send([]byte("retry: 3000\n\n")); ok; {
		select {
		case b, open := <-v.ch:
			ok = open && send(b)
		case <-beat.C:
			if !still() {
				send([]byte("event: bye\ndata: {}\n\n"))
				return
			}
			ok = send([]byte("event: beat\ndata: {}\n\n"))
		case <-r.Context().Done():
			return
		}
	}
}
