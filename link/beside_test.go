// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/link/linktest"
	"fulmar/schema"
)

// diary notes what happens to a session, in its order.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) say(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
}

func (d *diary) all() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.lines)
}

// aside is a session's config that hears all channels and notes what comes.
func aside(b *linktest.Broker, d *diary) Config {
	cfg := config(b)
	cfg.Filters = []schema.Channel{schema.ChanTwinDown, schema.ChanCommand, schema.ChanKeys}
	cfg.Inbox = func(m Down) { d.say("%s %s %s", m.Channel, m.Tail, m.Payload) }
	cfg.Heard = func(a schema.HelloAck) { d.say("heard %d", a.Wall) }
	cfg.Connected = func(ctx context.Context, _ uint64) {
		d.say("up")
		<-ctx.Done()
		d.say("down")
	}
	return cfg
}

// TestInbox: what the fleet says on the filters comes with its tail, after its word on
// the time that was sent before it, and only what is this board's.
func TestInbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		var hello atomic.Pointer[schema.Hello]
		b := linktest.New(t)
		b.Hello = &schema.HelloAck{Wall: 77}
		b.Take = func(tp schema.Topic, p []byte) error {
			h := new(schema.Hello)
			if tp.Channel == schema.ChanHello && schema.Decode(p, h) == nil {
				hello.Store(h)
			}
			return nil
		}
		cfg := aside(b, &d)
		cfg.Keys = func() uint64 { return 5 }
		start(t, cfg, newMemory())
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, topic := range []string{"dock-1/tw/d", "dock-1/c/00ff", "dock-1/keys", "dock-2/tw/d", "dock-1/ota/d", "dock-1/c/00ff/r"} {
			if err := b.Publish("f/v1/default/"+topic, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		b.SetCut(true)
		time.Sleep(time.Second)
		if got, want := d.all(), []string{"heard 77", "up", "tw/d  x", "c/ 00ff x", "keys  x", "down"}; !slices.Equal(got, want) {
			t.Errorf("%q, wants %q", got, want)
		}
		if h := hello.Load(); h == nil || h.Keys != 5 {
			t.Errorf("hello %+v", h)
		}
	})
}

// TestSend: nil comes after the fleet has it and not before; without a connection there
// is an error at once, and where it ends meanwhile too.
func TestSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := linktest.New(t)
		var stored atomic.Int64
		b.Take = func(tp schema.Topic, _ []byte) error {
			if tp.Channel == schema.ChanTwinUp || tp.Channel == schema.ChanResult {
				time.Sleep(300 * time.Millisecond)
				stored.Add(1)
			}
			return nil
		}
		var d diary
		s, err := New(aside(b, &d), newMemory(), newMemory())
		if err != nil {
			t.Fatal(err)
		}
		send := func(ch schema.Channel, tail string) (time.Duration, error) {
			began := time.Now()
			err := s.Send(t.Context(), ch, tail, []byte("x"))
			return time.Since(began), err
		}
		if took, err := send(schema.ChanTwinUp, ""); !errors.Is(err, ErrDown) || took != 0 {
			t.Errorf("before any connection: %v after %v", err, took)
		}
		stop := running(t, s)
		time.Sleep(time.Minute)
		if took, err := send(schema.ChanTwinUp, ""); err != nil || took < 300*time.Millisecond || stored.Load() != 1 {
			t.Errorf("%v after %v, %d stored", err, took, stored.Load())
		}
		if _, err := send(schema.ChanResult, "00ff"); err != nil || stored.Load() != 2 {
			t.Errorf("a result: %v, %d stored", err, stored.Load())
		}
		for _, bad := range [][2]string{{"tw/d", ""}, {"tw/r", "x"}, {"c/+/r", ""}, {"c/+/r", "A/b"}, {"t/", "host"}, {"hello", ""}} {
			if _, err := send(schema.Channel(bad[0]), bad[1]); err == nil || errors.Is(err, ErrDown) {
				t.Errorf("%q: %v", bad, err)
			}
		}
		time.AfterFunc(100*time.Millisecond, func() { b.SetCut(true) })
		if took, err := send(schema.ChanTwinUp, ""); !errors.Is(err, ErrDown) || took > time.Second {
			t.Errorf("the connection was cut: %v after %v", err, took)
		}
		if took, err := send(schema.ChanTwinUp, ""); !errors.Is(err, ErrDown) || took != 0 {
			t.Errorf("after the cut: %v after %v", err, took)
		}
		b.SetCut(false)
		time.Sleep(time.Minute)
		stopped := time.AfterFunc(100*time.Millisecond, func() { stop() })
		defer stopped.Stop()
		if _, err := send(schema.ChanTwinUp, ""); err != nil && !errors.Is(err, ErrDown) {
			t.Errorf("on a stop: %v", err)
		}
		if took, err := send(schema.ChanTwinUp, ""); !errors.Is(err, ErrDown) || took > time.Second {
			t.Errorf("after the stop: %v after %v", err, took)
		}
	})
}

