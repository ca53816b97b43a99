// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"fulmar/link/internal/flights"
	"fulmar/link/linktest"
	"fulmar/schema"
)

// TestHalfOpen: a connection through which nothing comes, and neither end is told.
// Idle, the ping notices, and so it does where all fits into the kernel's buffer, as
// what keeps to the pace does; with more to send, the write's bound notices first. Each time the next
// connection delivers everything.
func TestHalfOpen(t *testing.T) {
	for _, c := range []struct {
		what    string
		class   schema.Class
		records int
		bound   time.Duration
	}{
		{"idle", schema.ClassEvent, 0, 46 * time.Second}, // 30 s to the ping, its 10 s, and the client's grid of 5 s
		{"sending events", schema.ClassEvent, 200, 46 * time.Second},
		{"sending alarms", schema.ClassAlarm, 200, 11 * time.Second}, // 10 s for a write
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, m, f := linktest.New(t), newMemory(), newFleet()
				b.Take = f.take
				s := start(t, config(b), m)
				time.Sleep(time.Minute)
				if !s.Status().Up() {
					t.Fatal("not up after a minute")
				}
				b.Freeze()
				for range c.records {
					m.add(c.class, make([]byte, 1000))
				}
				time.Sleep(c.bound)
				if st := s.Status(); st.Up() && st.Generation == 1 {
					t.Fatalf("not noticed in %v: %+v", c.bound, st)
				}
				time.Sleep(2 * time.Minute)
				m.add(c.class, record(t))
				time.Sleep(time.Second)
				if f.has(c.class) != c.records+1 || m.left() != 0 || !s.Status().Up() {
					t.Errorf("%d of %d arrived, %d left, %+v", f.has(c.class), c.records+1, m.left(), s.Status())
				}
			})
		})
	}
}

// TestStopOnHalfOpen: a board that is told to stop stops, whatever its connection
// is like.
func TestStopOnHalfOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m := linktest.New(t), newMemory()
		s, err := New(config(b), m, m)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		done := make(chan struct{})
		go func() { _ = s.Run(ctx); close(done) }()
		time.Sleep(time.Minute)
		b.Freeze()
		for range 2000 {
			m.add(schema.ClassMetric, record(t))
		}
		time.Sleep(time.Second)
		cancel()
		begin := time.Now()
		<-done
		if d := time.Since(begin); d > drainTimeout+time.Second+byeTimeout {
			t.Errorf("the stop took %v", d)
		}
		if m.left() != 2000 {
			t.Errorf("%d records were freed by nobody's word", 2000-m.left())
		}
	})
}

// TestBrokerThatForgets: a broker that gives PUBACK and delivers nothing. In mode
// fleet nothing is freed, hours long; once it delivers, everything arrives.
func TestBrokerThatForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, f := linktest.New(t), newMemory(), newFleet()
		b.Hello.Mode = schema.AckFleet
		var forget atomic.Bool
		forget.Store(true)
		b.Take = func(tp schema.Topic, p []byte) error {
			if forget.Load() {
				return nil
			}
			var msg schema.Message
			if tp.Channel == schema.ChanEvent && schema.Decode(p, &msg) == nil {
				a := &schema.Ack{V: 1, Class: msg.Class, Epoch: msg.Epoch}
				for _, r := range msg.Records {
					a.Ranges = append(a.Ranges, [2]uint64{r.Seq, r.Seq})
				}
				payload, err := schema.Encode(a)
				if err != nil {
					return err
				}
				go func() { _ = b.Publish("f/v1/default/dock-1/ack", payload) }()
			}
			return f.take(tp, p)
		}
		s := start(t, config(b), m)
		for range 300 {
			m.add(schema.ClassEvent, record(t))
			time.Sleep(time.Second)
		}
		time.Sleep(2 * time.Hour)
		if m.left() != 300 || s.Status().Acked != 0 {
			t.Fatalf("%d freed on a PUBACK alone: %+v", 300-m.left(), s.Status())
		}
		if err := s.Status().Err; err != nil && !strings.Contains(err.Error(), "the fleet is not") {
			t.Errorf("the status says %v", err)
		}
		forget.Store(false)
		time.Sleep(time.Hour)
		if m.left() != 0 || f.has(schema.ClassEvent) != 300 {
			t.Errorf("%d left, %d arrived", m.left(), f.has(schema.ClassEvent))
		}
	})
}

