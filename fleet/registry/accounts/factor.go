// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"fulmar/fleet/access"
	"fulmar/fleet/audit"
	"fulmar/fleet/registry/accounts/secret"
	"fulmar/fleet/registry/accounts/totp"
	"fulmar/schema/rest"
)

// recoveries is how many recovery codes a user gets: one for each time the phone is
// not there, and a new set once it is back.
const recoveries = 10

// Factor is what a user has beside the password.
type Factor struct {
	On       bool
	Recovery int  // codes that are left
	Wanted   bool // by the role
}

// Factor tells what a user has beside the password.
func (a *Accounts) Factor(ctx context.Context, user string) (Factor, error) {
	var f Factor
	var role, from rest.Role
	err := a.db.Read.QueryRowContext(ctx, `SELECT u.totp IS NOT NULL, u.role, t.totp_from, (SELECT count(*) FROM recovery r WHERE r.user = u.name)
FROM user u JOIN tenant t ON t.name = u.tenant WHERE u.name = ?`, user).Scan(&f.On, &role, &from, &f.Recovery)
	if errors.Is(err, sql.ErrNoRows) {
		return f, ErrUnknown
	}
	if err != nil {
		return f, fmt.Errorf("look up second factor: %w", err)
	}
	f.Wanted = wanted(from, role)
	return f, nil
}

// person tells whether a caller is a person on the page: a second factor is nothing
// that a program has.
func isPerson(by access.Caller) error {
	if by.Who != by.Author || by.Author == Console {
		return access.ErrNotAllowed
	}
	return nil
}

// BeginTOTP makes the secret of a second factor: in base32 to be typed, and as the URI
// that authenticators read from a picture. It is used once a code of it was confirmed.
func (a *Accounts) BeginTOTP(ctx context.Context, by access.Caller) (text, uri string, err error) {
	if err := isPerson(by); err != nil {
		return "", "", err
	}
	key := totp.NewKey()
	err = a.within(ctx, func(tx *sql.Tx) error {
		err := changed(tx.ExecContext(ctx, `UPDATE user SET totp_next = ? WHERE name = ? AND tenant = ? AND totp IS NULL`, key, by.Author, by.Tenant))
		if errors.Is(err, ErrUnknown) {
			return ErrFactorOn
		}
		return err
	})
	if err != nil {
		return "", "", err
	}
	return totp.Text(key), totp.URI(by.Author, key), nil
}

// ConfirmTOTP puts the second factor on when the code is of it, and gives recovery
// codes, which are shown this once. The code itself is used up.
func (a *Accounts) ConfirmTOTP(ctx context.Context, by access.Caller, code string) (recovery []string, err error) {
	if err := isPerson(by); err != nil {
		return nil, err
	}
	if !a.byCode.Take(by.Author, a.now()) {
		return nil, ErrTooManyTries
	}
	return recovery, a.within(ctx, func(tx *sql.Tx) error {
		var key []byte
		err := tx.QueryRowContext(ctx, `SELECT totp_next FROM user WHERE name = ? AND tenant = ? AND totp IS NULL`, by.Author, by.Tenant).Scan(&key)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrFactorOn
		}
		if err != nil {
			return fmt.Errorf("look up second factor: %w", err)
		}
		step, ok := totp.Match(key, clean(code), a.now(), 0)
		if len(key) == 0 || !ok {
			return ErrWrongCode
		}
		a.byCode.Return(by.Author)
		_, err = tx.ExecContext(ctx, `UPDATE user SET totp = totp_next, totp_next = NULL, totp_step = ? WHERE name = ?`, step, by.Author)
		if err != nil {
			return fmt.Errorf("keep second factor: %w", err)
		}
		if recovery, err = newRecovery(ctx, tx, by.Author); err != nil {
			return err
		}
		return note(ctx, tx, by, "second-factor", "of "+by.Author+" is on")
	})
}

func newRecovery(ctx context.Context, tx *sql.Tx, user string) (codes []string, err error) {
	if _, err := tx.ExecContext(ctx, `DELETE FROM recovery WHERE user = ?`, user); err != nil {
		return nil, fmt.Errorf("keep recovery codes: %w", err)
	}
	for range recoveries {
		s := secret.Typed()[:16] // 80 bits
		if _, err := tx.ExecContext(ctx, `INSERT INTO recovery (user, hash) VALUES (?, ?)`, user, secret.Hash(s)); err != nil {
			return nil, fmt.Errorf("keep recovery codes: %w", err)
		}
		codes = append(codes, s[:4]+"-"+s[4:8]+"-"+s[8:12]+"-"+s[12:])
	}
	return codes, nil
}

