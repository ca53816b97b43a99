// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package wipe removes a board's rows from the ledger in steps, so that no other board
// waits long for its commit.
package wipe

import "fmt"

// DB is one transaction.
type DB interface {
	Exec(q string, args ...any) error
	Row(q string, args []any, dst ...any) error
}

// Freed is what a step took out of the tables that have a quota.
type Freed struct {
	Kind        string // telemetry, event or picture
	Bytes, Rows int64
}

// Step removes at most limit rows of each big table; more tells that there may be more.
// When there are none it removes the board itself, and with it the small tables.
// overhead is what the sums of a quota count for a row beside its payload, bytes.
func Step(db DB, board int64, limit, overhead int) (freed []Freed, more bool, err error) {
	for _, t := range []struct{ kind, table, bytes, order string }{
		{"telemetry", "telemetry", fmt.Sprintf("length(payload) + %d", overhead), "at, id"},
		{"event", "event", fmt.Sprintf("length(payload) + %d", 2*overhead), "at, id"},
		{"picture", "snapshot", "has * size", "id"},
	} {
		f := Freed{Kind: t.kind}
		some := ` FROM ` + t.table + ` WHERE board = ? ORDER BY ` + t.order + ` LIMIT ?`
		if err := db.Row(`SELECT coalesce(sum(b), 0), count(*) FROM (SELECT `+t.bytes+` b`+some+`)`, []any{board, limit}, &f.Bytes, &f.Rows); err != nil {
			return nil, false, fmt.Errorf("wipe %s: %w", t.table, err)
		}
		if err := db.Exec(`DELETE FROM `+t.table+` WHERE id IN (SELECT id`+some+`)`, board, limit); err != nil {
			return nil, false, fmt.Errorf("wipe %s: %w", t.table, err)
		}
		freed, more = append(freed, f), more || f.Rows == int64(limit)
	}
	for _, t := range []struct{ table, key string }{
		{"rollup", "level, series, t"}, {"gap", "id"}, {"anchor", "id"}, {"stream_folded", "id"}, {"stream", "class, epoch"},
	} {
		var n int
		some := ` FROM ` + t.table + ` WHERE board = ?1 LIMIT ?2`
		if err := db.Row(`SELECT count(*) FROM (SELECT 1`+some+`)`, []any{board, limit}, &n); err != nil {
			return nil, false, fmt.Errorf("wipe %s: %w", t.table, err)
		}
		if err := db.Exec(`DELETE FROM `+t.table+` WHERE board = ?1 AND (`+t.key+`) IN (SELECT `+t.key+some+`)`, board, limit); err != nil {
			return nil, false, fmt.Errorf("wipe %s: %w", t.table, err)
		}
		more = more || n == limit
	}
	if more {
		return freed, true, nil
	}
	err = db.Exec(`DELETE FROM refused WHERE (tenant, board) = (SELECT tenant, name FROM board WHERE id = ?)`, board)
	if err == nil {
		err = db.Exec(`DELETE FROM board WHERE id = ?`, board)
	}
	if err != nil {
		return nil, false, fmt.Errorf("wipe board: %w", err)
	}
	return freed, false, nil
}
