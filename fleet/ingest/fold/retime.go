// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"database/sql"
	"errors"
	"fmt"

	"fulmar/fleet/ingest/clocks"
	"fulmar/schema"
)

// settled is how long nothing of a boot must have come before its rows are closed,
// ms: a board draining its backlog pauses for seconds, a bad link for minutes.
const settled = 10 * 60 * 1000

// boot is one row of table retime.
type boot struct {
	board, boot, tAfter, eAfter int64
	moved                       bool
}

// Opened notes that rows of a boot are open; moved that they are to be placed anew.
func Opened(db DB, board int64, id uint64, now int64, moved bool) error {
	err := db.Exec(`INSERT INTO retime (board, boot, heard, moved, t_after, e_after) VALUES (?1, ?2, ?3, ?4, 0, 0)
ON CONFLICT (board, boot) DO UPDATE SET heard = ?3, moved = moved OR ?4,
  t_after = CASE WHEN ?4 THEN 0 ELSE t_after END, e_after = CASE WHEN ?4 THEN 0 ELSE e_after END`, board, int64(id), now, moved)
	if err != nil {
		return fmt.Errorf("note open boot: %w", err)
	}
	return nil
}

// Retime does one step on the boot that has waited longest: it places at most
// limit rows of each table anew, or closes as many. known gives what is known of a
// board's boots, settled. It tells whether there was anything to do.
func (f *Folder) Retime(db DB, known func(board int64) (*clocks.Board, error), now int64, limit int) (bool, error) {
	var b boot
	err := db.Row(`SELECT board, boot, moved, t_after, e_after FROM retime WHERE moved = 1 OR heard < ? ORDER BY moved DESC, heard LIMIT 1`,
		[]any{now - settled}, &b.board, &b.boot, &b.moved, &b.tAfter, &b.eAfter)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("find a boot to place anew: %w", err)
	}
	c, err := known(b.board)
	if err != nil {
		return false, err
	}
	if b.moved {
		return true, b.place(db, c, now, limit)
	}
	return true, f.close(db, c, b, now, limit)
}

// place moves a step of the boot's rows to where the boot is known to be now.
func (b *boot) place(db DB, c *clocks.Board, now int64, limit int) error {
	done := true
	for _, t := range []struct {
		name  string
		after *int64
	}{{"telemetry", &b.tAfter}, {"event", &b.eAfter}} {
		rows, err := db.Query(`SELECT id, mono FROM `+t.name+` WHERE open = 1 AND board = ? AND boot = ? AND id > ? ORDER BY id LIMIT ?`, b.board, b.boot, *t.after, limit)
		if err != nil {
			return fmt.Errorf("read %s to place anew: %w", t.name, err)
		}
		var moves [][2]int64
		for rows.Next() {
			var id, mono int64
			if err := rows.Scan(&id, &mono); err != nil {
				return errors.Join(err, rows.Close())
			}
			moves = append(moves, [2]int64{id, mono})
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return fmt.Errorf("read %s to place anew: %w", t.name, err)
		}
		for _, m := range moves {
			at, grade := c.Place(schema.Time{Boot: uint64(b.boot), Mono: m[1] * 1e6}, now)
			if err := db.Exec(`UPDATE `+t.name+` SET at = ?, timed = ? WHERE id = ?`, at, grade, m[0]); err != nil {
				return fmt.Errorf("place %s anew: %w", t.name, err)
			}
			*t.after = m[0]
		}
		done = done && len(moves) < limit
	}
	err := db.Exec(`UPDATE retime SET moved = ?, t_after = ?, e_after = ? WHERE board = ? AND boot = ?`, !done, b.tAfter, b.eAfter, b.board, b.boot)
	if err != nil {
		return fmt.Errorf("place a boot anew: %w", err)
	}
	return nil
}

// close makes a step of the boot's rows final: telemetry goes into the rollups.
// Rows after the mark are taken by the ordinary steps once they are closed.
func (f *Folder) close(db DB, c *clocks.Board, b boot, now int64, limit int) error {
	var mark int64
	if err := db.Row(`SELECT at FROM progress WHERE what = 'rollup'`, nil, &mark); err != nil {
		return fmt.Errorf("close a boot: %w", err)
	}
	rows, err := f.read(db, `SELECT id, board, at, payload FROM telemetry WHERE open = 1 AND board = ? AND boot = ? AND id <= ? ORDER BY id LIMIT ?`, b.board, b.boot, mark, limit)
	if err != nil {
		return fmt.Errorf("read open telemetry: %w", err)
	}
	if err := f.add(db, rows, now); err != nil {
		return err
	}
	if n := len(rows); n > 0 {
		err := db.Exec(`UPDATE telemetry SET open = 0 WHERE open = 1 AND board = ? AND boot = ? AND id <= ?`, b.board, b.boot, rows[n-1].id)
		if err != nil {
			return fmt.Errorf("close telemetry: %w", err)
		}
		if n == limit {
			return nil // the others in the next step
		}
	}
	err = db.Exec(`UPDATE event SET open = 0 WHERE id IN (SELECT id FROM event WHERE open = 1 AND board = ? AND boot = ? ORDER BY id LIMIT ?)`, b.board, b.boot, limit)
	if err != nil {
		return fmt.Errorf("close events: %w", err)
	}
	var left bool
	if err := db.Row(`SELECT EXISTS (SELECT 1 FROM event WHERE open = 1 AND board = ? AND boot = ?)`, []any{b.board, b.boot}, &left); err != nil || left {
		return err
	}
	if err := db.Exec(`UPDATE telemetry SET open = 0 WHERE open = 1 AND board = ? AND boot = ?`, b.board, b.boot); err != nil {
		return fmt.Errorf("close telemetry: %w", err)
	}
	c.Close(uint64(b.boot))
	if err := db.Exec(`DELETE FROM retime WHERE board = ? AND boot = ?`, b.board, b.boot); err != nil {
		return fmt.Errorf("close a boot: %w", err)
	}
	return nil
}
