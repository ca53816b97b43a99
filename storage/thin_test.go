// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/schema"
	"fulmar/storage"
	"fulmar/storage/storagetest"
)

// TestThinning fills a small class for six hours without a link: old metrics become
// one-minute summaries, nothing is evicted, each reading is counted once and each
// number is a record or in a gap.
func TestThinning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := storage.Config{Dir: t.TempDir(), NoSync: true}
		cfg.Classes[schema.ClassMetric] = storage.ClassConfig{QuotaBytes: 2 << 20, SegmentBytes: 128 << 10}
		s, err := storage.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		clock := schema.NewClock(3, time.Hour)
		names := make([]string, 10)
		for i := range names {
			names[i] = fmt.Sprintf("machine.motor%d_celsius", i)
		}
		const hours = 6
		for n := range hours * 3600 {
			v := make([]float64, len(names))
			for i := range v {
				v[i] = float64(n % 50)
			}
			if n == 1234 {
				v[3] = 5000 // a spike in the oldest hour
			}
			b, err := schema.EncodeRecord(&schema.Record{Kind: schema.KindSamples, Time: clock.Now(), Samples: &schema.Samples{Series: names, Value: v}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Append(t.Context(), schema.ClassMetric, b); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if st := s.Stats().Classes[schema.ClassMetric]; st.Bytes > 2<<20 {
				t.Fatalf("after %d s: %d bytes in a quota of %d", n, st.Bytes, 2<<20)
			}
		}
		if err := s.Flush(); err != nil { // the last second may still be in the queue
			t.Fatal(err)
		}
		checkThinned(t, s, hours*3600)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func checkThinned(t *testing.T, s *storage.Spool, made int) {
	t.Helper()
	seen := map[uint64]bool{}
	readings, summaries, spike := 0, 0, false
	for _, r := range storagetest.Drain(t, s, schema.ClassMetric) {
		seen[r.Seq] = true
		rec, err := schema.DecodeRecord(r.Payload)
		if err != nil {
			t.Fatal(err)
		}
		o := rec.Samples.Over
		if o == nil {
			readings++
			continue
		}
		summaries++
		readings += int(o.Count[3])
		spike = spike || o.Max[3] == 5000
	}
	if readings != made || !spike || summaries < 100 {
		t.Errorf("%d readings of %d are told, by %d summaries; spike: %v", readings, made, summaries, spike)
	}
	for _, r := range storagetest.Drain(t, s, schema.ClassAlarm) {
		rec, err := schema.DecodeRecord(r.Payload)
		if err != nil || rec.Gap == nil {
			t.Fatalf("no gap: %v", err)
		}
		g := rec.Gap
		if g.Reason != schema.ReasonThinned || g.FromWall == 0 || g.ToWall <= g.FromWall {
			t.Errorf("numbers %d to %d are told as %s, %d to %d", g.First, g.Last, g.Reason, g.FromWall, g.ToWall)
		}
		for n := g.First; n <= g.Last; n++ {
			if seen[n] {
				t.Fatalf("number %d is a record and in a gap, or in two", n)
			}
			seen[n] = true
		}
	}
	last := storagetest.Cursor(t, s, schema.ClassMetric).Last
	for n := uint64(1); n <= last; n++ {
		if !seen[n] {
			t.Fatalf("number %d of %d is neither record nor in a gap", n, last)
		}
	}
}
