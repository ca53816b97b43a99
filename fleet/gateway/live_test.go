// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"fulmar/fleet/ingest"
	"fulmar/link"
	"fulmar/schema"
	"fulmar/storage"
)

// watched notes when live events are stored.
type watched struct {
	Ingester
	mu     sync.Mutex
	took   []time.Duration // from Append to the commit
	replay int             // records of the backlog
}

func (w *watched) Publish(ctx context.Context, k ingest.BoardKey, topic string, p []byte) (*schema.Ack, bool, error) {
	a, refused, err := w.Ingester.Publish(ctx, k, topic, p)
	now := time.Now()
	var m schema.Message
	if err != nil || schema.Decode(p, &m) != nil {
		return a, refused, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if m.Replay {
		w.replay += len(m.Records)
	}
	for _, r := range m.Records {
		if rec, err := schema.DecodeRecord(r.Payload); err == nil && rec.Kind == schema.KindEvent {
			w.took = append(w.took, now.Sub(time.Unix(0, rec.Time.Mono)))
		}
	}
	return a, refused, err
}

// BenchmarkLive measures how long a live event takes, from the call that stores it on
// the board to its commit at the fleet, while a backlog of small records drains
// through the same connection: a real spool, link, gateway, mutual TLS and ledger on
// one machine. FULMAR_BACKLOG sets the backlog (50,000 records; the asked figure is
// for 1,000,000).
func BenchmarkLive(b *testing.B) {
	backlog := 50_000
	if n, err := strconv.Atoi(os.Getenv("FULMAR_BACKLOG")); err == nil && n > 0 {
		backlog = n
	}
	for range b.N {
		took, rate := liveBehind(b, backlog)
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds())/1e3, "p50-ms")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1e3, "p99-ms")
		b.ReportMetric(float64(took[len(took)-1].Microseconds())/1e3, "max-ms")
		b.ReportMetric(float64(len(took)), "events")
		b.ReportMetric(rate, "backlog-records/s")
	}
}

// liveBehind gives the times of the live events and the rate of the backlog.
func liveBehind(b *testing.B, backlog int) ([]time.Duration, float64) {
	b.Helper()
	w := &watched{}
	h := open(b, func(in Ingester) Ingester { w.Ingester = in; return w })
	defer h.stop()
	cert := h.enrol(b, "b1")
	cfg := storage.Config{Dir: b.TempDir(), Clock: schema.NewClock(7, 0)}
	cfg.Classes[schema.ClassMetric].QuotaBytes = 1 << 30
	spool, err := storage.Open(cfg)
	if err != nil {
		b.Fatal(err)
	}
	rec, err := schema.EncodeRecord(&schema.Record{Kind: schema.KindSamples, Samples: &schema.Samples{Series: []string{"cpu.load_percent"}, Value: []float64{1}}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	for i := range backlog {
		if _, err := spool.Append(ctx, schema.ClassMetric, rec); err != nil {
			b.Fatal(err)
		}
		if i%1000 == 999 { // the queue is bounded
			if err := spool.Flush(); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := spool.Flush(); err != nil {
		b.Fatal(err)
	}
	s, err := link.New(link.Config{
		Tenant: "default", Board: "b1", Clock: schema.NewClock(7, 0), ReconnectWindow: time.Millisecond,
		Dial: func(ctx context.Context) (net.Conn, error) {
			d := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: h.ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{cert}}}
			return d.DialContext(ctx, "tcp", h.addr)
		},
	}, spool, nil)
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{spool.Run, s.Run} {
		wg.Add(1)
		go func() { defer wg.Done(); _ = run(ctx) }()
	}
	defer func() { cancel(); wg.Wait(); _ = spool.Close() }()
	for !s.Status().Up() {
		time.Sleep(time.Millisecond)
	}
	begin := time.Now()
	drained := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.replay
	}
	for i := uint64(0); drained() < backlog && time.Since(begin) < 5*time.Minute; i++ {
		event, err := schema.EncodeRecord(&schema.Record{
			Kind: schema.KindEvent, Time: schema.Time{Boot: 7, Mono: time.Now().UnixNano()},
			Event: &schema.Event{Source: "cam0", Frame: i, Boxes: []schema.Box{{Score: 1, X1: 1, Y1: 1}}},
		})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := spool.Append(ctx, schema.ClassEvent, event); err != nil {
			b.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	rate := float64(drained()) / time.Since(begin).Seconds()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.took) < 10 || w.replay < backlog {
		b.Fatalf("%d live events while %d of %d records of the backlog came: %+v", len(w.took), w.replay, backlog, s.Status())
	}
	return slices.Clone(w.took), rate
}
