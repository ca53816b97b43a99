// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package twinrows keeps the fleet's side of the boards' twins in the registry's
// database: beside the audit log, so that an edit and its entry there are one
// transaction. It knows rows alone; what they mean is for fleet/twins.
package twinrows

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"fulmar/fleet/store"
)

// Bounds on what is kept.
const (
	// boardEvents is how many events of one board's twin are kept, the newest: a person
	// reads no more, and a board that is set anew each minute tells of the last hours.
	boardEvents = 200
	// allEvents is how many of all boards: 300 bytes each, 60 MB of a file that every
	// backup holds. Ten for each of 20,000 boards.
	allEvents = 200_000
	// pruneEvery is after how many new events the sum is looked at: counting takes 10 ms.
	pruneEvery = 1000
)

// Schema makes the tables: a step of the registry's migrations. Times are ms since 1970.
const Schema = `
-- The fleet's side of a board's twin. life names who edits in body, and is empty where the
-- database was put back since. agreed is the digest of what the board last said it has,
-- where both sides had the same then; body is what twin.Fleet saves, last in its row, so
-- that it is not read where it is not wanted.
CREATE TABLE twin (
  id INTEGER PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenant(name), board TEXT NOT NULL, life TEXT NOT NULL,
  version INTEGER NOT NULL, applied INTEGER NOT NULL, conflicts INTEGER NOT NULL, agreed BLOB, body BLOB NOT NULL,
  UNIQUE (tenant, board)
);
CREATE INDEX twin_open ON twin(tenant, board) WHERE conflicts > 0 OR applied <> version;
-- When a board last spoke of its twin: apart, as it is written again and again.
CREATE TABLE twin_seen (tenant TEXT NOT NULL, board TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (tenant, board)) WITHOUT ROWID;
-- Keys that a person has to decide, JSON.
CREATE TABLE twin_conflict (
  tenant TEXT NOT NULL, board TEXT NOT NULL, key TEXT NOT NULL, since INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (tenant, board, key)
) WITHOUT ROWID;
-- Who changed what, JSON.
CREATE TABLE twin_event (id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, board TEXT NOT NULL, at INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX twin_event_board ON twin_event(tenant, board, id);
`

// Key names a board's twin.
type Key struct{ Tenant, Board string }

// Head is what a row says without its body.
type Head struct {
	Life             string // "" where the database was put back since it was written
	Version, Applied uint64
	Conflicts        int
	Agreed           []byte // SHA-256, nil where the sides are not known to have the same
}

// Conflict is a key that a person has to decide.
type Conflict struct {
	Board, Key string
	Since      time.Time
	Body       []byte
}

// Event is one event of a twin's history.
type Event struct {
	ID    int64
	Board string
	At    time.Time
	Body  []byte
}

// Change is what is written of one board's twin.
type Change struct {
	Key
	Head
	Body []byte
	// Held are all keys in conflict now, if Settle says that they are not as they were.
	// A key that was in conflict before keeps its Since.
	Settle bool
	Held   []Conflict
	Events [][]byte // new ones, all of the moment At
	At     time.Time
}

// Table is the tables in a database.
type Table struct {
	db    *store.DB
	added int // events since the sum was looked at; of the one who writes

	read  atomic.Pointer[sql.Stmt]          // of Get; nil before the first
	ready atomic.Pointer[map[put]*sql.Stmt] // nil before the first Begin
}

// New gives the tables in db, whose migrations hold [Schema].
func New(db *store.DB) *Table { return &Table{db: db} }

// Begin begins a transaction: what is written of twins, by one goroutine at a time.
func (t *Table) Begin(ctx context.Context) (*sql.Tx, error) {
	if err := t.prepare(ctx); err != nil {
		return nil, fmt.Errorf("keep twins: %w", err)
	}
	tx, err := t.db.Write.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("keep twins: %w", err)
	}
	return tx, nil
}

// prepare has the statements of one board's row ready. SQLite would read their text anew
// for each board: a fifth of what a change of many boards costs the server.
func (t *Table) prepare(ctx context.Context) error {
	if t.ready.Load() != nil {
		return nil
	}
	ready := map[put]*sql.Stmt{}
	drop := func() {
		for _, st := range ready {
			_ = st.Close()
		}
	}
	for _, q := range []put{putRow, putEvent, cutEvents} {
		st, err := t.db.Write.PrepareContext(ctx, string(q)) // before a transaction has the only connection
		if err != nil {
			drop()
			return err
		}
		ready[q] = st
	}
	if !t.ready.CompareAndSwap(nil, &ready) {
		drop() // somebody else's are there
	}
	return nil
}

// exec runs a statement of one board's row; before the first [Table.Begin] its text is read.
func (t *Table) exec(ctx context.Context, tx *sql.Tx, q put, args ...any) error {
	if ready := t.ready.Load(); ready != nil {
		_, err := tx.StmtContext(ctx, (*ready)[q]).ExecContext(ctx, args...)
		return err
	}
	_, err := tx.ExecContext(ctx, string(q), args...)
	return err
}

// reader is the statement of Get.
func (t *Table) reader(ctx context.Context) (*sql.Stmt, error) {
	if st := t.read.Load(); st != nil {
		return st, nil
	}
	st, err := t.db.Read.PrepareContext(ctx, `SELECT life, version, applied, conflicts, agreed, body FROM twin WHERE tenant = ? AND board = ?`)
	if err != nil {
		return nil, err
	}
	if !t.read.CompareAndSwap(nil, st) {
		_ = st.Close()
	}
	return t.read.Load(), nil
}

