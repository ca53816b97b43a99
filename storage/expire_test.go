// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/schema"
	"fulmar/storage"
	"fulmar/storage/storagetest"
)

// mortal is a spool whose events live an hour and metrics two.
func mortal(dir string, boot uint64) storage.Config {
	cfg := small(dir)
	cfg.Clock = schema.NewClock(boot, 0)
	cfg.Classes[schema.ClassEvent].TTL = time.Hour
	cfg.Classes[schema.ClassMetric].TTL = 2 * time.Hour
	return cfg
}

// made appends a record of now; the board's wall clock is off by wall.
func made(t *testing.T, s storagetest.Spool, clock schema.Clock, c schema.Class, wall time.Duration) {
	t.Helper()
	r := &schema.Record{Time: clock.Now()}
	r.Time.Wall += wall.Milliseconds()
	switch c {
	case schema.ClassEvent:
		r.Kind, r.Event = schema.KindEvent, &schema.Event{Source: "cam0", Boxes: []schema.Box{}}
	case schema.ClassMetric:
		r.Kind, r.Samples = schema.KindSamples, &schema.Samples{Series: []string{"a"}, Value: []float64{1}}
	case schema.ClassAlarm:
		r.Kind, r.Report = schema.KindReport, &schema.Report{Subject: "agent", State: "ok"}
	}
	put(t, s, c, r)
}

func put(t *testing.T, s storagetest.Spool, c schema.Class, r *schema.Record) {
	t.Helper()
	b, err := schema.EncodeRecord(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), c, b); err != nil {
		t.Fatal(err)
	}
}

// years is how far a wall clock may be off.
const years = 50 * 365 * 24 * time.Hour

// TestRecordsExpire: by the time that the board ran and by nothing that its wall clock
// says, told in one gap each; alarms, anchors and what cannot be read stay.
func TestRecordsExpire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := mortal(t.TempDir(), 1)
		s := start(t, cfg)
		event := func(wall time.Duration) { made(t, s, cfg.Clock, schema.ClassEvent, wall) }
		for n := range 900 { // several files and many reads
			event([]time.Duration{0, -years, years}[n%3])
			made(t, s, cfg.Clock, schema.ClassMetric, []time.Duration{years, 0, -years}[n%3])
		}
		for range 20 {
			made(t, s, cfg.Clock, schema.ClassAlarm, -years)
		}
		put(t, s, schema.ClassEvent, &schema.Record{Kind: schema.KindAnchor, Time: cfg.Clock.Now(), Anchor: &schema.Anchor{Start: true}}) // 901
		if _, err := s.Append(t.Context(), schema.ClassEvent, []byte("what no program reads")); err != nil {                              // 902
			t.Fatal(err)
		}
		event(years) // 903
		time.Sleep(30 * time.Minute)
		event(-years) // 904
		time.Sleep(29 * time.Minute)
		if n := len(storagetest.Drain(t, s, schema.ClassEvent)); n != 904 {
			t.Errorf("%d events of 904 are left after 59 minutes of an hour", n)
		}
		time.Sleep(3 * time.Minute)
		if st := s.Stats().Classes; st[schema.ClassEvent].Outstanding != 904 || st[schema.ClassAlarm].Outstanding != 20 {
			t.Errorf("%d events and %d alarms wait, want 904 and 20: nobody has read them", st[schema.ClassEvent].Outstanding, st[schema.ClassAlarm].Outstanding)
		}
		var a account
		first, err := s.Read(schema.ClassEvent, 1, 1, 1)
		if err != nil || len(first) != 1 || first[0].Seq != 901 {
			t.Errorf("a read of one event gives %d records, %v; want the anchor", len(first), err)
		}
		a.take(t, s)
		if n := len(a.records[schema.ClassMetric]); n != 900 {
			t.Errorf("%d metrics of 900 are left at half their time", n)
		}
		if n := len(a.records[schema.ClassAlarm]) - len(a.gaps[schema.ClassEvent]); n != 20 {
			t.Errorf("%d alarms of 20 are left", n)
		}
		rec := a.records[schema.ClassEvent]
		if len(rec) != 3 || rec[901] == nil || rec[902] == nil || rec[904] == nil {
			t.Errorf("%d events are left, want the anchor, what cannot be read, and the young one", len(rec))
		}
		if gaps := a.gaps[schema.ClassEvent]; len(gaps) != 2 || gaps[0].First != 1 || gaps[0].Last != 900 || gaps[1].First != 903 || gaps[1].Reason != schema.ReasonExpired {
			t.Errorf("gaps %+v, want 1 to 900, and 903, as expired", gaps)
		}
		time.Sleep(time.Hour)
		var b account
		b.take(t, s)
		b.complete(t, s)
		if gaps := b.gaps[schema.ClassMetric]; len(b.records[schema.ClassMetric]) != 0 || len(gaps) != 1 || gaps[0].Reason != schema.ReasonExpired {
			t.Errorf("%d metrics, gaps %+v", len(b.records[schema.ClassMetric]), gaps)
		}
		if st := s.Stats().Classes; st[schema.ClassMetric].Lost[schema.ReasonExpired] != 900 || st[schema.ClassEvent].Lost[schema.ReasonExpired] != 902 || st[schema.ClassEvent].Outstanding != 2 {
			t.Errorf("stats: %+v", st)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestExpireOverBoots: what a board ran in all its boots adds up; time without power and
// boots that nobody wrote down do not count.
func TestExpireOverBoots(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		forget bool
		want   int // events left after boots of 29, 29 and 5 minutes
	}{"written down": {false, 0}, "forgotten": {true, 3}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				for boot := range uint64(3) {
					cfg := mortal(dir, boot+1)
					s := start(t, cfg)
					if got := len(storagetest.Drain(t, s, schema.ClassEvent)); boot > 0 && got != 3 {
						t.Errorf("boot %d begins with %d events of 3", boot+1, got)
					}
					for range 3 {
						if boot == 0 {
							made(t, s, cfg.Clock, schema.ClassEvent, 0)
						}
					}
					time.Sleep([]time.Duration{29, 29, 5}[boot] * time.Minute)
					synctest.Wait()
					if boot == 2 {
						if got := len(storagetest.Drain(t, s, schema.ClassEvent)); got != c.want {
							t.Errorf("%d events are left, want %d", got, c.want)
						}
						if n := s.Stats().Foreign; n != 0 {
							t.Errorf("%d foreign files", n)
						}
					}
					if err := s.Close(); err != nil {
						t.Error(err)
					}
					if c.forget {
						if err := os.Remove(filepath.Join(dir, "boots")); err != nil {
							t.Error(err)
						}
					}
					time.Sleep(24 * time.Hour) // without power
				}
			})
		})
	}
}

