// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"fulmar/fleet/access"
	"fulmar/fleet/audit"
	"fulmar/fleet/registry/accounts/secret"
	"fulmar/schema/rest"
)

// EnsureAdmin makes the first user with a one-time password where there is none, and
// returns that password; "" where there is one already.
func (a *Accounts) EnsureAdmin(ctx context.Context) (string, error) {
	var n int
	if err := a.db.Read.QueryRowContext(ctx, `SELECT count(*) FROM user`).Scan(&n); err != nil {
		return "", fmt.Errorf("look up users: %w", err)
	}
	if n > 0 {
		return "", nil
	}
	return a.AddUser(ctx, OnConsole(""), FirstUser, rest.Admin)
}

// Users lists the people of a tenant by name.
func (a *Accounts) Users(ctx context.Context, tenant string) ([]rest.User, error) {
	now := a.now().UnixMilli()
	rows, err := a.db.Read.QueryContext(ctx, `SELECT u.name, u.role, u.disabled, u.must_change, u.totp IS NOT NULL, u.made, u.last_login, t.totp_from,
 (SELECT count(*) FROM session s WHERE s.user = u.name AND s.made > ? AND s.used > ?),
 (SELECT count(*) FROM api_token k WHERE k.author = u.name AND k.tenant = u.tenant AND k.expires > ?)
FROM user u JOIN tenant t ON t.name = u.tenant WHERE u.tenant = ? ORDER BY u.name`,
		now-sessionLife.Milliseconds(), now-sessionIdle.Milliseconds(), now, tenant)
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	out := []rest.User{}
	for rows.Next() {
		var u rest.User
		var made, last int64
		var from rest.Role
		if err := rows.Scan(&u.Name, &u.Role, &u.Disabled, &u.MustChange, &u.SecondFactor, &made, &last, &from, &u.Sessions, &u.Tokens); err != nil {
			return nil, fmt.Errorf("list users: %w", err)
		}
		u.Made, u.LastLogin, u.MustEnrol = fromMs(made), fromMs(last), !u.SecondFactor && wanted(from, u.Role)
		out = append(out, u)
	}
	return out, rows.Err()
}

// wanted tells whether a second factor that is wanted from a role on is wanted of another.
func wanted(from, of rest.Role) bool {
	return from != "" && slices.Index(rest.Roles(), of) >= slices.Index(rest.Roles(), from)
}

