// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"fmt"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"fulmar/fleet/telemetry/scope"
	"fulmar/schema"
)

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func rss(b *testing.B) float64 {
	b.Helper()
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Skip(err)
	}
	pages, err := strconv.ParseFloat(strings.Fields(string(raw))[1], 64)
	if err != nil {
		b.Fatal(err)
	}
	return pages * float64(os.Getpagesize())
}

// rows adds n rounds of eight series of each board to the ledger.
func rows(b *testing.B, l *ledger, boards, n int, at time.Time, every time.Duration) {
	b.Helper()
	s := schema.Samples{}
	for i := range 8 {
		s.Series = append(s.Series, fmt.Sprintf("thermal.zone%d_celsius", i))
		s.Value = append(s.Value, 0)
	}
	tx, err := l.db.Write.Begin()
	if err != nil {
		b.Fatal(err)
	}
	for i := range n {
		for board := 1; board <= boards; board++ {
			for j := range s.Value {
				s.Value[j] = 40 + float64((i*7+board*3+j)%160)/8
			}
			raw, err := schema.Encode(&s)
			if err != nil {
				b.Fatal(err)
			}
			x := at.Add(time.Duration(i) * every).UnixMilli()
			if _, err := tx.Exec(`INSERT INTO telemetry (board, at, arrived, payload) VALUES (?, ?, ?, ?)`, board, x, x, raw); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := tx.Commit(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkFeed reads 10,000 boards of eight series out of the ledger into the database:
// samples a second, and what the series cost in memory.
func BenchmarkFeed(b *testing.B) {
	const boards, rounds = 10_000, 12
	for range b.N {
		l := newLedger(b)
		tx, err := l.db.Write.Begin()
		if err != nil {
			b.Fatal(err)
		}
		for i := 1; i <= boards; i++ {
			if _, err := tx.Exec(`INSERT INTO board (id, tenant, name) VALUES (?, 'a', ?)`, i, fmt.Sprintf("dock-%d", i)); err != nil {
				b.Fatal(err)
			}
		}
		if err := tx.Commit(); err != nil {
			b.Fatal(err)
		}
		rows(b, l, boards, rounds, start(), 10*time.Second)
		d := open(b, b.TempDir(), l, Config{}, nil)
		runtime.GC()
		before, t0, cpu := rss(b), time.Now(), cpuTime(b)
		drain(b, d)
		took, used := time.Since(t0), cpuTime(b)-cpu
		runtime.GC()
		n := float64(d.Stats().Appended)
		b.ReportMetric(n/took.Seconds(), "samples/s")
		b.ReportMetric(n/used.Seconds(), "samples/core-s")
		b.ReportMetric((rss(b)-before)/(1<<20), "MiB-RSS-growth")
		b.ReportMetric((rss(b)-before)/float64(d.Stats().Live), "B/series")
		_ = d.Close()
	}
}

// BenchmarkWeek asks for a week of one board's eight series at 1,000 points, and for the
// hottest of 50 boards: 95th percentile of 40 askings each.
func BenchmarkWeek(b *testing.B) {
	const boards, minutes = 50, 7 * 24 * 60
	l := newLedger(b)
	for i := int64(1); i <= boards; i++ {
		l.board(i, "a", fmt.Sprintf("dock-%d", i))
	}
	from := time.Now().Add(-minutes * time.Minute).Truncate(time.Minute)
	rows(b, l, boards, minutes, from, time.Minute)
	d := open(b, b.TempDir(), l, Config{}, nil)
	t0 := time.Now()
	drain(b, d)
	b.Logf("made anew from %d rows in %v", boards*minutes, time.Since(t0))
	for name, expr := range map[string]string{
		"board": `fulmar_thermal_celsius{board="dock-7"}`, "fleet": `topk(10, max by (board) (fulmar_thermal_celsius))`,
	} {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				var took []time.Duration
				for range 40 {
					t0 := time.Now()
					w := ask(d, &scope.Scope{Tenant: "a"}, "/api/v1/query_range", url.Values{
						"query": {expr}, "start": {fmt.Sprint(from.Unix())}, "end": {fmt.Sprint(from.Unix() + minutes*60)}, "step": {fmt.Sprint(minutes * 60 / 1000)},
					})
					if w.Code != 200 || w.Body.Len() < 50_000 {
						b.Fatalf("%d %.200s", w.Code, w.Body)
					}
					took = append(took, time.Since(t0))
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[37].Microseconds())/1000, "p95-ms")
				b.ReportMetric(float64(took[20].Microseconds())/1000, "p50-ms")
			}
		})
	}
}
