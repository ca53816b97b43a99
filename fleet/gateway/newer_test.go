// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fulmar/link"
	"fulmar/schema"
	"fulmar/storage"
)

// tongue is a board's end of a connection that raises the wire version of what it
// publishes. The client writes each packet at once.
type tongue struct {
	net.Conn
	newer func(topic string) bool
}

func (c *tongue) Write(p []byte) (int, error) {
	at := 1
	for at < len(p) && p[at]&0x80 != 0 {
		at++
	}
	at++
	if p[0]>>4 == 3 && len(p) > at+2 {
		n := int(p[at])<<8 | int(p[at+1])
		body := at + 2 + n + 2
		if len(p) > body+2 && c.newer(string(p[at+2:at+2+n])) {
			p = append([]byte(nil), p...)
			p[body+2] = schema.Version + 1
		}
	}
	return c.Conn.Write(p)
}

// TestNewerBoard: a real board that speaks a newer wire version, in all it says or only
// where records are, keeps every record over as many connections as make the link
// suspect one; it comes no faster than it is told to, and once it is understood all
// arrives.
func TestNewerBoard(t *testing.T) {
	t.Parallel()
	for name, speaks := range map[string]func(string) bool{
		"all": func(string) bool { return true },
		"records": func(topic string) bool {
			return !strings.HasSuffix(topic, "/hello") && !strings.HasSuffix(topic, "/st")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newerBoard(t, speaks)
		})
	}
}

func newerBoard(t *testing.T, speaks func(string) bool) {
	h := open(t, nil)
	h.gate.away.Store(int64(50 * time.Millisecond))
	cert := h.enrol(t, "b1")
	spool, err := storage.Open(storage.Config{Dir: t.TempDir(), Clock: schema.NewClock(7, 0), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	for c, r := range map[schema.Class]*schema.Record{
		schema.ClassMetric: {Kind: schema.KindSamples, Samples: &schema.Samples{Series: []string{"cpu.load_percent"}, Value: []float64{1}}},
		schema.ClassEvent:  {Kind: schema.KindEvent, Event: &schema.Event{Source: "cam0", Boxes: []schema.Box{}}},
		schema.ClassAlarm:  {Kind: schema.KindReport, Report: &schema.Report{Subject: "s", State: "ok"}},
	} {
		for range 100 {
			p, err := schema.EncodeRecord(r)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := spool.Append(ctx, c, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	held := func() (n uint64) {
		for _, c := range spool.Stats().Classes {
			n += c.Outstanding + uint64(c.Queued)
		}
		return n
	}
	var updated, dials, reports atomic.Int64
	s, err := link.New(link.Config{
		Tenant: "default", Board: "b1", Clock: schema.NewClock(7, 0), ReconnectWindow: time.Millisecond,
		Report: func(schema.Report) { reports.Add(1) },
		Dial: func(ctx context.Context) (net.Conn, error) {
			dials.Add(1)
			d := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: h.ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{cert}}}
			conn, err := d.DialContext(ctx, "tcp", h.addr)
			if err != nil {
				return nil, err
			}
			return &tongue{conn, func(topic string) bool { return updated.Load() == 0 && speaks(topic) }}, nil
		},
	}, few{spool}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{spool.Run, s.Run} {
		wg.Add(1)
		go func() { defer wg.Done(); _ = run(ctx) }()
	}
	defer func() { cancel(); wg.Wait(); _ = spool.Close() }()
	until := func(what string, is func() bool) {
		t.Helper()
		for end := time.Now().Add(2 * time.Minute); !is(); time.Sleep(2 * time.Millisecond) { // real sockets
			if time.Now().After(end) {
				t.Fatalf("not within two minutes: %s; %+v, %+v, %d held", what, s.Status(), h.gate.Stats(), held())
			}
		}
	}
	begin := time.Now()
	const tries = 3 // as many as make the link suspect a message that ends them
	until("connections", func() bool { return dials.Load() > tries })
	if took := time.Since(begin); took < tries*50*time.Millisecond {
		t.Errorf("%d connections in %v: the board was told to stay away longer", tries, took)
	}
	st := s.Status()
	if n := held(); n != 300 || st.Acked != 0 || st.Refused != 0 || st.Suspects != 0 || reports.Load() != 0 {
		t.Errorf("%d records held of 300; %+v, %d reports of the link", n, st, reports.Load())
	}
	if !strings.Contains(st.Err.Error(), "asks to come back") {
		t.Errorf("the link says %v", st.Err)
	}
	var streams, lost, severity int
	var text string
	// Where the hello is readable it ends the alarm, until the next record comes.
	until("the alarm", func() bool {
		err := h.db.Read.QueryRow(`SELECT severity, text FROM report WHERE subject = 'fleet/version'`).Scan(&severity, &text)
		return err == nil && severity == 2 && strings.Contains(text, "update fulmar-fleet")
	})
	if err := h.db.Read.QueryRow(`SELECT (SELECT coalesce(sum(arrived), 0) FROM stream), (SELECT count(*) FROM refused) + (SELECT count(*) FROM gap),
  (SELECT text FROM report WHERE subject = 'fleet/version')`).Scan(&streams, &lost, &text); err != nil || streams != 0 || lost != 0 || text == "" {
		t.Errorf("%d arrived, %d refused or lost, it says %q, %v", streams, lost, text, err)
	}
	updated.Store(1)
	until("all arrived", func() bool { return held() == 0 })
	var arrived, gone, words int
	if err := h.db.Read.QueryRow(`SELECT (SELECT sum(arrived) FROM stream), (SELECT sum(lost) FROM stream),
  (SELECT count(*) FROM report WHERE subject LIKE 'fleet/%' AND severity > 0)`).Scan(&arrived, &gone, &words); err != nil || arrived != 300 || gone != 0 || words != 0 {
		t.Errorf("%d arrived, %d lost, %d words of the fleet stand, %v", arrived, gone, words, err)
	}
}

// few gives few records at a time, so that there are many messages.
type few struct{ *storage.Spool }

func (f few) Read(c schema.Class, from uint64, n, size int) ([]schema.Stored, error) {
	return f.Spool.Read(c, from, min(n, 10), size)
}
