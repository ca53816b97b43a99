// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"fulmar/fleet/store"
	"fulmar/fleet/store/live"
	"fulmar/fleet/web"
)

// fill makes a ledger as so many boards leave it: three classes, four reports, two cameras
// with an event a minute each, and the values of 15 series.
func fill(b *testing.B, boards int) (*store.DB, []store.Enrolled) {
	b.Helper()
	db, err := store.OpenLedger(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	v := values(1)
	latest, err := v.Encode()
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now().UnixMilli()
	tx, err := db.Write.Begin()
	if err != nil {
		b.Fatal(err)
	}
	run := func(q string, args ...any) {
		if _, err := tx.Exec(q, args...); err != nil {
			b.Fatal(err)
		}
	}
	list := make([]store.Enrolled, boards)
	for i := range list {
		name := fmt.Sprintf("b%05d", i)
		list[i] = store.Enrolled{Name: name, KeyMode: "tpm", Trust: &web.Trust{}}
		run(`INSERT INTO board (id, tenant, name, online, online_since, release, facts) VALUES (?, 'default', ?, 1, ?, '1.8.2', '{"model":"Orin","l4t":"36.4.4"}')`, i+1, name, now)
		run(`INSERT INTO board_live VALUES (?, ?, 5000, ?)`, i+1, now, latest)
		for c := range 3 {
			run(`INSERT INTO stream VALUES (?, ?, 7, 100, 100, x'', x'', 100, 0, 0, 0, ?, ?)`, i+1, c, now, now)
		}
		for r := range 4 {
			run(`INSERT INTO report VALUES (?, ?, 'ok', 0, 'it runs', ?, ?, ?)`, i+1, fmt.Sprint("s", r), now, now, now)
		}
		for c := range 2 {
			run(`INSERT INTO camera VALUES (?, ?, 'parcels@4', 'tensorrt/int8', ?)`, i+1, fmt.Sprint("cam", c), now)
			for e := range 60 {
				run(`INSERT INTO event (board, class, epoch, seq, at, arrived, replayed, source, model, engine, snapshot, boxes, known, n_true, n_false, n_missed, payload)
VALUES (?, 1, 7, ?, ?, ?, 0, ?, 'parcels@4', '', '', 3, 0, 0, 0, 0, zeroblob(200))`, i+1, e, now-int64(e)*60_000, now, fmt.Sprint("cam", c))
			}
		}
	}
	if err := tx.Commit(); err != nil {
		b.Fatal(err)
	}
	return db, list
}

func values(x float64) (v live.Values) {
	now := time.Now().UnixMilli()
	v.Seen(now)
	for s := range 15 {
		v.Take(fmt.Sprintf("thermal.zone%d_celsius", s), live.Reading{Value: x, At: now}, now)
	}
	return v
}

// BenchmarkOverview is a snapshot of 10,000 boards: the first, one after all is as it was,
// one after a second of a fleet of which each board sends samples every 5 s, and the same
// with a twentieth of the boards that also say more than samples.
func BenchmarkOverview(b *testing.B) {
	const boards = 10_000
	db, list := fill(b, boards)
	known := func(context.Context, string) ([]store.Enrolled, error) { return list, nil }
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			look(b, store.New(db, known, nil).Eager(), boards)
		}
	})
	db.Live.Begin()
	s := store.New(db, known, nil).Eager()
	look(b, s, boards)
	for _, c := range []struct {
		name       string
		hot, colds int
	}{{"unchanged", 0, 0}, {"samples of 2000", 2000, 0}, {"samples of 2000 and more of 100", 2000, 100}} {
		b.Run(c.name, func(b *testing.B) {
			n := 0
			for b.Loop() {
				b.StopTimer()
				for i := range c.hot + c.colds {
					n = (n + 1) % boards
					db.Live.Tell(live.Key{Tenant: "default", Board: list[n].Name}, values(float64(n)), i >= c.hot)
				}
				b.StartTimer()
				look(b, s, boards)
			}
		})
	}
}

func look(b *testing.B, s *store.Store, boards int) {
	o, err := s.Overview(ctx, "default")
	if err != nil || len(o.Boards) != boards {
		b.Fatal(len(o.Boards), err)
	}
}
