// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"fulmar/fleet/audit"
	"fulmar/fleet/ca"
	"fulmar/fleet/registry/commandrows"
	"fulmar/fleet/registry/rollouts"
	"fulmar/fleet/registry/twinrows"
)

// Restored settles a registry that comes from a backup made at the given time. What
// may have been used up since is ended: join tokens, sessions, recovery codes, and
// requests with what was decided on them. Twins begin a new life. Commands that are not
// settled are asked about.
func (r *Registry) Restored(ctx context.Context, made time.Time) error {
	return r.within(ctx, func(tx *sql.Tx) error {
		for _, table := range []string{"join_token", "session", "recovery", "request"} {
			if _, err := tx.ExecContext(ctx, "DELETE FROM "+table); err != nil {
				return fmt.Errorf("settle the restored registry: %w", err)
			}
		}
		if err := errors.Join(twinrows.Restored(ctx, tx), commandrows.Restored(ctx, tx), rollouts.Restored(ctx, tx)); err != nil {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{Who: Console, What: "restore", Why: fmt.Sprintf(
			"from a backup of %s; what was decided after that, revocations among it, is not known here", made.UTC().Format(time.RFC3339))})
	})
}

// KeysChanged notes in the audit log that somebody put a key set in force.
func (r *Registry) KeysChanged(ctx context.Context, who, what string) error {
	return r.within(ctx, func(tx *sql.Tx) error {
		return audit.Append(ctx, tx, audit.Entry{Who: who, What: "key-set", Why: what})
	})
}

// recall takes a certificate that this registry has forgotten: it comes from a backup,
// and the board renewed after that. Our authority signed it, for the key that the board
// is registered with, and it ends later than the one that is known. So it is the next
// one, and its loss would keep the board out until its next renewal. A board that is
// revoked, or has another key, is not helped by it.
func (r *Registry) recall(ctx context.Context, id ca.Identity) (bool, error) {
	var n int
	const where = ` WHERE tenant = ? AND name = ? AND revoked_at IS NULL AND key_hash = ? AND not_after < ?`
	args := []any{id.Tenant, id.Board, id.KeyHash[:], id.NotAfter.UnixMilli()}
	err := r.db.Read.QueryRowContext(ctx, `SELECT 1 FROM board`+where, args...).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up board: %w", err)
	}
	err = r.within(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE board SET previous = NULL, fingerprint = ?, serial = ?, not_after = ?`+where,
			append([]any{id.Fingerprint[:], id.Serial, id.NotAfter.UnixMilli()}, args...)...)
		if err != nil {
			return fmt.Errorf("recall certificate: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, ErrUnknown) // revoked at this very moment
		}
		return audit.Append(ctx, tx, audit.Entry{
			Who: "board " + id.Board, Tenant: id.Tenant, Board: id.Board, What: "recall",
			Why: "Its newer certificate, serial " + id.Serial + ", of the same key was not known here: the registry is from a backup",
		})
	})
	if errors.Is(err, ErrUnknown) {
		return false, nil
	}
	return err == nil, err
}
