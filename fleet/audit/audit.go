// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"fulmar/fleet/store"
	"fulmar/trust/chain"
)

// Bounds of the log.
const (
	// keep is how many rows stay; about 300 bytes each, so 30 MB. A person's acts
	// fill it in no lifetime; what strangers can add is limited where they come in.
	keep = 100_000
	// drop is how many go at once when there are more.
	drop = 1000
	// maxWord and maxWhy bound the texts of a row, in bytes.
	maxWord = 128
	maxWhy  = 512
)

// Schema makes the log's tables: a step of the migrations of the database it is in.
// base is the row before the oldest that is kept: where the chain begins.
const Schema = `
CREATE TABLE audit (
  seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, who TEXT NOT NULL, tenant TEXT NOT NULL, board TEXT NOT NULL,
  what TEXT NOT NULL, why TEXT NOT NULL, hash BLOB NOT NULL
);
CREATE TABLE audit_base (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, hash BLOB NOT NULL);
INSERT INTO audit_base VALUES (1, 0, zeroblob(32));
`

// Entry is one row.
type Entry = chain.Entry

// Head names a row.
type Head = chain.Head

// ErrBroken: the log is not the one that was written.
var ErrBroken = chain.ErrBroken

func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "?")
}

// Append adds a row within the transaction of the act it tells of. Seq, At and Hash
// are given here.
func Append(ctx context.Context, tx *sql.Tx, e Entry) error {
	return add(ctx, tx, e, keep, drop)
}

func add(ctx context.Context, tx *sql.Tx, e Entry, keep, drop int64) error {
	base, tip, err := ends(ctx, tx)
	if err != nil {
		return err
	}
	e.Seq, e.At = tip.Seq+1, time.Now()
	e.Who, e.Tenant, e.Board, e.What, e.Why = clip(e.Who, maxWord), clip(e.Tenant, maxWord), clip(e.Board, maxWord), clip(e.What, maxWord), clip(e.Why, maxWhy)
	_, err = tx.ExecContext(ctx, `INSERT INTO audit (seq, at, who, tenant, board, what, why, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		e.Seq, e.At.UnixMilli(), e.Who, e.Tenant, e.Board, e.What, e.Why, e.Sum(tip.Hash))
	if err != nil {
		return fmt.Errorf("write audit log: %w", err)
	}
	if e.Seq-base.Seq <= keep {
		return nil
	}
	_, err = tx.ExecContext(ctx, `UPDATE audit_base SET seq = a.seq, hash = a.hash FROM (SELECT seq, hash FROM audit WHERE seq = ?) a`, base.Seq+drop)
	if err == nil {
		_, err = tx.ExecContext(ctx, `DELETE FROM audit WHERE seq <= ?`, base.Seq+drop)
	}
	if err != nil {
		return fmt.Errorf("shorten audit log: %w", err)
	}
	return nil
}

type queryer interface {
	QueryRowContext(ctx context.Context, q string, args ...any) *sql.Row
}

// ends gives the row before the oldest and the newest; the same where there is none.
func ends(ctx context.Context, q queryer) (base, tip Entry, err error) {
	if err = q.QueryRowContext(ctx, `SELECT seq, hash FROM audit_base`).Scan(&base.Seq, &base.Hash); err != nil {
		return base, tip, fmt.Errorf("read audit log: %w", err)
	}
	err = q.QueryRowContext(ctx, `SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1`).Scan(&tip.Seq, &tip.Hash)
	if errors.Is(err, sql.ErrNoRows) {
		return base, base, nil
	}
	if err != nil {
		return base, tip, fmt.Errorf("read audit log: %w", err)
	}
	return base, tip, nil
}

// Log reads the log in a database.
type Log struct{ db *store.DB }

// New reads the log in db, whose migrations hold [Schema].
func New(db *store.DB) *Log { return &Log{db} }

// Each calls fn with the rows after seq, oldest first, all of one moment.
func (l *Log) Each(ctx context.Context, after int64, fn func(Entry) error) error {
	tx, err := l.db.Read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("read audit log: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // only read
	return each(ctx, tx, after, fn)
}

func each(ctx context.Context, tx *sql.Tx, after int64, fn func(Entry) error) error {
	rows, err := tx.QueryContext(ctx, `SELECT seq, at, who, tenant, board, what, why, hash FROM audit WHERE seq > ? ORDER BY seq`, after)
	if err != nil {
		return fmt.Errorf("read audit log: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	for rows.Next() {
		var e Entry
		var at int64
		if err := rows.Scan(&e.Seq, &at, &e.Who, &e.Tenant, &e.Board, &e.What, &e.Why, &e.Hash); err != nil {
			return fmt.Errorf("read audit log: %w", err)
		}
		e.At = time.UnixMilli(at)
		if err := fn(e); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Verify goes through the whole chain and the signed heads of it, and finds noted in it
// if that is not zero.
// It gives the newest row and how many there are.
func (l *Log) Verify(ctx context.Context, noted Head) (tip Head, rows int64, err error) {
	tx, err := l.db.Read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return tip, 0, fmt.Errorf("read audit log: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // only read
	base, _, err := ends(ctx, tx)
	if err != nil {
		return tip, 0, err
	}
	tip = Head{Seq: base.Seq, Hash: base.Hash}
	signed, err := heads(ctx, tx)
	if err != nil {
		return tip, 0, err
	}
	found := noted.Equal(tip)
	err = each(ctx, tx, base.Seq, func(e Entry) (err error) {
		if tip, err = tip.Next(&e); err != nil {
			return err
		}
		rows++
		found = found || noted.Equal(tip)
		return signed.agree(tip)
	})
	switch {
	case err != nil:
		return tip, rows, err
	case signed.newest() > tip.Seq:
		return tip, rows, fmt.Errorf("%w: row %d is the newest, and row %d was signed", ErrBroken, tip.Seq, signed.newest())
	case noted.Seq == 0 || found:
		return tip, rows, nil
	case noted.Seq < base.Seq:
		return tip, rows, fmt.Errorf("row %d is older than all that is kept (%d is the oldest): note a newer head", noted.Seq, base.Seq+1)
	}
	return tip, rows, fmt.Errorf("%w: row %d is not the one that was noted", ErrBroken, noted.Seq)
}
