// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"fulmar/fleet/audit"
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
	if len(pw) > maxPassword || checkName(name) != nil { // no user has either, and anybody knows that
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
	err := a.db.Read.QueryRowContext(ctx, `SELECT 1 FROM known WHERE hash = ? AND user = ?`, hashOf(known), name).Scan(&n)
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
	secret := newSecret256()
	_, err := tx.ExecContext(ctx, `DELETE FROM known WHERE user = ? AND (hash = ? OR
hash IN (SELECT hash FROM known WHERE user = ? ORDER BY used DESC LIMIT -1 OFFSET ?))`, user, hashOf(old), user, maxKnown-1)
	if err == nil {
		_, err = tx.ExecContext(ctx, `INSERT INTO known (hash, user, used) VALUES (?, ?, ?)`, hashOf(secret), user, a.now().UnixMilli())
	}
	if err != nil {
		return "", fmt.Errorf("remember browser: %w", err)
	}
	return secret, nil
}

// SetPassword replaces a user's password, ends all their sessions and opens a new one.
// The second factor is not asked: the session that asks has shown it.
func (a *Accounts) SetPassword(ctx context.Context, user, old, fresh string, from From) (Opened, error) {
	if !fit(old, fresh) {
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

// maxSteps bounds log-ins between password and code; the oldest goes.
const maxSteps = 256

// steps are log-ins between password and code, in memory: a restart asks for the
// password again.
type steps struct {
	mu sync.Mutex
	by map[string]*step // by hash of its secret
}

type step struct {
	user string
	at   time.Time
}

func (s *steps) add(user string, now time.Time) string {
	secret := newSecret256()
	s.mu.Lock()
	defer s.mu.Unlock()
	oldest := ""
	for k, v := range s.by {
		if now.Sub(v.at) > stepLife {
			delete(s.by, k)
		} else if oldest == "" || v.at.Before(s.by[oldest].at) {
			oldest = k
		}
	}
	if len(s.by) >= maxSteps {
		delete(s.by, oldest)
	}
	s.by[string(hashOf(secret))] = &step{user, now}
	return secret
}

func (s *steps) get(secret string, now time.Time) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.by[string(hashOf(secret))]
	if v == nil || now.Sub(v.at) > stepLife {
		return "", false
	}
	return v.user, true
}

func (s *steps) drop(secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.by, string(hashOf(secret)))
}

// Bounds of one sum of refused log-ins.
const (
	maxNames = 20
	maxAddrs = 100
)

// refused sums up refused log-ins of each tenant until they are written: strangers can
// make as many as they like, and the log is bounded.
type refused struct {
	mu sync.Mutex
	by map[string]*sum
}

// sum never holds what was typed as a name that nobody has: it may be a password.
type sum struct {
	since time.Time
	all   int
	users map[string]int
	addrs map[netip.Addr]bool
}

func (r *refused) add(tenant, user string, from netip.Addr, now time.Time) {
	if tenant == "" {
		tenant = DefaultTenant
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.by[tenant]
	if s == nil {
		s = &sum{since: now, users: map[string]int{}, addrs: map[netip.Addr]bool{}}
		r.by[tenant] = s
	}
	s.all++
	if user != "" && (s.users[user] > 0 || len(s.users) < maxNames) {
		s.users[user]++
	}
	if len(s.addrs) < maxAddrs {
		s.addrs[from.Unmap()] = true
	}
}

func (r *refused) take() map[string]*sum {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.by
	r.by = map[string]*sum{}
	return all
}

func (a *Accounts) writeRefused(ctx context.Context) error {
	all := a.refused.take()
	if len(all) == 0 {
		return nil
	}
	return a.within(ctx, func(tx *sql.Tx) error {
		for tenant, s := range all {
			if err := audit.Append(ctx, tx, audit.Entry{Who: "fleet", Tenant: tenant, What: "log-in-refused", Why: s.String()}); err != nil {
				return err
			}
		}
		return nil
	})
}

// String is the sum as a sentence.
func (s *sum) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d since %s from ", s.all, s.since.UTC().Format(time.RFC3339))
	if len(s.addrs) == 1 {
		for addr := range s.addrs {
			b.WriteString(addr.String())
		}
	} else {
		fmt.Fprintf(&b, "%d addresses", len(s.addrs))
	}
	known := 0
	for _, name := range sorted(s.users) {
		fmt.Fprintf(&b, ", %d of %s", s.users[name], name)
		known += s.users[name]
	}
	if n := s.all - known; n > 0 {
		fmt.Fprintf(&b, ", %d of nobody here or too fast", n)
	}
	return b.String()
}
