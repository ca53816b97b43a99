// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"fulmar/fleet/web"
)

// between narrows a query of events to its boards and its time.
func between(q web.DetectionQuery, and func(cond string, a ...any)) {
	if q.Boards != nil { // one value, however many: SQLite bounds how many are bound
		list, _ := json.Marshal(q.Boards) // strings always encode
		and("b.name IN (SELECT value FROM json_each(?))", string(list))
	}
	if !q.From.IsZero() {
		and("e.at >= ?", q.From.UnixMilli())
	}
	if !q.To.IsZero() {
		and("e.at < ?", q.To.UnixMilli())
	}
}

// Hours counts the newest [web.MaxCounted] detections of a query by the hour; more tells
// that there are older ones, not counted. ID, Before, After and Limit are ignored.
func (s *Store) Hours(ctx context.Context, q web.DetectionQuery) (out []web.Hour, more bool, err error) {
	where, args := []string{"b.tenant = ?"}, []any{q.Tenant}
	and := func(cond string, a ...any) { where, args = append(where, cond), append(args, a...) }
	if q.Board != "" {
		and("b.name = ?", q.Board)
	}
	if q.Camera != "" {
		and("e.source = ?", q.Camera)
	}
	from := "event e JOIN board b ON b.id = e.board"
	if q.PicturesOnly {
		from += " JOIN snapshot s ON s.board = e.board AND s.name = e.snapshot"
		and("e.snapshot <> ''")
		and("s.has = 1")
	}
	between(q, and)
	args = append(args, web.MaxCounted+1)
	rows, err := s.ledger.Read.QueryContext(ctx, `SELECT at / 3600000, count(*) FROM (SELECT e.at AS at FROM `+from+`
WHERE `+strings.Join(where, " AND ")+` ORDER BY e.at DESC LIMIT ?) GROUP BY 1 ORDER BY 1`, args...)
	if err != nil {
		return nil, false, fmt.Errorf("count detections: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	sum := uint64(0)
	for rows.Next() {
		var hour int64
		var h web.Hour
		if err := rows.Scan(&hour, &h.Count); err != nil {
			return nil, false, fmt.Errorf("count detections: %w", err)
		}
		h.At, sum = at(hour*3600000), sum+h.Count
		out = append(out, h)
	}
	return out, sum > web.MaxCounted, rows.Err()
}
