// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/link/linktest"
	"fulmar/schema"
)

// slowLine is a broker behind a line of so many bytes a second, and what came
// through it.
type slowLine struct {
	*linktest.Broker
	perSecond int

	mu   sync.Mutex
	got  [schema.NumClasses][2]int // bytes, live and backlog
	late time.Duration             // the longest that a record with a time took
	conn uint64
}

func newSlowLine(t *testing.T, perSecond int) *slowLine {
	l := &slowLine{Broker: linktest.New(t), perSecond: perSecond}
	l.Take = l.take
	l.Wrap(func(c net.Conn) net.Conn {
		m := &modem{Conn: c, perSecond: perSecond, queue: make(chan []byte, 1<<12), closed: make(chan struct{})}
		go m.drain()
		return m
	})
	return l
}

// modem is a board's end of a slow line: it takes what it is given and sends it at its
// speed, as one with much too large a buffer does.
type modem struct {
	net.Conn
	perSecond int
	queue     chan []byte
	once      sync.Once
	closed    chan struct{}
}

func (m *modem) drain() {
	for {
		select {
		case <-m.closed:
			return
		case b := <-m.queue:
			time.Sleep(time.Duration(len(b)) * time.Second / time.Duration(m.perSecond))
			if _, err := m.Conn.Write(b); err != nil {
				return
			}
		}
	}
}

func (m *modem) Write(p []byte) (int, error) {
	select {
	case <-m.closed:
		return 0, net.ErrClosed
	case m.queue <- bytes.Clone(p):
		return len(p), nil
	}
}

func (*modem) SetWriteDeadline(time.Time) error { return nil }

func (m *modem) Close() error {
	m.once.Do(func() { close(m.closed) })
	return m.Conn.Close()
}

func (l *slowLine) take(tp schema.Topic, p []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var h schema.Hello
	if tp.Channel == schema.ChanHello && schema.Decode(p, &h) == nil {
		l.conn = h.Conn
	}
	var m schema.Message
	if tp.Channel != schema.ChanEvent && tp.Channel != schema.ChanStream || schema.Decode(p, &m) != nil {
		return nil
	}
	side := 0
	if m.Replay {
		side = 1
	}
	l.got[m.Class][side] += len(p)
	for _, r := range m.Records {
		if rec, err := schema.DecodeRecord(r.Payload); err == nil && !m.Replay {
			l.late = max(l.late, time.Duration(time.Now().UnixMilli()-rec.Time.Wall)*time.Millisecond)
		}
	}
	return nil
}

// counted gives the counters and sets them to zero.
func (l *slowLine) counted() (got [schema.NumClasses][2]int, late time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	got, late = l.got, l.late
	l.got, l.late = [schema.NumClasses][2]int{}, 0
	return got, late
}

// stamped is a record that says when it was made.
func stamped(t testing.TB) []byte {
	t.Helper()
	b, err := schema.EncodeRecord(&schema.Record{
		Kind: schema.KindReport, Time: schema.Time{Wall: time.Now().UnixMilli()},
		Report: &schema.Report{Subject: "a", State: "ok", Text: strings.Repeat("a", 900)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestLiveAndBacklog: on a line that is full, what is live has 70 % of the bytes and
// what waited has 30 %, marked as a replay; within each side events, metrics and
// pictures have 4 : 2 : 1; who is alone has all of it.
func TestLiveAndBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := newSlowLine(t, 100_000), newMemory()
		for range 6000 { // 12 MB
			m.add(schema.ClassEvent, make([]byte, 1000))
			m.add(schema.ClassMetric, make([]byte, 1000))
		}
		cfg := config(l.Broker)
		cfg.ReconnectWindow = time.Nanosecond
		start(t, cfg, m)
		time.Sleep(20 * time.Second)
		got, _ := l.counted()
		if live := got[schema.ClassEvent][0] + got[schema.ClassMetric][0]; live > 0 || got[schema.ClassEvent][1] < 1_000_000 {
			t.Errorf("with a backlog alone %d bytes are live, %v", live, got)
		}
		for range 60 * 10 { // more than the line takes
			for range 10 {
				m.add(schema.ClassEvent, make([]byte, 1000))
				m.add(schema.ClassMetric, make([]byte, 1000))
			}
			time.Sleep(100 * time.Millisecond)
		}
		got, _ = l.counted()
		live := got[schema.ClassEvent][0] + got[schema.ClassMetric][0]
		old := got[schema.ClassEvent][1] + got[schema.ClassMetric][1]
		if share := float64(live) / float64(live+old); share < 0.68 || share > 0.72 {
			t.Errorf("live has %.3f of the line, wants 0.7", share)
		}
		if events := float64(got[schema.ClassEvent][0]) / float64(live); events < 0.64 || events > 0.69 {
			t.Errorf("events have %.3f of what is live, wants 4 of 6", events)
		}
		if total := float64(live+old) / 60; total < 90_000 {
			t.Errorf("the line carries %.0f bytes a second of 100,000", total)
		}
		time.Sleep(10 * time.Minute)
		if m.left() != 0 {
			t.Errorf("%d records are left", m.left())
		}
	})
}

// TestLiveIsLive: while a backlog drains over a slow line, a live event a second does
// not wait for it.
func TestLiveIsLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := newSlowLine(t, 250_000), newMemory() // 2 Mbit/s
		for range 20_000 {
			m.add(schema.ClassMetric, make([]byte, 1000))
		}
		start(t, config(l.Broker), m)
		time.Sleep(40 * time.Second)
		l.counted()
		for range 30 {
			m.add(schema.ClassEvent, stamped(t))
			time.Sleep(time.Second)
		}
		got, late := l.counted()
		if got[schema.ClassMetric][1] < 5_000_000 {
			t.Fatalf("the backlog did not fill the line: %v", got)
		}
		if late > 500*time.Millisecond || late == 0 {
			t.Errorf("a live event took %v", late)
		}
	})
}

