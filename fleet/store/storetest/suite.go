// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"fulmar/fleet/store/live"
	"fulmar/fleet/web"
	"fulmar/schema"
)

// once: whatever is sent twice, or by two at a time, or cut otherwise, has its effect once.
func once(t *testing.T, open Open) {
	s, stop := open(t, t.TempDir(), Bounds{})
	defer stop()
	now := time.Now()
	b := &sender{t: t, s: s, key: live.Key{Tenant: "t1", Board: "a"}}
	for i := range 20 {
		b.send(schema.ClassEvent, now, event(uint64(2*i+1), ""), event(uint64(2*i+2), ""))
		// Apart by more than the board's clock is taken to move from one message to the next.
		b.send(schema.ClassMetric, now.Add(time.Duration(i-20)*20*time.Millisecond), sample("x", float64(i)))
	}
	var wg sync.WaitGroup
	for _, x := range b.all {
		for range 3 {
			wg.Go(func() {
				if refused, err := s.Publish(t.Context(), b.key, x.topic, x.payload); err != nil || refused {
					t.Error(refused, err)
				}
			})
		}
	}
	wg.Wait()
	got := overview(t, s, "t1")["a"]
	if e := book(got, schema.ClassEvent); e.Made != 40 || e.Arrived != 40 || e.Lost != 0 || e.Waiting != 0 || e.Duplicates != 120 {
		t.Errorf("events: %+v", e)
	}
	if d := detections(t, s, web.DetectionQuery{Tenant: "t1"}); len(d) != 40 || got.Cameras[0].Events != 40 {
		t.Errorf("%d detections, the camera has %d, wants 40", len(d), got.Cameras[0].Events)
	}
	lines, err := s.Series(t.Context(), web.SeriesQuery{Tenant: "t1", Board: "a", From: now.Add(-time.Second), To: now.Add(time.Second), Points: 5000})
	if err != nil || len(lines) != 1 || len(lines[0].T) != 20 {
		t.Errorf("%+v, %v", lines, err)
	}
}

// sums: while boards write and lose, the numbers of one Overview agree with each other.
func sums(t *testing.T, open Open) {
	s, stop := open(t, t.TempDir(), Bounds{})
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := &sender{t: t, s: s, key: live.Key{Tenant: "t1", Board: "a"}}
		for i := range 150 {
			b.seq[schema.ClassMetric] += 2 // lost
			b.send(schema.ClassMetric, time.Now(), sample("x", float64(i)))
			last := b.seq[schema.ClassMetric] - 1
			b.send(schema.ClassAlarm, time.Now(), schema.Record{Kind: schema.KindGap, Gap: &schema.Gap{
				Class: schema.ClassMetric, Epoch: 7, First: last - 1, Last: last, Reason: schema.ReasonQuota,
			}})
		}
	}()
	for end := false; !end; {
		select {
		case <-done:
			end = true
		default:
		}
		got := overview(t, s, "t1")["a"]
		for _, l := range got.Ledger {
			reasons := uint64(0)
			for _, n := range l.Reasons {
				reasons += n
			}
			if l.Made != l.Arrived+l.Lost+l.Waiting || l.Lost != reasons {
				t.Fatalf("%+v does not add up", l)
			}
		}
		if m := book(got, schema.ClassMetric); end && (m.Made != 450 || m.Arrived != 150 || m.Lost != 300) {
			t.Errorf("%+v", m)
		}
	}
}

