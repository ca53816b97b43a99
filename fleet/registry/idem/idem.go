// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package idem

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"fulmar/fleet/store"
)

const (
	// Life is how long an answer is kept: a day, so that what failed in the evening can
	// be sent again in the morning.
	Life = 24 * time.Hour
	// MaxKeys bounds the keys of one caller, maxAll those of all: with answers of a few
	// hundred bytes some ten megabytes.
	MaxKeys = 1000
	maxAll  = 20_000
	// MaxAnswer bounds an answer that is kept, in bytes.
	MaxAnswer = 16 << 10
	// MaxKey bounds a key, in bytes. UUIDs have 36.
	MaxKey = 128
)

// Errors of [Table.Begin].
var (
	// ErrOther: the key was used for another request.
	ErrOther = errors.New("the key was used for another request")
	// ErrInFlight: the request with this key has not ended.
	ErrInFlight = errors.New("the request with this key is under way")
	// ErrSpent: it came through and what it was answered is not kept, or the server
	// ended while it was at it.
	ErrSpent = errors.New("the answer to this key is not kept")
	// ErrFull: the caller has too many keys, or all of them together.
	ErrFull = errors.New("too many keys")
)

// Schema makes the table: a step of the registry's migrations.
const Schema = `
-- Requests with an Idempotency-Key. id: hash of caller and key; request: of the request;
-- run: the server's start that did it; status 0: under way, or it ended with its server.
CREATE TABLE api_request (
  id BLOB PRIMARY KEY, caller BLOB NOT NULL, request BLOB NOT NULL, run TEXT NOT NULL, at INTEGER NOT NULL,
  status INTEGER NOT NULL, kept INTEGER NOT NULL, head TEXT NOT NULL, answer TEXT NOT NULL -- kept 0: the answer is not told again
) WITHOUT ROWID;
CREATE INDEX api_request_at ON api_request(at);
CREATE INDEX api_request_caller ON api_request(caller);
`

// Key names a request of a caller.
type Key struct {
	Tenant, Who, Key string
	Request          [32]byte // hash of all that makes the request what it is
}

// Answer is what a request was answered. Head is what its headers were, as the caller
// of this package writes them.
type Answer struct {
	Status int
	Head   string
	Body   []byte // nil: not kept
}

// Table is the table in a database.
type Table struct {
	db  *store.DB
	run string
	now func() time.Time
}

// New gives the table in db, whose migrations hold [Schema]. Requests that another
// Table left under way are taken to have ended with its server.
func New(db *store.DB) *Table {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return &Table{db: db, run: hex.EncodeToString(b[:]), now: time.Now}
}

// sum hashes words so that no two lists of them give the same.
func sum(words ...string) []byte {
	h := sha256.New()
	for _, w := range words {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(w)))
		h.Write(n[:])
		h.Write([]byte(w))
	}
	return h.Sum(nil)
}

func (k Key) id() []byte     { return sum(k.Tenant, k.Who, k.Key) }
func (k Key) caller() []byte { return sum(k.Tenant, k.Who) }

// Begin notes that a request is under way: then it has to be ended by [Table.End] or
// [Table.Drop]. An answer is given back instead where the request was done before.
func (t *Table) Begin(ctx context.Context, k Key) (*Answer, error) {
	tx, err := t.db.Write.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("note request: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it is a no-op
	now := t.now()
	if _, err := tx.ExecContext(ctx, `DELETE FROM api_request WHERE at < ?`, now.Add(-Life).UnixMilli()); err != nil {
		return nil, fmt.Errorf("note request: %w", err)
	}
	var request []byte
	var run string
	var kept bool
	a := new(Answer)
	err = tx.QueryRowContext(ctx, `SELECT request, run, status, kept, head, answer FROM api_request WHERE id = ?`, k.id()).
		Scan(&request, &run, &a.Status, &kept, &a.Head, &a.Body)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, t.insert(ctx, tx, k, now)
	case err != nil:
		return nil, fmt.Errorf("note request: %w", err)
	case [32]byte(request) != k.Request:
		return nil, ErrOther
	case a.Status == 0 && run == t.run:
		return nil, ErrInFlight
	case a.Status == 0 || !kept:
		return nil, ErrSpent
	}
	return a, nil
}

func (t *Table) insert(ctx context.Context, tx *sql.Tx, k Key, now time.Time) error {
	var all, mine int
	err := tx.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM api_request), (SELECT count(*) FROM api_request WHERE caller = ?)`, k.caller()).Scan(&all, &mine)
	if err != nil {
		return fmt.Errorf("note request: %w", err)
	}
	if all >= maxAll || mine >= MaxKeys {
		return ErrFull
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO api_request VALUES (?, ?, ?, ?, ?, 0, 0, '', '')`, k.id(), k.caller(), k.Request[:], t.run, now.UnixMilli()); err != nil {
		return fmt.Errorf("note request: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("note request: %w", err)
	}
	return nil
}

// End keeps the answer to a request that changed something.
func (t *Table) End(ctx context.Context, k Key, a Answer) error {
	kept, body := a.Body != nil && len(a.Body) <= MaxAnswer, ""
	if kept {
		body = string(a.Body)
	}
	_, err := t.db.Write.ExecContext(ctx, `UPDATE api_request SET status = ?, kept = ?, head = ?, answer = ? WHERE id = ?`, a.Status, kept, a.Head, body, k.id())
	if err != nil {
		return fmt.Errorf("keep answer: %w", err)
	}
	return nil
}

// Drop forgets a request that changed nothing: it may be sent again.
func (t *Table) Drop(ctx context.Context, k Key) error {
	if _, err := t.db.Write.ExecContext(ctx, `DELETE FROM api_request WHERE id = ?`, k.id()); err != nil {
		return fmt.Errorf("forget request: %w", err)
	}
	return nil
}
