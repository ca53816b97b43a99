// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"fulmar/fleet/ingest"
	"fulmar/schema"
)

// TestStorm: 5,000 boards find the fleet back within two seconds. After the burst no
// second lets in more than its share, nobody is asked to stay away twice who obeys,
// and all are in after the time they need at that pace and the spread on top of it.
func TestStorm(t *testing.T) {
	t.Parallel()
	const boards = 5000
	d := newDoor()
	rate := perCore * runtime.GOMAXPROCS(0)
	draw := rand.New(rand.NewPCG(1, 2))
	t0 := time.Unix(1000, 0)
	window := boards * time.Second / time.Duration(rate)
	type board struct {
		key  ingest.BoardKey
		at   time.Time
		away int
	}
	var out []*board
	for i := range boards {
		out = append(out, &board{key: ingest.BoardKey{Tenant: "default", Board: fmt.Sprintf("b%d", i)}, at: t0.Add(time.Duration(draw.Int64N(int64(2 * time.Second))))})
	}
	in := map[int]int{} // by second
	for now := t0; len(out) > 0; now = now.Add(10 * time.Millisecond) {
		if now.Sub(t0) > 3*window {
			t.Fatalf("%d boards are still out after %v", len(out), now.Sub(t0))
		}
		left := out[:0]
		for _, b := range out {
			switch wait := time.Duration(0); {
			case b.at.After(now):
				left = append(left, b)
			default:
				if wait = d.ask(b.key, now); wait == 0 {
					in[int(now.Sub(t0)/time.Second)]++
					continue
				}
				if b.away++; b.away > 1 {
					t.Fatalf("a board that obeyed was sent away %d times", b.away)
				}
				b.at = now.Add(wait + time.Duration(draw.Int64N(int64(window))))
				left = append(left, b)
			}
		}
		out = left
	}
	for second, n := range in {
		if second > 2 && n > rate+rate/4 {
			t.Errorf("second %d let in %d boards, wants about %d", second, n, rate)
		}
	}
	if len(d.promised) != 0 {
		t.Errorf("%d promises are left", len(d.promised))
	}
}

// TestTooEarly: a board that comes back before its time is sent away again, and its
// promise stands.
func TestTooEarly(t *testing.T) {
	t.Parallel()
	d := newDoor()
	now := time.Unix(1000, 0)
	key := ingest.BoardKey{Tenant: "default", Board: "b1"}
	for i := 0; d.ask(ingest.BoardKey{Board: fmt.Sprint(i)}, now) == 0; i++ {
	}
	wait := d.ask(key, now)
	if again := d.ask(key, now.Add(wait/2)); again != wait-wait/2 {
		t.Errorf("told to wait %v, then, half of it later, %v", wait, again)
	}
	if again := d.ask(key, now.Add(wait)); again != 0 {
		t.Errorf("in time it was told to wait %v", again)
	}
}

// TestSlow: a board that sends without end is read from at its rate.
func TestSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &session{rate: meter{every: time.Second / boardRate, burst: boardBurst * time.Second / boardRate}}
		begin := time.Now()
		for range boardBurst + 10*boardRate {
			if !s.slow(t.Context()) {
				t.Fatal("stopped")
			}
		}
		if d := time.Since(begin); d < 9900*time.Millisecond || d > 10100*time.Millisecond {
			t.Errorf("%d messages took %v, wants 10 s", boardBurst+10*boardRate, d)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if s.slow(ctx) {
			t.Error("a gateway that stops waited for a board")
		}
	})
}