// TestCrashesDoNotStopTheClock: what a boot ran is written down every ten minutes, so
// records grow old also where no boot ends in order.
func TestCrashesDoNotStopTheClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		for boot := range uint64(3) {
			cfg := mortal(dir, boot+1)
			s := start(t, cfg)
			if boot == 0 {
				made(t, s, cfg.Clock, schema.ClassEvent, 0)
			}
			time.Sleep(25 * time.Minute)
			synctest.Wait()
			if got := len(storagetest.Drain(t, s, schema.ClassEvent)); (got == 0) != (boot == 2) { // 20 of 25 minutes are seen
				t.Errorf("boot %d ends with %d events", boot+1, got)
			}
			dir = crashed(t, dir)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestExpireInMemory: without a disk records grow old, too.
func TestExpireInMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "spool")
		if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file in its place
			t.Fatal(err)
		}
		cfg := mortal(dir, 1)
		s := start(t, cfg)
		if s.Stats().Memory == "" {
			t.Fatal("there is a disk")
		}
		for range 50 {
			made(t, s, cfg.Clock, schema.ClassEvent, 0)
		}
		time.Sleep(30 * time.Minute)
		made(t, s, cfg.Clock, schema.ClassEvent, 0)
		time.Sleep(32 * time.Minute)
		var a account
		a.take(t, s)
		if gaps := a.gaps[schema.ClassEvent]; len(a.records[schema.ClassEvent]) != 1 || len(gaps) != 1 || gaps[0].Last != 50 || gaps[0].FromWall == 0 || gaps[0].Reason != schema.ReasonExpired {
			t.Errorf("%d events, gaps %+v; want the young one, and the 50 told", len(a.records[schema.ClassEvent]), gaps)
		}
		_ = s.Close() // it tells that what memory held is lost
	})
}

func TestTimesToLiveThatCannotBe(t *testing.T) {
	t.Parallel()
	for c, ttl := range map[schema.Class]time.Duration{
		schema.ClassAlarm: time.Hour, schema.ClassSnapshot: time.Hour, schema.ClassEvent: time.Second, schema.ClassMetric: -time.Hour,
	} {
		cfg := small(t.TempDir())
		cfg.Classes[c].TTL = ttl
		if _, err := storage.Open(cfg); err == nil {
			t.Errorf("%s: a time to live of %v was taken", c, ttl)
		}
	}
}
