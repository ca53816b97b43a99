// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollouts

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// each runs a query and scans each row with fn.
func (t *Table) each(ctx context.Context, q string, args []any, fn func(scan func(...any) error) error) error {
	rows, err := t.db.Read.QueryContext(ctx, q, args...)
	if err != nil {
		return fmt.Errorf("read rollouts: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	for rows.Next() {
		if err := fn(rows.Scan); err != nil {
			return fmt.Errorf("read rollouts: %w", err)
		}
	}
	return rows.Err()
}

// Open lists the rollouts of all tenants that are not over.
func (t *Table) Open(ctx context.Context) ([]Row, error) {
	return t.rows(ctx, `WHERE over = 0 ORDER BY id`)
}

// List lists a tenant's rollouts, newest first.
func (t *Table) List(ctx context.Context, tenant string) ([]Row, error) {
	return t.rows(ctx, `WHERE tenant = ? ORDER BY id DESC`, tenant)
}

// Get gives one.
func (t *Table) Get(ctx context.Context, tenant string, id int64) (Row, error) {
	list, err := t.rows(ctx, `WHERE tenant = ? AND id = ?`, tenant, id)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("%w: r-%d", ErrUnknown, id)
	}
	if err != nil {
		return Row{}, err
	}
	return list[0], nil
}

func (t *Table) rows(ctx context.Context, where string, args ...any) (out []Row, err error) {
	err = t.each(ctx, `SELECT tenant, id, version, over, spec, head FROM rollout `+where, args, func(scan func(...any) error) error {
		var r Row
		if err := scan(&r.Tenant, &r.ID, &r.Version, &r.Over, &r.Spec, &r.Head); err != nil {
			return err
		}
		out = append(out, r)
		return nil
	})
	return out, err
}

// Plan gives the boards of a rollout as they were planned.
func (t *Table) Plan(ctx context.Context, tenant string, id int64) (boards []byte, err error) {
	err = t.db.Read.QueryRowContext(ctx, `SELECT boards FROM rollout_plan WHERE tenant = ? AND id = ?`, tenant, id).Scan(&boards)
	if err != nil {
		return nil, fmt.Errorf("read rollouts: %w", err)
	}
	return boards, nil
}

// Boards gives the boards of a rollout that have moved since.
func (t *Table) Boards(ctx context.Context, tenant string, id int64, fn func(Board) error) error {
	return t.each(ctx, `SELECT n, body FROM rollout_board WHERE tenant = ? AND id = ? ORDER BY n`, []any{tenant, id}, func(scan func(...any) error) error {
		var b Board
		if err := scan(&b.N, &b.Body); err != nil {
			return err
		}
		return fn(b)
	})
}

// Steps gives the newest steps of a rollout, at most n.
func (t *Table) Steps(ctx context.Context, tenant string, id int64, n int) (out []Step, err error) {
	err = t.each(ctx, `SELECT at, who, was, became, say FROM rollout_step WHERE tenant = ? AND id = ? ORDER BY seq DESC LIMIT ?`, []any{tenant, id, n}, func(scan func(...any) error) error {
		var s Step
		var at int64
		if err := scan(&at, &s.Who, &s.Was, &s.Now, &s.Say); err != nil {
			return err
		}
		s.At = time.UnixMilli(at).UTC()
		out = append(out, s)
		return nil
	})
	return out, err
}

// Attempts gives how the attempts of a rollout ended, newest first.
func (t *Table) Attempts(ctx context.Context, tenant string, id int64) (out []Attempt, err error) {
	err = t.each(ctx, `SELECT board, attempt, at, state, say FROM rollout_attempt WHERE tenant = ? AND id = ? ORDER BY board, at DESC, attempt DESC`, []any{tenant, id}, func(scan func(...any) error) error {
		var a Attempt
		var at, n int64
		if err := scan(&a.Board, &n, &at, &a.State, &a.Say); err != nil {
			return err
		}
		a.At, a.Attempt = time.UnixMilli(at).UTC(), uint64(n)
		out = append(out, a)
		return nil
	})
	return out, err
}

// Tried tells whether there is a row of an attempt of the board.
func (t *Table) Tried(ctx context.Context, tenant string, id int64, board string) (is bool, err error) {
	err = t.db.Read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM rollout_attempt WHERE tenant = ? AND id = ? AND board = ?)`, tenant, id, board).Scan(&is)
	if err != nil {
		return false, fmt.Errorf("read rollouts: %w", err)
	}
	return is, nil
}

// Claims gives which rollout has, or was the last to have, a component of each board.
func (t *Table) Claims(ctx context.Context, tenant, component string) (active, last map[string]int64, err error) {
	active, last = map[string]int64{}, map[string]int64{}
	err = t.each(ctx, `SELECT board, id, active FROM rollout_claim WHERE tenant = ? AND component = ?`, []any{tenant, component}, func(scan func(...any) error) error {
		var b string
		var id int64
		var on bool
		if err := scan(&b, &id, &on); err != nil {
			return err
		}
		if last[b] = id; on {
			active[b] = id
		}
		return nil
	})
	return active, last, err
}

// State gives the head of a rollout of any tenant's, false where there is none.
func (t *Table) State(ctx context.Context, tenant string, id int64) (head []byte, ok bool, err error) {
	err = t.db.Read.QueryRowContext(ctx, `SELECT head FROM rollout WHERE tenant = ? AND id = ?`, tenant, id).Scan(&head)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read rollouts: %w", err)
	}
	return head, true, nil
}