// TestAlarmFlood: alarms without end have nine parts of ten, and the others one.
func TestAlarmFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := newSlowLine(t, 100_000), newMemory()
		for range 3000 {
			m.add(schema.ClassMetric, make([]byte, 1000))
		}
		cfg := config(l.Broker)
		cfg.ReconnectWindow = time.Nanosecond
		start(t, cfg, m)
		for range 3 * 60 * 10 {
			for range 15 {
				m.add(schema.ClassAlarm, make([]byte, 1000))
			}
			time.Sleep(100 * time.Millisecond)
		}
		got, _ := l.counted()
		alarms, rest := got[schema.ClassAlarm][0]+got[schema.ClassAlarm][1], got[schema.ClassMetric][0]+got[schema.ClassMetric][1]
		if share := float64(rest) / float64(alarms+rest); share < 0.08 || share > 0.13 {
			t.Errorf("in a flood of alarms the others have %.3f of the line, wants 0.1", share)
		}
	})
}

// TestRate: the fleet's bound holds, an alarm does not wait for it, and a later word
// of the fleet changes it.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := newSlowLine(t, 10_000_000), newMemory()
		l.Hello.Rate = 20_000
		for range 5000 {
			m.add(schema.ClassEvent, make([]byte, 1000))
		}
		cfg := config(l.Broker)
		cfg.ReconnectWindow = time.Nanosecond
		s := start(t, cfg, m)
		time.Sleep(time.Minute)
		got, _ := l.counted()
		if n := got[schema.ClassEvent][1]; n < 1_100_000 || n > 1_200_000+2*schema.MaxPayload {
			t.Errorf("%d bytes in a minute at 20,000 a second", n)
		}
		m.add(schema.ClassAlarm, stamped(t))
		time.Sleep(time.Second)
		if got, late := l.counted(); got[schema.ClassAlarm][0] == 0 || late > 10*time.Millisecond {
			t.Errorf("the alarm took %v, %v", late, got)
		}
		say := func(a schema.HelloAck) {
			t.Helper()
			a.V = schema.Version
			p, err := schema.Encode(&a)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Publish("f/v1/default/dock-1/hello/ack", p); err != nil {
				t.Fatal(err)
			}
		}
		say(schema.HelloAck{Conn: l.conn + 1}) // of another connection
		time.Sleep(time.Second)
		if got, _ := l.counted(); got[schema.ClassEvent][1] > 200_000 {
			t.Errorf("a word for another connection lifted the bound: %v", got)
		}
		say(schema.HelloAck{Conn: l.conn})
		time.Sleep(30 * time.Second)
		if m.left() != 0 || s.Status().Generation != 1 {
			t.Errorf("%d records are left after the bound was lifted, %+v", m.left(), s.Status())
		}
		say(schema.HelloAck{Conn: l.conn, RetryAfterMs: 120_000})
		time.Sleep(time.Minute)
		if st := s.Status(); st.Up() || st.Err == nil || !strings.Contains(st.Err.Error(), "come back in 2m0s") {
			t.Errorf("asked to go it is %+v", st)
		}
		time.Sleep(3 * time.Minute)
		if !s.Status().Up() {
			t.Errorf("after its time it is %+v", s.Status())
		}
	})
}

