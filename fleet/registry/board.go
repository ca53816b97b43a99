// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"crypto/subtle"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"fulmar/fleet/ca"
	"fulmar/schema"
)

// Board is an enrolled board.
type Board struct {
	Tenant     string
	Name       string
	KeyMode    string
	Facts      map[string]string
	EnrolledAt time.Time
	Revoked    bool
}

// NewJoinToken makes a token with which the given number of boards may enrol
// before it expires. With a board name it is for that name alone, once, and may
// replace the board's key. It returns the token's secret, which is not kept.
func (r *Registry) NewJoinToken(ctx context.Context, tenant, board string, uses int, life time.Duration) (string, error) {
	if board != "" {
		if err := schema.CheckBoard(board); err != nil {
			return "", err
		}
		uses = 1
	}
	if uses < 1 || uses > maxBoards || life <= 0 || life > maxTokenLife {
		return "", fmt.Errorf("join token for %d boards and %v: wants 1 to %d boards and at most %v", uses, life, maxBoards, maxTokenLife)
	}
	secret := newSecret()
	err := r.within(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM join_token WHERE expires < ?`, nowMs()); err != nil {
			return fmt.Errorf("prune join tokens: %w", err)
		}
		if err := count(ctx, tx, "join_token", maxTokens); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO join_token (hash, tenant, board, uses_left, expires) VALUES (?, ?, ?, ?, ?)`,
			hashOf(secret), tenant, board, uses, time.Now().Add(life).UnixMilli())
		if err != nil {
			return fmt.Errorf("keep join token: %w", err)
		}
		return nil
	})
	return secret, err
}

// Enrolment is what a board asks for.
type Enrolment struct {
	Secret  string // of the join token
	Board   string
	KeyMode string
	Facts   map[string]string
	KeyHash [32]byte
}

// Enrol redeems a join token: sign is called once the board may be enrolled, and
// its certificate is kept in the same transaction that uses the token up. A board
// that never got the answer may ask again with the same token and key: that costs
// no further use.
func (r *Registry) Enrol(ctx context.Context, e Enrolment, sign func(tenant string) (*ca.Leaf, error)) (tenant string, leaf *ca.Leaf, err error) {
	facts, err := json.Marshal(e.Facts)
	if err != nil {
		return "", nil, fmt.Errorf("encode facts: %w", err)
	}
	th := hashOf(e.Secret)
	err = r.within(ctx, func(tx *sql.Tx) error {
		var only string
		var uses int
		var expires int64
		err := tx.QueryRowContext(ctx, `SELECT tenant, board, uses_left, expires FROM join_token WHERE hash = ?`, th).Scan(&tenant, &only, &uses, &expires)
		if errors.Is(err, sql.ErrNoRows) || err == nil && (expires < nowMs() || only != "" && only != e.Board) {
			return ErrUnknown
		}
		if err != nil {
			return fmt.Errorf("look up join token: %w", err)
		}
		var keyHash, tokenHash []byte
		err = tx.QueryRowContext(ctx, `SELECT key_hash, token_hash FROM board WHERE tenant = ? AND name = ?`, tenant, e.Board).Scan(&keyHash, &tokenHash)
		known := err == nil
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("look up board: %w", err)
		}
		again := known && bytes.Equal(keyHash, e.KeyHash[:]) && subtle.ConstantTimeCompare(tokenHash, th) == 1
		switch {
		case again:
		case uses < 1:
			return ErrUnknown
		case known && only == "":
			return ErrNameTaken
		case !known:
			if err := count(ctx, tx, "board", maxBoards); err != nil {
				return err
			}
		}
		if !again {
			if _, err := tx.ExecContext(ctx, `UPDATE join_token SET uses_left = uses_left - 1 WHERE hash = ?`, th); err != nil {
				return fmt.Errorf("use join token: %w", err)
			}
		}
		if leaf, err = sign(tenant); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO board (tenant, name, key_mode, facts, key_hash, token_hash, serial, fingerprint, not_after, enrolled_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant, name) DO UPDATE SET key_mode = excluded.key_mode, facts = excluded.facts, key_hash = excluded.key_hash,
  token_hash = excluded.token_hash, serial = excluded.serial, fingerprint = excluded.fingerprint, previous = NULL,
  not_after = excluded.not_after, enrolled_at = excluded.enrolled_at, revoked_at = NULL`,
			tenant, e.Board, e.KeyMode, string(facts), e.KeyHash[:], th, leaf.Serial, leaf.Fingerprint[:], leaf.NotAfter.UnixMilli(), nowMs())
		if err != nil {
			return fmt.Errorf("keep board: %w", err)
		}
		return nil
	})
	if err != nil {
		return "", nil, err
	}
	return tenant, leaf, nil
}

// Renew gives a known board its next certificate. The one it has stays good until
// the new one is first used: the answer may get lost.
func (r *Registry) Renew(ctx context.Context, id ca.Identity, sign func() (*ca.Leaf, error)) (*ca.Leaf, error) {
	var leaf *ca.Leaf
	err := r.within(ctx, func(tx *sql.Tx) error {
		ok, err := accepts(ctx, tx, id)
		if err != nil {
			return err
		}
		if !ok {
			return ErrUnknown
		}
		if leaf, err = sign(); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE board SET previous = ?, fingerprint = ?, serial = ?, key_hash = ?, not_after = ? WHERE tenant = ? AND name = ?`,
			id.Fingerprint[:], leaf.Fingerprint[:], leaf.Serial, leaf.KeyHash[:], leaf.NotAfter.UnixMilli(), id.Tenant, id.Board)
		if err != nil {
			return fmt.Errorf("keep certificate: %w", err)
		}
		return nil
	})
	return leaf, err
}