// hostile is a broker that lets a board in and answers its SUBSCRIBE with bytes of
// its own.
func hostile(t *testing.T, answer []byte) func(context.Context) (net.Conn, error) {
	t.Helper()
	return func(context.Context) (net.Conn, error) {
		board, broker := net.Pipe()
		go func() {
			defer broker.Close()
			if _, err := packets.ReadPacket(broker); err != nil { // CONNECT
				return
			}
			if _, err := broker.Write([]byte{0x20, 2, 0, 0}); err != nil {
				return
			}
			if _, err := packets.ReadPacket(broker); err != nil { // SUBSCRIBE
				return
			}
			if _, err := broker.Write(answer); err != nil {
				return
			}
			buf := make([]byte, 1<<10)
			for {
				if _, err := broker.Read(buf); err != nil {
					return
				}
			}
		}()
		return board, nil
	}
}

// TestHostileBroker: bytes that would make the client allocate 256 MB, or end the
// process, end the connection, and the status says why.
func TestHostileBroker(t *testing.T) {
	for _, c := range []struct {
		what   string
		answer []byte
		why    string
	}{
		{"a packet of 256 MB", []byte{0x30, 0xff, 0xff, 0xff, 0x7f}, "bytes or more"},
		{"a packet of 1 MiB and one", []byte{0x30, 0x81, 0x80, 0x40}, "bytes or more"},
		{"a length without an end", []byte{0x30, 0x80, 0x80, 0x80, 0x80, 0x80}, "over four bytes"},
		{"a SUBACK of more answers than questions", []byte{0x90, 12, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, "bytes or more"},
		{"a SUBACK of one answer", []byte{0x90, 3, 0, 1, 1}, "refused"},
		{"a SUBACK that refuses", []byte{0x90, 4, 0, 1, 1, 0x80}, "refused"},
		{"a packet for brokers", []byte{0x10, 0}, "brokers do not send"},
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				s := start(t, Config{Tenant: "default", Board: "dock-1", Dial: hostile(t, c.answer), ReconnectWindow: time.Nanosecond}, m)
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				time.Sleep(100 * time.Millisecond)
				synctest.Wait()
				runtime.ReadMemStats(&after)
				if n := after.TotalAlloc - before.TotalAlloc; n > 2<<20 {
					t.Errorf("%d bytes were allocated", n)
				}
				if st := s.Status(); st.Up() || st.Err == nil || !strings.Contains(st.Err.Error(), c.why) {
					t.Errorf("status %+v, wants %q", st, c.why)
				}
			})
		})
	}
}

// TestConnNumbers: a connection's number rises within a boot, over restarts of the
// program too: the fleet takes a lower one for a stale last will.
func TestConnNumbers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := linktest.New(t)
		var mu sync.Mutex
		var numbers []uint64
		b.Take = func(tp schema.Topic, p []byte) error {
			var h schema.Hello
			if tp.Channel == schema.ChanHello && schema.Decode(p, &h) == nil {
				mu.Lock()
				numbers = append(numbers, h.Conn)
				mu.Unlock()
			}
			return nil
		}
		boot := time.Now()
		for range 3 { // restarts
			cfg := config(b)
			cfg.ReconnectWindow = time.Nanosecond
			cfg.Clock = schema.NewClock(7, time.Since(boot))
			s, err := New(cfg, newMemory(), newMemory())
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() { _ = s.Run(ctx); close(done) }()
			time.Sleep(10 * time.Second)
			b.SetCut(true)
			b.SetCut(false)
			time.Sleep(10 * time.Second)
			cancel()
			<-done
		}
		mu.Lock()
		defer mu.Unlock()
		if len(numbers) != 6 || !slices.IsSorted(numbers) || len(slices.Compact(slices.Clone(numbers))) != 6 {
			t.Errorf("connections called themselves %d, wants six rising numbers", numbers)
		}
	})
}

