// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"

	"fulmar/fleet/audit"
	"fulmar/fleet/registry/accounts/secret"
	"fulmar/fleet/registry/limit"
)

// From is where somebody logs in from.
type From struct {
	Addr  netip.Addr
	Agent string // the browser, in its own words
	Known string // what an earlier log-in from there gave as Opened.Known, or ""
}

// Opened is what a log-in gives. The secrets go into cookies and are kept as hashes.
type Opened struct {
	Session string
	// Known marks the browser as one that the user has logged in with, for From.Known.
	Known string
	// Step is set with [ErrCodeWanted] alone: it goes with the code to [Accounts.Second].
	Step string
}

// person is a user as the log-in needs them.
type person struct {
	name, tenant, password string
	disabled               bool
	totp                   []byte
	step                   int64
}

func (a *Accounts) person(ctx context.Context, name string) (p person, found bool, err error) {
	err = a.db.Read.QueryRowContext(ctx, `SELECT name, tenant, password, disabled, totp, totp_step FROM user WHERE name = ?`, name).
		Scan(&p.name, &p.tenant, &p.password, &p.disabled, &p.totp, &p.step)
	if errors.Is(err, sql.ErrNoRows) {
		return person{password: a.dummy}, false, nil
	}
	if err != nil {
		return p, false, fmt.Errorf("look up user: %w", err)
	}
	return p, true, nil
}

// verify checks user and password under the limits on tries. A user who is not there
// or is disabled costs the same time and gets the same words.
func (a *Accounts) verify(ctx context.Context, name, pw string, from From) (person, error) {
	if len(pw) > secret.MaxPassword || checkName(name) != nil { // no user has either, and anybody knows that
		if !a.byAddr.Take(limit.Source(from.Addr), a.now()) {
			return person{}, ErrTooManyTries
		}
		a.refused.add(DefaultTenant, "", from.Addr, a.now())
		return person{}, ErrWrongPassword
	}
	by, key := a.byName, name
	if a.knows(ctx, name, from.Known) {
		by, key = a.byKnown, from.Known
	}
	addr := limit.Source(from.Addr)
	if !a.byAddr.Take(addr, a.now()) || !by.Take(key, a.now()) {
		a.refused.add(DefaultTenant, "", from.Addr, a.now())
		return person{}, ErrTooManyTries
	}
	p, found, err := a.person(ctx, name)
	if err != nil {
		return p, err
	}
	right, err := a.compare(ctx, p.password, pw)
	if err != nil {
		return p, err
	}
	if !right || !found || p.disabled {
		a.refused.add(p.tenant, p.name, from.Addr, a.now())
		return person{}, ErrWrongPassword
	}
	a.byAddr.Return(addr)
	by.Return(key)
	return p, nil
}

// knows tells whether a browser is one that the user has logged in with.
func (a *Accounts) knows(ctx context.Context, name, known string) bool {
	if known == "" {
		return false
	}
	var n int
	err := a.db.Read.QueryRowContext(ctx, `SELECT 1 FROM known WHERE hash = ? AND user = ?`, secret.Hash(known), name).Scan(&n)
	return err == nil
}

// Login checks user and password, and the code where there is a second factor, and
// opens a session. With [ErrCodeWanted] only Opened.Step is set.
func (a *Accounts) Login(ctx context.Context, user, password, code string, from From) (Opened, error) {
	p, err := a.verify(ctx, user, password, from)
	if err != nil {
		return Opened{}, err
	}
	if p.totp == nil {
		return a.admit(ctx, p, from, "with a password")
	}
	if code == "" {
		return Opened{Step: a.steps.add(p.name, a.now())}, ErrCodeWanted
	}
	return a.withCode(ctx, p, code, from)
}

// Second finishes a log-in whose password was right. After [ErrWrongCode] the same step
// may be tried again while it lasts.
func (a *Accounts) Second(ctx context.Context, step, code string, from From) (Opened, error) {
	name, ok := a.steps.get(step, a.now())
	if !ok {
		return Opened{}, ErrUnknown
	}
	p, found, err := a.person(ctx, name)
	if err != nil {
		return Opened{}, err
	}
	if !found || p.disabled || p.totp == nil {
		return Opened{}, ErrUnknown
	}
	o, err := a.withCode(ctx, p, code, from)
	if err == nil {
		a.steps.drop(step)
	}
	return o, err
}

