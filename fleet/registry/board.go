// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"fulmar/fleet/audit"
	"fulmar/fleet/ca"
)

// Board is an enrolled board.
type Board struct {
	Tenant     string
	Name       string
	KeyMode    string
	Facts      map[string]string
	EnrolledAt time.Time
	NotAfter   time.Time // of its certificate
	Revoked    bool
	RevokedAt  time.Time // zero where it is not

	Trust   string   // a schema.Trust constant: how the fleet knows where the key is
	KeyHash [32]byte // SHA-256 of the public key (SubjectPublicKeyInfo)
	// EKHash is the SHA-256 of its TPM's endorsement key (public area); nil without a TPM.
	EKHash []byte
	// What the board says of its TPM: discrete, firmware, virtual or unknown; "IFX"; "7.85".
	TPMKind, TPMMaker, TPMFirmware string
	EKNote                         string // what the fleet found of its maker's certificate, a sentence
}

// Fingerprint is what a person compares: the first 16 hex digits of the hash of the
// TPM's endorsement key, or of the key where there is no TPM.
func (b *Board) Fingerprint() string { return fingerprint(b.EKHash, b.KeyHash[:]) }

func fingerprint(ek, key []byte) string {
	if len(ek) == 0 {
		ek = key
	}
	return hex.EncodeToString(ek[:min(8, len(ek))])
}

// Admit tells whether a board may connect with this certificate. The first use of
// a renewed certificate ends the one before it.
func (r *Registry) Admit(ctx context.Context, id ca.Identity) (bool, error) {
	var current, previous []byte
	err := r.db.Read.QueryRowContext(ctx, `SELECT fingerprint, previous FROM board WHERE tenant = ? AND name = ? AND revoked_at IS NULL`,
		id.Tenant, id.Board).Scan(&current, &previous)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up board: %w", err)
	}
	if !bytes.Equal(current, id.Fingerprint[:]) {
		if bytes.Equal(previous, id.Fingerprint[:]) {
			return true, nil
		}
		return r.recall(ctx, id)
	}
	if previous != nil {
		_, err := r.db.Write.ExecContext(ctx, `UPDATE board SET previous = NULL WHERE tenant = ? AND name = ? AND fingerprint = ?`,
			id.Tenant, id.Board, id.Fingerprint[:])
		if err != nil {
			return false, fmt.Errorf("retire certificate: %w", err)
		}
	}
	return true, nil
}

// Revoke shuts a board out: its certificate is good no longer, and neither its name,
// its TPM nor its key is let in again until a person gives a token for this very board
// or forgets it. Its data stays.
func (r *Registry) Revoke(ctx context.Context, tenant, board, who, why string) error {
	return r.within(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE board SET revoked_at = ? WHERE tenant = ? AND name = ? AND revoked_at IS NULL`, nowMs(), tenant, board)
		if err != nil {
			return fmt.Errorf("revoke board: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, ErrUnknown)
		}
		if err := withdraw(ctx, tx, tenant, board); err != nil {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{Who: who, Tenant: tenant, Board: board, What: "revoke", Why: why})
	})
}

// Forget removes a board from the registry: its name and its TPM are free, and a ban
// goes with it. Its certificate is good no longer.
func (r *Registry) Forget(ctx context.Context, tenant, board, who, why string) error {
	return r.within(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM board WHERE tenant = ? AND name = ?`, tenant, board)
		if err != nil {
			return fmt.Errorf("forget board: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, ErrUnknown)
		}
		if err := withdraw(ctx, tx, tenant, board); err != nil {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{Who: who, Tenant: tenant, Board: board, What: "forget", Why: why})
	})
}

// withdraw takes back what a board was given to come in with, and has its sessions
// looked at again.
func withdraw(ctx context.Context, tx *sql.Tx, tenant, board string) error {
	for _, q := range []string{`DELETE FROM join_token WHERE tenant = ? AND board = ?`, `DELETE FROM request WHERE tenant = ? AND board = ?`} {
		if _, err := tx.ExecContext(ctx, q, tenant, board); err != nil {
			return fmt.Errorf("withdraw tokens and requests: %w", err)
		}
	}
	return shut(ctx, tx, tenant, board)
}

