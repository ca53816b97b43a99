// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package meta keeps what people say of boards (site, labels, place, power budget) and
// the queries they have given names, in the registry's database.
//
// It is kept by the board's name and not tied to its row: boards of a foreign broker
// have none, and a board that was forgotten and enrolled anew stands where it stood.
package meta

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"fulmar/fleet/access"
	"fulmar/fleet/audit"
	"fulmar/fleet/store"
	"fulmar/schema/rest"
)

// Errors that callers act upon; those of [access] come wrapped.
var (
	// ErrStale: somebody changed it since it was read.
	ErrStale = errors.New("changed by somebody else meanwhile")
	// ErrInvalid: a field is not what it may be. The text says which and why.
	ErrInvalid = errors.New("not valid")
	// ErrTooMany: a bound on what is kept is reached.
	ErrTooMany = errors.New("too many")
	// ErrUnknown: no such saved query.
	ErrUnknown = errors.New("unknown")
)

// Bounds on what is kept.
const (
	maxBoards  = 60_000 // of all tenants: what the registry holds, and some that were forgotten
	maxAtOnce  = 10_000 // boards of one SetAll: the largest fleet that a person labels in one go
	maxQueries = 200    // of a tenant: a list that can still be looked through
)

// Schema makes the tables: a step of the registry's migrations.
const Schema = `
-- What people say of boards, JSON of rest.Meta without its version.
CREATE TABLE meta (
  tenant TEXT NOT NULL REFERENCES tenant(name), board TEXT NOT NULL, body TEXT NOT NULL, version INTEGER NOT NULL,
  PRIMARY KEY (tenant, board)
) WITHOUT ROWID;
CREATE TABLE saved_query (
  tenant TEXT NOT NULL REFERENCES tenant(name), name TEXT NOT NULL, query TEXT NOT NULL,
  PRIMARY KEY (tenant, name)
) WITHOUT ROWID;
`

// Metas is the table in a database.
type Metas struct{ db *store.DB }

// New gives the table in db, whose migrations hold [Schema].
func New(db *store.DB) *Metas { return &Metas{db} }

// All gives what is said of a tenant's boards, by board.
func (t *Metas) All(ctx context.Context, tenant string) (map[string]rest.Meta, error) {
	rows, err := t.db.Read.QueryContext(ctx, `SELECT board, body, version FROM meta WHERE tenant = ?`, tenant)
	if err != nil {
		return nil, fmt.Errorf("list metadata: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	out := map[string]rest.Meta{}
	for rows.Next() {
		var board string
		m, err := scan(func(to ...any) error { return rows.Scan(append([]any{&board}, to...)...) })
		if err != nil {
			return nil, fmt.Errorf("metadata of %s: %w", board, err)
		}
		out[board] = m
	}
	return out, rows.Err()
}

// Get gives what is said of a board; the zero Meta where nothing was.
func (t *Metas) Get(ctx context.Context, tenant, board string) (rest.Meta, error) {
	return get(ctx, t.db.Read, tenant, board)
}

type queryer interface {
	QueryRowContext(ctx context.Context, q string, args ...any) *sql.Row
}

func get(ctx context.Context, q queryer, tenant, board string) (rest.Meta, error) {
	m, err := scan(q.QueryRowContext(ctx, `SELECT body, version FROM meta WHERE tenant = ? AND board = ?`, tenant, board).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return rest.Meta{}, nil
	}
	if err != nil {
		return rest.Meta{}, fmt.Errorf("metadata of %s: %w", board, err)
	}
	return m, nil
}

func scan(row func(...any) error) (rest.Meta, error) {
	var m rest.Meta
	var body string
	var version int64
	if err := row(&body, &version); err != nil {
		return m, err
	}
	err := json.Unmarshal([]byte(body), &m)
	m.Version = version
	return m, err
}

// Set replaces what is said of a board and gives it back with its new version. ErrStale
// where ifVersion is neither -1 nor the version that is there. That the board exists,
// and that the caller may touch this one ([access.Caller] Boards), is looked at by who
// knows the boards.
func (t *Metas) Set(ctx context.Context, by access.Caller, board string, m rest.Meta, ifVersion int64) (rest.Meta, error) {
	out := m
	err := t.change(ctx, by, []string{board}, func(_ string, have *rest.Meta) error {
		if ifVersion != -1 && have.Version != ifVersion {
			return fmt.Errorf("metadata of %s: %w: it is of version %d, not %d", board, ErrStale, have.Version, ifVersion)
		}
		m.Version = have.Version
		*have = m
		return nil
	}, func(_ string, now rest.Meta) { out = now })
	return out, err
}

// SetAll changes what is said of many boards at once: of all of them or, with an error,
// of none. change gets each board's metadata as it is, in a transaction: it must not wait.
func (t *Metas) SetAll(ctx context.Context, by access.Caller, boards []string, change func(board string, m *rest.Meta)) error {
	return t.change(ctx, by, boards, func(b string, m *rest.Meta) error { change(b, m); return nil }, func(string, rest.Meta) {})
}

func (t *Metas) change(ctx context.Context, by access.Caller, boards []string, fn func(string, *rest.Meta) error, done func(string, rest.Meta)) error {
	if err := by.May(rest.BoardsWrite); err != nil {
		return fmt.Errorf("change metadata: %w: wants the right %s", err, rest.BoardsWrite)
	}
	if len(boards) > maxAtOnce {
		return fmt.Errorf("change metadata: %w: %d boards at once, at most %d", ErrTooMany, len(boards), maxAtOnce)
	}
	tx, err := t.db.Write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("change metadata: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it is a no-op
	for _, board := range boards {
		was, err := get(ctx, tx, by.Tenant, board)
		if err != nil {
			return err
		}
		next := copyOf(was)
		if err := fn(board, &next); err != nil {
			return err
		}
		next.Version = was.Version
		if err := check(&next); err != nil {
			return fmt.Errorf("metadata of %s: %w", board, err)
		}
		if said := difference(was, next); said != "" {
			next.Version++
			if err := keep(ctx, tx, by, board, next, said); err != nil {
				return err
			}
		}
		done(board, next)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("change metadata: %w", err)
	}
	return nil
}

func keep(ctx context.Context, tx *sql.Tx, by access.Caller, board string, m rest.Meta, said string) error {
	version := m.Version
	m.Version = 0
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("metadata of %s: %w", board, err)
	}
	if version == 1 {
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM meta`).Scan(&n); err != nil {
			return fmt.Errorf("count metadata: %w", err)
		}
		if n >= maxBoards {
			return fmt.Errorf("metadata of %s: %w: that of %d boards is kept", board, ErrTooMany, n)
		}
	}
	_, err = tx.ExecContext(ctx, `INSERT OR REPLACE INTO meta (tenant, board, body, version) VALUES (?, ?, ?, ?)`, by.Tenant, board, string(body), version)
	if err != nil {
		return fmt.Errorf("keep metadata of %s: %w", board, err)
	}
	return audit.Append(ctx, tx, audit.Entry{Who: by.Who, Tenant: by.Tenant, Board: board, What: "set-meta", Why: said})
}
