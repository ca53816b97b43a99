// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"fulmar/fleet/telemetry/points"
	"fulmar/schema"
)

// source is one table and how its rows become points.
type source struct {
	name, columns string
	at            *table
	points        func(dst []points.Point, b points.Board, r *row) ([]points.Point, error)
}

// row is one row of either table.
type row struct {
	id, board, at, arrived int64
	open                   bool
	payload                []byte
	event                  points.Event
}

func (f *Feed) telemetry() *source {
	return &source{"telemetry", `0, 0, 0, 0`, &f.st.Telemetry, func(dst []points.Point, b points.Board, r *row) ([]points.Point, error) {
		var s schema.Samples
		if err := schema.Decode(r.payload, &s); err != nil {
			return dst, err
		}
		if err := s.Validate(); err != nil {
			return dst, err
		}
		return f.book.Readings(dst, b, r.at, &s), nil
	}}
}

func (f *Feed) events() *source {
	return &source{"event", `known, n_true, n_false, n_missed`, &f.st.Event, func(dst []points.Point, b points.Board, r *row) ([]points.Point, error) {
		var e schema.Event
		if err := schema.Decode(r.payload, &e); err != nil {
			return dst, err
		}
		return f.book.Detections(dst, b, r.at, &e, r.event), nil
	}}
}

func (f *Feed) query(ctx context.Context, t *source, where string, args ...any) ([]row, error) {
	rows, err := f.cfg.Ledger.QueryContext(ctx, `SELECT id, board, at, arrived, open, payload, `+t.columns+` FROM `+t.name+` WHERE `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", t.name, err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	var out []row
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.id, &r.board, &r.at, &r.arrived, &r.open, &r.payload, &r.event.Known, &r.event.True, &r.event.False, &r.event.Missed); err != nil {
			return nil, fmt.Errorf("read %s: %w", t.name, err)
		}
		out = append(out, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", t.name, err)
	}
	return out, nil
}

// forward gives the next rows to the sink.
func (f *Feed) forward(ctx context.Context, t *source) (int, error) {
	rows, err := f.query(ctx, t, `id > ? ORDER BY id LIMIT ?`, t.at.ID, step)
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	var open []int64
	var settled []row
	for _, r := range rows {
		if r.open {
			open = append(open, r.id)
		} else {
			settled = append(settled, r)
		}
	}
	if err := f.give(ctx, t, settled); err != nil {
		return 0, err
	}
	last := rows[len(rows)-1]
	t.at.ID, t.at.Board, t.at.Arrived = last.id, last.board, last.arrived
	for _, id := range open { // rows read again may be there already
		if i, has := slices.BinarySearch(t.at.Open, id); !has {
			t.at.Open = slices.Insert(t.at.Open, i, id)
		}
	}
	f.dirty = true
	return len(rows), nil
}

// settle looks at some of the rows that were open, and takes those that are not any more.
func (f *Feed) settle(ctx context.Context, t *source, next *int) error {
	if *next >= len(t.at.Open) {
		*next = 0
	}
	ids := t.at.Open[*next:min(*next+recheck, len(t.at.Open))]
	list := make([]string, len(ids))
	for i, id := range ids {
		list[i] = strconv.FormatInt(id, 10)
	}
	rows, err := f.query(ctx, t, `id IN (`+strings.Join(list, ",")+`) ORDER BY id`)
	if err != nil {
		return err
	}
	still := map[int64]bool{}
	var settled []row
	for _, r := range rows {
		if r.open {
			still[r.id] = true
		} else {
			settled = append(settled, r)
		}
	}
	if err := f.give(ctx, t, settled); err != nil {
		return err
	}
	gone := map[int64]bool{} // settled, or pruned and wiped: never looked for again
	for _, id := range ids {
		gone[id] = !still[id]
	}
	was := len(t.at.Open)
	*next += len(still)
	t.at.Open = slices.DeleteFunc(t.at.Open, func(id int64) bool { return gone[id] })
	f.dirty = f.dirty || len(t.at.Open) != was
	return nil
}

