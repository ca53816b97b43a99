// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/ingest"
	"fulmar/fleet/web"
)

// reader reads a stream in memory.
type reader struct {
	mu   sync.Mutex
	head http.Header
	text strings.Builder
	code int
}

func (r *reader) Header() http.Header { return r.head }
func (r *reader) WriteHeader(c int)   { r.code = c }
func (r *reader) Flush()              {}

func (r *reader) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

// take gives what came since it was last asked.
func (r *reader) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.text.String()
	r.text.Reset()
	return s
}

// follow opens a stream; ended is closed when it has ended.
func follow(ctx context.Context, h http.Handler, path, who, last string) (r *reader, ended chan struct{}) {
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "/api/v1/"+path, nil)
	req.Header.Set("Authorization", "Bearer "+who)
	req.Header.Set("Last-Event-ID", last)
	r, ended = &reader{head: http.Header{}}, make(chan struct{})
	go func() {
		defer close(ended)
		h.ServeHTTP(r, req)
	}()
	return r, ended
}

func keysOf(tenant string, names ...string) (out []ingest.BoardKey) {
	for _, n := range names {
		out = append(out, ingest.BoardKey{Tenant: tenant, Board: n})
	}
	return out
}

// TestStreams: who reads is told of the boards they see and asked for, goes on where
// they left off, and no longer than they may.
func TestStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, hub := newTown(), NewHub()
		var mu sync.Mutex
		out := false
		h, err := New(Config{Source: s, Hub: hub, Parse: parse, Caller: func(r *http.Request) (access.Caller, error) {
			mu.Lock()
			defer mu.Unlock()
			if out && strings.HasSuffix(r.Header.Get("Authorization"), "leaves") {
				return access.Caller{}, ErrNotLoggedIn
			}
			return people(r)
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		all, end := follow(ctx, h, "events", "viewer", "")
		limited, _ := follow(ctx, h, "events", "limited", "")
		sick, _ := follow(ctx, h, "events?q=sick", "viewer", "")
		leaver, left := follow(ctx, h, "events", "viewer-leaves", "")
		is := func(r *reader, want ...string) {
			t.Helper()
			synctest.Wait()
			got := r.take()
			for _, w := range want {
				if !strings.Contains(got, w) {
					t.Errorf("got %q, wants %q", got, w)
				}
			}
			if len(want) == 0 && strings.Contains(got, "data:") {
				t.Errorf("got %q, wants nothing", got)
			}
		}
		for _, r := range []*reader{all, limited, sick, leaver} {
			is(r, "event: reset\nid: "+hub.base+"-0\ndata: {}\n\n")
		}
		s.change(func(b []web.Board) []web.Board { // b1 is well again
			b[0].State = web.StateHealthy
			return b
		})
		hub.Notify(keysOf("default", "b1", "new"))
		hub.Notify(keysOf("other", "theirs"))
		is(all, `data: {"boards":["b1","new"]}`)
		is(limited, `data: {"boards":["b1"]}`)
		is(sick, `data: {"boards":["new"],"left":["b1"]}`)
		hub.Notify(keysOf("default", "new"))
		time.Sleep(streamPace)
		is(all, `data: {"boards":["new"]}`)
		is(limited)
		// Back after some changes, after none, after too long, and with another server's id.
		again, _ := follow(ctx, h, "events", "viewer", hub.base+"-1") // 2 was another tenant's
		is(again, "event: change\nid: "+hub.base+`-3`, `data: {"boards":["new"]}`)
		again, _ = follow(ctx, h, "events", "viewer", hub.base+"-3")
		is(again, ": up to date\n\n")
		for _, id := range []string{"x-3", hub.base + "-4", hub.base + "-x", "-", strings.Repeat("9", 999)} {
			again, _ = follow(ctx, h, "events", "viewer", id)
			is(again, "event: reset\n")
		}
		// The right is looked at again.
		mu.Lock()
		out = true
		mu.Unlock()
		time.Sleep(heartbeat + time.Second)
		synctest.Wait()
		select {
		case <-left:
		default:
			t.Error("the stream goes on after its reader lost the right")
		}
		is(all, ": still here\n\n")
		cancel()
		<-end
		synctest.Wait()
		if n := len(hub.subs); n > 0 {
			t.Errorf("%d readers are left behind", n)
		}
	})
}

// TestStreamsRefused: a stream that may not begin is a problem.
func TestStreamsRefused(t *testing.T) {
	t.Parallel()
	h := open(t, newTown())
	for path, c := range map[string][2]any{
		"events": {"nobody", 403}, "events?q=site%3D%3F": {"viewer", 400}, "events?x=1": {"viewer", 400}, "events?q=a&q=b": {"viewer", 400},
	} {
		if w := get(h, path, c[0].(string)); w.Code != c[1].(int) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if w := get(h, "events", ""); w.Code != 401 {
		t.Errorf("%d", w.Code)
	}
}

// TestPast: what is remembered for readers that come back is bounded.
func TestPast(t *testing.T) {
	t.Parallel()
	hub := NewHub()
	for i := range maxPast + 10 {
		hub.Notify(keysOf("default", fmt.Sprint(i)))
	}
	if n := len(hub.past); n > maxPast {
		t.Errorf("%d are kept", n)
	}
	_, _, missed, all := hub.join("default", "a", fmt.Sprintf("%s-%d", hub.base, maxPast+5))
	if want := []string{"50005", "50006", "50007", "50008", "50009"}; !all || !slices.Equal(missed, want) {
		t.Errorf("%v %q", all, missed)
	}
	if _, _, _, all := hub.join("default", "a", hub.base+"-5"); all {
		t.Error("what is forgotten is taken for known")
	}
}
