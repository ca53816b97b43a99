// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/fleet/web/words"
	"fulmar/schema"
)

// wire is the writing half of one connection.
type wire struct {
	mu     sync.Mutex
	head   http.Header
	code   int
	got    bytes.Buffer
	stuck  chan struct{} // not nil: a write waits for it
	dead   bool
	writes int
}

func newWire() *wire                             { return &wire{head: http.Header{}} }
func (w *wire) Header() http.Header              { return w.head }
func (w *wire) WriteHeader(c int)                { w.code = c }
func (w *wire) FlushError() error                { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

func (w *wire) Write(b []byte) (int, error) {
	if w.stuck != nil {
		<-w.stuck
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return 0, errors.New("connection reset")
	}
	w.writes++
	return w.got.Write(b)
}

func (w *wire) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.got.String()
}

// counter is a Build whose one value counts the readings.
type counter struct {
	mu     sync.Mutex
	builds int
	asked  int // views, over all readings
	broken bool
}

func (c *counter) build(_ context.Context, keys []Key) map[Key]*Sheet {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.builds++
	c.asked += len(keys)
	out := map[Key]*Sheet{}
	for _, k := range keys {
		if c.broken {
			continue
		}
		s := NewSheet(time.Now().UTC())
		s.Text("n", strconv.Itoa(c.builds))
		s.Text("still", "same")
		s.Shape("part", c.builds/10)
		out[k] = s
	}
	return out
}

// readings tells how often build was called.
func (c *counter) readings() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.builds
}

func hub(c *counter, viewers int) *Hub {
	return New(Config{Tick: time.Second, MaxViewers: viewers, Log: slog.New(slog.DiscardHandler)}, c.build)
}

// look starts a viewer; the channel closes when its stream has ended.
func look(ctx context.Context, h *Hub, w http.ResponseWriter, view string, still func() bool) chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.Serve(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/live", nil), Key{Tenant: "main", View: view}, still)
	}()
	return done
}

func always() bool { return true }

func TestOneReadingForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := &counter{}
		h := hub(c, 10)
		go h.Run(ctx)
		var wires []*wire
		for range 5 {
			w := newWire()
			wires = append(wires, w)
			look(ctx, h, w, "/", always)
		}
		synctest.Wait()
		joined := c.readings()
		time.Sleep(3*time.Second + 100*time.Millisecond)
		synctest.Wait()
		if got := c.readings() - joined; got != 3 {
			t.Errorf("%d readings in 3 ticks for 5 viewers", got)
		}
		frames := strings.Split(strings.TrimSpace(wires[0].text()), "\n\n")
		if len(frames) != 5 || frames[0] != "retry: 3000" {
			t.Fatalf("frames %q", frames)
		}
		var first, next message
		for i, m := range []*message{&first, &next} {
			if err := json.Unmarshal([]byte(strings.TrimPrefix(frames[1+i], "data: ")), &struct {
				V *map[string][]any  `json:"v"`
				P *map[string]string `json:"p"`
			}{V: &map[string][]any{}, P: &m.Parts}); err != nil {
				t.Fatal(err)
			}
		}
		if !strings.Contains(frames[1], `"still":["same"]`) || strings.Contains(frames[2], "still") || !strings.Contains(frames[2], `"n":[`) {
			t.Errorf("the first frame has all, the next what changed:\n%s\n%s", frames[1], frames[2])
		}
		if first.Parts["part"] == "" || next.Parts != nil {
			t.Errorf("parts %v, then %v", first.Parts, next.Parts)
		}
		cancel()
		synctest.Wait()
		if h.Viewers() != 0 {
			t.Errorf("%d viewers after the end", h.Viewers())
		}
	})
}

func TestNobodyLooksNothingIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := &counter{}
		h := hub(c, 10)
		go h.Run(ctx)
		time.Sleep(10 * time.Second)
		if c.readings() != 0 {
			t.Errorf("%d readings for nobody", c.readings())
		}
		viewer, leave := context.WithCancel(ctx)
		done := look(viewer, h, newWire(), "/", always)
		time.Sleep(2500 * time.Millisecond) // between two readings
		leave()
		<-done
		before := c.readings()
		time.Sleep(10 * time.Second)
		if c.readings() != before {
			t.Errorf("%d readings after the last viewer left", c.readings()-before)
		}
		cancel()
	})
}

func TestSlowReaderIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		h := hub(&counter{}, 10)
		go h.Run(ctx)
		slow, fast := newWire(), newWire()
		slow.stuck = make(chan struct{})
		gone := look(ctx, h, slow, "/", always)
		look(ctx, h, fast, "/", always)
		time.Sleep((pending + 3) * time.Second)
		synctest.Wait()
		if h.Viewers() != 1 {
			t.Errorf("%d viewers, the slow one is still there", h.Viewers())
		}
		if n := strings.Count(fast.text(), "data: {\"at\""); n < pending+3 {
			t.Errorf("the fast one got %d frames", n)
		}
		close(slow.stuck)
		<-gone
		cancel()
	})
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		h := hub(&counter{}, 2)
		running := make(chan struct{})
		go func() { defer close(running); _ = h.Run(ctx) }()
		first, leave := context.WithCancel(ctx)
		one := look(first, h, newWire(), "/", always)
		look(ctx, h, newWire(), "/boards/a", always)
		synctest.Wait()
		w := httptest.NewRecorder()
		<-look(ctx, h, w, "/", always)
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Errorf("the third of two viewers got %d", w.Code)
		}
		leave()
		<-one
		look(ctx, h, newWire(), "/", always)
		synctest.Wait()
		if h.Viewers() != 2 {
			t.Errorf("%d viewers: the place of one that left is not free", h.Viewers())
		}
		cancel()
		<-running
		w = httptest.NewRecorder()
		<-look(context.Background(), h, w, "/", always)
		if w.Code != http.StatusServiceUnavailable {
			t.Errorf("after the stop: %d", w.Code)
		}
	})
}

func TestBeatAndBye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		h := hub(&counter{}, 2) // not running: nothing but beats
		w := newWire()
		var allowed atomic.Bool
		allowed.Store(true)
		done := look(ctx, h, w, "/", allowed.Load)
		time.Sleep(beatEvery + time.Second)
		synctest.Wait()
		if !strings.Contains(w.text(), "event: beat") {
			t.Errorf("no beat in %v: %q", beatEvery, w.text())
		}
		allowed.Store(false) // logged out elsewhere
		time.Sleep(beatEvery)
		<-done
		if !strings.HasSuffix(w.text(), "event: bye\ndata: {}\n\n") {
			t.Errorf("a stream without a session ends with %q", w.text())
		}
	})
}

func TestTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := &counter{}
		h := hub(c, 2)
		go h.Run(ctx)
		w := newWire()
		look(ctx, h, w, "/", always)
		synctest.Wait()
		c.mu.Lock()
		c.broken = true
		c.mu.Unlock()
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		if !strings.HasSuffix(w.text(), "event: trouble\ndata: {}\n\n") {
			t.Errorf("with a broken source: %q", w.text())
		}
		none := httptest.NewRecorder()
		<-look(ctx, h, none, "/", always)
		if none.Code != http.StatusServiceUnavailable {
			t.Errorf("joining a broken view: %d", none.Code)
		}
		cancel()
	})
}

func TestSheet(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 21, 14, 2, 11, 0, time.UTC)
	s := NewSheet(at)
	for _, c := range []struct {
		name, got, want string
	}{
		{"text", string(s.Text(`a"b`, `<script>&`)), `<span data-v="a&#34;b">&lt;script&gt;&amp;</span>`},
		{"age", string(s.Ago("x", at.Add(-12*time.Second))), `<time data-v="x" data-at="1795269719000" title="14:01:59" datetime="2026-11-21T14:01:59Z">12` + "\u00a0" + `s ago</time>`},
		{"never", string(s.Ago("x", time.Time{})), `<span data-v="x">never</span>`},
		{"good", string(s.Reading("x", 61.2, schema.QualityGood, at, words.UnitCelsius)), `<span data-v="x" data-at="1795269731000" title="14:02:11">61.2` + "\u00a0" + `°C</span>`},
		{"old", string(s.Reading("x", 1, schema.QualityGood, at.Add(-2*time.Minute), words.UnitWatts)), `<span data-v="x" data-at="1795269611000" title="14:00:11" data-age="2` + "\u00a0" + `min ago" class="stale">1.0` + "\u00a0" + `W</span>`},
		{"offline", string(s.Reading("x", 0, schema.QualityOffline, at, words.UnitCelsius)), `<span data-v="x" data-at="1795269731000" title="14:02:11" class="off">offline</span>`},
		{"absent", string(s.Absent("x")), `<span data-v="x" class="off">not sent</span>`},
	} {
		if c.got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.name, c.got, c.want)
		}
	}
	if b, _ := json.Marshal(Value{Text: "a</script>", At: 7}); string(b) != `["a\u003c/script\u003e",7]` {
		t.Errorf("an age as JSON: %s", b)
	}
	if b, _ := json.Marshal(Value{Text: "1.0 W", At: 5, Class: "stale", Num: 1, IsNum: true}); string(b) != `["1.0 W",5,"stale",1]` {
		t.Errorf("a number as JSON: %s", b)
	}
}