// running runs a session until the test ends or the function is called.
func running(t *testing.T, s *Session) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { _ = s.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return func() { cancel(); <-done }
}

// TestSendTakesNoRoom: with the records' window full and nothing of it acknowledged a
// word on the twin still goes out, and with eight words on the way records do.
func TestSendTakesNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		b, m := linktest.New(t), newMemory()
		mode := schema.AckFleet // PUBACKs come, and free nothing
		cfg := aside(b, &d)
		cfg.Mode, cfg.Window, cfg.AckTimeout = &mode, 4, time.Hour
		for range 1000 {
			m.add(schema.ClassEvent, make([]byte, 16000))
		}
		s := start(t, cfg, m)
		time.Sleep(time.Minute)
		if st := s.Status(); st.InFlight < 3 {
			t.Fatalf("the window is not full: %+v", st)
		}
		began := time.Now()
		if err := s.Send(t.Context(), schema.ChanTwinUp, "", []byte("x")); err != nil || time.Since(began) > time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if st := s.Status(); st.InFlight < 3 || st.Acked != 0 {
			t.Errorf("it changed the records' account: %+v", st)
		}
	})
}

// slowDisk gives its records late, so that what goes beside them is always sent first.
type slowDisk struct{ *memory }

func (d slowDisk) Read(c schema.Class, from uint64, maxRecords, maxBytes int) ([]schema.Stored, error) {
	time.Sleep(20 * time.Millisecond)
	return d.memory.Read(c, from, maxRecords, maxBytes)
}

// TestHangUpBeside: a broker that hangs up at each word on the twin does not have the
// records beside it suspected; after three times the word is held back and records
// flow. Later it is tried again.
func TestHangUpBeside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		var mu sync.Mutex
		var said []string
		var s *Session
		sent := map[string]int{}
		b, m := newPicky(t, func(tp schema.Topic, _ []byte, _ *schema.Message) bool {
			if tp.Channel == schema.ChanTwinUp {
				time.Sleep(200 * time.Millisecond) // records get on their way behind it
				return false
			}
			return true
		}), newMemory()
		cfg := aside(b.Broker, &d)
		cfg.Report = func(r schema.Report) { mu.Lock(); said = append(said, r.Subject+" "+r.State); mu.Unlock() }
		cfg.Connected = func(ctx context.Context, _ uint64) {
			for ctx.Err() == nil {
				go func() { time.Sleep(50 * time.Millisecond); m.add(schema.ClassEvent, record(t)) }()
				err := s.Send(ctx, schema.ChanTwinUp, "", []byte("x"))
				mu.Lock()
				if errors.Is(err, ErrNotTaken) {
					sent["held"]++
				} else {
					sent["tried"]++
				}
				mu.Unlock()
				select {
				case <-time.After(time.Minute):
				case <-ctx.Done():
				}
			}
		}
		s, err := New(cfg, slowDisk{m}, m)
		if err != nil {
			t.Fatal(err)
		}
		runUntilEnd(t, s)
		// An end that is found by a write looks like a line that broke, and does not count:
		// how many tries three ends take is chance, and of the machine.
		suspects := 0
		held := func() int { mu.Lock(); defer mu.Unlock(); return sent["held"] }
		for range 7200 {
			time.Sleep(time.Second)
			if suspects = max(suspects, s.Status().Suspects); held() >= 3 {
				break
			}
		}
		time.Sleep(10 * time.Second)
		mu.Lock()
		if sent["tried"] < 3 || sent["held"] < 3 || !slices.Equal(said, []string{"link/beside refused"}) {
			t.Errorf("%v, said %q", sent, said)
		}
		mu.Unlock()
		if st := s.Status(); m.left() != 0 || suspects != 0 || st.Refused != 0 || !st.Up() {
			t.Errorf("%d records left, %+v", m.left(), st)
		}
		b.set(func(schema.Topic, []byte, *schema.Message) bool { return true })
		time.Sleep(15 * time.Minute)
		if err := s.Send(t.Context(), schema.ChanTwinUp, "", []byte("x")); err != nil {
			t.Errorf("after its time: %v", err)
		}
	})
}

