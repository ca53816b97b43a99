// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package losses writes what was lost: the gaps one by one as long as there is room,
// and their sums by reason.
package losses

import (
	"database/sql"
	"errors"
	"fmt"

	"fulmar/fleet/ingest/book"
	"fulmar/fleet/ingest/shelf"
	"fulmar/schema"
)

// maxGaps bounds the gap rows kept of one board; the books keep the sums.
const maxGaps = 1000

// DB is one transaction.
type DB interface {
	Exec(q string, args ...any) error
	Row(q string, args []any, dst ...any) error
}

// Told books a gap that the board told; its From and To are the fleet's milliseconds.
func Told(db DB, e *book.Book, board int64, g schema.Gap, at int64) error {
	lost, err := e.Lose(g.First, g.Last)
	if err != nil {
		return err
	}
	return write(db, board, g, at, lost)
}

// Found books numbers that the fleet itself knows to be lost. What had arrived or was
// lost before is left as it is, and nothing is written where that is all. A gap that
// goes on where the board's last one ended, for the same reason, is one with it.
func Found(db DB, e *book.Book, board int64, g schema.Gap, at int64) (lost uint64, err error) {
	lost, err = e.Lose(g.First, g.Last)
	if err != nil || lost == 0 {
		return 0, err
	}
	var id int64
	err = db.Row(`UPDATE gap SET last = ?1, at = ?2, count = count + ?3 WHERE id = (SELECT max(id) FROM gap WHERE board = ?4)
AND class = ?5 AND epoch = ?6 AND reason = ?7 AND last = ?8 - 1 RETURNING id`,
		[]any{int64(g.Last), at, int64(lost), board, g.Class, int64(g.Epoch), g.Reason, int64(g.First)}, &id)
	if errors.Is(err, sql.ErrNoRows) {
		return lost, write(db, board, g, at, lost)
	}
	if err != nil {
		return lost, fmt.Errorf("extend a gap: %w", err)
	}
	return lost, sum(db, board, g, lost)
}

func write(db DB, board int64, g schema.Gap, at int64, lost uint64) error {
	err := db.Exec(`INSERT INTO gap (board, class, epoch, first, last, reason, from_ms, to_ms, at, count) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		board, g.Class, int64(g.Epoch), int64(g.First), int64(g.Last), g.Reason, g.FromWall, g.ToWall, at, int64(lost))
	if err != nil {
		return err
	}
	if err := sum(db, board, g, lost); err != nil {
		return err
	}
	return db.Exec(`DELETE FROM gap WHERE board = ?1 AND id <= (SELECT id FROM gap WHERE board = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)`, board, maxGaps)
}

func sum(db DB, board int64, g schema.Gap, lost uint64) error {
	return db.Exec(`INSERT INTO loss (board, class, reason, count) VALUES (?, ?, ?, ?)
ON CONFLICT (board, class, reason) DO UPDATE SET count = count + excluded.count`, board, g.Class, g.Reason, int64(lost))
}

// Returned takes a number out of the gap that had told it as lost, and out of the
// sum of that reason. A gap too old to be kept leaves the sum as it is.
func Returned(db DB, board int64, c schema.Class, epoch, seq uint64) error {
	var reason schema.Reason
	err := db.Row(`UPDATE gap SET count = count - 1 WHERE id = (
  SELECT id FROM gap WHERE board = ?1 AND class = ?2 AND epoch = ?3 AND first <= ?4 AND last >= ?4 AND count > 0 ORDER BY id LIMIT 1) RETURNING reason`,
		[]any{board, c, int64(epoch), int64(seq)}, &reason)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("book a returned record: %w", err)
	}
	return db.Exec(`UPDATE loss SET count = count - 1 WHERE board = ? AND class = ? AND reason = ?`, board, c, reason)
}

// Freed books what the cursors of a hello say the board has let go of and is not here,
// once all alarms that the board still held then have come: the gaps that it tells
// itself are among them. Until then it is not done and books nothing.
func Freed(db DB, s *shelf.Shelf, board int64, cursors []schema.Cursor, now int64) (done bool, err error) {
	for _, c := range cursors {
		if c.Class != schema.ClassAlarm {
			continue
		}
		e, err := s.Book(db, board, c.Class, c.Epoch, now)
		if err != nil || !e.Settled(c.Acked, c.Last) {
			return false, err
		}
	}
	for _, c := range cursors {
		to := min(c.Acked, c.Last)
		if to == 0 {
			continue
		}
		e, err := s.Book(db, board, c.Class, c.Epoch, now)
		if err != nil {
			return false, err
		}
		if e.Floor < to {
			g := schema.Gap{Class: c.Class, Epoch: c.Epoch, First: e.Floor + 1, Last: to, Reason: schema.ReasonFreed}
			if _, err := Found(db, e, board, g, now); err != nil {
				return false, err
			}
		}
	}
	return true, nil
}