type queryer interface {
	QueryRowContext(ctx context.Context, q string, args ...any) *sql.Row
}

// accepts tells whether the certificate is the current (or just replaced) one of
// a board that is not revoked.
func accepts(ctx context.Context, q queryer, id ca.Identity) (bool, error) {
	current, previous, err := certsOf(ctx, q, id)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up board: %w", err)
	}
	return bytes.Equal(current, id.Fingerprint[:]) || bytes.Equal(previous, id.Fingerprint[:]), nil
}

func certsOf(ctx context.Context, q queryer, id ca.Identity) (current, previous []byte, err error) {
	err = q.QueryRowContext(ctx, `SELECT fingerprint, previous FROM board WHERE tenant = ? AND name = ? AND revoked_at IS NULL`,
		id.Tenant, id.Board).Scan(&current, &previous)
	return current, previous, err
}

// Admit tells whether a board may connect with this certificate. The first use of
// a renewed certificate ends the one before it.
func (r *Registry) Admit(ctx context.Context, id ca.Identity) (bool, error) {
	current, previous, err := certsOf(ctx, r.db.Read, id)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up board: %w", err)
	}
	if !bytes.Equal(current, id.Fingerprint[:]) {
		return bytes.Equal(previous, id.Fingerprint[:]), nil
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

// Revoke shuts a board out. Its data stays.
func (r *Registry) Revoke(ctx context.Context, tenant, board string) error {
	res, err := r.db.Write.ExecContext(ctx, `UPDATE board SET revoked_at = ? WHERE tenant = ? AND name = ?`, nowMs(), tenant, board)
	if err != nil {
		return fmt.Errorf("revoke board: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, ErrUnknown)
	}
	return nil
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
	rows, err := r.db.Read.QueryContext(ctx, `SELECT name, key_mode, facts, enrolled_at, revoked_at IS NOT NULL FROM board WHERE tenant = ? ORDER BY name`, tenant)
	if err != nil {
		return nil, fmt.Errorf("list boards: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	var out []Board
	for rows.Next() {
		b := Board{Tenant: tenant}
		var facts string
		var at int64
		if err := rows.Scan(&b.Name, &b.KeyMode, &facts, &at, &b.Revoked); err != nil {
			return nil, fmt.Errorf("list boards: %w", err)
		}
		if err := json.Unmarshal([]byte(facts), &b.Facts); err != nil {
			return nil, fmt.Errorf("list boards: facts of %s: %w", b.Name, err)
		}
		b.EnrolledAt = time.UnixMilli(at)
		out = append(out, b)
	}
	return out, rows.Err()
}
