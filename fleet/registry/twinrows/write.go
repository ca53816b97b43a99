// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package twinrows

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"
)

// put is a statement that each change of a board runs.
type put string

const (
	putRow put = `INSERT INTO twin (tenant, board, life, version, applied, conflicts, agreed, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
ON CONFLICT (tenant, board) DO UPDATE SET life = ?3, version = ?4, applied = ?5, conflicts = ?6, agreed = ?7, body = ?8`
	putEvent  put = `INSERT INTO twin_event (tenant, board, at, body) VALUES (?, ?, ?, ?)`
	cutEvents put = `DELETE FROM twin_event WHERE id IN (
  SELECT id FROM twin_event WHERE tenant = ?1 AND board = ?2 ORDER BY id DESC LIMIT -1 OFFSET ?3)`
)

// Put writes what has changed of a board's twin.
func (t *Table) Put(ctx context.Context, tx *sql.Tx, c *Change) error {
	err := t.exec(ctx, tx, putRow, c.Tenant, c.Board, c.Life, clip(c.Version), clip(c.Applied), c.Conflicts, c.Agreed, c.Body)
	if err == nil && c.Settle {
		err = settle(ctx, tx, c)
	}
	if err == nil && len(c.Events) > 0 {
		err = t.events(ctx, tx, c)
	}
	if err != nil {
		return fmt.Errorf("keep the twin of %s: %w", c.Board, err)
	}
	return nil
}

// clip fits a version into what SQLite holds: a board may say any number.
func clip(version uint64) int64 { return int64(min(version, 1<<63-1)) }

// settle makes the conflicts of a board those that it has now.
func settle(ctx context.Context, tx *sql.Tx, c *Change) error {
	for _, h := range c.Held {
		_, err := tx.ExecContext(ctx, `INSERT INTO twin_conflict (tenant, board, key, since, body) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT DO UPDATE SET body = ?5`, c.Tenant, c.Board, h.Key, h.Since.UnixMilli(), string(h.Body))
		if err != nil {
			return err
		}
	}
	keys := make([]string, 0, len(c.Held))
	for _, h := range c.Held {
		keys = append(keys, h.Key)
	}
	list, err := json.Marshal(keys)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM twin_conflict WHERE tenant = ? AND board = ? AND key NOT IN (SELECT value FROM json_each(?))`, c.Tenant, c.Board, string(list))
	return err
}

// events adds to the history, and takes the oldest out.
func (t *Table) events(ctx context.Context, tx *sql.Tx, c *Change) error {
	for _, e := range c.Events {
		if err := t.exec(ctx, tx, putEvent, c.Tenant, c.Board, c.At.UnixMilli(), string(e)); err != nil {
			return err
		}
	}
	if err := t.exec(ctx, tx, cutEvents, c.Tenant, c.Board, boardEvents); err != nil {
		return err
	}
	if t.added += len(c.Events); t.added < pruneEvery {
		return nil
	}
	t.added = 0
	return prune(ctx, tx, allEvents)
}

// prune takes out the oldest events of all boards beyond keep.
func prune(ctx context.Context, tx *sql.Tx, keep int) error {
	var n int
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM twin_event`).Scan(&n); err != nil || n <= keep {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM twin_event WHERE id IN (SELECT id FROM twin_event ORDER BY id LIMIT ?)`, n-keep)
	return err
}

// Saw writes when a board last spoke of its twin.
func (t *Table) Saw(ctx context.Context, tx *sql.Tx, k Key, at time.Time) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO twin_seen (tenant, board, at) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET at = ?3`, k.Tenant, k.Board, at.UnixMilli())
	if err != nil {
		return fmt.Errorf("note when %s spoke of its twin: %w", k.Board, err)
	}
	return nil
}

// Forget removes all that is known of a board's twin.
func (t *Table) Forget(ctx context.Context, tx *sql.Tx, k Key) error {
	for _, table := range []string{"twin", "twin_seen", "twin_conflict", "twin_event"} {
		if _, err := tx.ExecContext(ctx, `DELETE FROM `+table+` WHERE tenant = ? AND board = ?`, k.Tenant, k.Board); err != nil {
			return fmt.Errorf("forget the twin of %s: %w", k.Board, err)
		}
	}
	return nil
}
