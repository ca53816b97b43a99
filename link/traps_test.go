// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"fulmar/link/linktest"
	"fulmar/schema"
)

// The traps of the client, by the numbers of docs/adr/0012. Those without a test here
// have theirs beside what they concern; the table there says where.

// TestTrapFalseSuccess (1): the PUBACKs of one connection are swallowed, it is cut, and
// those of the next are swallowed, too. The client would call all of it a success after
// its own reconnect; here nothing is freed.
func TestTrapFalseSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		var mu sync.Mutex
		var hangUp func()
		got, eat := 0, true
		script := &linktest.Script{On: func(p packets.ControlPacket, write func([]byte)) bool {
			mu.Lock()
			defer mu.Unlock()
			hangUp = func() { write(nil) }
			if _, ok := isRecord(p); ok && eat {
				got++
				return true
			}
			return false
		}}
		for range 10 {
			m.add(schema.ClassEvent, record(t))
		}
		s := start(t, scripted(script), m)
		for i := range 2 {
			time.Sleep(20 * time.Second)
			mu.Lock()
			if got != i+1 {
				t.Errorf("%d messages arrived in %d connections", got, i+1)
			}
			hangUp()
			mu.Unlock()
		}
		time.Sleep(20 * time.Second)
		if m.left() != 10 || s.Status().Acked != 0 || s.Status().Resent < 20 {
			t.Errorf("%d of 10 left, %+v", m.left(), s.Status())
		}
		mu.Lock()
		eat = false
		mu.Unlock()
		time.Sleep(20 * time.Minute)
		if m.left() != 0 || len(m.refused) != 0 {
			t.Errorf("%d left, refused %v", m.left(), m.refused)
		}
	})
}

// TestTrapConnect (4, read): one CONNECT for each connection, of MQTT 3.1.1 and with a
// clean session; whatever is published has QoS 1.
func TestTrapConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		var mu sync.Mutex
		var wrong []string
		connects := 0
		script := &linktest.Script{On: func(p packets.ControlPacket, write func([]byte)) bool {
			mu.Lock()
			defer mu.Unlock()
			switch p := p.(type) {
			case *packets.ConnectPacket:
				if connects++; p.ProtocolVersion != 4 || !p.CleanSession || p.WillQos != 1 {
					wrong = append(wrong, p.String())
				}
				if connects <= 2 {
					write([]byte{0x20, 2, 0, 1}) // unacceptable protocol version: the client would try 3.1
					return true
				}
			case *packets.PublishPacket:
				if p.Qos != 1 || p.Dup {
					wrong = append(wrong, p.TopicName)
				}
			}
			return false
		}}
		s := start(t, scripted(script), m)
		for c := range schema.Class(3) {
			m.add(c, record(t))
		}
		time.Sleep(2 * time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if len(wrong) > 0 || uint64(connects) != s.Status().Generation || m.left() != 0 {
			t.Errorf("%v; %d CONNECTs in %d connections, %d left", wrong, connects, s.Status().Generation, m.left())
		}
	})
}

// TestTrapOffline (5): 100,000 records made while there is no connection cost the link
// no memory and no packet numbers.
func TestTrapOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, f := linktest.New(t), newMemory(), newFleet()
		b.Take = f.take
		s := start(t, config(b), m)
		time.Sleep(time.Minute)
		b.SetCut(true)
		rec := record(t)
		for range 100_000 {
			m.add(schema.ClassMetric, rec)
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		time.Sleep(30 * time.Minute)
		runtime.GC()
		runtime.ReadMemStats(&after)
		if n := int64(after.HeapAlloc) - int64(before.HeapAlloc); n > 1<<20 || s.Status().InFlight != 0 {
			t.Errorf("%d bytes of heap and %d messages wait in the link", n, s.Status().InFlight)
		}
	})
}

// TestTrapNumbers (5): more messages than the client has numbers go through one
// connection.
func TestTrapNumbers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const total = 66_000
		q := newQueue(total, 1)
		s, err := New(scripted(&linktest.Script{}), q, nil)
		if err != nil {
			t.Fatal(err)
		}
		runUntilEnd(t, s)
		time.Sleep(time.Minute)
		q.open()
		time.Sleep(time.Minute)
		if st := s.Status(); q.left() != 0 || st.Generation != 1 || st.Published != total {
			t.Errorf("%d left, %+v", q.left(), st)
		}
	})
}