// shut has the sessions of a board looked at again, by this process and others.
func shut(ctx context.Context, tx *sql.Tx, tenant, board string) error {
	now := nowMs()
	if _, err := tx.ExecContext(ctx, `DELETE FROM shut WHERE at < ?`, now-shutLife.Milliseconds()); err != nil {
		return fmt.Errorf("note a shut board: %w", err)
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO shut (tenant, board, at) VALUES (?, ?, ?)`, tenant, board, now); err != nil {
		return fmt.Errorf("note a shut board: %w", err)
	}
	return nil
}

// Shut lists the boards of which a certificate stopped being good since the mark of an
// earlier call, at most 1000, and the next mark. A mark below 0 gives the newest and no
// board: where a server begins that has no sessions yet. An identity here has no fingerprint.
func (r *Registry) Shut(ctx context.Context, mark int64) (boards []ca.Identity, next int64, err error) {
	if mark < 0 {
		err := r.db.Read.QueryRowContext(ctx, `SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'shut'`).Scan(&next)
		if err != nil {
			return nil, 0, fmt.Errorf("list shut boards: %w", err)
		}
		return nil, next, nil
	}
	rows, err := r.db.Read.QueryContext(ctx, `SELECT seq, tenant, board FROM shut WHERE seq > ? ORDER BY seq LIMIT 1000`, mark)
	if err != nil {
		return nil, mark, fmt.Errorf("list shut boards: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	for next = mark; rows.Next(); {
		var n ca.Identity
		if err := rows.Scan(&next, &n.Tenant, &n.Board); err != nil {
			return nil, mark, fmt.Errorf("list shut boards: %w", err)
		}
		boards = append(boards, n)
	}
	return boards, next, rows.Err()
}

// Known counts the boards that may connect, of all tenants.
func (r *Registry) Known(ctx context.Context) (n int, err error) {
	if err := r.db.Read.QueryRowContext(ctx, `SELECT count(*) FROM board WHERE revoked_at IS NULL`).Scan(&n); err != nil {
		return 0, fmt.Errorf("count boards: %w", err)
	}
	return n, nil
}

// Boards lists a tenant's boards by name.
func (r *Registry) Boards(ctx context.Context, tenant string) ([]Board, error) {
	rows, err := r.db.Read.QueryContext(ctx, `SELECT name, key_mode, facts, enrolled_at, not_after, coalesce(revoked_at, 0), trust, key_hash, ek_hash, tpm_kind, tpm_maker, tpm_firmware, ek_note
FROM board WHERE tenant = ? ORDER BY name`, tenant)
	if err != nil {
		return nil, fmt.Errorf("list boards: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	var out []Board
	for rows.Next() {
		b := Board{Tenant: tenant}
		var facts string
		var at, until, revoked int64
		var key []byte
		if err := rows.Scan(&b.Name, &b.KeyMode, &facts, &at, &until, &revoked, &b.Trust, &key, &b.EKHash, &b.TPMKind, &b.TPMMaker, &b.TPMFirmware, &b.EKNote); err != nil {
			return nil, fmt.Errorf("list boards: %w", err)
		}
		if err := json.Unmarshal([]byte(facts), &b.Facts); err != nil {
			return nil, fmt.Errorf("list boards: facts of %s: %w", b.Name, err)
		}
		copy(b.KeyHash[:], key)
		b.EnrolledAt, b.NotAfter = time.UnixMilli(at), time.UnixMilli(until)
		if b.Revoked = revoked != 0; b.Revoked {
			b.RevokedAt = time.UnixMilli(revoked)
		}
		out = append(out, b)
	}
	return out, rows.Err()
}

// AK gives the public area of a board's attestation key and how its TPM is known (a
// schema.Trust constant). The area is empty where it has no TPM. ErrUnknown where
// there is no such board, or it is revoked.
func (r *Registry) AK(ctx context.Context, tenant, board string) (area []byte, trust string, err error) {
	err = r.db.Read.QueryRowContext(ctx, `SELECT ak, trust FROM board WHERE tenant = ? AND name = ? AND revoked_at IS NULL`, tenant, board).Scan(&area, &trust)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, "", ErrUnknown
	}
	if err != nil {
		return nil, "", fmt.Errorf("look up board: %w", err)
	}
	return area, trust, nil
}
