// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
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

// memory is an outbox without a disk. Like the spool it refuses to free what it
// never gave out.
type memory struct {
	mu      sync.Mutex
	recs    [schema.NumClasses][]schema.Stored
	last    [schema.NumClasses]uint64
	acked   [schema.NumClasses]uint64
	refused map[uint64]schema.Reason
	blobs   map[string][]byte
	wake    chan struct{}
}

const testEpoch = 42

func newMemory() *memory {
	return &memory{refused: map[uint64]schema.Reason{}, blobs: map[string][]byte{}, wake: make(chan struct{}, 1)}
}

func (m *memory) add(c schema.Class, payload []byte) uint64 { return m.addAll(c, payload) }

// addAll adds records at once: a link that reads sees none of them or all.
func (m *memory) addAll(c schema.Class, payloads ...[]byte) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, payload := range payloads {
		m.last[c]++
		m.recs[c] = append(m.recs[c], schema.Stored{Class: c, Epoch: testEpoch, Seq: m.last[c], Payload: payload})
	}
	select {
	case m.wake <- struct{}{}:
	default:
	}
	return m.last[c]
}

func (m *memory) Read(c schema.Class, from uint64, maxRecords, maxBytes int) ([]schema.Stored, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []schema.Stored
	for _, r := range m.recs[c] {
		if r.Seq < from {
			continue
		}
		if maxBytes -= len(r.Payload); len(out) == maxRecords || len(out) > 0 && maxBytes < 0 {
			break
		}
		out = append(out, r)
	}
	return out, nil
}

func (m *memory) Ack(c schema.Class, epoch, first, last uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if epoch != testEpoch || last > m.last[c] || first > last {
		return fmt.Errorf("ack of %d to %d of epoch %d", first, last, epoch)
	}
	m.recs[c] = slices.DeleteFunc(m.recs[c], func(r schema.Stored) bool { return r.Seq >= first && r.Seq <= last })
	m.acked[c] = max(m.acked[c], last)
	return nil
}

func (m *memory) Cursors() []schema.Cursor {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []schema.Cursor
	for _, c := range schema.Classes() {
		acked := m.last[c]
		if len(m.recs[c]) > 0 {
			acked = m.recs[c][0].Seq - 1
		}
		out = append(out, schema.Cursor{Class: c, Epoch: testEpoch, Acked: acked, Last: m.last[c]})
	}
	return out
}

func (m *memory) Wake() <-chan struct{} { return m.wake }

func (m *memory) Refuse(c schema.Class, epoch, seq uint64, why schema.Reason) error {
	m.mu.Lock()
	m.refused[seq] = why
	m.mu.Unlock()
	return m.Ack(c, epoch, seq, seq)
}

func (m *memory) left() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, r := range m.recs {
		n += len(r)
	}
	return n
}

type memBlob struct{ *bytes.Reader }

func (memBlob) Close() error { return nil }

func (m *memory) OpenBlob(name string) (Blob, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.blobs[name]
	if !ok {
		return nil, fmt.Errorf("open %s: %w", name, ErrBlobGone)
	}
	return memBlob{bytes.NewReader(b)}, nil
}

func (m *memory) RemoveBlob(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.blobs, name)
	return nil
}

// fleet counts what arrives, by number.
type fleet struct {
	mu     sync.Mutex
	seen   [schema.NumClasses]map[uint64]int
	chunks map[string]int64
	order  []schema.Class
}

func newFleet() *fleet {
	f := &fleet{chunks: map[string]int64{}}
	for i := range f.seen {
		f.seen[i] = map[uint64]int{}
	}
	return f
}

func (f *fleet) take(t schema.Topic, payload []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t.Channel == schema.ChanBlob {
		var c schema.Chunk
		if err := schema.Decode(payload, &c); err != nil {
			return err
		}
		f.chunks[t.Tail] += int64(len(c.Data))
	}
	if t.Channel != schema.ChanStream && t.Channel != schema.ChanEvent {
		return nil
	}
	var m schema.Message
	if err := schema.Decode(payload, &m); err != nil {
		return err
	}
	f.order = append(f.order, m.Class)
	for _, r := range m.Records {
		f.seen[m.Class][r.Seq]++
	}
	return nil
}

