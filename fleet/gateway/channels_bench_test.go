// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"testing"
	"time"

	"fulmar/command"
	"fulmar/link"
	"fulmar/schema"
	"fulmar/storage"
)

// BenchmarkBeside measures the way of a command without who gives and does it: from
// Gateway.SendCommand to the board's inbox ("down"), from Session.Send of a result to its
// return after the PUBACK ("up"), and both with the result sent from the inbox ("round"):
// a real link and gateway over mutual TLS on one machine, with a fleet that stores into
// memory. Once on a quiet line, once while a backlog drains through the same connection.
func BenchmarkBeside(b *testing.B) {
	for name, backlog := range map[string]int{"quiet": 0, "backlog": 200_000} {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				besideOnce(b, backlog)
			}
		})
	}
}

func besideOnce(b *testing.B, backlog int) {
	h, side := channels(b)
	defer h.stop()
	cert := h.enrol(b, "b1")
	cfg := storage.Config{Dir: b.TempDir(), Clock: schema.NewClock(7, 0)}
	cfg.Classes[schema.ClassMetric].QuotaBytes = 1 << 30
	spool, err := storage.Open(cfg)
	if err != nil {
		b.Fatal(err)
	}
	fill(b, spool, backlog)
	inbox, up := make(chan time.Time, 1), make(chan struct{}, 1)
	s, err := link.New(link.Config{
		Tenant: "default", Board: "b1", Clock: schema.NewClock(7, 0), ReconnectWindow: time.Millisecond,
		Filters: []schema.Channel{schema.ChanCommand}, Inbox: func(link.Down) { inbox <- time.Now() },
		Connected: func(ctx context.Context, _ uint64) { up <- struct{}{}; <-ctx.Done() },
		Dial: func(ctx context.Context) (net.Conn, error) {
			d := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: h.ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{cert}}}
			return d.DialContext(ctx, "tcp", h.addr)
		},
	}, spool, nil)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { _ = s.Run(ctx); close(ended) }()
	defer func() { cancel(); <-ended; _ = spool.Close() }()
	<-up
	<-side.hellos
	id := command.ID{1}
	result := encoded(b, &command.Report{V: 1, Result: command.Result{V: 1, ID: id, State: command.Done}})
	envelope := make([]byte, 700) // a command of 300 bytes, signed
	var down, upward, round []time.Duration
	for len(round) < 2000 && (backlog == 0 || s.Status().Acked < uint64(backlog)) {
		began := time.Now()
		if err := h.gate.SendCommand("default", "b1", id.String(), envelope); err != nil {
			b.Fatal(err)
		}
		at := <-inbox
		if err := s.Send(ctx, schema.ChanResult, id.String(), result); err != nil {
			b.Fatal(err)
		}
		end := time.Now()
		down, upward, round = append(down, at.Sub(began)), append(upward, end.Sub(at)), append(round, end.Sub(began))
	}
	b.ReportMetric(float64(len(round)), "commands")
	for what, d := range map[string][]time.Duration{"down": down, "up": upward, "round": round} {
		slices.Sort(d)
		b.ReportMetric(float64(d[len(d)/2].Microseconds()), what+"-p50-us")
		b.ReportMetric(float64(d[len(d)*99/100].Microseconds()), what+"-p99-us")
	}
}

// fill puts small records into a spool.
func fill(b *testing.B, spool *storage.Spool, n int) {
	b.Helper()
	rec, err := schema.EncodeRecord(&schema.Record{Kind: schema.KindSamples, Samples: &schema.Samples{Series: []string{"cpu.load_percent"}, Value: []float64{1}}})
	if err != nil {
		b.Fatal(err)
	}
	for i := range n {
		if _, err := spool.Append(b.Context(), schema.ClassMetric, rec); err != nil {
			b.Fatal(err)
		}
		if i%1000 == 999 { // the queue is bounded
			if err := spool.Flush(); err != nil {
				b.Fatal(err)
			}
		}
	}
}
