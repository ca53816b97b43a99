// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package releaserows keeps in the registry's database what the fleet knows of releases,
// of the patches that it made for them, and of what each board was told and has committed:
// beside the audit log, so that an act and its entry there are one transaction. It knows
// rows alone; what they mean is for fleet/releases and fleet/director.
package releaserows

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"fulmar/fleet/audit"
	"fulmar/fleet/store"
)

// Errors that callers act upon.
var (
	// ErrUnknown: there is no such release.
	ErrUnknown = errors.New("no such release")
	// ErrTaken: a release of this name has another content.
	ErrTaken = errors.New("the name is that of another release")
	// ErrEpoch: a release of a higher epoch was known here.
	ErrEpoch = errors.New("its epoch has ended")
)

// Schema makes the tables: a step of the registry's migrations. Times are ms since 1970.
const Schema = `
-- A release: the signed manifest as it came. ready 0: objects are missing. inner: what the
-- files that are unpacked hold (JSON).
CREATE TABLE release (
  tenant TEXT NOT NULL REFERENCES tenant(name), name TEXT NOT NULL, epoch INTEGER NOT NULL, hash BLOB NOT NULL, envelope BLOB NOT NULL,
  actor TEXT NOT NULL, created INTEGER NOT NULL, ready INTEGER NOT NULL DEFAULT 0, inside BLOB NOT NULL,
  PRIMARY KEY (tenant, name)
) WITHOUT ROWID;
-- The highest epoch of a release that was known; it outlives the release.
CREATE TABLE release_epoch (tenant TEXT PRIMARY KEY, epoch INTEGER NOT NULL) WITHOUT ROWID;
-- A patch that was made here, between two files by their SHA-256. size 0: none that is
-- shorter than what there is, or none could be made; say tells why.
CREATE TABLE release_patch (
  was BLOB NOT NULL, became BLOB NOT NULL, codec TEXT NOT NULL, sha BLOB NOT NULL, tree BLOB NOT NULL, size INTEGER NOT NULL,
  say TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (was, became)
) WITHOUT ROWID;
-- The newest attempt that was signed for a component of a board, and the release that it is
-- known to have committed last. resets: of its TPM when that attempt was signed; null: not known.
CREATE TABLE board_attempt (
  tenant TEXT NOT NULL, board TEXT NOT NULL, component TEXT NOT NULL, attempt INTEGER NOT NULL DEFAULT 0, runs TEXT NOT NULL DEFAULT '', resets INTEGER, PRIMARY KEY (tenant, board, component),
  FOREIGN KEY (tenant, board) REFERENCES board(tenant, name) ON DELETE CASCADE
) WITHOUT ROWID;
-- The highest epoch that a board is known to have committed.
CREATE TABLE board_floor (
  tenant TEXT NOT NULL, board TEXT NOT NULL, epoch INTEGER NOT NULL, PRIMARY KEY (tenant, board),
  FOREIGN KEY (tenant, board) REFERENCES board(tenant, name) ON DELETE CASCADE
) WITHOUT ROWID;
`

// Release is a row.
type Release struct {
	Tenant, Name string
	Epoch        uint64
	Hash         [32]byte // SHA-256 of the manifest's bytes
	Envelope     []byte
	Actor        string // who brought it, as the audit log has it
	Created      time.Time
	Ready        time.Time // zero: objects are missing
	Inside       []byte
}

// Table is the tables in a database.
type Table struct{ db *store.DB }

// New gives the tables in db, whose migrations hold [Schema].
func New(db *store.DB) *Table { return &Table{db} }

func (t *Table) within(ctx context.Context, fn func(tx *sql.Tx) error) error {
	tx, err := t.db.Write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("keep releases: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it is a no-op
	if err := fn(tx); err != nil {
		return fmt.Errorf("keep releases: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("keep releases: %w", err)
	}
	return nil
}

// Add keeps a new release. [ErrTaken] where there is one of its name, [ErrEpoch] where its
// epoch is below the highest one that was known.
func (t *Table) Add(ctx context.Context, r Release) error {
	return t.within(ctx, func(tx *sql.Tx) error {
		var epoch int64
		err := tx.QueryRowContext(ctx, `SELECT epoch FROM release_epoch WHERE tenant = ?`, r.Tenant).Scan(&epoch)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if r.Epoch < uint64(epoch) {
			return fmt.Errorf("%w: release %s is of epoch %d, and one of epoch %d was known here", ErrEpoch, r.Name, r.Epoch, epoch)
		}
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM release WHERE tenant = ? AND name = ?`, r.Tenant, r.Name).Scan(&n); err != nil {
			return err
		}
		if n > 0 {
			return fmt.Errorf("%w: %s", ErrTaken, r.Name)
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO release (tenant, name, epoch, hash, envelope, actor, created, inside) VALUES (?, ?, ?, ?, ?, ?, ?, x'')`,
			r.Tenant, r.Name, int64(r.Epoch), r.Hash[:], r.Envelope, r.Actor, r.Created.UnixMilli())
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO release_epoch (tenant, epoch) VALUES (?, ?) ON CONFLICT DO UPDATE SET epoch = max(epoch, excluded.epoch)`, r.Tenant, int64(r.Epoch))
		if err != nil {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{Who: r.Actor, Tenant: r.Tenant, What: "release", Why: fmt.Sprintf("%s of epoch %d began to come, manifest %x", r.Name, r.Epoch, r.Hash)})
	})
}

// Ready notes that all of a release is there, and what its packed files hold.
func (t *Table) Ready(ctx context.Context, tenant, name, who string, inside []byte, at time.Time) error {
	return t.within(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE release SET ready = ?, inside = ? WHERE tenant = ? AND name = ?`, at.UnixMilli(), append([]byte{}, inside...), tenant, name)
		if err := one(res, err, name); err != nil {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{Who: who, Tenant: tenant, What: "release", Why: name + " is complete"})
	})
}

// Remove forgets a release.
func (t *Table) Remove(ctx context.Context, tenant, name, who string) error {
	return t.within(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM release WHERE tenant = ? AND name = ?`, tenant, name)
		if err := one(res, err, name); err != nil {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{Who: who, Tenant: tenant, What: "release", Why: name + " was removed"})
	})
}

func one(res sql.Result, err error, name string) error {
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return errors.Join(fmt.Errorf("%w: %s", ErrUnknown, name), err)
	}
	return nil
}

// All gives the releases of all tenants.
func (t *Table) All(ctx context.Context) (out []Release, err error) {
	err = t.each(ctx, `SELECT tenant, name, epoch, hash, envelope, actor, created, ready, inside FROM release ORDER BY tenant, created, name`, func(scan func(...any) error) error {
		var r Release
		var hash []byte
		var epoch, created, ready int64
		if err := scan(&r.Tenant, &r.Name, &epoch, &hash, &r.Envelope, &r.Actor, &created, &ready, &r.Inside); err != nil {
			return err
		}
		if r.Epoch, r.Created = uint64(epoch), time.UnixMilli(created).UTC(); ready != 0 {
			r.Ready = time.UnixMilli(ready).UTC()
		}
		copy(r.Hash[:], hash)
		out = append(out, r)
		return nil
	})
	return out, err
}

func (t *Table) each(ctx context.Context, q string, fn func(scan func(...any) error) error) error {
	rows, err := t.db.Read.QueryContext(ctx, q)
	if err != nil {
		return fmt.Errorf("read releases: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	for rows.Next() {
		if err := fn(rows.Scan); err != nil {
			return fmt.Errorf("read releases: %w", err)
		}
	}
	return rows.Err()
}
