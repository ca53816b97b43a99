// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"fulmar/link/guard"
	"fulmar/link/linktest"
	"fulmar/schema"
)

// BenchmarkDrain sends 200,000 records of 200 bytes through a real broker on the
// loopback, once by the link and once by the bare client with the same payloads and
// window, in the same run. "ratio" is the link's time over the bare client's,
// "of-bare" the link's rate over the bare client's.
func BenchmarkDrain(b *testing.B) {
	const records, each = 200_000, 64
	broker := linktest.New(b)
	var payloads [][]byte
	var got atomic.Int64
	capture := true
	broker.Take = func(tp schema.Topic, p []byte) error {
		if tp.Channel == schema.ChanEvent {
			got.Add(1)
			if capture {
				payloads = append(payloads, p)
			}
		}
		return nil
	}
	addr := broker.Listen(b)
	dial := func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", addr) }
	var byLink, bare time.Duration
	var allocs, peak uint64
	for range b.N {
		out := newQueue(records, each)
		s, err := New(Config{Tenant: "default", Board: "dock-1", Dial: dial, ReconnectWindow: time.Nanosecond}, out, nil)
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { _ = s.Run(ctx); close(done) }()
		for !s.Status().Up() {
			time.Sleep(100 * time.Microsecond)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		begin := time.Now()
		out.open()
		for out.left() > 0 {
			time.Sleep(100 * time.Microsecond)
		}
		byLink += time.Since(begin)
		runtime.ReadMemStats(&after)
		allocs += after.Mallocs - before.Mallocs
		peak = max(peak, uint64(runtime.NumGoroutine()))
		cancel()
		<-done
		capture = false
		bare += drainBare(b, addr, payloads)
	}
	b.ReportMetric(float64(byLink)/float64(bare), "ratio")
	b.ReportMetric(float64(bare)/float64(byLink), "of-bare")
	b.ReportMetric(float64(records*b.N)/byLink.Seconds(), "records/s")
	b.ReportMetric(float64(len(payloads)), "messages")
	b.ReportMetric(float64(allocs)/float64(b.N)/records, "allocs/record")
	b.ReportMetric(float64(peak), "goroutines")
}

// drainBare publishes payloads with the bare client, 64 in flight.
func drainBare(b *testing.B, addr string, payloads [][]byte) time.Duration {
	b.Helper()
	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + addr).SetClientID("bare").SetStore(guard.NoStore{}))
	if t := c.Connect(); t.Wait() && t.Error() != nil {
		b.Fatal(t.Error())
	}
	defer c.Disconnect(100)
	flying := make(chan mqtt.Token, defaultWindow)
	done := make(chan struct{})
	begin := time.Now()
	go func() {
		for t := range flying {
			t.Wait()
		}
		close(done)
	}()
	for _, p := range payloads {
		flying <- c.Publish("f/v1/default/dock-1/e/event", 1, false, p)
	}
	close(flying)
	<-done
	return time.Since(begin)
}

// queue is an outbox of equal events, given out a few at a time; it is empty until
// opened. It makes them as they are read, as a spool does: 200,000 of them at hand
// would be the collector's work and not the link's.
type queue struct {
	payload  []byte
	total    uint64
	each     int
	last     atomic.Uint64
	acked    atomic.Uint64
	wakeChan chan struct{}
}

func newQueue(n, each int) *queue {
	return &queue{payload: make([]byte, 200), total: uint64(n), each: each, wakeChan: make(chan struct{}, 1)}
}

func (q *queue) open() {
	q.last.Store(q.total)
	q.wakeChan <- struct{}{}
}

func (q *queue) left() uint64 { return q.last.Load() - q.acked.Load() }

func (q *queue) Read(c schema.Class, from uint64, n, _ int) ([]schema.Stored, error) {
	last := q.last.Load()
	if c != schema.ClassEvent || from > last {
		return nil, nil
	}
	out := make([]schema.Stored, min(last-from+1, uint64(min(n, q.each))))
	for i := range out {
		out[i] = schema.Stored{Class: c, Epoch: 1, Seq: from + uint64(i), Payload: q.payload}
	}
	return out, nil
}

func (q *queue) Ack(_ schema.Class, _, _, last uint64) error {
	q.acked.Store(last)
	return nil
}

func (q *queue) Cursors() []schema.Cursor {
	return []schema.Cursor{{Class: schema.ClassEvent, Epoch: 1, Acked: q.acked.Load(), Last: q.last.Load()}}
}

func (q *queue) Wake() <-chan struct{} { return q.wakeChan }