// TestTrapHandler (6): what comes in is only taken down where the client hands it over.
// The broker does not read, so a write of the board is stuck; it sends several messages
// and then PUBACKs. Were anything published where messages are handed over, it would
// stand behind the stuck write, the messages behind it and the PUBACKs behind those.
func TestTrapHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		const records, acked = 6, 4
		var mu sync.Mutex
		var numbers []uint16
		var say func([]byte)
		deaf := make(chan struct{})
		script := &linktest.Script{On: func(p packets.ControlPacket, write func([]byte)) bool {
			pub, ok := isRecord(p)
			if !ok {
				return false
			}
			mu.Lock()
			say, numbers = write, append(numbers, pub.MessageID)
			last := len(numbers) == records-1
			mu.Unlock()
			if last {
				<-deaf
			}
			return true
		}}
		s := start(t, scripted(script), m)
		t.Cleanup(func() { close(deaf) })
		time.Sleep(time.Minute)
		for range records {
			m.add(schema.ClassEvent, record(t))
			time.Sleep(100 * time.Millisecond)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(numbers) != records-1 { // the last one is stuck on its way
			t.Fatalf("the broker has read %d messages, %+v", len(numbers), s.Status())
		}
		answer, err := schema.Encode(&schema.HelloAck{V: 1})
		if err != nil {
			t.Fatal(err)
		}
		for range 8 {
			say(linktest.Publish("f/v1/default/dock-1/hello/ack", answer))
		}
		for _, id := range numbers[:acked] {
			say([]byte{0x40, 2, byte(id >> 8), byte(id)})
		}
		time.Sleep(time.Second)
		if st := s.Status(); m.left() != records-acked || st.Generation != 1 {
			t.Errorf("%d of %d records are left a second after %d PUBACKs; %+v", m.left(), records, acked, st)
		}
	})
}

// TestTrapBackoff (7): boards that lost the fleet together do not come back together.
func TestTrapBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := linktest.New(t)
		var mu sync.Mutex
		at := map[string][]time.Time{}
		b.SetCut(true)
		for i := range 10 {
			cfg := config(b)
			cfg.Board = fmt.Sprintf("b%d", i)
			cfg.Dial = func(ctx context.Context) (net.Conn, error) {
				mu.Lock()
				at[cfg.Board] = append(at[cfg.Board], time.Now())
				mu.Unlock()
				return b.Dial(ctx)
			}
			start(t, cfg, newMemory())
		}
		time.Sleep(time.Hour)
		mu.Lock()
		defer mu.Unlock()
		same := map[time.Time]int{}
		for board, tries := range at {
			for _, x := range tries {
				same[x.Truncate(100*time.Millisecond)]++
			}
			if len(tries) < 10 || len(tries) > 100 {
				t.Errorf("%s tried %d times in an hour", board, len(tries))
			}
		}
		for x, n := range same {
			if n > 3 {
				t.Errorf("%d boards came in the same tenth of a second, %v", n, x)
			}
		}
	})
}

// TestTrapStop (8): a stop waits for what is in flight, where the client would fail it.
func TestTrapStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, f := linktest.New(t), newMemory(), newFleet()
		b.Take = func(tp schema.Topic, p []byte) error {
			if tp.Channel == schema.ChanEvent {
				time.Sleep(200 * time.Millisecond)
			}
			return f.take(tp, p)
		}
		s, err := New(config(b), m, m)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { _ = s.Run(ctx); close(done) }()
		time.Sleep(time.Minute)
		for range 20 {
			m.add(schema.ClassEvent, make([]byte, 2000))
		}
		time.Sleep(100 * time.Millisecond)
		flying := s.Status().InFlight
		cancel()
		<-done
		arrived := f.has(schema.ClassEvent)
		if flying < 2 || arrived == 0 || 20-m.left() != arrived || s.Status().Acked != uint64(arrived) {
			t.Errorf("%d messages were in flight, %d records arrived, %d were freed", flying, arrived, 20-m.left())
		}
	})
}

// TestTrapLeak (11): 50 connections that end in the middle of sending leave nothing.
func TestTrapLeak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m := linktest.New(t), newMemory()
		cfg := config(b)
		cfg.ReconnectWindow = time.Second
		s := start(t, cfg, m)
		time.Sleep(time.Minute)
		count := func() int {
			time.Sleep(writeTimeout + time.Second) // for a publisher stuck in the client
			synctest.Wait()
			return runtime.NumGoroutine()
		}
		before := count()
		for i := range 50 {
			for range 20 {
				m.add(schema.ClassEvent, make([]byte, 3000))
			}
			if i%2 == 0 {
				b.SetCut(true)
				b.SetCut(false)
			} else {
				b.Freeze()
			}
			time.Sleep(2 * time.Minute)
		}
		time.Sleep(20 * time.Minute)
		// A frozen connection's far end lives until the broker's own time is over.
		if after := count(); after > before || s.Status().Generation < 40 || m.left() != 0 {
			t.Errorf("%d goroutines, before it were %d; %d left, %+v", after, before, m.left(), s.Status())
		}
	})
}