// TestBadNeighbour: a record that can be in no message does not take those around
// it along.
func TestBadNeighbour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, f := linktest.New(t), newMemory(), newFleet()
		b.Take = f.take
		m.add(schema.ClassEvent, record(t))
		empty := m.add(schema.ClassEvent, nil)
		m.add(schema.ClassEvent, record(t))
		large := m.add(schema.ClassEvent, make([]byte, schema.MaxRecord+1))
		m.add(schema.ClassEvent, make([]byte, schema.MaxRecord))
		s := start(t, config(b), m)
		time.Sleep(2 * time.Minute)
		m.mu.Lock()
		refused := fmt.Sprint(m.refused)
		m.mu.Unlock()
		if refused != fmt.Sprintf("map[%d:%v %d:%v]", empty, schema.ReasonOversize, large, schema.ReasonOversize) {
			t.Errorf("refused %s", refused)
		}
		if f.has(schema.ClassEvent) != 3 || m.left() != 0 || s.Status().Generation != 1 {
			t.Errorf("%d of 3 arrived, %d left, %+v", f.has(schema.ClassEvent), m.left(), s.Status())
		}
	})
}

// stubborn is an outbox that cannot write a loss ledger, and a picture folder whose
// files cannot be read.
type stubborn struct{ m *memory }

func (s stubborn) Read(c schema.Class, from uint64, n, size int) ([]schema.Stored, error) {
	return s.m.Read(c, from, n, size)
}
func (s stubborn) Ack(c schema.Class, e, a, z uint64) error { return s.m.Ack(c, e, a, z) }
func (s stubborn) Cursors() []schema.Cursor                 { return s.m.Cursors() }
func (s stubborn) Wake() <-chan struct{}                    { return s.m.Wake() }
func (s stubborn) RemoveBlob(string) error                  { return errors.New("read-only file system") }

func (s stubborn) OpenBlob(name string) (Blob, error) {
	if name == "torn.jpg" {
		return torn{bytes.NewReader(make([]byte, 100_000))}, nil
	}
	return nil, errors.New("input/output error")
}

type torn struct{ *bytes.Reader }

func (torn) Close() error { return nil }
func (torn) ReadAt(b []byte, off int64) (int, error) {
	if off > 0 {
		return 0, errors.New("input/output error")
	}
	return len(b), nil
}

// TestPassedOver: what the disk does not give now stays in the spool and holds up
// nothing: one connection, no loop, and what is behind it arrives.
func TestPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, f := linktest.New(t), newMemory(), newFleet()
		b.Take = f.take
		m.add(schema.ClassEvent, make([]byte, schema.MaxRecord+1))
		m.add(schema.ClassEvent, record(t))
		for _, name := range []string{"sick.jpg", "torn.jpg"} {
			rec, err := schema.EncodeRecord(&schema.Record{Kind: schema.KindSnapshot, Snapshot: &schema.Snapshot{Name: name, Size: 100_000, Source: "cam0"}})
			if err != nil {
				t.Fatal(err)
			}
			m.add(schema.ClassSnapshot, rec)
		}
		m.add(schema.ClassSnapshot, record(t)) // no picture's index: the fleet refuses it by name
		s, err := New(config(b), stubborn{m}, stubborn{m})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { _ = s.Run(ctx); close(done) }()
		defer func() { cancel(); <-done }()
		time.Sleep(10 * time.Minute)
		st := s.Status()
		if !st.Up() || st.Generation != 1 || st.Refused != 3 || m.left() != 3 {
			t.Errorf("%d left, wants the 3 that cannot be sent; %+v", m.left(), st)
		}
		if f.has(schema.ClassEvent) != 1 || f.has(schema.ClassSnapshot) != 1 {
			t.Errorf("%d events and %d of the snapshot class arrived, wants 1 and 1", f.has(schema.ClassEvent), f.has(schema.ClassSnapshot))
		}
	})
}

// TestConfig: what would fail each connection anew is refused at once.
func TestConfig(t *testing.T) {
	t.Parallel()
	good := func() Config {
		return Config{Tenant: "default", Board: "b", Dial: func(context.Context) (net.Conn, error) { return nil, errors.New("no") }}
	}
	mode := schema.AckBroker + 1
	for what, change := range map[string]func(*Config){
		"no dial":               func(c *Config) { c.Dial = nil },
		"tenant with a slash":   func(c *Config) { c.Tenant = "a/b" },
		"no board":              func(c *Config) { c.Board = "" },
		"window of 1025":        func(c *Config) { c.Window = 1025 },
		"negative window":       func(c *Config) { c.WindowBytes = -1 },
		"keep-alive under 1 s":  func(c *Config) { c.KeepAlive = time.Millisecond },
		"keep-alive over 4 min": func(c *Config) { c.KeepAlive = 5 * time.Minute },
		"negative timeout":      func(c *Config) { c.AckTimeout = -1 },
		"unknown mode":          func(c *Config) { c.Mode = &mode },
		"a fact too long":       func(c *Config) { c.Facts = map[string]string{"a": strings.Repeat("a", schema.MaxFact+1)} },
	} {
		c := good()
		change(&c)
		if _, err := New(c, nil, nil); err == nil {
			t.Errorf("%s was taken", what)
		}
	}
	if _, err := New(good(), nil, nil); err != nil {
		t.Error(err)
	}
}

