// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"fulmar/fleet/audit"
	"fulmar/schema"
	"fulmar/schema/rest"
)

// ErrNoToken: no join token of this id is open.
var ErrNoToken = errors.New("no join token of this id is open: it ended, was used up, was revoked, or there was none")

// NewJoinToken makes a token with which the given number of boards may enrol
// before it expires. With a board name it is for that name alone, once, and may
// replace the board's key. It returns the token's secret, which is not kept.
func (r *Registry) NewJoinToken(ctx context.Context, tenant, board string, uses int, life time.Duration) (string, error) {
	secret, _, err := r.NewJoinTokenBy(ctx, Console, tenant, board, uses, life)
	return secret, err
}

// NewJoinTokenBy is [Registry.NewJoinToken] by somebody else than the server's console.
// It also tells how the token is listed.
func (r *Registry) NewJoinTokenBy(ctx context.Context, who, tenant, board string, uses int, life time.Duration) (string, rest.JoinToken, error) {
	if board != "" {
		if err := schema.CheckBoard(board); err != nil {
			return "", rest.JoinToken{}, err
		}
		uses = 1
	}
	if uses < 1 || uses > maxBoards || life <= 0 || life > maxTokenLife {
		return "", rest.JoinToken{}, fmt.Errorf("join token for %d boards and %v: wants 1 to %d boards and at most %v", uses, life, maxBoards, maxTokenLife)
	}
	secret := newSecret()
	hash := hashOf(secret)
	t := rest.JoinToken{ID: joinID(hash), Board: board, Boards: uses, Expires: time.Now().Add(life).UTC().Truncate(time.Millisecond)}
	err := r.within(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM join_token WHERE expires < ?`, nowMs()); err != nil {
			return fmt.Errorf("prune join tokens: %w", err)
		}
		if err := count(ctx, tx, "join_token", maxTokens); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO join_token (hash, tenant, board, uses_left, expires) VALUES (?, ?, ?, ?, ?)`,
			hash, tenant, board, uses, t.Expires.UnixMilli())
		if err != nil {
			return fmt.Errorf("keep join token: %w", err)
		}
		why := fmt.Sprintf("%s: for %d boards of any name, good for %v", t.ID, uses, life)
		if board != "" {
			why = fmt.Sprintf("%s: for this board alone, good for %v", t.ID, life)
		}
		return audit.Append(ctx, tx, audit.Entry{Who: who, Tenant: tenant, Board: board, What: "token", Why: why})
	})
	return secret, t, err
}

// joinID names a join token where it is listed: the first 64 bits of its hash, of which
// no two of [maxTokens] are alike. It lets nobody in.
func joinID(hash []byte) string { return hex.EncodeToString(hash[:8]) }

// JoinTokens lists the join tokens of a tenant with which boards can still join, those
// that end first before others.
func (r *Registry) JoinTokens(ctx context.Context, tenant string) (out []rest.JoinToken, err error) {
	rows, err := r.db.Read.QueryContext(ctx, `SELECT hash, board, uses_left, expires FROM join_token
WHERE tenant = ? AND uses_left > 0 AND expires >= ? ORDER BY expires, hash`, tenant, nowMs())
	if err != nil {
		return nil, fmt.Errorf("list join tokens: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	for rows.Next() {
		var hash []byte
		var ends int64
		var t rest.JoinToken
		if err := rows.Scan(&hash, &t.Board, &t.Boards, &ends); err != nil {
			return nil, fmt.Errorf("list join tokens: %w", err)
		}
		t.ID, t.Expires = joinID(hash), time.UnixMilli(ends).UTC()
		out = append(out, t)
	}
	return out, rows.Err()
}

// RevokeJoinToken ends a join token: no board enrols with it any more. Boards that did
// stay. [ErrNoToken] where there is none that is still open.
func (r *Registry) RevokeJoinToken(ctx context.Context, tenant, id, who string) error {
	start, err := hex.DecodeString(id)
	if err != nil || len(start) != 8 {
		return ErrNoToken
	}
	return r.within(ctx, func(tx *sql.Tx) error {
		var board string
		err := tx.QueryRowContext(ctx, `DELETE FROM join_token WHERE tenant = ? AND substr(hash, 1, 8) = ? AND uses_left > 0 AND expires >= ? RETURNING board`,
			tenant, start, nowMs()).Scan(&board)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return ErrNoToken
		case err != nil:
			return fmt.Errorf("revoke join token: %w", err)
		}
		return audit.Append(ctx, tx, audit.Entry{Who: who, Tenant: tenant, Board: board, What: "token-revoke", Why: joinID(start)})
	})
}