// TestSentAway: over the wire, a board beyond the pace is told when to come back, and
// nothing of its hello is stored; the bound of its rate reaches it, also later.
func TestSentAway(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	h.gate.rate.Store(64 << 10)
	cert := h.enrol(t, "b1")
	c := h.connect(t, "b1", &cert)
	got := make(chan []byte, 4)
	if err := finish(c.Subscribe("f/v1/default/b1/hello/ack", 1, func(_ mqtt.Client, m mqtt.Message) { got <- m.Payload() })); err != nil {
		t.Fatal(err)
	}
	hello := func() (a schema.HelloAck) {
		t.Helper()
		p, err := schema.Encode(&schema.Hello{V: 1, Board: "b1", Conn: 9, Now: schema.Time{Boot: 7}})
		if err != nil {
			t.Fatal(err)
		}
		if err := finish(c.Publish("f/v1/default/b1/hello", 1, false, p)); err != nil {
			t.Fatal(err)
		}
		if err := schema.Decode(wait(t, got), &a); err != nil {
			t.Fatal(err)
		}
		return a
	}
	h.gate.door.mu.Lock()
	h.gate.door.meter = meter{every: 30 * time.Second}
	h.gate.door.mu.Unlock()
	if a := hello(); a.RetryAfterMs < 29_000 || a.RetryAfterMs > 30_000 || h.gate.Stats().SentAway != 1 {
		t.Fatalf("%+v, %d sent away", a, h.gate.Stats().SentAway)
	}
	var n int
	if err := h.db.Read.QueryRow("SELECT count(*) FROM board").Scan(&n); err != nil || n != 0 {
		t.Fatalf("%d boards are stored, %v", n, err)
	}
	h.gate.door.mu.Lock()
	clear(h.gate.door.promised)
	h.gate.door.meter = meter{every: time.Millisecond, burst: time.Hour}
	h.gate.door.mu.Unlock()
	if a := hello(); a.RetryAfterMs != 0 || a.Rate != 64<<10 || a.ReconnectMs != minWindow.Milliseconds() {
		t.Fatalf("%+v", a)
	}
	h.gate.SetRate(1000)
	var a schema.HelloAck
	if err := schema.Decode(wait(t, got), &a); err != nil || a.Rate != 1000 || a.Conn != 9 || a.RetryAfterMs != 0 {
		t.Fatalf("%+v, %v", a, err)
	}
}

// TestWindowByBoards: the window is by the boards that are known, also where none is
// connected yet.
func TestWindowByBoards(t *testing.T) {
	t.Parallel()
	rate := perCore * runtime.GOMAXPROCS(0)
	for boards, want := range map[int]time.Duration{0: minWindow, 60 * rate: time.Minute, 1 << 30: maxWindow} {
		g := &Gateway{admit: census{boards: boards}, ctx: t.Context()}
		if w := g.window(); w != want {
			t.Errorf("%d boards: %v, wants %v", boards, w, want)
		}
	}
}

type census struct {
	Admitter
	boards int
}

func (c census) Known(context.Context) (int, error) { return c.boards, nil }

// strangers is a listener at which as many as one likes connect and say nothing.
type strangers struct {
	mu     sync.Mutex
	taken  int
	open   int
	most   int
	closed chan struct{}
}

func (s *strangers) Accept() (net.Conn, error) {
	select {
	case <-s.closed:
		return nil, net.ErrClosed
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken++
	s.open++
	s.most = max(s.most, s.open)
	here, _ := net.Pipe()
	return &stranger{Conn: here, at: s}, nil
}

func (s *strangers) Close() error   { close(s.closed); return nil }
func (s *strangers) Addr() net.Addr { return &net.TCPAddr{} }

type stranger struct {
	net.Conn
	at   *strangers
	once sync.Once
}

func (c *stranger) Close() error {
	c.once.Do(func() {
		c.at.mu.Lock()
		c.at.open--
		c.at.mu.Unlock()
	})
	return c.Conn.Close()
}

// TestHandshakesAreBounded: strangers that connect and say nothing hold a bounded
// number of places, each for a bounded time.
func TestHandshakesAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &strangers{closed: make(chan struct{})}
		denied := atomic.Int64{}
		l := newListener(s, &tls.Config{MinVersion: tls.VersionTLS13}, func() { denied.Add(1) }, func(net.Conn) {})
		go l.Serve(func(string, net.Conn) error { t.Error("a stranger became a session"); return nil })
		time.Sleep(3*handshakeTimeout + time.Second)
		s.mu.Lock()
		if s.most > maxHandshakes+1 || s.taken < 3*maxHandshakes || s.taken > 5*maxHandshakes {
			t.Errorf("%d strangers were taken in %v, %d at one time", s.taken, 3*handshakeTimeout, s.most)
		}
		s.mu.Unlock()
		if n := denied.Load(); n < 3*maxHandshakes {
			t.Errorf("%d were turned away", n)
		}
		l.Close(func(string) {})
	})
}

func wait(t *testing.T, c <-chan []byte) []byte {
	t.Helper()
	select {
	case b := <-c:
		return b
	case <-time.After(10 * time.Second):
		t.Fatal("no answer from the fleet")
		return nil
	}
}
