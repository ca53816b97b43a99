// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/schema"
)

// TestThirtyDaysOffline: a board without its network for a month, one sample a minute
// and an event each ten, in classes that hold a part of it. Then it drains: every
// number is at the fleet or told as evicted, and the newest days are whole: in the MiB
// that each class has here, 3.4 of events and 2 of samples.
func TestThirtyDaysOffline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, traits{boards: 1, window: 10 * time.Minute, calm: true, small: true})
		b := w.boards[0]
		w.stopFleet() // it would only count its seconds
		var lastEvent, lastBatch time.Time
		for minute := range 30 * 24 * 60 {
			lastBatch = time.Now()
			b.add(schema.ClassMetric, &schema.Record{Kind: schema.KindSamples, Samples: &schema.Samples{
				Series: []string{"cpu.load_percent", "thermal.cpu_celsius"}, Value: []float64{float64(minute), 40},
			}})
			if minute%10 == 0 {
				lastEvent = time.Now()
				b.frame++
				b.add(schema.ClassEvent, &schema.Record{Kind: schema.KindEvent, Event: &schema.Event{
					Source: "cam0", Frame: b.frame, Boxes: slices.Repeat([]schema.Box{{Score: 0.5, X1: 10.5, Y1: 20.25}}, 20),
				}})
			}
			time.Sleep(time.Minute)
		}
		st := b.spool.Stats()
		for _, c := range []schema.Class{schema.ClassEvent, schema.ClassMetric} {
			if st.Classes[c].Bytes > 1<<20 || st.Classes[c].Lost[schema.ReasonQuota] == 0 {
				t.Errorf("%s: %d bytes, %d evicted: the class should have been full", c, st.Classes[c].Bytes, st.Classes[c].Lost[schema.ReasonQuota])
			}
		}
		w.startFleet()
		w.openBroker()
		time.Sleep(time.Minute)
		w.settle()
		gaps, err := w.ledger.Read.QueryContext(context.Background(), `SELECT reason, count, from_ms, to_ms FROM gap`)
		if err != nil {
			t.Fatal(err)
		}
		defer gaps.Close()
		told := uint64(0)
		for gaps.Next() {
			var reason, count, from, to int64
			if err := gaps.Scan(&reason, &count, &from, &to); err != nil {
				t.Fatal(err)
			}
			if schema.Reason(reason) != schema.ReasonQuota || from == 0 || to <= from {
				t.Errorf("a loss of %d is told as %s, from %d to %d", count, schema.Reason(reason), from, to)
			}
			told += uint64(count)
		}
		if want := st.Classes[schema.ClassEvent].Lost[schema.ReasonQuota] + st.Classes[schema.ClassMetric].Lost[schema.ReasonQuota]; told != want || gaps.Err() != nil {
			t.Errorf("%d losses in the ledger, the spool evicted %d (%v)", told, want, gaps.Err())
		}
		// An event each ten minutes and a batch each minute, as they stand at the fleet:
		// from the first that is there none is missing, and the last one is the last made.
		whole(t, w, "event", 10*time.Minute, lastEvent, 3)
		whole(t, w, "telemetry", time.Minute, lastBatch, 1.5)
		w.end()
	})
}

// whole holds what is in a table to this: without a hole from some moment to the last
// record that was made, which is at least some days. Times are the fleet's, which may
// know a boot's to two seconds.
func whole(t *testing.T, w *world, table string, every time.Duration, end time.Time, days float64) {
	rows, err := w.ledger.Read.QueryContext(context.Background(), `SELECT at FROM `+table+` ORDER BY at`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var first, last, n int64
	for rows.Next() {
		var at int64
		if err := rows.Scan(&at); err != nil {
			t.Fatal(err)
		}
		if n++; n == 1 {
			first = at
		} else if d := time.Duration(at-last) * time.Millisecond; (d - every).Abs() > 2*time.Second {
			t.Errorf("%s: after %v comes nothing for %v", table, time.UnixMilli(last).UTC(), d)
		}
		last = at
	}
	if off := time.UnixMilli(last).Sub(end); n == 0 || rows.Err() != nil || off.Abs() > 2*time.Second {
		t.Errorf("%s: the last of %d is off by %v (%v)", table, n, off, rows.Err())
	}
	if got := float64(last-first) / (24 * float64(time.Hour/time.Millisecond)); got < days || got > 29 {
		t.Errorf("%s: %.2f days are whole, wants %v at least and not all", table, got, days)
	} else {
		t.Logf("%s: the newest %.2f days are whole, %d rows", table, got, n)
	}
}