// clean takes what people put between groups out of a code.
func clean(code string) string {
	if len(code) > 64 { // no code is that long
		return ""
	}
	return strings.ToLower(strings.NewReplacer(" ", "", "-", "").Replace(code))
}

// spend uses a code of the second factor, or a recovery code, up: in the transaction of
// what it is for, so that it is used for nothing or for that. It says which it was.
func (a *Accounts) spend(ctx context.Context, p person, code string, do func(tx *sql.Tx, how string) error) (how string, err error) {
	if !a.byCode.Take(p.name, a.now()) {
		return "", ErrTooManyTries
	}
	code = clean(code)
	err = a.within(ctx, func(tx *sql.Tx) error {
		var key []byte
		var last int64
		if err := tx.QueryRowContext(ctx, `SELECT totp, totp_step FROM user WHERE name = ?`, p.name).Scan(&key, &last); err != nil {
			return fmt.Errorf("look up second factor: %w", err)
		}
		step, ok := totp.Match(key, code, a.now(), last)
		if ok && key != nil {
			how = "a code"
			if _, err := tx.ExecContext(ctx, `UPDATE user SET totp_step = ? WHERE name = ?`, step, p.name); err != nil {
				return fmt.Errorf("use code: %w", err)
			}
			return do(tx, how)
		}
		err := changed(tx.ExecContext(ctx, `DELETE FROM recovery WHERE user = ? AND hash = ?`, p.name, secret.Hash(code)))
		if errors.Is(err, ErrUnknown) {
			return ErrWrongCode
		}
		if err != nil {
			return err
		}
		var left int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM recovery WHERE user = ?`, p.name).Scan(&left); err != nil {
			return fmt.Errorf("count recovery codes: %w", err)
		}
		how = fmt.Sprintf("a recovery code, %d are left", left)
		return do(tx, how)
	})
	if err == nil {
		a.byCode.Return(p.name)
	}
	return how, err
}

// DropOwn takes a person's own second factor off. Password and code are wanted: a
// session left open is not enough.
func (a *Accounts) DropOwn(ctx context.Context, by access.Caller, password, code string, from From) error {
	if err := isPerson(by); err != nil {
		return err
	}
	p, err := a.verify(ctx, by.Author, password, from)
	if err != nil {
		return err
	}
	_, err = a.spend(ctx, p, code, func(tx *sql.Tx, how string) error {
		return errors.Join(dropFactor(ctx, tx, p.name), note(ctx, tx, by, "second-factor-off", "of "+p.name+", with a password and "+how))
	})
	return err
}

// DropTOTP takes a user's second factor off, for who lost it. Their sessions end.
func (a *Accounts) DropTOTP(ctx context.Context, by access.Caller, user string) error {
	return a.change(ctx, by, user, func(tx *sql.Tx, _ rest.Role) error {
		return errors.Join(dropFactor(ctx, tx, user), endSessions(ctx, tx, user), note(ctx, tx, by, "second-factor-off", "of "+user))
	})
}

func dropFactor(ctx context.Context, tx *sql.Tx, user string) error {
	if err := changed(tx.ExecContext(ctx, `UPDATE user SET totp = NULL, totp_next = NULL, totp_step = 0 WHERE name = ?`, user)); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM recovery WHERE user = ?`, user); err != nil {
		return fmt.Errorf("drop recovery codes: %w", err)
	}
	return nil
}

// RequireTOTP wants a second factor of everybody of a tenant from a role on; "" of
// nobody. Who has none sees nothing but its enrolment from then on.
func (a *Accounts) RequireTOTP(ctx context.Context, by access.Caller, from rest.Role) error {
	if err := by.May(rest.UsersWrite); err != nil {
		return err
	}
	if from != "" && !slices.Contains(rest.Roles(), from) {
		return fmt.Errorf("no role is called %.32q; there are %v", string(from), rest.Roles())
	}
	why := "wanted of nobody"
	if from != "" {
		why = "wanted from " + string(from) + " on"
	}
	return a.within(ctx, func(tx *sql.Tx) error {
		if err := changed(tx.ExecContext(ctx, `UPDATE tenant SET totp_from = ? WHERE name = ?`, string(from), by.Tenant)); err != nil {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{Who: by.Who, Tenant: by.Tenant, What: "second-factor-rule", Why: why})
	})
}

// TOTPFrom tells from which role on a second factor is wanted; "" of nobody.
func (a *Accounts) TOTPFrom(ctx context.Context, tenant string) (from rest.Role, err error) {
	if err := a.db.Read.QueryRowContext(ctx, `SELECT totp_from FROM tenant WHERE name = ?`, tenant).Scan(&from); err != nil {
		return "", fmt.Errorf("look up rule: %w", err)
	}
	return from, nil
}

func sorted(m map[string]int) []string { return slices.Sorted(maps.Keys(m)) }
