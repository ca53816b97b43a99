// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package proofs keeps the newest attestation of each board, in the registry's
// database. It lies there and not in the ledger because it is about the identity: it
// goes with the board's row, and the ledger has one writer, whose commits nobody
// should wait for.
package proofs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"fulmar/fleet/audit"
	"fulmar/fleet/store"
)

// Proof is what is kept of a board's attestations: one row a board.
type Proof struct {
	AK    [32]byte // SHA-256 of the public area of the key that signed; zero: no good one yet
	Good  time.Time
	Since time.Time // of the first one that told the same as the newest
	// Boot is the board's boot at the newest good one (schema.Time). Resets, Restarts
	// and Millis are its TPM's clock. A TPM adds a secret number to both counters,
	// another for each key, so that only their differences tell something: First is
	// Resets at the first good one of this key.
	Boot     uint64
	First    uint32
	Resets   uint32
	Restarts uint32
	Millis   uint64
	Level    string
	Chain    [32]byte // digest of the boot's PCRs
	Report   []byte   // CBOR schema.AttestReport, at most schema.MaxAttestReport bytes
	// Refused counts those not believed; the newest of them was at RefusedAt because
	// of Why. Why is "" where a good one came since.
	Refused   uint64
	RefusedAt time.Time
	Why       string
}

// Boots counts the boots of the TPM since the first proof with this key.
func (p *Proof) Boots() uint32 { return p.Resets - p.First }

// Schema makes the table: a step of the registry's migrations.
const Schema = `
-- The newest attestation of each board.
CREATE TABLE proof (
  tenant TEXT NOT NULL, board TEXT NOT NULL, ak BLOB NOT NULL, good INTEGER NOT NULL, since INTEGER NOT NULL,
  boot INTEGER NOT NULL, first INTEGER NOT NULL, resets INTEGER NOT NULL, restarts INTEGER NOT NULL, millis INTEGER NOT NULL,
  level TEXT NOT NULL, chain BLOB NOT NULL, report BLOB NOT NULL,
  refused INTEGER NOT NULL, refused_at INTEGER NOT NULL, why TEXT NOT NULL,
  PRIMARY KEY (tenant, board), FOREIGN KEY (tenant, board) REFERENCES board(tenant, name) ON DELETE CASCADE
) WITHOUT ROWID;
`

const columns = `ak, good, since, boot, first, resets, restarts, millis, level, chain, report, refused, refused_at, why`

// Table is the table in a database.
type Table struct{ db *store.DB }

// New gives the table in db, whose migrations hold [Schema].
func New(db *store.DB) *Table { return &Table{db} }

// Keep replaces what is kept of an enrolled board.
func (t *Table) Keep(ctx context.Context, tenant, board string, p Proof) error {
	return keep(ctx, t.db.Write, tenant, board, p)
}

// Refuse keeps p, whose Why says why the newest attestation is not believed, and
// writes say into the audit log.
func (t *Table) Refuse(ctx context.Context, tenant, board string, p Proof, say string) error {
	tx, err := t.db.Write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("keep proof of %s: %w", board, err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it is a no-op
	if err := keep(ctx, tx, tenant, board, p); err != nil {
		return err
	}
	if err := audit.Append(ctx, tx, audit.Entry{Who: "fleet", Tenant: tenant, Board: board, What: "attestation", Why: say}); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("keep proof of %s: %w", board, err)
	}
	return nil
}

type execer interface {
	ExecContext(ctx context.Context, q string, args ...any) (sql.Result, error)
}

func keep(ctx context.Context, x execer, tenant, board string, p Proof) error {
	_, err := x.ExecContext(ctx, `INSERT OR REPLACE INTO proof (tenant, board, `+columns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		tenant, board, p.AK[:], toMs(p.Good), toMs(p.Since), int64(p.Boot), p.First, p.Resets, p.Restarts, int64(p.Millis), p.Level, p.Chain[:], notNull(p.Report),
		int64(p.Refused), toMs(p.RefusedAt), p.Why)
	if err != nil {
		return fmt.Errorf("keep proof of %s: %w", board, err)
	}
	return nil
}

// Drop removes what is kept of a board, within the transaction that gives it another
// TPM or key.
func Drop(ctx context.Context, tx *sql.Tx, tenant, board string) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM proof WHERE tenant = ? AND board = ?`, tenant, board); err != nil {
		return fmt.Errorf("drop proof of %s: %w", board, err)
	}
	return nil
}

// Get gives what is kept of a board; the zero Proof where there was no attestation.
func (t *Table) Get(ctx context.Context, tenant, board string) (Proof, error) {
	p, err := scan(t.db.Read.QueryRowContext(ctx, `SELECT `+columns+` FROM proof WHERE tenant = ? AND board = ?`, tenant, board).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return Proof{}, nil
	}
	if err != nil {
		return Proof{}, fmt.Errorf("look up proof of %s: %w", board, err)
	}
	return p, nil
}

// All gives what is kept of a tenant's boards, by board.
func (t *Table) All(ctx context.Context, tenant string) (map[string]Proof, error) {
	rows, err := t.db.Read.QueryContext(ctx, `SELECT `+columns+`, board FROM proof WHERE tenant = ?`, tenant)
	if err != nil {
		return nil, fmt.Errorf("list proofs: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	out := map[string]Proof{}
	for rows.Next() {
		var board string
		p, err := scan(func(to ...any) error { return rows.Scan(append(to, &board)...) })
		if err != nil {
			return nil, fmt.Errorf("list proofs: %w", err)
		}
		out[board] = p
	}
	return out, rows.Err()
}

func scan(row func(...any) error) (Proof, error) {
	var p Proof
	var ak, chain []byte
	var good, since, boot, millis, refused, refusedAt int64
	err := row(&ak, &good, &since, &boot, &p.First, &p.Resets, &p.Restarts, &millis, &p.Level, &chain, &p.Report, &refused, &refusedAt, &p.Why)
	if err != nil {
		return p, err
	}
	copy(p.AK[:], ak)
	copy(p.Chain[:], chain)
	p.Boot, p.Millis, p.Refused = uint64(boot), uint64(millis), uint64(refused)
	p.Good, p.Since, p.RefusedAt = fromMs(good), fromMs(since), fromMs(refusedAt)
	return p, nil
}

// toMs and fromMs turn the zero time into 0 and back.
func toMs(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMs(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// notNull turns nil into no bytes: a column may want some.
func notNull(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
