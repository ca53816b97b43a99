// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package releaserows

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// Patch is a patch that was made, or could not be.
type Patch struct {
	Was, Became [32]byte // SHA-256 of the files
	Codec       string
	SHA, Tree   [32]byte
	Size        int64  // 0: there is none
	Say         string // why there is none
	At          time.Time
}

// PutPatch keeps a patch.
func (t *Table) PutPatch(ctx context.Context, p Patch) error {
	return t.within(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO release_patch (was, became, codec, sha, tree, size, say, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			p.Was[:], p.Became[:], p.Codec, p.SHA[:], p.Tree[:], p.Size, p.Say, p.At.UnixMilli())
		return err
	})
}

// DropPatches forgets patches.
func (t *Table) DropPatches(ctx context.Context, list []Patch) error {
	return t.within(ctx, func(tx *sql.Tx) error {
		for _, p := range list {
			if _, err := tx.ExecContext(ctx, `DELETE FROM release_patch WHERE was = ? AND became = ?`, p.Was[:], p.Became[:]); err != nil {
				return err
			}
		}
		return nil
	})
}

// Patches gives all patches, oldest first.
func (t *Table) Patches(ctx context.Context) (out []Patch, err error) {
	err = t.each(ctx, `SELECT was, became, codec, sha, tree, size, say, at FROM release_patch ORDER BY at`, func(scan func(...any) error) error {
		var p Patch
		var was, became, sha, tree []byte
		var at int64
		if err := scan(&was, &became, &p.Codec, &sha, &tree, &p.Size, &p.Say, &at); err != nil {
			return err
		}
		copy(p.Was[:], was)
		copy(p.Became[:], became)
		copy(p.SHA[:], sha)
		copy(p.Tree[:], tree)
		p.At = time.UnixMilli(at).UTC()
		out = append(out, p)
		return nil
	})
	return out, err
}

// Attempt is the newest attempt of a component of a board, and what it runs.
type Attempt struct {
	Tenant, Board, Component string
	Attempt                  uint64
	Runs                     string // release that it has committed last; "" unknown
}

// Attempts gives the newest attempts of all boards.
func (t *Table) Attempts(ctx context.Context) (out []Attempt, err error) {
	err = t.each(ctx, `SELECT tenant, board, component, attempt, runs FROM board_attempt`, func(scan func(...any) error) error {
		var a Attempt
		var n int64
		if err := scan(&a.Tenant, &a.Board, &a.Component, &n, &a.Runs); err != nil {
			return err
		}
		a.Attempt = uint64(n)
		out = append(out, a)
		return nil
	})
	return out, err
}

// Raise notes attempts that are about to be told, and how often each board's TPM had been
// reset by its newest attestation; a lower attempt than is known changes nothing. A board
// that is not enrolled any more is passed over.
func (t *Table) Raise(ctx context.Context, list []Attempt) error {
	return t.within(ctx, func(tx *sql.Tx) error {
		st, err := tx.PrepareContext(ctx, `INSERT INTO board_attempt (tenant, board, component, attempt, resets)
SELECT tenant, name, ?3, ?4, (SELECT resets FROM proof WHERE proof.tenant = board.tenant AND proof.board = board.name AND good > 0) FROM board WHERE tenant = ?1 AND name = ?2
ON CONFLICT DO UPDATE SET attempt = excluded.attempt, resets = excluded.resets WHERE excluded.attempt > attempt`)
		if err != nil {
			return err
		}
		defer st.Close() //nolint:errcheck // of this transaction
		for _, a := range list {
			if _, err := st.ExecContext(ctx, a.Tenant, a.Board, a.Component, int64(a.Attempt)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Resets gives how often a board's TPM had been reset when its newest attempt for a
// component was signed; false where that is not known.
func (t *Table) Resets(ctx context.Context, tenant, board, component string) (n uint32, known bool, err error) {
	var v sql.NullInt64
	err = t.db.Read.QueryRowContext(ctx, `SELECT resets FROM board_attempt WHERE tenant = ? AND board = ? AND component = ?`, tenant, board, component).Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, false, nil
	}
	return uint32(v.Int64), v.Valid, err
}

// Floor is the highest epoch that a board has committed.
type Floor struct {
	Tenant, Board string
	Epoch         uint64
}

// Floors gives those of all boards.
func (t *Table) Floors(ctx context.Context) (out []Floor, err error) {
	err = t.each(ctx, `SELECT tenant, board, epoch FROM board_floor`, func(scan func(...any) error) error {
		var f Floor
		var n int64
		if err := scan(&f.Tenant, &f.Board, &n); err != nil {
			return err
		}
		f.Epoch = uint64(n)
		out = append(out, f)
		return nil
	})
	return out, err
}

// Committed notes that boards have committed a release of a component, each with the epoch
// of it; a higher one that is known stays.
func (t *Table) Committed(ctx context.Context, list []Floor, component, release string) error {
	return t.within(ctx, func(tx *sql.Tx) error {
		for _, f := range list {
			_, err := tx.ExecContext(ctx, `INSERT INTO board_floor (tenant, board, epoch) SELECT tenant, name, ?3 FROM board WHERE tenant = ?1 AND name = ?2
ON CONFLICT DO UPDATE SET epoch = max(epoch, excluded.epoch)`, f.Tenant, f.Board, int64(f.Epoch))
			if err != nil {
				return err
			}
			_, err = tx.ExecContext(ctx, `INSERT INTO board_attempt (tenant, board, component, runs) SELECT tenant, name, ?3, ?4 FROM board WHERE tenant = ?1 AND name = ?2
ON CONFLICT DO UPDATE SET runs = excluded.runs`, f.Tenant, f.Board, component, release)
			if err != nil {
				return err
			}
		}
		return nil
	})
}
