// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"fulmar/fleet/web"
	"fulmar/schema"
)

const (
	defaultPoints = 1000
	maxPoints     = 5000
	defaultSpan   = time.Hour

	// maxTail is up to how many rows of all boards are looked through for those of
	// one: 20,000 are 30 MB at most, a tenth of a second.
	maxTail = 20_000

	minuteMs = int64(60_000)
	hourMs   = 60 * minuteMs
)

// bucket is one slot of a line: the mean is drawn, and the lowest and highest
// survive, so that a spike of one second is still seen in a month. Summaries are
// counted apart: what reached the fleet both ways must not count twice, so the
// mean is that of the side that stands for more readings.
type bucket struct {
	n, sn       float64
	sum, ssum   float64
	lo, hi      float64
	first, last int64 // times in it
}

// reading is what one row says of one series: one value, or many summed up.
type reading struct {
	at, span  int64 // begins at, ms; span 0 for a moment
	n, sn     float64
	sum, ssum float64
	lo, hi    float64
}

func (b *bucket) add(r *reading, share float64, first, last int64) {
	if b.n+b.sn == 0 {
		b.lo, b.hi, b.first, b.last = r.lo, r.hi, first, last
	}
	b.lo, b.hi = min(b.lo, r.lo), max(b.hi, r.hi)
	b.first, b.last = min(b.first, first), max(b.last, last)
	b.n, b.sum = b.n+r.n*share, b.sum+r.sum*share
	b.sn, b.ssum = b.sn+r.sn*share, b.ssum+r.ssum*share
}

// mean is that of the readings or of the summaries, whichever are more.
func (b *bucket) mean() float64 {
	v := b.sum / b.n
	if b.sn > b.n {
		v = b.ssum / b.sn
	}
	if math.IsNaN(v) { // sums of numbers at the end of what a float holds
		v = b.lo/2 + b.hi/2
	}
	return min(max(v, b.lo), b.hi)
}

// settle decides what counts in a minute: its readings or its summaries.
func (r *reading) settle() {
	if r.sn > r.n {
		r.n, r.sum = r.sn, r.ssum
	}
	r.sn, r.ssum = 0, 0
}

// chart gathers lines over a span of time.
type chart struct {
	from, to int64 // inclusive
	slots    int
	wanted   []string // nil: all
	lines    map[string][]bucket
	// tail holds, by series and minute, what is not in the rollups; nil: telemetry
	// goes into the lines as it is.
	tail map[minuteOf]*reading
}

type minuteOf struct {
	name string
	t    int64
}

// take adds what a batch says of a series.
func (c *chart) take(name string, r *reading) {
	if c.tail == nil {
		c.add(name, r)
		return
	}
	middle := r.at + r.span/2
	k := minuteOf{name, middle - middle%minuteMs}
	m := c.tail[k]
	if m == nil {
		m = &reading{at: k.t, span: minuteMs, lo: r.lo, hi: r.hi}
		c.tail[k] = m
	}
	m.merge(r)
}

// merge adds what another says of the same time.
func (r *reading) merge(m *reading) {
	r.lo, r.hi = min(r.lo, m.lo), max(r.hi, m.hi)
	r.n, r.sum, r.sn, r.ssum = r.n+m.n, r.sum+m.sum, r.sn+m.sn, r.ssum+m.ssum
}

func (c *chart) slot(t int64) int { return int((t - c.from) * int64(c.slots) / (c.to - c.from + 1)) }

// begins is where a slot begins.
func (c *chart) begins(slot int) int64 {
	return c.from + int64(slot)*(c.to-c.from+1)/int64(c.slots)
}

// add puts a reading into the slots it lies in.
func (c *chart) add(name string, r *reading) {
	first, last := r.at, r.at+max(r.span-1, 0)
	if last < c.from || first > c.to {
		return
	}
	line := c.lines[name]
	if line == nil {
		line = make([]bucket, c.slots)
		c.lines[name] = line
	}
	first, last = max(first, c.from), min(last, c.to)
	begin, end := c.slot(first), c.slot(last)
	share := 1 / float64(end-begin+1)
	for i := begin; i <= end; i++ {
		line[i].add(r, share, max(first, c.begins(i)), min(last, c.begins(i+1)-1))
	}
}