// tenants: boards of the same name in two tenants know nothing of each other, whatever is
// asked.
func tenants(t *testing.T, open Open) {
	s, stop := open(t, t.TempDir(), Bounds{})
	defer stop()
	ctx, now := t.Context(), time.Now()
	one := &sender{t: t, s: s, key: live.Key{Tenant: "t1", Board: "a"}}
	two := &sender{t: t, s: s, key: live.Key{Tenant: "t2", Board: "a"}}
	for i, b := range []*sender{one, two} {
		err := errors.Join(
			s.Hello(ctx, b.key, &schema.Hello{V: 1, Board: "a", Release: fmt.Sprint("r", i), Conn: 1, Now: clock(now)}),
			s.Presence(ctx, b.key, schema.Presence{V: 1, Online: i == 0, Boot: 1, Conn: 1}))
		if err != nil {
			t.Fatal(err)
		}
	}
	one.send(schema.ClassMetric, now, sample("secret", 1))
	one.send(schema.ClassEvent, now, event(1, "p1.jpg"))
	one.picture("p1.jpg", now, []byte("picture of one"))
	one.send(schema.ClassAlarm, now, schema.Record{Kind: schema.KindReport, Report: &schema.Report{Subject: "x", State: "bad", Severity: schema.SeverityAlarm}})
	if x := overview(t, s, "t1")["a"]; x.Release != "r0" || !x.Online || len(x.Latest) != 1 || len(x.Reports) != 1 || len(x.Cameras) != 1 {
		t.Errorf("one: %+v", x)
	}
	if x := overview(t, s, "t2")["a"]; x.Release != "r1" || x.Online || len(x.Latest)+len(x.Reports)+len(x.Cameras)+len(x.Ledger)+len(x.Gaps) != 0 {
		t.Errorf("two sees something of one: %+v", x)
	}
	id := detections(t, s, web.DetectionQuery{Tenant: "t1"})[0].ID
	if d := detections(t, s, web.DetectionQuery{Tenant: "t2"}); len(d) != 0 {
		t.Errorf("two sees detections of one: %+v", d)
	}
	for _, q := range []web.DetectionQuery{{Tenant: "t2", ID: id}, {Tenant: "t2", Before: id}, {Tenant: "t2", After: id}} {
		if d, err := s.Detections(ctx, q); !errors.Is(err, web.ErrNotFound) {
			t.Errorf("%+v: %+v, %v", q, d, err)
		}
	}
	if x, err := s.Series(ctx, web.SeriesQuery{Tenant: "t2", Board: "a"}); err != nil || len(x) != 0 {
		t.Errorf("two sees series of one: %+v, %v", x, err)
	}
	if _, err := s.Picture(ctx, "t2", "a", "p1.jpg"); !errors.Is(err, web.ErrNotFound) {
		t.Errorf("two asks for a picture of one: %v", err)
	}
	two.send(schema.ClassEvent, now, event(2, "p1.jpg"))
	two.picture("p1.jpg", now, []byte("two's own"))
	if err := s.Wipe(ctx, two.key); err != nil {
		t.Fatal(err)
	}
	if x := overview(t, s, "t2")["a"]; x.State != web.StateNeverHeard || len(detections(t, s, web.DetectionQuery{Tenant: "t2"})) != 0 {
		t.Errorf("after its wipe two has %+v", x)
	}
	f, err := s.Picture(ctx, "t1", "a", "p1.jpg")
	if err != nil {
		t.Fatalf("the wipe of two took a picture of one: %v", err)
	}
	defer f.Close() //nolint:errcheck // only read
	if text, err := io.ReadAll(f); err != nil || string(text) != "picture of one" || len(detections(t, s, web.DetectionQuery{Tenant: "t1"})) != 1 {
		t.Errorf("one has lost something: %q, %v", text, err)
	}
}

// order: detections come newest first by the moment of capture, and pages join without
// overlap in both directions.
func order(t *testing.T, open Open) {
	s, stop := open(t, t.TempDir(), Bounds{})
	defer stop()
	now := time.Now()
	a := &sender{t: t, s: s, key: live.Key{Tenant: "t1", Board: "a"}}
	b := &sender{t: t, s: s, key: live.Key{Tenant: "t1", Board: "b"}}
	for i := range 30 { // arrives in another order
		n := uint64(i*7%30) + 1
		[]*sender{a, b}[i%2].send(schema.ClassEvent, now.Add(time.Duration(n)*time.Second-time.Minute), event(n, ""))
	}
	all := detections(t, s, web.DetectionQuery{Tenant: "t1"})
	want := ""
	for n := 30; n > 0; n-- {
		want += fmt.Sprint(n, " ")
	}
	if frames(all) != want {
		t.Errorf("%s", frames(all))
	}
	joined, before := "", ""
	for range 10 {
		page := detections(t, s, web.DetectionQuery{Tenant: "t1", Before: before, Limit: 4})
		if len(page) == 0 {
			break
		}
		joined, before = joined+frames(page), page[len(page)-1].ID
	}
	if joined != want {
		t.Errorf("in pages: %s", joined)
	}
	if up := frames(detections(t, s, web.DetectionQuery{Tenant: "t1", After: all[10].ID, Limit: 3})); up != "21 22 23 " {
		t.Errorf("after 20: %s", up)
	}
	for _, d := range detections(t, s, web.DetectionQuery{Tenant: "t1", Board: "b"}) {
		if d.Board != "b" {
			t.Errorf("asked for b, got %s", d.Board)
		}
	}
}