func (a *Accounts) withCode(ctx context.Context, p person, code string, from From) (Opened, error) {
	var o Opened
	_, err := a.spend(ctx, p, code, func(tx *sql.Tx, how string) (err error) {
		o, err = a.admitIn(ctx, tx, p, from, "with a password and "+how)
		return err
	})
	if errors.Is(err, ErrWrongCode) {
		a.refused.add(p.tenant, p.name, from.Addr, a.now())
	}
	return o, err
}

func (a *Accounts) admit(ctx context.Context, p person, from From, how string) (o Opened, err error) {
	return o, a.within(ctx, func(tx *sql.Tx) error {
		o, err = a.admitIn(ctx, tx, p, from, how)
		return err
	})
}

// admitIn opens the session within a transaction: a second look at the user is part of
// it, so that who was disabled or given another password meanwhile stays out.
func (a *Accounts) admitIn(ctx context.Context, tx *sql.Tx, p person, from From, how string) (o Opened, err error) {
	now := a.now().UnixMilli()
	err = changed(tx.ExecContext(ctx, `UPDATE user SET last_login = ? WHERE name = ? AND disabled = 0 AND password = ?`, now, p.name, p.password))
	if errors.Is(err, ErrUnknown) {
		return o, ErrWrongPassword
	}
	if err != nil {
		return o, err
	}
	if o.Session, err = a.open(ctx, tx, p.name, from); err != nil {
		return o, err
	}
	if o.Known, err = a.know(ctx, tx, p.name, from.Known); err != nil {
		return o, err
	}
	return o, audit.Append(ctx, tx, audit.Entry{Who: p.name, Tenant: p.tenant, What: "log-in", Why: "from " + from.Addr.Unmap().String() + " " + how})
}

// know remembers a browser anew: what it showed until now is worth nothing from now on.
func (a *Accounts) know(ctx context.Context, tx *sql.Tx, user, old string) (string, error) {
	fresh := secret.Long()
	_, err := tx.ExecContext(ctx, `DELETE FROM known WHERE user = ? AND (hash = ? OR
hash IN (SELECT hash FROM known WHERE user = ? ORDER BY used DESC LIMIT -1 OFFSET ?))`, user, secret.Hash(old), user, maxKnown-1)
	if err == nil {
		_, err = tx.ExecContext(ctx, `INSERT INTO known (hash, user, used) VALUES (?, ?, ?)`, secret.Hash(fresh), user, a.now().UnixMilli())
	}
	if err != nil {
		return "", fmt.Errorf("remember browser: %w", err)
	}
	return fresh, nil
}

// compare checks a password against what is stored, in its turn.
func (a *Accounts) compare(ctx context.Context, stored, pw string) (bool, error) {
	if a.waiting.Add(1) > maxWaiting {
		a.waiting.Add(-1)
		return false, ErrTooManyTries
	}
	defer a.waiting.Add(-1)
	select {
	case a.hash <- struct{}{}:
		defer func() { <-a.hash }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	return a.check(stored, pw), nil
}

// SetPassword replaces a user's password, ends all their sessions and opens a new one.
// The second factor is not asked: the session that asks has shown it.
func (a *Accounts) SetPassword(ctx context.Context, user, old, fresh string, from From) (Opened, error) {
	if !secret.Fit(old, fresh) {
		return Opened{}, ErrWeakPassword
	}
	p, err := a.verify(ctx, user, old, from)
	if err != nil {
		return Opened{}, err
	}
	h := a.mint(fresh)
	var o Opened
	return o, a.within(ctx, func(tx *sql.Tx) error {
		if err := setPassword(ctx, tx, p.name, h, false); err != nil {
			return err
		}
		if o.Session, err = a.open(ctx, tx, p.name, from); err != nil {
			return err
		}
		if o.Known, err = a.know(ctx, tx, p.name, from.Known); err != nil {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{Who: p.name, Tenant: p.tenant, What: "set-password", Why: "from " + from.Addr.Unmap().String()})
	})
}
