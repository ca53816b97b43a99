// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/value"

	"fulmar/fleet/telemetry/points"
)

// BoardState is the fleet's word on a board.
type BoardState struct {
	Name, Site, Release, State string
	Up                         bool
	Heard                      time.Time // zero: never
	Classes                    []ClassState
}

// ClassState is the loss ledger of one class of records.
type ClassState struct {
	Class                              string
	Made, Arrived, Lost, Waiting, Dups uint64
	Reasons                            map[string]uint64 // of Lost
}

// watchStep is how many boards one commit samples: 20 series each.
const watchStep = 500

// watch samples the fleet's own word on each board.
func (d *DB) watch(ctx context.Context) error {
	tick := time.NewTicker(d.cfg.Every)
	defer tick.Stop()
	failing := false
	for {
		err := d.watchOnce(ctx, time.Now())
		if err != nil && ctx.Err() == nil && !failing {
			d.log.Error("boards not sampled; tried again at each period", "err", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (d *DB) tenants(ctx context.Context) ([]string, error) {
	rows, err := d.src.Ledger.QueryContext(ctx, `SELECT DISTINCT tenant FROM board`)
	if err != nil {
		return nil, fmt.Errorf("list tenants: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	var out []string
	for rows.Next() {
		var t string
		if err := rows.Scan(&t); err != nil {
			return nil, fmt.Errorf("list tenants: %w", err)
		}
		out = append(out, t)
	}
	return out, rows.Err()
}

func (d *DB) watchOnce(ctx context.Context, now time.Time) error {
	tenants, err := d.tenants(ctx)
	if err != nil {
		return err
	}
	d.boards.Sweep(now.UnixMilli())
	var errs []error
	for _, t := range tenants { // one that fails does not blind the others
		errs = append(errs, d.watchTenant(ctx, t, now))
	}
	return errors.Join(errs...)
}

func (d *DB) watchTenant(ctx context.Context, tenant string, now time.Time) error {
	boards, err := d.src.Boards(ctx, tenant)
	if err != nil {
		return fmt.Errorf("boards of %s: %w", tenant, err)
	}
	last, states := d.states[tenant], map[string]string{}
	var ps []points.Point
	for i := range boards {
		b := &boards[i]
		ps = d.boardPoints(ps, tenant, b, last[b.Name], now)
		states[b.Name] = word(b)
		if i%watchStep == watchStep-1 || i == len(boards)-1 {
			if err := d.append(ctx, ps); err != nil {
				return err
			}
			ps = ps[:0]
		}
	}
	d.states[tenant] = states
	return nil
}

// word is what of a board's series changes in a label: state and release.
func word(b *BoardState) string { return b.State + "\xff" + b.Release }

func (d *DB) boardPoints(dst []points.Point, tenant string, b *BoardState, last string, now time.Time) []points.Point {
	id := points.Board{Tenant: tenant, Name: b.Name, Site: b.Site}
	add := func(metric string, v float64, more ...string) {
		if p, ok := d.boards.Own(id, now.UnixMilli(), v, metric, more...); ok {
			dst = append(dst, p)
		}
	}
	up := 0.0
	if b.Up {
		up = 1
	}
	add("fulmar_board_up", up)
	if last != "" && last != word(b) { // the old word ends now, not in five minutes
		state, release := cut(last)
		stale := math.Float64frombits(value.StaleNaN)
		if state != b.State {
			add("fulmar_board_state", stale, "state", state)
		}
		if release != b.Release {
			add("fulmar_board_info", stale, "release", release)
		}
	}
	add("fulmar_board_state", 1, "state", b.State)
	add("fulmar_board_info", 1, "release", b.Release)
	if !b.Heard.IsZero() {
		add("fulmar_board_last_seen_timestamp_seconds", float64(b.Heard.UnixMilli())/1000)
	}
	for _, c := range b.Classes {
		add("fulmar_board_records_made_total", float64(c.Made), "class", c.Class)
		add("fulmar_board_records_arrived_total", float64(c.Arrived), "class", c.Class)
		add("fulmar_board_records_waiting", float64(c.Waiting), "class", c.Class)
		add("fulmar_board_records_duplicate_total", float64(c.Dups), "class", c.Class)
		add("fulmar_board_records_lost_total", float64(c.Lost), "class", c.Class)
		for reason, n := range c.Reasons {
			add("fulmar_board_records_lost_by_reason_total", float64(n), "class", c.Class, "reason", reason)
		}
	}
	return dst
}

func cut(word string) (state, release string) {
	for i := range len(word) {
		if word[i] == 0xff {
			return word[:i], word[i+1:]
		}
	}
	return word, ""
}

// Stats tells what was counted.
func (d *DB) Stats() Stats {
	d.mu.Lock()
	n := d.counts
	d.mu.Unlock()
	f := d.feed.Stats()
	n.Refused, n.Live, n.Missed, n.Behind = f.Refused, f.Live, f.Missed, f.Behind
	return n
}

// RefusedSeries names the newest series that found no place.
func (d *DB) RefusedSeries() []points.Refused { return d.feed.Stats().RefusedSeries }

// Collectors gives the numbers of the database and of what feeds it, for /metrics of the
// server: fulmar_telemetry_*, and prometheus_tsdb_* and prometheus_engine_* as those who
// run Prometheus know them.
func (d *DB) Collectors() prometheus.Gatherer { return d.reg }

func (d *DB) register() {
	f := func(name, help string, value func(Stats) float64) {
		d.reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "fulmar_telemetry_" + name, Help: help},
			func() float64 { return value(d.Stats()) }))
	}
	f("samples_total", "Samples appended.", func(s Stats) float64 { return float64(s.Appended) })
	f("duplicates_total", "Samples of a moment that has another value.", func(s Stats) float64 { return float64(s.Duplicates) })
	f("too_old_total", "Samples over 30 days behind the newest.", func(s Stats) float64 { return float64(s.TooOld) })
	f("refused_total", "Samples of series over the bound of a board or a tenant.", func(s Stats) float64 { return float64(s.Refused) })
	f("missed_rows_total", "Rows of the ledger that were pruned before they were read.", func(s Stats) float64 { return float64(s.Missed) })
	g := func(name, help string, value func(Stats) float64) {
		d.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "fulmar_telemetry_" + name, Help: help},
			func() float64 { return value(d.Stats()) }))
	}
	g("live_series", "Series of boards that are live.", func(s Stats) float64 { return float64(s.Live) })
	g("rows_behind", "Rows of the ledger that are not in the database yet.", func(s Stats) float64 { return float64(s.Behind) })
	for _, w := range d.remote {
		w.Register(d.reg)
	}
	if d.traces != nil {
		d.traces.Register(d.reg)
	}
}