// TestLateWord: an acknowledgement that is read after the connection was given up
// frees nothing, whichever of the two is looked at first.
func TestLateWord(t *testing.T) {
	t.Parallel()
	for range 100 {
		m := newMemory()
		m.add(schema.ClassEvent, record(t))
		s, err := New(Config{Tenant: "default", Board: "b", Dial: hostile(t, nil)}, m, m)
		if err != nil {
			t.Fatal(err)
		}
		g := &gen{s: s, lost: make(chan struct{}), quiet: make(chan struct{}), Window: flights.New(1, 1)}
		f := &flights.Flight{Class: schema.ClassEvent, Epoch: testEpoch}
		f.Add(1)
		g.Enter(f)
		g.Sent(f, &mqtt.DummyToken{})
		g.end(errors.New("given up"))
		if err := g.settle(t.Context(), f, nil); err != nil || m.left() != 1 {
			t.Fatalf("%d left, %v", m.left(), err)
		}
	}
}

// TestIndexWaitsForPieces: the index of a picture does not go before all its pieces
// are acknowledged.
func TestIndexWaitsForPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, f := linktest.New(t), newMemory(), newFleet()
		b.Take = f.take
		var eat atomic.Bool
		b.Wrap(func(c net.Conn) net.Conn { return pubackEater{c, &eat} })
		start(t, config(b), m)
		time.Sleep(time.Minute)
		eat.Store(true)
		m.blobs["a.jpg"] = make([]byte, 100_000)
		rec, err := schema.EncodeRecord(&schema.Record{Kind: schema.KindSnapshot, Snapshot: &schema.Snapshot{Name: "a.jpg", Size: 100_000, Source: "cam0"}})
		if err != nil {
			t.Fatal(err)
		}
		m.add(schema.ClassSnapshot, rec)
		time.Sleep(20 * time.Second)
		f.mu.Lock()
		pieces := f.chunks["a.jpg"]
		f.mu.Unlock()
		if pieces < schema.MaxChunk || f.has(schema.ClassSnapshot) != 0 { // the pace may hold the second one
			t.Errorf("%d bytes and %d indexes arrived without a PUBACK, wants a piece at least and none", pieces, f.has(schema.ClassSnapshot))
		}
		eat.Store(false)
		time.Sleep(3 * time.Minute)
		if f.has(schema.ClassSnapshot) != 1 || m.left() != 0 {
			t.Errorf("%d indexes arrived, %d records left", f.has(schema.ClassSnapshot), m.left())
		}
	})
}

// TestStaleAnswer: an answer to an older connection's hello, and one that cannot be
// read, are passed over.
func TestStaleAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m := linktest.New(t), newMemory()
		b.Hello = nil
		b.Take = func(tp schema.Topic, p []byte) error {
			var h schema.Hello
			if tp.Channel != schema.ChanHello || schema.Decode(p, &h) != nil {
				return nil
			}
			stale, err := schema.Encode(&schema.HelloAck{V: 1, Conn: h.Conn - 1, RetryAfterMs: 600_000})
			if err != nil {
				return err
			}
			good, err := schema.Encode(&schema.HelloAck{V: 1, Conn: h.Conn})
			if err != nil {
				return err
			}
			go func() {
				for _, p := range [][]byte{stale, []byte("{}"), {0xa4, 1, 1, 2, 0x1b}, good} {
					_ = b.Publish("f/v1/default/dock-1/hello/ack", p)
				}
			}()
			return nil
		}
		s := start(t, config(b), m)
		time.Sleep(time.Minute)
		if st := s.Status(); !st.Up() || st.Generation != 1 {
			t.Errorf("status %+v", st)
		}
	})
}