// TestPoisonBeside: a record at which the broker hangs up is found also where each
// connection begins with a word on the twin right behind it.
func TestPoisonBeside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		var s *Session
		likes := without(3)
		b, m := newPicky(t, func(tp schema.Topic, p []byte, msg *schema.Message) bool {
			ok := likes(tp, p, msg)
			if !ok {
				time.Sleep(50 * time.Millisecond) // what comes behind it gets on its way
			}
			return ok
		}), newMemory()
		for range 10 {
			m.add(schema.ClassEvent, record(t))
		}
		cfg := aside(b.Broker, &d)
		cfg.Connected = func(ctx context.Context, conn uint64) { // each another, so none is held back
			time.Sleep(time.Millisecond)
			_ = s.Send(ctx, schema.ChanResult, fmt.Sprint(conn), []byte("x"))
		}
		s, err := New(cfg, m, m)
		if err != nil {
			t.Fatal(err)
		}
		runUntilEnd(t, s)
		time.Sleep(time.Hour)
		if m.left() != 0 || len(m.refused) != 1 || m.refused[3] != schema.ReasonRefused {
			t.Errorf("%d left, given up: %v, %+v", m.left(), m.refused, s.Status())
		}
	})
}

// TestOlderFleet: a fleet that knows neither twins nor commands refuses their filters
// and would end the connection at their words. Records flow, and nothing is tried.
func TestOlderFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		b, m := linktest.New(t), newMemory()
		b.Deny = func(topic string, _ bool) bool {
			return strings.HasSuffix(topic, "/tw/d") || strings.HasSuffix(topic, "/tw/r") || strings.HasSuffix(topic, "/keys")
		}
		m.add(schema.ClassEvent, record(t))
		s := start(t, aside(b, &d), m)
		time.Sleep(time.Minute)
		if err := s.Send(t.Context(), schema.ChanTwinUp, "", []byte("x")); !errors.Is(err, ErrNotTaken) {
			t.Errorf("a word on the twin: %v", err)
		}
		if err := s.Send(t.Context(), schema.ChanResult, "00ff", []byte("x")); err != nil {
			t.Errorf("a result, which it knows: %v", err)
		}
		if st := s.Status(); m.left() != 0 || !st.Up() || st.Generation != 1 {
			t.Errorf("%d left, %+v", m.left(), st)
		}
	})
}

// TestSendHalfOpen: a word that is never acknowledged ends a half-open connection.
func TestSendHalfOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		b := linktest.New(t)
		cfg := aside(b, &d)
		cfg.AckTimeout, cfg.KeepAlive = 10*time.Second, 4*time.Minute
		s := start(t, cfg, newMemory())
		time.Sleep(time.Minute)
		b.Freeze()
		began := time.Now()
		if err := s.Send(t.Context(), schema.ChanTwinUp, "", []byte("x")); !errors.Is(err, ErrDown) || time.Since(began) > 11*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		time.Sleep(time.Minute)
		if err := s.Send(t.Context(), schema.ChanTwinUp, "", []byte("x")); err != nil {
			t.Errorf("in the next connection: %v", err)
		}
	})
}

func TestFilters(t *testing.T) {
	t.Parallel()
	inbox := func(Down) {}
	for name, c := range map[string]Config{
		"twice":    {Filters: []schema.Channel{schema.ChanKeys, schema.ChanKeys}, Inbox: inbox},
		"upward":   {Filters: []schema.Channel{schema.ChanTwinUp}, Inbox: inbox},
		"no inbox": {Filters: []schema.Channel{schema.ChanKeys}},
	} {
		c.Tenant, c.Board = "default", "dock-1"
		c.Dial = func(context.Context) (net.Conn, error) { return nil, linktest.ErrCut }
		if _, err := New(c, newMemory(), nil); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
