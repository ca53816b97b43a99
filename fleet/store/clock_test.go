// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"testing"
	"time"

	"fulmar/fleet/store"
	"fulmar/fleet/web"
	"fulmar/schema"
)

// TestClocksThatLieOnThePage: a board whose wall clock is 50 years off, or jumps
// while it runs, has ages of seconds on the page, its lines lie in the last minutes
// and no number is lost or waits.
func TestClocksThatLieOnThePage(t *testing.T) {
	t.Parallel()
	const year = int64(365 * 24 * 3600 * 1000)
	for name, wall := range map[string]func(i int64) int64{
		"50 years on":    func(int64) int64 { return 50 * year },
		"50 years back":  func(int64) int64 { return -50 * year },
		"back and forth": func(i int64) int64 { return (i%3 - 1) * 50 * year },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := open(t, store.Enrolled{Name: "b1"})
			began := time.Now()
			r.clock = func(at time.Time) schema.Time {
				i := at.Sub(began.Add(-10*time.Minute)).Milliseconds() / 10_000
				return schema.Time{Boot: 3, Mono: int64(time.Hour) + int64(at.Sub(began)), Wall: at.UnixMilli() + wall(i)}
			}
			if err := r.in.Presence(ctx, key, schema.Presence{V: 1, Online: true, Boot: 3, Conn: 1}); err != nil {
				t.Fatal(err)
			}
			for i := range 60 {
				r.put(t, schema.ClassMetric, 0, time.Duration(60-i)*5*time.Second, sampleOf(float64(i), schema.QualityGood))
			}
			r.put(t, schema.ClassEvent, 0, time.Minute, schema.Record{Kind: schema.KindEvent, Event: &schema.Event{Source: "cam0"}})
			r.put(t, schema.ClassMetric, 0, 0, sampleOf(60, schema.QualityGood))
			near := func(what string, at time.Time, age time.Duration) {
				t.Helper()
				if d := time.Since(at) - age; d < -2*time.Second || d > time.Minute {
					t.Errorf("%s is %v old, was made %v ago", what, time.Since(at), age)
				}
			}
			var b web.Board
			for end := time.Now().Add(5 * time.Second); len(b.Latest) == 0 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				b = r.board(t) // newest values are written by the real ticker
			}
			if len(b.Latest) != 1 || b.State != web.StateHealthy {
				t.Fatalf("%s: %+v", b.State, b.Latest)
			}
			near("the newest value", b.Latest[0].At, 0)
			near("the board", b.LastSeen, 0)
			near("the camera", b.Cameras[0].Last, time.Minute)
			if b.Cameras[0].Events != 1 {
				t.Errorf("%d events in the last hour", b.Cameras[0].Events)
			}
			d, err := r.Detections(ctx, web.DetectionQuery{Tenant: "default"})
			if err != nil || len(d) != 1 || d[0].Timed != "exact" {
				t.Fatalf("%+v, %v", d, err)
			}
			near("the detection", d[0].At, time.Minute)
			s, err := r.Series(ctx, web.SeriesQuery{Tenant: "default", Board: "b1", Points: 5000})
			if err != nil || len(s) != 1 || len(s[0].T) != 61 {
				t.Fatalf("%+v, %v", s, err)
			}
			for i := range s[0].V {
				if s[0].V[i] != float64(i) {
					t.Fatalf("readings are out of order: %v", s[0].V)
				}
			}
			near("the first reading", time.UnixMilli(s[0].T[0]), 5*time.Minute)
			for _, l := range b.Ledger {
				if l.Lost+l.Waiting != 0 {
					t.Errorf("%+v", l)
				}
			}
		})
	}
}