func (f *fleet) has(c schema.Class) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.seen[c])
}

func record(t testing.TB) []byte {
	t.Helper()
	b, err := schema.EncodeRecord(&schema.Record{Kind: schema.KindSamples, Samples: &schema.Samples{Series: []string{"a.b"}, Value: []float64{1}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func config(b *linktest.Broker) Config {
	return Config{Tenant: "default", Board: "dock-1", Dial: b.Dial, Clock: schema.NewClock(7, 0), KeepAlive: 30 * time.Second}
}

// start runs a session until the test's end.
func start(t *testing.T, cfg Config, m *memory) *Session {
	t.Helper()
	s, err := New(cfg, m, m)
	if err != nil {
		t.Fatal(err)
	}
	// A publisher may hang in the client for the bound of a write; this is simulated time.
	t.Cleanup(func() { time.Sleep(writeTimeout + time.Second) })
	runUntilEnd(t, s)
	return s
}

// runUntilEnd runs a session until the test's end.
func runUntilEnd(t testing.TB, s *Session) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = s.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
}

// TestAnHourWithACut: a record every 10 s for an hour, the network gone for 17
// minutes in the middle. Nothing is lost, and what was made in the cut is marked.
func TestAnHourWithACut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, f := linktest.New(t), newMemory(), newFleet()
		b.Take = f.take
		s := start(t, config(b), m)
		rec := record(t)
		for i := range 360 {
			switch i {
			case 120:
				b.SetCut(true)
			case 120 + 17*6:
				b.SetCut(false)
			}
			m.add(schema.ClassMetric, rec)
			time.Sleep(10 * time.Second)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := f.has(schema.ClassMetric); n != 360 || m.left() != 0 {
			t.Errorf("%d of 360 arrived, %d are left in the outbox", n, m.left())
		}
		st := s.Status()
		if !st.Up() || st.Generation < 2 || st.Acked != 360 || st.InFlight != 0 {
			t.Errorf("status %+v", st)
		}
	})
}

// pubackEater swallows what the broker says once told to: a half-open connection.
type pubackEater struct {
	net.Conn
	eat *atomic.Bool
}

func (c pubackEater) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil || !c.eat.Load() {
			return n, err
		}
	}
}

// TestSwallowedPubacks: without a PUBACK nothing is freed, the watchdog ends the
// connection, and the next one delivers again.
func TestSwallowedPubacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, f := linktest.New(t), newMemory(), newFleet()
		b.Take = f.take
		var eat atomic.Bool
		b.Wrap(func(c net.Conn) net.Conn { return pubackEater{c, &eat} })
		cfg := config(b)
		cfg.KeepAlive = 240 * time.Second // the ping must not notice first
		cfg.AckTimeout = 20 * time.Second
		s := start(t, cfg, m)
		time.Sleep(time.Minute)
		eat.Store(true)
		for range 10 {
			m.add(schema.ClassEvent, record(t))
		}
		time.Sleep(10 * time.Second)
		if m.left() != 10 {
			t.Fatalf("%d records left, wants all 10: no PUBACK came", m.left())
		}
		time.Sleep(15 * time.Second)
		if st := s.Status(); st.Err == nil || !strings.Contains(st.Err.Error(), "half open") {
			t.Errorf("after the watchdog's time the status is %+v", st)
		}
		eat.Store(false)
		time.Sleep(5 * time.Minute)
		if m.left() != 0 || f.has(schema.ClassEvent) != 10 || s.Status().Resent == 0 {
			t.Errorf("%d left, %d arrived, status %+v", m.left(), f.has(schema.ClassEvent), s.Status())
		}
	})
}

