// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commandrows

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Bounds on what is kept of a tenant. What is not settled always stays.
const (
	// Keep is for how long: who did what stands in the audit log for longer.
	Keep = 90 * 24 * time.Hour
	// MaxCommands is how many: one every six minutes for 90 days. The oldest go.
	MaxCommands = 20_000
	// MaxBoards is how many rows of boards: 50 commands to 10,000 boards each, about
	// 200 MB.
	MaxBoards = 500_000
	// MaxLocal is how many given on one board: a rule that fires each minute for a night.
	MaxLocal = 1000
	// pruneRows bounds the rows of boards that one transaction drops: others wait for it.
	pruneRows = 10_000
	// restoredGap is what is left out of the numbers of commands when a backup is put
	// back: more than were given since it was made, so that no number names two.
	restoredGap = 1_000_000
)

// Prune drops what is over the bounds, and tells how many commands went. It does a piece
// of it at a time: it is called again until it says 0.
func (t *Table) Prune(ctx context.Context, now time.Time) (n int64, err error) {
	return t.prune(ctx, now, MaxCommands, MaxBoards, MaxLocal)
}

func (t *Table) prune(ctx context.Context, now time.Time, maxCommands, maxBoards, maxLocal int) (n int64, err error) {
	err = t.within(ctx, func(tx *sql.Tx) error {
		drop := func(which string, args ...any) error {
			if n > 0 {
				return nil
			}
			// As many of the oldest as make up one piece.
			res, err := tx.ExecContext(ctx, `DELETE FROM command WHERE (tenant, id) IN (
SELECT tenant, id FROM (SELECT c.tenant, c.id, sum((SELECT sum(value) FROM json_each(c.counts))) OVER (ORDER BY c.id) AS rows FROM command c WHERE c.open = 0 AND `+which+`)
WHERE rows <= ?1 OR id = (SELECT min(c.id) FROM command c WHERE c.open = 0 AND `+which+`))`, append([]any{pruneRows}, args...)...)
			if err == nil {
				n, err = res.RowsAffected()
			}
			return err
		}
		if err := drop(`c.given < ?2`, now.Add(-Keep).UnixMilli()); err != nil {
			return err
		}
		if err := drop(`c.id IN (SELECT x.id FROM command x WHERE x.tenant = c.tenant ORDER BY x.id DESC LIMIT -1 OFFSET ?2)`, maxCommands); err != nil {
			return err
		}
		if err := drop(`(c.tenant, c.id) IN (SELECT tenant, id FROM (
SELECT x.tenant, x.id, sum((SELECT sum(value) FROM json_each(x.counts))) OVER (PARTITION BY x.tenant ORDER BY x.open > 0 DESC, x.id DESC) AS kept FROM command x) WHERE kept > ?2)`, maxBoards); err != nil {
			return err
		}
		return drop(`c.local = 1 AND c.id IN (SELECT id FROM (
SELECT b.command AS id, row_number() OVER (PARTITION BY b.tenant, b.board ORDER BY b.command DESC) AS nth FROM command_board b JOIN command l ON l.tenant = b.tenant AND l.id = b.command WHERE l.local = 1)
WHERE nth > ?2)`, maxLocal)
	})
	return n, err
}

// Restored settles the tables of a backup that was put back, in the transaction that does
// so for the whole registry. What became of commands that are not settled here is known
// to their boards alone: they are asked, and begin nothing. What still waits for its
// second person has not been let out by this registry; it is asked about as well, since
// the lost one may have.
func Restored(ctx context.Context, tx *sql.Tx) error {
	for _, q := range []string{
		`UPDATE command_board SET probe = 1 WHERE final = 0`,
		`UPDATE command_number SET last = last + ` + fmt.Sprint(restoredGap),
	} {
		if _, err := tx.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("settle the commands of the backup: %w", err)
		}
	}
	return nil
}

func millis(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