// Restored has each twin begin a new life: what was edited since the backup was made is
// asked of the boards.
func Restored(ctx context.Context, tx *sql.Tx) error {
	if _, err := tx.ExecContext(ctx, `UPDATE twin SET life = '', agreed = NULL`); err != nil {
		return fmt.Errorf("settle the restored twins: %w", err)
	}
	return nil
}

// Head gives a board's row without its body, false where there is none.
func (t *Table) Head(ctx context.Context, k Key) (h Head, ok bool, err error) {
	err = t.db.Read.QueryRowContext(ctx, `SELECT life, version, applied, conflicts, agreed FROM twin WHERE tenant = ? AND board = ?`, k.Tenant, k.Board).
		Scan(&h.Life, &h.Version, &h.Applied, &h.Conflicts, &h.Agreed)
	return h, err == nil, none(err)
}

// Get gives a board's row, false where there is none.
func (t *Table) Get(ctx context.Context, k Key) (h Head, body []byte, ok bool, err error) {
	st, err := t.reader(ctx)
	if err != nil {
		return h, nil, false, fmt.Errorf("read twin: %w", err)
	}
	err = st.QueryRowContext(ctx, k.Tenant, k.Board).
		Scan(&h.Life, &h.Version, &h.Applied, &h.Conflicts, &h.Agreed, &body)
	return h, body, err == nil, none(err)
}

// Each gives the bodies of all twins of a tenant, one after the other, until fn is done
// with an error, which it returns.
func (t *Table) Each(ctx context.Context, tenant string, fn func(board, life string, body []byte) error) error {
	rows, err := t.db.Read.QueryContext(ctx, `SELECT board, life, body FROM twin WHERE tenant = ?`, tenant)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // Err says it
	for rows.Next() {
		var board, life string
		var body []byte
		if err := rows.Scan(&board, &life, &body); err != nil {
			return err
		}
		if err := fn(board, life, body); err != nil {
			return err
		}
	}
	return rows.Err()
}

func none(err error) error {
	if err == nil || errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	return fmt.Errorf("read twin: %w", err)
}

// Count counts the twins of all tenants.
func (t *Table) Count(ctx context.Context) (n int, err error) {
	err = t.db.Read.QueryRowContext(ctx, `SELECT count(*) FROM twin`).Scan(&n)
	return n, none(err)
}

// Open gives the heads of a tenant's twins that are in conflict, or whose board has not
// the newest version.
func (t *Table) Open(ctx context.Context, tenant string) (map[string]Head, error) {
	out := map[string]Head{}
	err := t.each(ctx, `SELECT board, life, version, applied, conflicts FROM twin WHERE tenant = ? AND (conflicts > 0 OR applied <> version)`, []any{tenant}, func(scan func(...any) error) error {
		var board string
		var h Head
		err := scan(&board, &h.Life, &h.Version, &h.Applied, &h.Conflicts)
		out[board] = h
		return err
	})
	return out, err
}

// Seen tells when a board last spoke of its twin, as far as it was written; zero: never.
func (t *Table) Seen(ctx context.Context, k Key) (time.Time, error) {
	var at int64
	err := t.db.Read.QueryRowContext(ctx, `SELECT at FROM twin_seen WHERE tenant = ? AND board = ?`, k.Tenant, k.Board).Scan(&at)
	if err != nil {
		return time.Time{}, none(err)
	}
	return time.UnixMilli(at).UTC(), nil
}

// Conflicts gives a tenant's conflicts, by board and key, at most limit.
func (t *Table) Conflicts(ctx context.Context, tenant string, limit int) (out []Conflict, err error) {
	err = t.each(ctx, `SELECT board, key, since, body FROM twin_conflict WHERE tenant = ? ORDER BY board, key LIMIT ?`, []any{tenant, limit}, func(scan func(...any) error) error {
		var c Conflict
		var at int64
		err := scan(&c.Board, &c.Key, &at, &c.Body)
		c.Since = time.UnixMilli(at).UTC()
		out = append(out, c)
		return err
	})
	return out, err
}

// History gives a board's events, newest first, at most limit; before, if it is not 0,
// leaves out those of its number and later ones.
func (t *Table) History(ctx context.Context, k Key, before int64, limit int) (out []Event, err error) {
	if before <= 0 {
		before = 1<<63 - 1
	}
	err = t.each(ctx, `SELECT id, at, body FROM twin_event WHERE tenant = ? AND board = ? AND id < ? ORDER BY id DESC LIMIT ?`, []any{k.Tenant, k.Board, before, limit}, func(scan func(...any) error) error {
		e := Event{Board: k.Board}
		var at int64
		err := scan(&e.ID, &at, &e.Body)
		e.At = time.UnixMilli(at).UTC()
		out = append(out, e)
		return err
	})
	return out, err
}

func (t *Table) each(ctx context.Context, q string, args []any, fn func(scan func(...any) error) error) error {
	rows, err := t.db.Read.QueryContext(ctx, q, args...)
	if err != nil {
		return fmt.Errorf("read twins: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	for rows.Next() {
		if err := fn(rows.Scan); err != nil {
			return fmt.Errorf("read twins: %w", err)
		}
	}
	return rows.Err()
}