// TestModeFleet: a broker's PUBACK frees nothing, the fleet's word does; an
// acknowledgement of what was never sent is passed over.
func TestModeFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, f := linktest.New(t), newMemory(), newFleet()
		b.Take, b.Hello.Mode = f.take, schema.AckFleet
		cfg := config(b)
		cfg.AckTimeout = 2 * time.Minute
		s := start(t, cfg, m)
		for range 5 {
			m.add(schema.ClassEvent, record(t))
		}
		time.Sleep(time.Minute)
		if f.has(schema.ClassEvent) != 5 || m.left() != 5 {
			t.Fatalf("%d arrived, %d left; wants 5 and 5", f.has(schema.ClassEvent), m.left())
		}
		ack := func(epoch uint64, ranges ...[2]uint64) {
			payload, err := schema.Encode(&schema.Ack{V: 1, Class: schema.ClassEvent, Epoch: epoch, Ranges: ranges})
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Publish("f/v1/default/dock-1/ack", payload); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		ack(testEpoch+1, [2]uint64{1, 5})
		ack(testEpoch, [2]uint64{6, 900})
		if m.left() != 5 {
			t.Fatalf("an acknowledgement of what was never sent freed %d records", 5-m.left())
		}
		ack(testEpoch, [2]uint64{1, 2})
		ack(testEpoch, [2]uint64{1, 2})
		if m.left() != 5 {
			t.Fatalf("a part of a message freed all of it: %d left", m.left())
		}
		ack(testEpoch, [2]uint64{3, 3}, [2]uint64{4, 5})
		if m.left() != 0 || s.Status().Acked != 5 {
			t.Errorf("%d left, status %+v", m.left(), s.Status())
		}
	})
}

// TestOnlyABroker: with the mode fixed to broker a silent fleet is not waited for.
func TestOnlyABroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m := linktest.New(t), newMemory()
		b.Hello = nil
		cfg := config(b)
		mode := schema.AckBroker
		cfg.Mode = &mode
		s := start(t, cfg, m)
		m.add(schema.ClassMetric, record(t))
		time.Sleep(time.Minute)
		if m.left() != 0 || !s.Status().Up() {
			t.Errorf("%d left, status %+v", m.left(), s.Status())
		}
	})
}

// TestSilentFleet: without a fixed mode a broker alone is not enough.
func TestSilentFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m := linktest.New(t), newMemory()
		b.Hello = nil
		s := start(t, config(b), m)
		m.add(schema.ClassMetric, record(t))
		time.Sleep(time.Minute)
		if st := s.Status(); m.left() != 1 || st.Up() {
			t.Errorf("%d left, status %+v", m.left(), st)
		}
	})
}

func TestPictures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, f := linktest.New(t), newMemory(), newFleet()
		b.Take = f.take
		pic := bytes.Repeat([]byte("picture "), 20000) // 160 kB: three chunks
		snap := func(name string) []byte {
			rec, err := schema.EncodeRecord(&schema.Record{Kind: schema.KindSnapshot, Snapshot: &schema.Snapshot{
				Name: name, Size: int64(len(pic)), SHA256: sha256.Sum256(pic), Media: "image/jpeg", Source: "cam0",
			}})
			if err != nil {
				t.Fatal(err)
			}
			return rec
		}
		m.blobs["a.jpg"] = pic
		m.blobs["short.jpg"] = pic[:10]
		m.add(schema.ClassSnapshot, snap("a.jpg"))
		gone := m.add(schema.ClassSnapshot, snap("gone.jpg"))
		short := m.add(schema.ClassSnapshot, snap("short.jpg"))
		start(t, config(b), m)
		time.Sleep(2 * time.Minute)
		f.mu.Lock()
		m.mu.Lock()
		defer f.mu.Unlock()
		defer m.mu.Unlock()
		if f.chunks["a.jpg"] != int64(len(pic)) || f.seen[schema.ClassSnapshot][1] != 1 {
			t.Errorf("%d of %d bytes arrived, index %d times", f.chunks["a.jpg"], len(pic), f.seen[schema.ClassSnapshot][1])
		}
		if want := map[uint64]schema.Reason{gone: schema.ReasonBlobGone, short: schema.ReasonBlobGone}; !maps.Equal(m.refused, want) {
			t.Errorf("refused %v, wants %v", m.refused, want)
		}
		if _, ok := m.blobs["a.jpg"]; ok || len(m.recs[schema.ClassSnapshot]) != 0 {
			t.Errorf("the delivered picture is still there, or %d records are left", len(m.recs[schema.ClassSnapshot]))
		}
	})
}

func TestPoisonRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, f := linktest.New(t), newMemory(), newFleet()
		b.Take = f.take
		bad := m.add(schema.ClassEvent, make([]byte, schema.MaxRecord+1))
		m.add(schema.ClassEvent, record(t))
		s := start(t, config(b), m)
		time.Sleep(2 * time.Minute)
		m.mu.Lock()
		why := m.refused[bad]
		m.mu.Unlock()
		if why != schema.ReasonOversize || m.left() != 0 || f.has(schema.ClassEvent) != 1 {
			t.Errorf("refused for %v, %d left, %d arrived", why, m.left(), f.has(schema.ClassEvent))
		}
		if st := s.Status(); st.Generation != 1 {
			t.Errorf("a record that cannot be sent cost %d connections", st.Generation-1)
		}
	})
}

// TestAlarmsFirst: an alarm overtakes a backlog of metrics.
func TestAlarmsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, f := linktest.New(t), newMemory(), newFleet()
		b.Take = f.take
		for range 5000 {
			m.add(schema.ClassMetric, record(t))
		}
		m.add(schema.ClassAlarm, record(t))
		start(t, config(b), m)
		time.Sleep(2 * time.Minute)
		f.mu.Lock()
		order := slices.Clone(f.order)
		f.mu.Unlock()
		if len(order) < 2 || order[0] != schema.ClassAlarm {
			t.Errorf("the first messages are of classes %v", order[:min(len(order), 5)])
		}
		if f.has(schema.ClassMetric) != 5000 {
			t.Errorf("%d of 5000 arrived", f.has(schema.ClassMetric))
		}
	})
}

// TestRejectedIsNotFreed: a fleet that cannot store gives no PUBACK.
func TestRejectedIsNotFreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, f := linktest.New(t), newMemory(), newFleet()
		var full atomic.Bool
		full.Store(true)
		b.Take = func(tp schema.Topic, p []byte) error {
			if full.Load() && tp.Channel == schema.ChanEvent {
				return errors.New("disk full")
			}
			return f.take(tp, p)
		}
		start(t, config(b), m)
		m.add(schema.ClassEvent, record(t))
		time.Sleep(5 * time.Minute)
		if m.left() != 1 {
			t.Fatal("freed without having been stored")
		}
		full.Store(false)
		time.Sleep(15 * time.Minute)
		if m.left() != 0 || f.has(schema.ClassEvent) != 1 {
			t.Errorf("%d left, %d arrived", m.left(), f.has(schema.ClassEvent))
		}
	})
}

func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m := linktest.New(t), newMemory()
		b.Hello.RetryAfterMs = 600_000
		cfg := config(b)
		cfg.ReconnectWindow = time.Second
		s := start(t, cfg, m)
		time.Sleep(9 * time.Minute)
		if n := s.Status().Generation; n != 1 {
			t.Errorf("%d connections within the 10 minutes the fleet asked for", n)
		}
		time.Sleep(2 * time.Minute)
		if n := s.Status().Generation; n != 2 {
			t.Errorf("%d connections after 11 minutes, wants 2", n)
		}
	})
}

func TestStopIsQuickAndSaysGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m := linktest.New(t), newMemory()
		var mu sync.Mutex
		var words []bool
		b.Take = func(tp schema.Topic, p []byte) error {
			var pr schema.Presence
			if tp.Channel == schema.ChanPresence && schema.Decode(p, &pr) == nil {
				mu.Lock()
				words = append(words, pr.Online)
				mu.Unlock()
			}
			return nil
		}
		s, err := New(config(b), m, m)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { _ = s.Run(ctx); close(done) }()
		time.Sleep(time.Minute)
		cancel()
		begin := time.Now()
		<-done
		if d := time.Since(begin); d > 4*time.Second {
			t.Errorf("the stop took %v", d)
		}
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(words, []bool{true, false}) {
			t.Errorf("presence said %v, wants online, then offline", words)
		}
	})
}