// bounds: no question gives more than it may, and what is not there is said to be so.
func bounds(t *testing.T, open Open) {
	s, stop := open(t, t.TempDir(), Bounds{})
	defer stop()
	ctx, now := t.Context(), time.Now()
	b := &sender{t: t, s: s, key: live.Key{Tenant: "t1", Board: "a"}}
	for range 3 {
		var recs []schema.Record
		for range 90 {
			recs = append(recs, event(1, ""))
		}
		b.send(schema.ClassEvent, now, recs...)
	}
	for _, limit := range []int{0, 5000, -1} {
		if d := detections(t, s, web.DetectionQuery{Tenant: "t1", Limit: limit}); len(d) != 200 {
			t.Errorf("limit %d gives %d", limit, len(d))
		}
	}
	for i := range 60 {
		b.seq[schema.ClassSnapshot] += 2
		b.send(schema.ClassAlarm, now, schema.Record{Kind: schema.KindGap, Gap: &schema.Gap{
			Class: schema.ClassMetric, Epoch: 7, First: uint64(2*i + 1), Last: uint64(2*i + 1), Reason: schema.ReasonCrash,
		}})
	}
	if g := overview(t, s, "t1")["a"].Gaps; len(g) != 50 || g[0].First != 119 {
		t.Errorf("%d gaps, the first %+v", len(g), g[0])
	}
	if _, err := s.Series(ctx, web.SeriesQuery{Tenant: "t1", Board: "nobody"}); !errors.Is(err, web.ErrNotFound) {
		t.Errorf("series of nobody: %v", err)
	}
	if x, err := s.Series(ctx, web.SeriesQuery{Tenant: "t1", Board: "b"}); err != nil || len(x) != 0 {
		t.Errorf("series of a board that was never heard: %v, %v", x, err)
	}
	if _, err := s.Picture(ctx, "t1", "a", "../ledger.db"); !errors.Is(err, web.ErrNotFound) {
		t.Errorf("a picture outside: %v", err)
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Detections(over, web.DetectionQuery{Tenant: "t1"}); err == nil {
		t.Error("an answer for who has gone")
	}
}

// retention: what is too much goes, oldest first; books of numbers stay whole.
func retention(t *testing.T, open Open) {
	s, stop := open(t, t.TempDir(), Bounds{EventBytes: 300_000})
	defer stop()
	b := &sender{t: t, s: s, key: live.Key{Tenant: "t1", Board: "a"}}
	begin, n := time.Now().Add(-time.Minute), uint64(0)
	for range 30 { // 3,000 events of over 200 bytes
		var recs []schema.Record
		for range 100 {
			n++
			recs = append(recs, event(n, ""))
		}
		b.send(schema.ClassEvent, begin.Add(time.Duration(n)*time.Millisecond), recs...)
	}
	var left []web.Detection
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		more, err := detections(t, s, web.DetectionQuery{Tenant: "t1"}), error(nil)
		for left = nil; len(more) > 0; {
			left = append(left, more...)
			more, err = s.Detections(t.Context(), web.DetectionQuery{Tenant: "t1", Before: left[len(left)-1].ID})
		}
		if err == nil && len(left) < 1500 { // an error where the mark was pruned meanwhile
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d events are still there", len(left))
		}
	}
	if len(left) == 0 || left[0].Event.Frame != n {
		t.Fatalf("%d events are left, not the newest", len(left))
	}
	for i := range left {
		if left[i].Event.Frame != n-uint64(i) {
			t.Fatalf("the %d. newest that is left is %d", i, left[i].Event.Frame)
		}
	}
	if e := book(overview(t, s, "t1")["a"], schema.ClassEvent); e.Made != n || e.Arrived != n || e.Lost+e.Waiting != 0 {
		t.Errorf("%+v", e)
	}
}

// reopen: what was stored is there after a stop, and so is the memory of what has arrived.
func reopen(t *testing.T, open Open) {
	dir, now := t.TempDir(), time.Now()
	s, stop := open(t, dir, Bounds{})
	b := &sender{t: t, s: s, key: live.Key{Tenant: "t1", Board: "a"}}
	if err := s.Presence(t.Context(), b.key, schema.Presence{V: 1, Online: true, Boot: 1, Conn: 1}); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		b.send(schema.ClassEvent, now, event(uint64(i+1), ""))
		b.send(schema.ClassMetric, now, sample("x", float64(i)))
	}
	before := overview(t, s, "t1")["a"]
	stop()
	s, stop = open(t, dir, Bounds{})
	defer stop()
	b.s = s
	for _, x := range b.all[:len(b.all):len(b.all)] {
		b.again(x)
	}
	after := overview(t, s, "t1")["a"]
	if e := book(after, schema.ClassEvent); e.Arrived != 10 || e.Duplicates != 10 || len(detections(t, s, web.DetectionQuery{Tenant: "t1"})) != 10 {
		t.Errorf("%+v", e)
	}
	if after.Online || len(after.Latest) != 1 || after.Latest[0].Value != before.Latest[0].Value || after.Cameras[0].Events != 10 {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

// refused: what can never be understood is taken, and changes nothing else.
func refused(t *testing.T, open Open) {
	s, stop := open(t, t.TempDir(), Bounds{})
	defer stop()
	b := &sender{t: t, s: s, key: live.Key{Tenant: "t1", Board: "a"}}
	good := b.pack(schema.ClassEvent, time.Now(), event(1, ""))
	for _, x := range []sent{
		{good.topic, []byte("no CBOR")},
		{good.topic, nil},
		{schema.MessageTopic("t2", "a", schema.ClassEvent).String(), good.payload}, // another's topic
		{schema.MessageTopic("t1", "b", schema.ClassEvent).String(), good.payload},
		{schema.MessageTopic("t1", "a", schema.ClassAlarm).String(), good.payload}, // another class's
	} {
		if refused, err := s.Publish(t.Context(), b.key, x.topic, x.payload); err != nil || !refused {
			t.Errorf("%s: refused %v, %v", x.topic, refused, err)
		}
	}
	for _, tenant := range []string{"t1", "t2"} {
		if d := detections(t, s, web.DetectionQuery{Tenant: tenant}); len(d) != 0 {
			t.Errorf("%s has %d detections", tenant, len(d))
		}
	}
}