func (f *Feed) give(ctx context.Context, t *source, rows []row) error {
	var ps []points.Point
	damaged := uint64(0)
	for i := range rows {
		b, ok, err := f.board(ctx, rows[i].board)
		if err != nil {
			return err
		}
		if !ok {
			continue // wiped since
		}
		if ps, err = t.points(ps, b, &rows[i]); err != nil {
			damaged++
		}
	}
	if len(ps) > 0 {
		if err := f.sink.Append(ctx, ps); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats.Rows += uint64(len(rows))
	f.stats.Damaged += damaged
	return nil
}

// verify sees to it that the cursor still means what it did. SQLite gives the numbers of
// the newest rows out anew when these were removed (a board was wiped, everything was
// pruned): the row at the cursor is then another one, or none is so high.
func (f *Feed) verify(ctx context.Context, t *source) error {
	if t.at.ID == 0 {
		return nil
	}
	var lo, hi, board, arrived sql.NullInt64
	err := f.cfg.Ledger.QueryRowContext(ctx, `SELECT (SELECT min(id) FROM `+t.name+`), (SELECT max(id) FROM `+t.name+`),
  (SELECT board FROM `+t.name+` WHERE id = ?1), (SELECT arrived FROM `+t.name+` WHERE id = ?1)`, t.at.ID).Scan(&lo, &hi, &board, &arrived)
	if err != nil {
		return fmt.Errorf("read %s: %w", t.name, err)
	}
	switch {
	case board.Valid && board.Int64 == t.at.Board && arrived.Int64 == t.at.Arrived:
		return nil
	case board.Valid, hi.Int64 < t.at.ID: // what was given out anew may begin long before
		return f.rewind(ctx, t, max(min(t.at.ID, hi.Int64)-back, 0))
	case lo.Int64 > t.at.ID+1: // pruned before it was read
		f.mu.Lock()
		f.stats.Missed += uint64(lo.Int64 - t.at.ID - 1)
		f.mu.Unlock()
		return f.rewind(ctx, t, lo.Int64-1)
	}
	return nil
}

// rewind sets the cursor to the newest row up to the given number.
func (f *Feed) rewind(ctx context.Context, t *source, to int64) error {
	open := t.at.Open
	*t.at = table{ID: to, Open: open}
	f.dirty = true
	err := f.cfg.Ledger.QueryRowContext(ctx, `SELECT id, board, arrived FROM `+t.name+` WHERE id <= ? ORDER BY id DESC LIMIT 1`, to).Scan(&t.at.ID, &t.at.Board, &t.at.Arrived)
	if errors.Is(err, sql.ErrNoRows) {
		*t.at = table{Open: open} // the first row is the next one
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", t.name, err)
	}
	return nil
}

func (f *Feed) board(ctx context.Context, id int64) (points.Board, bool, error) {
	b, ok := f.boards[id]
	if !ok {
		b.ID = id
		err := f.cfg.Ledger.QueryRowContext(ctx, `SELECT tenant, name FROM board WHERE id = ?`, id).Scan(&b.Tenant, &b.Name)
		if errors.Is(err, sql.ErrNoRows) {
			return b, false, nil
		}
		if err != nil {
			return b, false, fmt.Errorf("read board: %w", err)
		}
		f.boards[id] = b
	}
	if f.cfg.Sites != nil {
		sites, ok := f.sites[b.Tenant]
		if !ok {
			var err error
			if sites, err = f.cfg.Sites(ctx, b.Tenant); err != nil {
				return b, false, fmt.Errorf("sites of %s: %w", b.Tenant, err)
			}
			f.sites[b.Tenant] = sites
		}
		b.Site = sites[b.Name]
	}
	return b, true, nil
}

// refreshSites forgets the sites now and then, and with them the boards: a number may be
// another board's after a wipe.
func (f *Feed) refreshSites() {
	if now := time.Now(); now.Sub(f.sitesAt) >= sitesFor {
		f.sites, f.boards, f.sitesAt = map[string]map[string]string{}, map[int64]points.Board{}, now
	}
}
