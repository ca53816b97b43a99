// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"crypto/subtle"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"fulmar/fleet/access"
	"fulmar/fleet/audit"
	"fulmar/fleet/registry/accounts/secret"
	"fulmar/schema/rest"
)

// maxAgent bounds what a browser says of itself, in bytes: it is shown to its user.
const maxAgent = 200

// Session is a logged-in user, as they are now: role and second factor are read anew
// each time.
type Session struct {
	Tenant string
	User   string
	Role   rest.Role
	// MustChange: the password is a one-time password. MustEnrol: the role wants a
	// second factor and there is none. Nothing else may be done before that.
	MustChange bool
	MustEnrol  bool
	// ID names the session and lets nobody in.
	ID string
}

// Caller is the user as the one who asks for something. Who has to change the password
// or enrol first has no rights.
func (s Session) Caller() access.Caller {
	c := access.Caller{Tenant: s.Tenant, Who: s.User, Author: s.User}
	if !s.MustChange && !s.MustEnrol {
		c.Rights = s.Role.Rights()
	}
	return c
}

// open makes a session, and makes room for it.
func (a *Accounts) open(ctx context.Context, tx *sql.Tx, user string, from From) (text string, err error) {
	text, now := secret.Long(), a.now().UnixMilli()
	_, err = tx.ExecContext(ctx, `DELETE FROM session WHERE user = ? AND (made < ? OR used < ? OR
hash IN (SELECT hash FROM session WHERE user = ? ORDER BY used DESC LIMIT -1 OFFSET ?))`,
		user, now-sessionLife.Milliseconds(), now-sessionIdle.Milliseconds(), user, maxSessions-1)
	if err != nil {
		return "", fmt.Errorf("prune sessions: %w", err)
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO session (hash, user, made, used, addr, agent) VALUES (?, ?, ?, ?, ?, ?)`,
		secret.Hash(text), user, now, now, from.Addr.Unmap().String(), from.agent())
	if err != nil {
		return "", fmt.Errorf("open session: %w", err)
	}
	return text, nil
}

func (f From) agent() string {
	s := strings.ToValidUTF8(f.Agent[:min(len(f.Agent), maxAgent)], "")
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, s)
}

// Session tells whose session a cookie's secret is.
func (a *Accounts) Session(ctx context.Context, text string) (Session, error) {
	var s Session
	var made, used int64
	var factor bool
	var from rest.Role
	h, now := secret.Hash(text), a.now().UnixMilli()
	err := a.db.Read.QueryRowContext(ctx, `SELECT u.tenant, u.name, u.role, u.must_change, u.totp IS NOT NULL, t.totp_from, s.made, s.used
FROM session s JOIN user u ON u.name = s.user JOIN tenant t ON t.name = u.tenant WHERE s.hash = ? AND u.disabled = 0`, h).
		Scan(&s.Tenant, &s.User, &s.Role, &s.MustChange, &factor, &from, &made, &used)
	if errors.Is(err, sql.ErrNoRows) || err == nil && (now-made > sessionLife.Milliseconds() || now-used > sessionIdle.Milliseconds()) {
		return Session{}, ErrUnknown
	}
	if err != nil {
		return Session{}, fmt.Errorf("look up session: %w", err)
	}
	s.ID, s.MustEnrol = secret.ID(h), !factor && wanted(from, s.Role)
	if now-used > touch.Milliseconds() {
		if _, err := a.db.Write.ExecContext(ctx, `UPDATE session SET used = ? WHERE hash = ?`, now, h); err != nil {
			return Session{}, fmt.Errorf("touch session: %w", err)
		}
	}
	return s, nil
}

// Logout ends a session.
func (a *Accounts) Logout(ctx context.Context, text string) error {
	if _, err := a.db.Write.ExecContext(ctx, `DELETE FROM session WHERE hash = ?`, secret.Hash(text)); err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	return nil
}

// Logins lists where a user is logged in, the latest first; here is the ID of the
// session that asks, or "".
func (a *Accounts) Logins(ctx context.Context, user, here string) ([]rest.Login, error) {
	now := a.now().UnixMilli()
	rows, err := a.db.Read.QueryContext(ctx, `SELECT hash, addr, agent, made, used FROM session WHERE user = ? AND made > ? AND used > ? ORDER BY used DESC`,
		user, now-sessionLife.Milliseconds(), now-sessionIdle.Milliseconds())
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	out := []rest.Login{}
	for rows.Next() {
		var l rest.Login
		var hash []byte
		var made, used int64
		if err := rows.Scan(&hash, &l.From, &l.With, &made, &used); err != nil {
			return nil, fmt.Errorf("list sessions: %w", err)
		}
		l.ID, l.Made, l.Used = secret.ID(hash), fromMs(made), fromMs(used)
		l.Here = here != "" && subtle.ConstantTimeCompare([]byte(l.ID), []byte(here)) == 1
		out = append(out, l)
	}
	return out, rows.Err()
}

// EndLogin ends one of a user's sessions by its ID.
func (a *Accounts) EndLogin(ctx context.Context, user, id string) error {
	return a.end(ctx, user, func(is string) bool { return is == id })
}

// EndOthers ends all sessions of a user but the one of this ID.
func (a *Accounts) EndOthers(ctx context.Context, user, here string) error {
	err := a.end(ctx, user, func(is string) bool { return is != here })
	if errors.Is(err, ErrUnknown) {
		return nil
	}
	return err
}

func (a *Accounts) end(ctx context.Context, user string, which func(id string) bool) error {
	all, err := a.Logins(ctx, user, "")
	if err != nil {
		return err
	}
	return a.within(ctx, func(tx *sql.Tx) error {
		n, tenant := 0, ""
		if err := tx.QueryRowContext(ctx, `SELECT tenant FROM user WHERE name = ?`, user).Scan(&tenant); err != nil {
			return fmt.Errorf("look up user: %w", err)
		}
		for _, l := range all {
			if !which(l.ID) {
				continue
			}
			if _, err := tx.ExecContext(ctx, `DELETE FROM session WHERE user = ? AND lower(hex(substr(hash, 1, 8))) = ?`, user, l.ID); err != nil {
				return fmt.Errorf("end session: %w", err)
			}
			n++
		}
		if n == 0 {
			return ErrUnknown
		}
		return audit.Append(ctx, tx, audit.Entry{Who: user, Tenant: tenant, What: "sessions-end", Why: fmt.Sprintf("%d of %d", n, len(all))})
	})
}
