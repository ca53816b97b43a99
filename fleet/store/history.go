// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"fulmar/fleet/web"
	"fulmar/schema"
)

// maxDetections bounds one page of detections.
const maxDetections = 200

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
	_, err = s.Board(ctx, tenant, board)
	return 0, err
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
		between(q, and)
	}
	args = append(args, limit)
	rows, err := s.ledger.Read.QueryContext(ctx, `SELECT b.name, e.class, e.epoch, e.seq, e.at, e.timed, e.arrived, e.replayed, e.payload, coalesce(s.has, 0)
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
		var timed int
		var raw []byte
		if err := rows.Scan(&id.Board, &id.Class, &epoch, &id.Seq, &when, &timed, &arrived, &d.Replayed, &raw, &d.HasPicture); err != nil {
			return nil, fmt.Errorf("read detections: %w", err)
		}
		id.Epoch = uint64(epoch)
		if err := schema.Decode(raw, &d.Event); err != nil {
			return nil, fmt.Errorf("read detection %s: %w", id, err)
		}
		d.Timed = timedWord(timed)
		d.ID, d.Board, d.At, d.Arrived = id.String(), id.Board, at(when), at(arrived)
		out = append(out, d)
	}
	return out, rows.Err()
}

// timedWord names a grade of clocks.Grade as the column holds it.
func timedWord(grade int) string {
	switch grade {
	case 0:
		return "exact"
	case 1:
		return "estimated"
	}
	return "unknown"
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