// AddUser makes a user with a one-time password, which is shown this once. Nobody makes
// one who may do more than they themselves.
func (a *Accounts) AddUser(ctx context.Context, by access.Caller, name string, role rest.Role) (oneTime string, err error) {
	if err := errors.Join(mayGive(by, role), checkName(name)); err != nil {
		return "", err
	}
	pw := secret.Typed()
	h := a.mint(pw)
	return pw, a.within(ctx, func(tx *sql.Tx) error {
		var n, same int
		if err := tx.QueryRowContext(ctx, `SELECT count(*), count(CASE WHEN name = ? THEN 1 END) FROM user`, name).Scan(&n, &same); err != nil {
			return fmt.Errorf("look up users: %w", err)
		}
		switch {
		case same > 0:
			return ErrNameTaken
		case n >= maxUsers:
			return fmt.Errorf("%w: there are %d users", ErrTooMany, n)
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO user (name, tenant, password, must_change, role, made) VALUES (?, ?, ?, 1, ?, ?)`,
			name, by.Tenant, h, string(role), a.now().UnixMilli())
		if err != nil {
			return fmt.Errorf("keep user: %w", err)
		}
		return note(ctx, tx, by, "user-add", name+" as "+string(role)+", with a one-time password")
	})
}

// mayGive tells whether a caller may make somebody of a role, or change somebody who
// is of it.
func mayGive(by access.Caller, role rest.Role) error {
	if !slices.Contains(rest.Roles(), role) {
		return fmt.Errorf("no role is called %.32q; there are %v", string(role), rest.Roles())
	}
	if err := by.May(rest.UsersWrite); err != nil {
		return err
	}
	if !role.Rights().Within(by.Rights) {
		return access.ErrNotAllowed
	}
	return nil
}

func note(ctx context.Context, tx *sql.Tx, by access.Caller, what, why string) error {
	return audit.Append(ctx, tx, audit.Entry{Who: by.Who, Tenant: by.Tenant, What: what, Why: why})
}

// change runs fn on a user of the caller's tenant whom the caller may change, and makes
// sure that an administrator is left.
func (a *Accounts) change(ctx context.Context, by access.Caller, name string, fn func(tx *sql.Tx, is rest.Role) error) error {
	if err := by.May(rest.UsersWrite); err != nil {
		return err
	}
	return a.within(ctx, func(tx *sql.Tx) error {
		var is rest.Role
		err := tx.QueryRowContext(ctx, `SELECT role FROM user WHERE name = ? AND tenant = ?`, name, by.Tenant).Scan(&is)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrUnknown
		}
		if err != nil {
			return fmt.Errorf("look up user: %w", err)
		}
		if err := mayGive(by, is); err != nil {
			return err
		}
		if err := fn(tx, is); err != nil {
			return err
		}
		var admins int
		err = tx.QueryRowContext(ctx, `SELECT count(*) FROM user WHERE tenant = ? AND role = ? AND disabled = 0`, by.Tenant, string(rest.Admin)).Scan(&admins)
		if err != nil {
			return fmt.Errorf("count administrators: %w", err)
		}
		if admins == 0 {
			return ErrLastAdmin
		}
		return nil
	})
}

// SetRole gives a user another role. It is felt at once: open sessions and tokens have
// its rights from then on.
func (a *Accounts) SetRole(ctx context.Context, by access.Caller, name string, role rest.Role) error {
	if err := mayGive(by, role); err != nil {
		return err
	}
	return a.change(ctx, by, name, func(tx *sql.Tx, is rest.Role) error {
		if err := changed(tx.ExecContext(ctx, `UPDATE user SET role = ? WHERE name = ?`, string(role), name)); err != nil {
			return err
		}
		return note(ctx, tx, by, "user-role", name+" is "+string(role)+" and was "+string(is))
	})
}

// Disable shuts a user out, with their sessions and tokens, or lets them in again.
func (a *Accounts) Disable(ctx context.Context, by access.Caller, name string, out bool) error {
	return a.change(ctx, by, name, func(tx *sql.Tx, _ rest.Role) error {
		what := "user-enable"
		if out {
			what = "user-disable"
			if err := endSessions(ctx, tx, name); err != nil {
				return err
			}
		}
		if err := changed(tx.ExecContext(ctx, `UPDATE user SET disabled = ? WHERE name = ?`, out, name)); err != nil {
			return err
		}
		return note(ctx, tx, by, what, name)
	})
}

// Reset gives a user a one-time password, which is shown this once, and ends all their
// sessions. The second factor stays: see [Accounts.DropTOTP].
func (a *Accounts) Reset(ctx context.Context, by access.Caller, name string) (oneTime string, err error) {
	pw := secret.Typed()
	h := a.mint(pw)
	return pw, a.change(ctx, by, name, func(tx *sql.Tx, _ rest.Role) error {
		return errors.Join(setPassword(ctx, tx, name, h, true), note(ctx, tx, by, "reset-password", "of "+name))
	})
}

// Remove takes a user away, with sessions and tokens. What they did stays in the log,
// and their name stays free for whoever comes next: the log tells the two apart.
func (a *Accounts) Remove(ctx context.Context, by access.Caller, name string) error {
	return a.change(ctx, by, name, func(tx *sql.Tx, _ rest.Role) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM api_token WHERE author = ? AND tenant = ?`, name, by.Tenant); err != nil {
			return fmt.Errorf("remove tokens: %w", err)
		}
		if err := changed(tx.ExecContext(ctx, `DELETE FROM user WHERE name = ?`, name)); err != nil {
			return err
		}
		return note(ctx, tx, by, "user-remove", name)
	})
}

// setPassword ends all sessions; browsers that were known are no longer.
func setPassword(ctx context.Context, tx *sql.Tx, name, hash string, oneTime bool) error {
	if err := changed(tx.ExecContext(ctx, `UPDATE user SET password = ?, must_change = ? WHERE name = ?`, hash, oneTime, name)); err != nil {
		return err
	}
	return endSessions(ctx, tx, name)
}

func endSessions(ctx context.Context, tx *sql.Tx, name string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM session WHERE user = ?`, name)
	if err == nil {
		_, err = tx.ExecContext(ctx, `DELETE FROM known WHERE user = ?`, name)
	}
	if err != nil {
		return fmt.Errorf("end sessions: %w", err)
	}
	return nil
}
