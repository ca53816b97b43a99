// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"fulmar/fleet/store"
	"fulmar/fleet/telemetry/points"
	"fulmar/schema"
)

// ledger is a ledger that a test fills as ingest does.
type ledger struct {
	t  testing.TB
	db *store.DB
}

func newLedger(t testing.TB) *ledger {
	t.Helper()
	db, err := store.OpenLedger(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return &ledger{t, db}
}

func (l *ledger) exec(q string, args ...any) {
	l.t.Helper()
	if _, err := l.db.Write.Exec(q, args...); err != nil {
		l.t.Fatal(err)
	}
}

func (l *ledger) board(id int64, tenant, name string) {
	l.t.Helper()
	l.exec(`INSERT INTO board (id, tenant, name) VALUES (?, ?, ?)`, id, tenant, name)
}

func (l *ledger) samples(board int64, at time.Time, open bool, s schema.Samples) {
	l.t.Helper()
	raw, err := schema.Encode(&s)
	if err != nil {
		l.t.Fatal(err)
	}
	l.exec(`INSERT INTO telemetry (board, at, arrived, payload, open) VALUES (?, ?, ?, ?, ?)`, board, at.UnixMilli(), at.UnixMilli()+50, raw, open)
}

func reading(name string, v float64) schema.Samples {
	return schema.Samples{Series: []string{name}, Value: []float64{v}}
}

func (l *ledger) event(board int64, seq int, at time.Time, e schema.Event) {
	l.t.Helper()
	raw, err := schema.Encode(&e)
	if err != nil {
		l.t.Fatal(err)
	}
	l.exec(`INSERT INTO event (board, class, epoch, seq, at, arrived, replayed, source, model, engine, snapshot, boxes, known, n_true, n_false, n_missed, payload)
VALUES (?, 1, 7, ?, ?, ?, 0, ?, ?, ?, '', ?, 1, 2, 1, 0, ?)`, board, seq, at.UnixMilli(), at.UnixMilli()+90, e.Source, e.Model, e.Engine, len(e.Boxes), raw)
}

func open(t testing.TB, dir string, l *ledger, cfg Config, boards func(context.Context, string) ([]BoardState, error)) *DB {
	t.Helper()
	d, err := Open(dir, cfg, Sources{
		Ledger: l.db.Read, Boards: boards,
		Sites: func(context.Context, string) (map[string]string, error) {
			return map[string]string{"dock-1": "north"}, nil
		},
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func drain(t testing.TB, d *DB) {
	t.Helper()
	if err := d.feed.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// one asks for one number.
func one(t testing.TB, d *DB, tenant, expr string, at time.Time) float64 {
	t.Helper()
	v, err := d.Instant(t.Context(), tenant, expr, at)
	if err != nil {
		t.Fatal(err)
	}
	if len(v) != 1 {
		t.Fatalf("%s gives %v", expr, v)
	}
	return v[0].Value
}

func start() time.Time { return time.Now().Add(-time.Hour).Truncate(time.Second) }

func TestReadingsBecomeSeries(t *testing.T) {
	t.Parallel()
	l, at := newLedger(t), start()
	l.board(1, "a", "dock-1")
	l.samples(1, at, false, schema.Samples{
		Series: []string{"thermal.cpu_celsius", "load.1m", "thermal.gpu_celsius", "alone"}, Value: []float64{48.5, 1.25, 0, 3},
		Quality: []schema.Quality{0, 0, schema.QualityOffline, 0},
	})
	l.event(1, 1, at, schema.Event{
		Source: "cam0", Model: "parcels@1", Width: 10, Height: 10, LatencyUs: 20_000,
		Boxes:  []schema.Box{{Class: 1, Score: 1}, {Class: 1, Score: 1}, {Class: 2, Score: 1}},
		Labels: map[uint16]string{1: "parcel"},
	})
	d := open(t, t.TempDir(), l, Config{}, nil)
	drain(t, d)
	for expr, want := range map[string]float64{
		`fulmar_thermal_celsius{board="dock-1",site="north",series="thermal.cpu_celsius"}`: 48.5,
		`fulmar_load{series="load.1m"}`:                   1.25,
		`fulmar_reading`:                                  3,
		`count(fulmar_thermal_celsius)`:                   1, // offline is no sample
		`fulmar_detections{class="parcel",camera="cam0"}`: 2,
		`fulmar_detections{class="class 2"}`:              1,
		`fulmar_event_latency_seconds`:                    0.02,
		`sum(fulmar_detections_true) / (sum(fulmar_detections_true) + sum(fulmar_detections_false))`: 2.0 / 3,
		`2 + 3`: 5,
	} {
		if got := one(t, d, "a", expr, at); math.Abs(got-want) > 1e-12 {
			t.Errorf("%s is %v, wants %v", expr, got, want)
		}
	}
	if _, err := d.Instant(t.Context(), "a", `fulmar_load[5m]`, at); err == nil {
		t.Error("a range is no value for a guard")
	}
	if v, err := d.Instant(t.Context(), "b", `{__name__=~".+"}`, at); err != nil || len(v) != 0 {
		t.Errorf("another tenant sees %v, %v", v, err)
	}
}

// A summary stands for many readings: no hole, and its peaks are not lost.
func TestSummaries(t *testing.T) {
	t.Parallel()
	l, at := newLedger(t), start()
	l.board(1, "a", "dock-1")
	l.samples(1, at, false, schema.Samples{
		Series: []string{"cpu.load_percent", "load.1m"}, Value: []float64{40, 0},
		Over: &schema.Over{SpanMs: 60_000, Min: []float64{10, 0}, Max: []float64{99, 0}, Count: []uint32{60, 0}},
	})
	d := open(t, t.TempDir(), l, Config{}, nil)
	drain(t, d)
	for expr, want := range map[string]float64{
		`fulmar_cpu_percent`: 40, `fulmar_cpu_percent_min`: 10, `fulmar_cpu_percent_max`: 99,
		`timestamp(fulmar_cpu_percent)`: float64(at.Unix() + 30), `count({__name__=~"fulmar_.+"})`: 3,
	} {
		if got := one(t, d, "a", expr, at.Add(time.Minute)); got != want {
			t.Errorf("%s is %v, wants %v", expr, got, want)
		}
	}
}

// Rows that may still be placed anew wait; then they lie where they were placed, once.
func TestOpenRows(t *testing.T) {
	t.Parallel()
	l, at := newLedger(t), start()
	l.board(1, "a", "dock-1")
	l.samples(1, at, true, reading("load.1m", 1))
	l.samples(1, at, false, reading("load.5m", 5))
	dir := t.TempDir()
	d := open(t, dir, l, Config{}, nil)
	drain(t, d)
	if got := one(t, d, "a", `count(fulmar_load)`, at); got != 1 {
		t.Fatalf("%v series, wants the settled one alone", got)
	}
	if err := d.Close(); err != nil { // the open one is remembered over a restart
		t.Fatal(err)
	}
	moved := at.Add(-20 * time.Minute)
	l.exec(`UPDATE telemetry SET at = ?, open = 0 WHERE id = 1`, moved.UnixMilli())
	d = open(t, dir, l, Config{}, nil)
	drain(t, d)
	if got := one(t, d, "a", `fulmar_load{series="load.1m"}`, moved); got != 1 {
		t.Fatalf("the row is not where it was placed: %v", got)
	}
	if n := d.feed.Stats().Open; n != 0 {
		t.Fatalf("%d rows are still waited for", n)
	}
}

// A backlog of a month lies between what is there already.
func TestBacklog(t *testing.T) {
	t.Parallel()
	l, now := newLedger(t), time.Now().Truncate(time.Second)
	l.board(1, "a", "dock-1")
	d := open(t, t.TempDir(), l, Config{}, nil)
	l.samples(1, now, false, reading("load.1m", 100))
	drain(t, d)
	for day := 29; day > 0; day-- {
		l.samples(1, now.AddDate(0, 0, -day), false, reading("load.1m", float64(day)))
	}
	l.samples(1, now.AddDate(0, 0, -31), false, reading("load.1m", 31))
	drain(t, d)
	for day := 29; day > 0; day-- {
		if got := one(t, d, "a", `fulmar_load`, now.AddDate(0, 0, -day)); got != float64(day) {
			t.Fatalf("day %d is %v", day, got)
		}
	}
	if s := d.Stats(); s.TooOld != 1 {
		t.Fatalf("%d too old, wants 1", s.TooOld)
	}
}

// A crash between the commit and the cursor gives rows again: nothing is doubled.
func TestCrashGivesTwice(t *testing.T) {
	t.Parallel()
	l, at := newLedger(t), start()
	l.board(1, "a", "dock-1")
	for i := range 1700 {
		l.samples(1, at.Add(time.Duration(i)*time.Second), false, reading("load.1m", float64(i)))
	}
	dir := t.TempDir()
	d := open(t, dir, l, Config{}, nil)
	drain(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "tsdb", "cursor")); err != nil {
		t.Fatal(err)
	}
	d = open(t, dir, l, Config{}, nil)
	drain(t, d)
	if got := one(t, d, "a", `count_over_time(fulmar_load[1h])`, at.Add(30*time.Minute)); got != 1700 {
		t.Fatalf("%v samples of 1700", got)
	}
	if s := d.Stats(); s.Duplicates != 0 || s.TooOld != 0 {
		t.Fatalf("the same sample twice is no error: %+v", s)
	}
}

// A folder that was lost is made anew, with a bounded head.
func TestMadeAnew(t *testing.T) {
	t.Parallel()
	l, at := newLedger(t), time.Now().AddDate(0, 0, -8).Truncate(time.Second)
	l.board(1, "a", "dock-1")
	tx, err := l.db.Write.Begin()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := schema.Encode(&schema.Samples{Series: []string{"load.1m"}, Value: []float64{7}})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for x := at; x.Before(time.Now()); x = x.Add(10 * time.Minute) {
		if _, err := tx.Exec(`INSERT INTO telemetry (board, at, arrived, payload) VALUES (1, ?, ?, ?)`, x.UnixMilli(), x.UnixMilli(), raw); err != nil {
			t.Fatal(err)
		}
		n++
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	d := open(t, t.TempDir(), l, Config{}, nil)
	drain(t, d)
	if got := one(t, d, "a", `count_over_time(fulmar_load[9d])`, time.Now()); got != float64(n) {
		t.Fatalf("%v samples of %d", got, n)
	}
	if h := d.tsdb.Head(); h.MaxTime()-h.MinTime() > 4*24*time.Hour.Milliseconds() {
		t.Fatalf("the head spans %v", time.Duration(h.MaxTime()-h.MinTime())*time.Millisecond)
	}
}

// The numbers of rows that were removed come again.
func TestNumbersComeAgain(t *testing.T) {
	t.Parallel()
	l, at := newLedger(t), start()
	l.board(1, "a", "dock-1")
	l.board(2, "a", "dock-2")
	l.samples(1, at, false, reading("load.1m", 1))
	for i := range 10 {
		l.samples(2, at.Add(time.Duration(i)*time.Second), false, reading("load.1m", 2))
	}
	d := open(t, t.TempDir(), l, Config{}, nil)
	drain(t, d)
	l.exec(`DELETE FROM telemetry WHERE board = 2`)
	for i := range 20 {
		l.samples(1, at.Add(time.Duration(i+100)*time.Second), false, reading("load.1m", 3))
	}
	drain(t, d)
	if got := one(t, d, "a", `count_over_time(fulmar_load{board="dock-1"}[30m])`, at.Add(20*time.Minute)); got != 21 {
		t.Fatalf("%v samples of 21", got)
	}
	l.exec(`DELETE FROM telemetry`)
	l.samples(1, at.Add(500*time.Second), false, reading("load.1m", 4))
	drain(t, d)
	if got := one(t, d, "a", `count_over_time(fulmar_load{board="dock-1"}[30m])`, at.Add(20*time.Minute)); got != 22 {
		t.Fatalf("%v samples of 22", got)
	}
}

// A board that invents names gets no further than its bound, and is named.
func TestSeriesAreBounded(t *testing.T) {
	t.Parallel()
	l, at := newLedger(t), start()
	l.board(1, "a", "dock-1")
	l.board(2, "a", "dock-2")
	for i := range 50 {
		l.samples(1, at, false, reading(fmt.Sprintf("x.n%d", i), 1))
	}
	l.samples(2, at, false, reading("load.1m", 1))
	d := open(t, t.TempDir(), l, Config{BoardSeries: 10, TenantSeries: 30}, nil)
	drain(t, d)
	if got := one(t, d, "a", `count({board="dock-1"})`, at); got != 10 {
		t.Errorf("%v series, wants 10", got)
	}
	if got := one(t, d, "a", `fulmar_load{board="dock-2"}`, at); got != 1 {
		t.Error("the other board has to have its place")
	}
	if s := d.Stats(); s.Refused != 40 || s.Live != 11 {
		t.Errorf("%+v", s)
	}
	if r := d.RefusedSeries(); len(r) != 40 || r[39] != (points.Refused{Tenant: "a", Board: "dock-1", Series: "x.n49"}) {
		t.Errorf("refused: %v", r)
	}
	// Idle ones leave their places after a day.
	l.samples(1, at.Add(25*time.Hour), false, reading("x.new", 1))
	drain(t, d)
	if s := d.Stats(); s.Refused != 40 {
		t.Errorf("a new series after a day is refused: %+v", s)
	}
}

func TestFleetsOwnWord(t *testing.T) {
	t.Parallel()
	l, now := newLedger(t), start()
	l.board(1, "a", "dock-1")
	b := BoardState{
		Name: "dock-1", Site: "north", Release: "1.7", State: "healthy", Up: true, Heard: now,
		Classes: []ClassState{{Class: "event", Made: 10, Arrived: 8, Lost: 1, Waiting: 1, Reasons: map[string]uint64{"crash": 1}}},
	}
	d := open(t, t.TempDir(), l, Config{}, func(context.Context, string) ([]BoardState, error) { return []BoardState{b}, nil })
	step := func() {
		t.Helper()
		now = now.Add(15 * time.Second)
		if err := d.watchOnce(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
	step()
	for expr, want := range map[string]float64{
		`fulmar_board_up{site="north"}`: 1, `fulmar_board_state{state="healthy"}`: 1, `fulmar_board_info{release="1.7"}`: 1,
		`fulmar_board_records_made_total{class="event"}`: 10, `fulmar_board_records_lost_by_reason_total{reason="crash"}`: 1,
	} {
		if got := one(t, d, "a", expr, now); got != want {
			t.Errorf("%s is %v, wants %v", expr, got, want)
		}
	}
	b.State, b.Up, b.Release = "unreachable", false, "1.8"
	step()
	if got := one(t, d, "a", `count by (board) (fulmar_board_state)`, now); got != 1 {
		t.Errorf("%v states at once", got)
	}
	if got := one(t, d, "a", `fulmar_board_info * on (board) group_left (state) fulmar_board_state{state="unreachable"}`, now); got != 1 {
		t.Errorf("release and state do not join: %v", got)
	}
}

// A feeder whose database fails loses nothing: the cursor does not move.
func TestSinkFails(t *testing.T) {
	t.Parallel()
	l, at := newLedger(t), start()
	l.board(1, "a", "dock-1")
	l.samples(1, at, false, reading("load.1m", 1))
	d := open(t, t.TempDir(), l, Config{}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.feed.Drain(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	drain(t, d)
	if got := one(t, d, "a", `fulmar_load`, at); got != 1 {
		t.Fatal("lost")
	}
}

func TestConfigSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, c := range []Config{{Retention: time.Second}, {MiB: 1}, {Every: time.Hour}, {QuerySamples: -1}} {
		if c.Validate() == nil {
			t.Errorf("%+v is taken", c)
		}
	}
	if err := (Config{}).Validate(); err != nil {
		t.Error(err)
	}
}
