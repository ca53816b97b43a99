// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"fulmar/trust/chain"
)

// maxHeads bounds the signed heads that are kept; at one each ten minutes at most a
// week of them, and more where less is done.
const maxHeads = 1000

// Heads makes the table of signed heads: a step of the migrations after [Schema].
const Heads = `
CREATE TABLE audit_head (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, envelope TEXT NOT NULL, key TEXT NOT NULL);
`

// signedHeads are signed heads by row.
type signedHeads map[int64]*chain.Signed

// heads gives the signed heads that are kept. Each is verified with the
// key beside it: whether that is the server's is for whoever knows the server's.
func heads(ctx context.Context, tx *sql.Tx) (signedHeads, error) {
	var there int
	err := tx.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema WHERE name = 'audit_head'`).Scan(&there)
	if err != nil || there == 0 { // a log of its own, without
		return nil, err
	}
	rows, err := tx.QueryContext(ctx, `SELECT seq, envelope, key FROM audit_head ORDER BY seq`)
	if err != nil {
		return nil, fmt.Errorf("read heads of the audit log: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	out := signedHeads{}
	for rows.Next() {
		var seq int64
		var envelope, key string
		if err := rows.Scan(&seq, &envelope, &key); err != nil {
			return nil, fmt.Errorf("read heads of the audit log: %w", err)
		}
		s, err := chain.Open([]byte(envelope), []byte(key))
		if err != nil {
			return nil, fmt.Errorf("%w: its head at row %d: %w", ErrBroken, seq, err)
		}
		if s.Seq != seq {
			return nil, fmt.Errorf("%w: its head at row %d is that of row %d", ErrBroken, seq, s.Seq)
		}
		out[seq] = s
	}
	return out, rows.Err()
}

// newest is the newest row that was signed, 0 where none was.
func (h signedHeads) newest() (seq int64) {
	for n := range h {
		seq = max(seq, n)
	}
	return seq
}

// agree tells whether a row is what was signed, where it was.
func (h signedHeads) agree(tip Head) error {
	if s := h[tip.Seq]; s != nil && !s.Equal(tip) {
		return fmt.Errorf("%w: row %d is not the one that was signed on %s", ErrBroken, tip.Seq, s.At.Format("2006-01-02 15:04"))
	}
	return nil
}

// keepHead keeps a signed head, and lets go those whose rows are gone.
func keepHead(ctx context.Context, tx *sql.Tx, s *chain.Signed) error {
	_, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO audit_head (seq, at, envelope, key) VALUES (?, ?, ?, ?)`,
		s.Seq, s.At.UnixMilli(), string(s.Envelope), string(s.Key))
	if err == nil {
		_, err = tx.ExecContext(ctx, `DELETE FROM audit_head WHERE seq < (SELECT seq FROM audit_base) OR
seq IN (SELECT seq FROM audit_head ORDER BY seq DESC LIMIT -1 OFFSET ?)`, maxHeads)
	}
	if err != nil {
		return fmt.Errorf("keep head of the audit log: %w", err)
	}
	return nil
}

// lastHead gives the newest head that is kept, or nil.
func lastHead(ctx context.Context, q queryer) (*chain.Signed, error) {
	var envelope, key string
	err := q.QueryRowContext(ctx, `SELECT envelope, key FROM audit_head ORDER BY seq DESC LIMIT 1`).Scan(&envelope, &key)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read head of the audit log: %w", err)
	}
	return chain.Open([]byte(envelope), []byte(key))
}
