// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/ingest/clocks"
	"fulmar/fleet/ingest/fold"
	"fulmar/fleet/store"
	"fulmar/fleet/web"
	"fulmar/schema"
)

// tx makes a transaction a fold.DB.
type tx struct{ *sql.Tx }

func (x tx) Exec(q string, args ...any) error { _, err := x.Tx.Exec(q, args...); return err }

func (x tx) Row(q string, args []any, dst ...any) error  { return x.QueryRow(q, args...).Scan(dst...) }
func (x tx) Query(q string, a ...any) (*sql.Rows, error) { return x.Tx.Query(q, a...) }

// shelf is a ledger without an ingest: the test writes rows and folds them.
type shelf struct {
	*store.Store
	db *store.DB
	f  *fold.Folder
}

func openShelf(t testing.TB) *shelf {
	t.Helper()
	db, err := store.OpenLedger(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.Write.Exec(`INSERT INTO board (id, tenant, name) VALUES (1, 'default', 'b1'), (2, 'default', 'b2')`); err != nil {
		t.Fatal(err)
	}
	s := store.New(db, func(context.Context, string) ([]store.Enrolled, error) { return []store.Enrolled{{Name: "b1"}}, nil },
		func(string, string, string) (*os.File, error) { return nil, fs.ErrNotExist })
	return &shelf{Store: s, db: db, f: fold.New()}
}

// within runs fn in a transaction.
func (s *shelf) within(t testing.TB, fn func(fold.DB) error) {
	t.Helper()
	x, err := s.db.Write.Begin()
	if err == nil {
		if err = fn(tx{x}); err == nil {
			err = x.Commit()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (s *shelf) insert(t testing.TB, db fold.DB, board, at int64, open bool, x *schema.Samples) {
	t.Helper()
	raw, err := schema.Encode(x)
	if err == nil {
		err = db.Exec(`INSERT INTO telemetry (board, at, arrived, payload, open, boot) VALUES (?, ?, ?, ?, ?, 7)`, board, at, at, raw, open)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// sum is what a test knows of a minute.
type sum struct{ n, sn, sum, ssum, lo, hi float64 }

func (s *sum) add(v float64) { s.span(v, v); s.n, s.sum = s.n+1, s.sum+v }

func (s *sum) span(lo, hi float64) {
	if s.n+s.sn == 0 {
		s.lo, s.hi = lo, hi
	}
	s.lo, s.hi = min(s.lo, lo), max(s.hi, hi)
}

// TestRollupsAgainstSums compares the answers from minutes and hours, at every stage
// of folding and closing, with plain sums of all that was sent: readings, summaries
// in their place, and minutes that came both ways.
func TestRollupsAgainstSums(t *testing.T) {
	t.Parallel()
	const minute, hour = int64(60_000), int64(3_600_000)
	s := openShelf(t)
	r := rand.New(rand.NewPCG(4, 4))
	base := time.Now().UnixMilli()/hour*hour - 12*hour
	truth := map[int64]*sum{}
	type row struct {
		at   int64
		open bool
		x    *schema.Samples
	}
	var rows []row
	for m := range int64(6 * 60) {
		at, all := base+m*minute, &sum{}
		truth[at] = all
		kind := r.IntN(5)
		if kind == 4 {
			delete(truth, at)
			continue // nothing was made
		}
		var vs []float64
		for range 6 {
			vs = append(vs, math.Round(r.NormFloat64()*100))
		}
		if kind != 2 { // as readings; where they were thinned meanwhile only some
			for i, v := range vs {
				if kind == 3 && i > 2 {
					break
				}
				all.add(v)
				rows = append(rows, row{at + int64(i)*7000, r.IntN(8) == 0, &schema.Samples{Series: []string{"x", "off"}, Value: []float64{v, 0}, Quality: []schema.Quality{0, 1}}})
			}
		}
		if kind >= 2 { // as a summary of all
			o := &schema.Over{SpanMs: 59_000, Min: []float64{vs[0]}, Max: []float64{vs[0]}, Count: []uint32{6}}
			total := 0.0
			for _, v := range vs {
				o.Min[0], o.Max[0] = min(o.Min[0], v), max(o.Max[0], v)
				total += v
			}
			all.span(o.Min[0], o.Max[0])
			all.sn, all.ssum = 6, total
			rows = append(rows, row{at, false, &schema.Samples{Series: []string{"x"}, Value: []float64{total / 6}, Over: o}})
		}
	}
	r.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	look := func(stage string, span, level int64) {
		t.Helper()
		q := web.SeriesQuery{Tenant: "default", Board: "b1", Series: []string{"x"}, From: time.UnixMilli(base), To: time.UnixMilli(base + 6*hour - 1), Points: int(6 * hour / span)}
		got, err := s.SeriesAt(ctx, q, level)
		if err != nil || len(got) != 1 {
			t.Fatalf("%s: %v, %v", stage, got, err)
		}
		have := map[int64]int{}
		for i, at := range got[0].T {
			have[at/span*span] = i
		}
		for from := base; from < base+6*hour; from += span {
			want := sum{}
			for at := from; at < from+span; at += minute {
				if m := truth[at]; m != nil {
					want.span(m.lo, m.hi)
					if m.sn > m.n {
						want.n, want.sum = want.n+m.sn, want.sum+m.ssum
					} else {
						want.n, want.sum = want.n+m.n, want.sum+m.sum
					}
				}
			}
			i, ok := have[from]
			if !ok || want.n == 0 {
				if ok || want.n > 0 {
					t.Fatalf("%s: slot at %d is there: %v, made %v", stage, from-base, ok, want.n)
				}
				continue
			}
			if g := got[0]; math.Abs(g.V[i]-want.sum/want.n) > 1e-6 || g.Lo[i] != want.lo || g.Hi[i] != want.hi {
				t.Fatalf("%s, slots of %d min: at minute %d mean %v from %v to %v, want %v from %v to %v", stage, span/minute, (from-base)/minute,
					g.V[i], g.Lo[i], g.Hi[i], want.sum/want.n, want.lo, want.hi)
			}
		}
	}
	stage := func(name string, hours bool) {
		t.Helper()
		look(name, minute, minute)
		look(name, hour, minute)
		if hours { // a minute partly in may count for an hour both as readings and as a summary
			look(name, hour, hour)
		}
	}
	s.within(t, func(db fold.DB) error {
		for _, r := range rows {
			s.insert(t, db, 1, r.at, r.open, r.x)
			s.insert(t, db, 2, r.at, false, &schema.Samples{Series: []string{"x"}, Value: []float64{1e6}}) // another board's
		}
		return nil
	})
	stage("nothing in the rollups", true)
	for n := 1; n > 0; {
		s.within(t, func(db fold.DB) (err error) {
			n, err = s.f.Step(db, base+12*hour, 1+r.IntN(400))
			return err
		})
		stage("some in the rollups", false)
	}
	stage("all but the open in the rollups", false)
	s.within(t, func(db fold.DB) error { return fold.Opened(db, 1, 7, 0, false) })
	for more := true; more; {
		s.f = fold.New() // as after a failure
		s.within(t, func(db fold.DB) (err error) {
			more, err = s.f.Retime(db, noClocks, base+12*hour, 20)
			return err
		})
		stage("closing", false)
	}
	stage("all in the rollups", true)
	var open, left int
	if err := s.db.Read.QueryRow(`SELECT (SELECT count(*) FROM telemetry WHERE open = 1), (SELECT count(*) FROM retime)`).Scan(&open, &left); err != nil || open+left != 0 {
		t.Errorf("%d rows and %d boots are still open, %v", open, left, err)
	}
	// Telemetry is pruned: the rollups go on to answer.
	s.within(t, func(db fold.DB) error { return db.Exec(`DELETE FROM telemetry`) })
	stage("telemetry gone", true)
	look("telemetry gone, asked for in full", minute, 0)
	s.within(t, fold.Emptied)
	s.within(t, func(db fold.DB) error {
		s.insert(t, db, 1, base, false, &schema.Samples{Series: []string{"x"}, Value: []float64{5000}}) // its id is 1 again
		return nil
	})
	if m := truth[base]; m != nil {
		m.add(5000)
	} else {
		truth[base] = &sum{}
		truth[base].add(5000)
	}
	if truth[base].sn > truth[base].n {
		truth[base].hi = 5000
	}
	s.within(t, func(db fold.DB) error { _, err := s.f.Step(db, base+12*hour, 10); return err })
	stage("ids begin anew", true)
}

// TestRollupsArePruned: what nothing was added to for its life goes, in steps, and
// too many minutes live shorter.
func TestRollupsArePruned(t *testing.T) {
	t.Parallel()
	s := openShelf(t)
	count := func(level int) (n int) {
		if err := s.db.Read.QueryRow(`SELECT count(*) FROM rollup WHERE level = ?`, level).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	walk := func(now, life, most int64) {
		t.Helper()
		for ended, i := false, 0; !ended; i++ {
			if i > 100 {
				t.Fatal("a walk has no end")
			}
			s.within(t, func(db fold.DB) (err error) { ended, err = s.f.Prune(db, now, life, most, 50); return err })
		}
	}
	const day = int64(24 * 3600 * 1000)
	for d := range int64(10) {
		s.within(t, func(db fold.DB) error {
			for m := range int64(100) {
				s.insert(t, db, 1, (d+100)*day+m*60_000, false, &schema.Samples{Series: []string{"a", "b"}, Value: []float64{1, 2}})
			}
			_, err := s.f.Step(db, d*day, 1000)
			return err
		})
	}
	if count(0) != 2000 || count(1) != 40 {
		t.Fatalf("%d minutes, %d hours", count(0), count(1))
	}
	walk(9*day, 30*day, 1_000_000)
	if count(0) != 2000 {
		t.Fatalf("%d minutes are left of what is young", count(0))
	}
	walk(11*day, 5*day, 1_000_000) // days 0 to 5 were touched longer ago than that
	if count(0) != 800 || count(1) != 16 {
		t.Fatalf("%d minutes, %d hours, want 800 and 16", count(0), count(1))
	}
	walk(11*day, 5*day, 300) // over the bound: the next walk halves the life of minutes
	walk(11*day, 5*day, 300)
	if count(0) >= 800 || count(1) != 16 {
		t.Fatalf("%d minutes, %d hours over the bound", count(0), count(1))
	}
}

// TestManySeries: a board with more series than are numbered stays within bounds.
func TestManySeries(t *testing.T) {
	t.Parallel()
	s := openShelf(t)
	s.within(t, func(db fold.DB) error {
		for i := range 1500 {
			s.insert(t, db, 1, int64(i)*1000, false, &schema.Samples{Series: []string{fmt.Sprintf("s%d", i)}, Value: []float64{math.MaxFloat64}})
		}
		_, err := s.f.Step(db, 5_000_000, 2000)
		return err
	})
	var n int
	if err := s.db.Read.QueryRow(`SELECT count(*) FROM series`).Scan(&n); err != nil || n != 2*schema.MaxSeries {
		t.Fatalf("%d series are numbered, %v", n, err)
	}
	for ended := false; !ended; {
		s.within(t, func(db fold.DB) (err error) { ended, err = s.f.Prune(db, 1<<40, 1, 1, 400); return err })
	}
	if err := s.db.Read.QueryRow(`SELECT count(*) FROM series`).Scan(&n); err != nil || n != 0 {
		t.Fatalf("%d series are still numbered, %v", n, err)
	}
}

func noClocks(int64) (*clocks.Board, error) { return &clocks.Board{}, nil }

// TestMigrates: a ledger of the first version is read and rolled up.
func TestMigrates(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.db")
	old, err := store.OpenFile(path, store.Migrations()[:1])
	if err != nil {
		t.Fatal(err)
	}
	raw, err := schema.Encode(&schema.Samples{Series: []string{"x"}, Value: []float64{4}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UnixMilli()
	for i := range int64(100) {
		if _, err := old.Write.Exec(`INSERT INTO telemetry (board, at, arrived, payload) VALUES (1, ?, ?, ?)`, now-i*60_000, now, raw); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := old.Write.Exec(`INSERT INTO board (id, tenant, name) VALUES (1, 'default', 'b1')`); err != nil {
		t.Fatal(err)
	}
	_ = old.Close()
	db, err := store.OpenLedger(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	s := &shelf{Store: store.New(db, nil, nil), db: db, f: fold.New()}
	look := func() {
		t.Helper()
		for _, level := range []int64{0, 60_000, 3_600_000} {
			out, err := s.SeriesAt(ctx, web.SeriesQuery{Tenant: "default", Board: "b1", From: time.UnixMilli(now - 7200_000), Points: 5000}, level)
			if err != nil || len(out) != 1 || len(out[0].T) < 2 || out[0].V[0] != 4 {
				t.Errorf("level %d: %v, %v", level, out, err)
			}
		}
	}
	look()
	s.within(t, func(db fold.DB) error { _, err := s.f.Step(db, now, 1000); return err })
	look()
	_ = db.Close()
	_, err = store.OpenFile(path, store.Migrations()[:1])
	if err == nil || !strings.Contains(err.Error(), "ledger.db") || !strings.Contains(err.Error(), "newer program") {
		t.Errorf("an older program on a newer file: %v", err)
	}
}

// BenchmarkMonth reads a month of one series of eight, a batch a minute: from
// telemetry, as before there were rollups, and from them. At a batch a second
// telemetry takes sixty times as long and the rollups take the same.
func BenchmarkMonth(b *testing.B) {
	s := openShelf(b)
	x := &schema.Samples{}
	for i := range 8 {
		x.Series, x.Value = append(x.Series, fmt.Sprintf("thermal.zone%02d_celsius", i)), append(x.Value, float64(i)+0.123)
	}
	now := time.Now().UnixMilli()
	const minutes = 30 * 24 * 60
	s.within(b, func(db fold.DB) error {
		for i := range int64(minutes) {
			s.insert(b, db, 1, now-(minutes-i)*60_000, false, x)
		}
		return nil
	})
	began := time.Now()
	for n := 1; n > 0; {
		s.within(b, func(db fold.DB) (err error) { n, err = s.f.Step(db, now, 500); return err })
	}
	b.Logf("%d batches of 8 series were rolled up in %v", minutes, time.Since(began).Round(time.Millisecond))
	for _, c := range []struct {
		name   string
		level  int64
		points int
	}{{"telemetry", 0, 1000}, {"rollups/300points", -1, 300}, {"rollups/1000points", -1, 1000}, {"rollups/5000points", -1, 5000}} {
		b.Run(c.name, func(b *testing.B) {
			for range b.N {
				q := web.SeriesQuery{Tenant: "default", Board: "b1", Series: x.Series[7:8], From: time.UnixMilli(now - minutes*60_000), To: time.UnixMilli(now), Points: c.points}
				if out, err := s.SeriesAt(ctx, q, c.level); err != nil || len(out) != 1 || len(out[0].T) < 100 {
					b.Fatal(len(out), err)
				}
			}
		})
	}
}
