// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"fulmar/fleet/web"
	"fulmar/schema"
)

const (
	defaultPoints = 1000
	maxPoints     = 5000
	defaultSpan   = time.Hour
	maxDetections = 200
)

// bucket is one slot of a thinned line: its lowest and highest value survive, so
// that a spike of one second is still seen in a month.
type bucket struct {
	n        int
	loT, hiT int64
	loV, hiV float64
}

func (b *bucket) add(t int64, v float64) {
	if b.n == 0 || v < b.loV {
		b.loT, b.loV = t, v
	}
	if b.n == 0 || v > b.hiV {
		b.hiT, b.hiV = t, v
	}
	b.n++
}

// emit appends the bucket's one or two points in order of time.
func (b *bucket) emit(s *web.Series) {
	put := func(t int64, v float64) { s.T, s.V = append(s.T, t), append(s.V, v) }
	switch {
	case b.n == 0:
	case b.loT == b.hiT:
		put(b.loT, b.loV)
	case b.loT < b.hiT:
		put(b.loT, b.loV)
		put(b.hiT, b.hiV)
	default:
		put(b.hiT, b.hiV)
		put(b.loT, b.loV)
	}
}

// Series implements [web.Source].
func (s *Store) Series(ctx context.Context, q web.SeriesQuery) ([]web.Series, error) {
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
	rows, err := s.ledger.Read.QueryContext(ctx, `SELECT at, payload FROM telemetry WHERE board = ? AND at BETWEEN ? AND ? ORDER BY at`,
		id, q.From.UnixMilli(), q.To.UnixMilli())
	if err != nil {
		return nil, fmt.Errorf("read telemetry: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	n := max(1, min(q.Points, maxPoints)/2)
	from, span := q.From.UnixMilli(), q.To.UnixMilli()-q.From.UnixMilli()+1
	lines := map[string][]bucket{}
	for rows.Next() {
		var t int64
		var raw []byte
		if err := rows.Scan(&t, &raw); err != nil {
			return nil, fmt.Errorf("read telemetry: %w", err)
		}
		var x schema.Samples
		if err := schema.Decode(raw, &x); err != nil {
			return nil, fmt.Errorf("read telemetry: %w", err)
		}
		slot := int((t - from) * int64(n) / span)
		for i, name := range x.Series {
			if x.Quality != nil && x.Quality[i] != schema.QualityGood || len(q.Series) > 0 && !slices.Contains(q.Series, name) {
				continue
			}
			line := lines[name]
			if line == nil {
				line = make([]bucket, n)
				lines[name] = line
			}
			line[slot].add(t, x.Value[i])
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read telemetry: %w", err)
	}
	out := make([]web.Series, 0, len(lines))
	for name, line := range lines {
		one := web.Series{Name: name, T: []int64{}, V: []float64{}}
		for i := range line {
			line[i].emit(&one)
		}
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b web.Series) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// boardID gives the ledger's number of a board; 0 for one enrolled but not heard,
// web.ErrNotFound for one nobody knows.
func (s *Store) boardID(ctx context.Context, tenant, board string) (int64, error) {
	var id int64
	err := s.ledger.Read.QueryRowContext(ctx, `SELECT id FROM board WHERE tenant = ? AND name = ?`, tenant, board).Scan(&id)
	if err == nil {
		return id, nil
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("look up board: %w", err)
	}
	known, err := s.enrolled(ctx, tenant)
	if err != nil {
		return 0, err
	}
	if slices.ContainsFunc(known, func(e Enrolled) bool { return e.Name == board }) {
		return 0, nil
	}
	return 0, web.ErrNotFound
}

// detectionID takes the form board/class/epoch/seq apart.
func detectionID(s string) (id schema.ID, err error) {
	p := strings.Split(s, "/")
	if len(p) != 4 || schema.CheckBoard(p[0]) != nil {
		return id, web.ErrNotFound
	}
	id.Board = p[0]
	var e1, e2, e3 error
	id.Class, e1 = schema.ParseClass(p[1])
	id.Epoch, e2 = strconv.ParseUint(p[2], 16, 64)
	id.Seq, e3 = strconv.ParseUint(p[3], 10, 53)
	if e1 != nil || e2 != nil || e3 != nil {
		return id, web.ErrNotFound
	}
	return id, nil
}

// place finds where a detection stands in the order of all.
func (s *Store) place(ctx context.Context, tenant, name string) (when, row int64, err error) {
	id, err := detectionID(name)
	if err != nil {
		return 0, 0, err
	}
	err = s.ledger.Read.QueryRowContext(ctx, `SELECT e.at, e.id FROM event e JOIN board b ON b.id = e.board
WHERE b.tenant = ? AND b.name = ? AND e.class = ? AND e.epoch = ? AND e.seq = ?`,
		tenant, id.Board, id.Class, int64(id.Epoch), int64(id.Seq)).Scan(&when, &row)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, 0, web.ErrNotFound
	}
	return when, row, err
}

// Detections implements [web.Source].
func (s *Store) Detections(ctx context.Context, q web.DetectionQuery) ([]web.Detection, error) {
	where, args := []string{"b.tenant = ?"}, []any{q.Tenant}
	and := func(cond string, a ...any) { where, args = append(where, cond), append(args, a...) }
	order, limit := "DESC", q.Limit
	if limit <= 0 || limit > maxDetections {
		limit = maxDetections
	}
	mark := firstOf(q.ID, firstOf(q.Before, q.After))
	var when, row int64
	if mark != "" {
		var err error
		if when, row, err = s.place(ctx, q.Tenant, mark); err != nil {
			return nil, err
		}
	}
	switch {
	case q.ID != "":
		and("e.id = ?", row)
	case q.Before != "":
		and("(e.at, e.id) < (?, ?)", when, row)
	case q.After != "":
		and("(e.at, e.id) > (?, ?)", when, row)
		order = "ASC"
	}
	if q.ID == "" {
		if q.Board != "" {
			and("b.name = ?", q.Board)
		}
		if q.Camera != "" {
			and("e.source = ?", q.Camera)
		}
		if q.PicturesOnly {
			and("s.has = 1")
		}
	}
	args = append(args, limit)
	rows, err := s.ledger.Read.QueryContext(ctx, `SELECT b.name, e.class, e.epoch, e.seq, e.at, e.arrived, e.replayed, e.payload, coalesce(s.has, 0)
FROM event e JOIN board b ON b.id = e.board LEFT JOIN snapshot s ON e.snapshot <> '' AND s.board = e.board AND s.name = e.snapshot
WHERE `+strings.Join(where, " AND ")+` ORDER BY e.at `+order+`, e.id `+order+` LIMIT ?`, args...)
	if err != nil {
		return nil, fmt.Errorf("read detections: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	out := []web.Detection{}
	for rows.Next() {
		var d web.Detection
		var id schema.ID
		var epoch, when, arrived int64
		var raw []byte
		if err := rows.Scan(&id.Board, &id.Class, &epoch, &id.Seq, &when, &arrived, &d.Replayed, &raw, &d.HasPicture); err != nil {
			return nil, fmt.Errorf("read detections: %w", err)
		}
		id.Epoch = uint64(epoch)
		if err := schema.Decode(raw, &d.Event); err != nil {
			return nil, fmt.Errorf("read detection %s: %w", id, err)
		}
		d.ID, d.Board, d.At, d.Arrived = id.String(), id.Board, at(when), at(arrived)
		out = append(out, d)
	}
	return out, rows.Err()
}