// epochs is an outbox of two lives: what an older disk holds, and memory under an
// epoch of its own.
type epochs struct {
	*memory
	mu   sync.Mutex
	old  []schema.Stored
	told []bool // by Online
}

const oldEpoch = 7

func (e *epochs) Read(c schema.Class, from uint64, n, size int) ([]schema.Stored, error) {
	out, err := e.readOld(c, from, n)
	if len(out) > 0 || err != nil {
		return out, err
	}
	return e.memory.Read(c, from, n, size)
}

func (e *epochs) readOld(c schema.Class, from uint64, n int) ([]schema.Stored, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []schema.Stored
	for _, r := range e.old {
		if r.Class == c && r.Seq >= from && len(out) < min(n, 10) {
			out = append(out, r)
		}
	}
	return out, nil
}

func (e *epochs) Ack(c schema.Class, epoch, first, last uint64) error {
	if epoch != oldEpoch {
		return e.memory.Ack(c, epoch, first, last)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.old = slices.DeleteFunc(e.old, func(r schema.Stored) bool { return r.Class == c && r.Seq >= first && r.Seq <= last })
	return nil
}

func (e *epochs) Cursors() []schema.Cursor {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := []schema.Cursor{{Class: schema.ClassEvent, Epoch: oldEpoch, Last: 400}}
	if len(e.old) > 0 {
		out[0].Acked = e.old[0].Seq - 1
	} else {
		out[0].Acked = 400
	}
	for _, c := range e.memory.Cursors() { // a class has an epoch once it has something
		if c.Last > 0 {
			out = append(out, c)
		}
	}
	return out
}

func (e *epochs) Online(up bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.told = append(e.told, up)
}

func (e *epochs) oldLeft() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.old)
}

// byEpoch can be read by epoch.
type byEpoch struct{ *epochs }

func (e byEpoch) ReadEpoch(c schema.Class, epoch, from uint64, n, size int) ([]schema.Stored, error) {
	if epoch == oldEpoch {
		return e.readOld(c, from, n)
	}
	return e.memory.Read(c, from, n, size)
}

// TestEpochs: records of a class in two epochs with the same numbers all arrive, each
// message in one epoch; an epoch that begins while the link is up is live.
func TestEpochs(t *testing.T) {
	for _, by := range []bool{false, true} {
		t.Run(fmt.Sprintf("read by epoch %v", by), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, e := linktest.New(t), &epochs{memory: newMemory()}
				for n := range uint64(400) {
					e.old = append(e.old, schema.Stored{Class: schema.ClassEvent, Epoch: oldEpoch, Seq: n + 1, Payload: record(t)})
				}
				var mu sync.Mutex
				seen := map[uint64]map[uint64]int{oldEpoch: {}, testEpoch: {}}
				b.Take = func(tp schema.Topic, p []byte) error {
					time.Sleep(10 * time.Millisecond)
					var m schema.Message
					if tp.Channel != schema.ChanEvent || schema.Decode(p, &m) != nil {
						return nil
					}
					mu.Lock()
					defer mu.Unlock()
					for _, r := range m.Records {
						seen[m.Epoch][r.Seq]++
					}
					if m.Replay != (m.Epoch == oldEpoch) {
						t.Errorf("replay is %v in epoch %d", m.Replay, m.Epoch)
					}
					return nil
				}
				var out Outbox = e
				if by {
					out = byEpoch{e}
				}
				cfg := config(b)
				cfg.ReconnectWindow = time.Nanosecond
				s, err := New(cfg, out, nil)
				if err != nil {
					t.Fatal(err)
				}
				runUntilEnd(t, s)
				time.Sleep(50 * time.Millisecond)
				for range 300 {
					e.add(schema.ClassEvent, record(t))
					time.Sleep(time.Millisecond)
				}
				time.Sleep(time.Minute)
				mu.Lock()
				defer mu.Unlock()
				if len(seen[oldEpoch]) != 400 || len(seen[testEpoch]) != 300 || e.oldLeft() != 0 || e.left() != 0 {
					t.Errorf("%d of 400 and %d of 300 arrived, %d and %d are left", len(seen[oldEpoch]), len(seen[testEpoch]), e.oldLeft(), e.left())
				}
				if st := s.Status(); st.Generation != 1 || st.Resent != 0 || st.Published != 700 {
					t.Errorf("%+v", st)
				}
				b.SetCut(true)
				time.Sleep(time.Second)
				e.mu.Lock()
				defer e.mu.Unlock()
				if !slices.Equal(e.told, []bool{true, false}) {
					t.Errorf("the spool was told %v", e.told)
				}
			})
		})
	}
}
