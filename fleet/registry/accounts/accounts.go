// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/registry/accounts/secret"
	"fulmar/fleet/registry/limit"
	"fulmar/fleet/store"
	"fulmar/schema/rest"
)

// Names that are always there.
const (
	DefaultTenant = "default"
	// FirstUser is made at the first start.
	FirstUser = "admin"
	// Console is who acts on the data folder, in the audit log: the rights of its files
	// are the authority.
	Console = "server"
)

// Bounds of what is kept.
const (
	maxUsers    = 1000 // of all tenants; a small team has ten
	maxSessions = 20   // of one user; the one idle for longest ends
	maxKnown    = 20   // browsers that a user has logged in with
	maxTokens   = 1000 // of all tenants
	maxByOne    = 100  // tokens that one person made

	sessionIdle = 12 * time.Hour
	sessionLife = 7 * 24 * time.Hour
	// touch is how old the written time of a session's or a token's last use may be:
	// one write a minute, however much they are used.
	touch    = time.Minute
	stepLife = 5 * time.Minute // from the password to the code
	// sumEvery is how often refused log-ins go into the audit log.
	sumEvery = 5 * time.Minute

	// TokenLife is how long a token is good for where nothing is said, maxTokenLife at
	// most.
	TokenLife    = 90 * 24 * time.Hour
	maxTokenLife = 366 * 24 * time.Hour
)

// Password hashes at one time.
const (
	hashers = 2 // 64 MiB each
	// maxWaiting bounds who waits for one: at 0.2 s each some seconds, after which a
	// person tries again.
	maxWaiting = 64
)

// Tries of a password and a code.
const (
	// addrBurst and addrRefill are of one address: five at once, then one each ten
	// seconds.
	addrBurst  = 5
	addrRefill = 10 * time.Second
	// nameBurst and nameRefill are of one user from all browsers that never were logged
	// in as that user: 2,880 guesses a day, however many addresses they come from.
	nameBurst  = 20
	nameRefill = 30 * time.Second
	// knownBurst is of one user from one browser that was: strangers take nothing of it.
	knownBurst = 10
	// codeBurst and codeRefill are wrong codes of one user, after the right password.
	// Three codes in 10^6 are good at a time: 0.05 % of being guessed in a day.
	codeBurst  = 10
	codeRefill = 10 * time.Minute
)

// Errors that callers act upon.
var (
	// ErrUnknown: no such user, session or token, or it is no longer good.
	ErrUnknown = errors.New("unknown or expired")
	// ErrWrongPassword: user and password are no pair; nothing more is said.
	ErrWrongPassword = errors.New("wrong user or password")
	// ErrCodeWanted: the password is right, and a code of the second factor is wanted.
	ErrCodeWanted = errors.New("a code is wanted")
	// ErrWrongCode: the code is wrong, was used already, or is too old.
	ErrWrongCode = errors.New("wrong code")
	// ErrTooManyTries: wait before the next try.
	ErrTooManyTries = errors.New("too many tries")
	// ErrWeakPassword says what is wanted.
	ErrWeakPassword = fmt.Errorf("password too short, the same as before or too long: wants %d characters and at most %d bytes", secret.MinPassword, secret.MaxPassword)
	// ErrLastAdmin: nobody would be left who may let people in.
	ErrLastAdmin = errors.New("the last administrator cannot be removed, disabled or given a lesser role; make another one first")
	// ErrNameTaken: a user or token of this name is there.
	ErrNameTaken = errors.New("the name is taken")
	// ErrBadName says what a name is.
	ErrBadName = errors.New("a name wants 1 to 64 of a-z, 0-9, dot, dash and underscore, begins with a letter or digit, and is not server or fleet")
	// ErrFactorOn: there is a second factor already.
	ErrFactorOn = errors.New("there is a second factor already; take it off first")
	// ErrTooMany: a bound on what is kept is reached.
	ErrTooMany = errors.New("too many")
)

// Accounts are the people and programs that may come in.
type Accounts struct {
	db      *store.DB
	now     func() time.Time
	mint    func(password string) string       // Argon2id; most tests spare it
	check   func(stored, password string) bool // against what mint made; a test counts it
	dummy   string                             // stands for the password of who is not there
	hash    chan struct{}                      // bounds password hashes at one time
	waiting atomic.Int32                       // for that

	byAddr  *limit.Limiter[netip.Addr]
	byName  *limit.Limiter[string]
	byKnown *limit.Limiter[string]
	byCode  *limit.Limiter[string]

	steps   steps
	refused refused
}

// New gives the accounts in db, whose migrations hold [Schema].
func New(db *store.DB) *Accounts {
	return &Accounts{
		db: db, now: time.Now, mint: secret.HashPassword, check: secret.CheckPassword, hash: make(chan struct{}, hashers),
		dummy:   secret.Dummy(),
		byAddr:  limit.New[netip.Addr](addrBurst, addrRefill),
		byName:  limit.New[string](nameBurst, nameRefill),
		byKnown: limit.New[string](knownBurst, addrRefill),
		byCode:  limit.New[string](codeBurst, codeRefill),
		steps:   steps{by: map[string]*step{}},
		refused: refused{by: map[string]*sum{}},
	}
}

// OnConsole is whoever works on the data folder; user is their name there.
func OnConsole(user string) access.Caller {
	c := access.Caller{Tenant: DefaultTenant, Who: Console, Author: Console, Rights: rest.Admin.Rights()}
	if user != "" {
		c.Who += ", user " + user
	}
	return c
}

// Run writes refused log-ins into the audit log and clears away what has ended, until
// the context ends. What cannot be written now is said and tried at the next turn.
func (a *Accounts) Run(ctx context.Context, log *slog.Logger) error {
	t := time.NewTicker(sumEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			return a.writeRefused(last)
		case <-t.C:
			if err := errors.Join(a.writeRefused(ctx), a.prune(ctx)); err != nil && ctx.Err() == nil {
				log.Error("accounts not tidied", "err", err)
			}
		}
	}
}

// prune removes sessions and tokens that have ended.
func (a *Accounts) prune(ctx context.Context) error {
	return a.within(ctx, func(tx *sql.Tx) error {
		now := a.now().UnixMilli()
		_, err := tx.ExecContext(ctx, `DELETE FROM session WHERE made < ? OR used < ?`, now-sessionLife.Milliseconds(), now-sessionIdle.Milliseconds())
		if err != nil {
			return fmt.Errorf("prune sessions: %w", err)
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM api_token WHERE expires < ?`, now); err != nil {
			return fmt.Errorf("prune API tokens: %w", err)
		}
		return nil
	})
}

// within runs fn in a write transaction.
func (a *Accounts) within(ctx context.Context, fn func(tx *sql.Tx) error) error {
	tx, err := a.db.Write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("write accounts: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it is a no-op
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("write accounts: %w", err)
	}
	return nil
}

// changed turns a change of no row into [ErrUnknown].
func changed(r sql.Result, err error) error {
	if err != nil {
		return fmt.Errorf("write accounts: %w", err)
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, ErrUnknown)
	}
	return nil
}

func fromMs(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// checkName holds a name to what is safe in a log, a cookie and a command line.
func checkName(name string) error {
	if name == "" || len(name) > 64 || name == Console || name == "fleet" {
		return ErrBadName
	}
	for i, c := range name {
		letter := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || !strings.ContainsRune(".-_", c)) {
			return ErrBadName
		}
	}
	return nil
}