// series gives the lines as the page draws them.
func (c *chart) series() []web.Series {
	out := make([]web.Series, 0, len(c.lines))
	for name, line := range c.lines {
		one := web.Series{Name: name, T: []int64{}, V: []float64{}}
		band := false
		for i := range line {
			b := &line[i]
			if b.n+b.sn == 0 {
				continue
			}
			one.T, one.V = append(one.T, (b.first+b.last)/2), append(one.V, b.mean())
			one.Lo, one.Hi = append(one.Lo, b.lo), append(one.Hi, b.hi)
			band = band || b.lo < b.hi
		}
		if !band {
			one.Lo, one.Hi = nil, nil
		}
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b web.Series) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Series implements [web.Source]. Short spans are read from telemetry; long ones
// from the rollups, and from telemetry what is not in them yet.
func (s *Store) Series(ctx context.Context, q web.SeriesQuery) ([]web.Series, error) {
	return s.seriesAt(ctx, q, -1)
}

// seriesAt reads with rollups of at least the given span, ms: -1 as fits the
// question, 0 telemetry alone.
func (s *Store) seriesAt(ctx context.Context, q web.SeriesQuery, level int64) ([]web.Series, error) {
	if q.To.IsZero() {
		q.To = time.Now()
	}
	if q.From.IsZero() {
		q.From = q.To.Add(-defaultSpan)
	}
	if !q.From.Before(q.To) {
		return []web.Series{}, nil
	}
	if q.Points <= 0 {
		q.Points = defaultPoints
	}
	id, err := s.boardID(ctx, q.Tenant, q.Board)
	if err != nil {
		return nil, err
	}
	if id == 0 {
		return []web.Series{}, nil // enrolled, never heard
	}
	c := &chart{from: q.From.UnixMilli(), to: q.To.UnixMilli(), slots: min(q.Points, maxPoints), wanted: q.Series, lines: map[string][]bucket{}}
	if level < 0 {
		level = c.level()
	}
	tx, err := s.ledger.Read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("read telemetry: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // only read
	if level == 0 {
		err = c.fine(ctx, tx, id)
	} else {
		err = c.coarse(ctx, tx, id, level)
	}
	if err != nil {
		return nil, fmt.Errorf("read telemetry: %w", err)
	}
	return c.series(), nil
}

// level chooses the coarsest rollup that still gives half of the points asked for.
func (c *chart) level() int64 {
	slot := (c.to - c.from + 1) / int64(c.slots)
	switch {
	case slot >= hourMs/2:
		return hourMs
	case slot >= minuteMs/2:
		return minuteMs
	}
	return 0
}

// fine reads telemetry; where it is gone by its bound in bytes, the minutes.
func (c *chart) fine(ctx context.Context, tx *sql.Tx, board int64) error {
	var oldest sql.NullInt64
	if err := tx.QueryRowContext(ctx, `SELECT min(at) FROM telemetry WHERE board = ?`, board).Scan(&oldest); err != nil {
		return err
	}
	begin := c.to + 1
	if oldest.Valid {
		begin = oldest.Int64 - oldest.Int64%minuteMs
	}
	if begin > c.from {
		if err := c.rollups(ctx, tx, board, minuteMs, begin-1); err != nil {
			return err
		}
	}
	return c.telemetry(ctx, tx, `SELECT at, payload FROM telemetry WHERE board = ? AND at BETWEEN ? AND ? ORDER BY at`, board, c.from-minuteMs, c.to)
}

// coarse reads rollups, and from telemetry what is not in them: the rows after the
// mark, and those that may still be placed anew. An hour of which a minute is in
// its rollup and in telemetry counts both until the next step of folding.
func (c *chart) coarse(ctx context.Context, tx *sql.Tx, board, level int64) error {
	c.tail = map[minuteOf]*reading{}
	var mark, pending int64
	err := tx.QueryRowContext(ctx, `SELECT at, coalesce((SELECT max(id) FROM telemetry), 0) - at FROM progress WHERE what = 'rollup'`).Scan(&mark, &pending)
	if err != nil {
		return err
	}
	// Few rows are after the mark: they are looked through. Where folding is far
	// behind, the rows of the board are, of which the index tells the number.
	by := "NOT INDEXED"
	if pending > maxTail {
		by = "INDEXED BY telemetry_board"
	}
	err = c.telemetry(ctx, tx, `SELECT at, payload FROM telemetry `+by+` WHERE id > ? AND board = ? AND at BETWEEN ? AND ? AND open = 0`, mark, board, c.from-minuteMs, c.to)
	if err != nil {
		return err
	}
	err = c.telemetry(ctx, tx, `SELECT at, payload FROM telemetry INDEXED BY telemetry_open WHERE board = ? AND at BETWEEN ? AND ? AND open = 1`, board, c.from-minuteMs, c.to)
	if err != nil {
		return err
	}
	if err := c.rollups(ctx, tx, board, level, c.to); err != nil {
		return err
	}
	for k, r := range c.tail { // minutes that have no rollup yet
		r.settle()
		c.add(k.name, r)
	}
	return nil
}

// telemetry adds the batches that a query gives.
func (c *chart) telemetry(ctx context.Context, tx *sql.Tx, q string, args ...any) error {
	rows, err := tx.QueryContext(ctx, q, args...)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // Err tells
	for rows.Next() {
		var t int64
		var raw []byte
		if err := rows.Scan(&t, &raw); err != nil {
			return err
		}
		var x schema.Samples
		if err := schema.Decode(raw, &x); err != nil {
			return err
		}
		for i, name := range x.Series {
			if x.Quality != nil && x.Quality[i] != schema.QualityGood || len(c.wanted) > 0 && !slices.Contains(c.wanted, name) {
				continue
			}
			if r, ok := readingOf(&x, i, t); ok {
				c.take(name, &r)
			}
		}
	}
	return rows.Err()
}

// readingOf gives what a batch says of its i-th series.
func readingOf(x *schema.Samples, i int, at int64) (reading, bool) {
	v := x.Value[i]
	if x.Over == nil {
		return reading{at: at, n: 1, sum: v, lo: v, hi: v}, true
	}
	n := float64(x.Over.Count[i])
	return reading{at: at, span: x.Over.SpanMs, sn: n, ssum: v * n, lo: x.Over.Min[i], hi: x.Over.Max[i]}, n > 0
}

// rollups adds the rollups of a level up to a moment.
func (c *chart) rollups(ctx context.Context, tx *sql.Tx, board, level, to int64) error {
	ids := map[string]int64{}
	rows, err := tx.QueryContext(ctx, `SELECT name, id FROM series WHERE board = ?`, board)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // Err tells
	for rows.Next() {
		var name string
		var id int64
		if err := rows.Scan(&name, &id); err != nil {
			return err
		}
		if len(c.wanted) == 0 || slices.Contains(c.wanted, name) {
			ids[name] = id
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	st, err := tx.PrepareContext(ctx, `SELECT t, n, sum, lo, hi, sn, ssum FROM rollup WHERE board = ? AND level = ? AND series = ? AND t > ? AND t <= ? ORDER BY t`)
	if err != nil {
		return err
	}
	defer st.Close() //nolint:errcheck // of a transaction that ends
	number := 0
	if level == hourMs {
		number = 1
	}
	for name, id := range ids {
		if err := c.rollup(ctx, st, name, level, board, number, id, c.from-level, to); err != nil {
			return err
		}
	}
	return nil
}

func (c *chart) rollup(ctx context.Context, st *sql.Stmt, name string, span int64, args ...any) error {
	rows, err := st.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // Err tells
	for rows.Next() {
		r := reading{span: span}
		if err := rows.Scan(&r.at, &r.n, &r.sum, &r.lo, &r.hi, &r.sn, &r.ssum); err != nil {
			return err
		}
		k := minuteOf{name, r.at}
		if m := c.tail[k]; m != nil && span == minuteMs {
			r.merge(m)
			delete(c.tail, k)
		}
		r.settle()
		c.add(name, &r)
	}
	return rows.Err()
}
