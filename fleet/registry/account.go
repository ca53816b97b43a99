// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"fulmar/fleet/audit"
)

// AdminUser is the one user there is.
const AdminUser = "admin"

// Argon2id parameters: the second recommended choice of RFC 9106 with fewer lanes,
// since two hash at the same time at most.
const (
	argonTime   = 3
	argonMemory = 64 << 10 // KiB
	argonLanes  = 2
	hashers     = 2 // 64 MiB each
)

// Bounds of passwords and sessions.
const (
	MinPassword  = 15  // characters; NIST SP 800-63B for a password alone
	maxPassword  = 256 // bytes; more is no password but an attack
	sessionIdle  = 12 * time.Hour
	sessionLife  = 7 * 24 * time.Hour
	touchSession = time.Minute // a session's last use is written at most that often
)

// Errors of accounts.
var (
	ErrWrongPassword = errors.New("wrong password")
	ErrTooManyTries  = errors.New("too many tries")
	ErrWeakPassword  = fmt.Errorf("password too short, the same as before or too long: wants %d characters and at most %d bytes", MinPassword, maxPassword)
)

func hashPassword(pw string) string {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt)
	sum := argon2.IDKey([]byte(pw), salt, argonTime, argonMemory, argonLanes, 32)
	enc := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonLanes, enc(salt), enc(sum))
}

func checkPassword(stored, pw string) bool {
	var v, m, t, p int
	parts := strings.Split(stored, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false
	}
	if _, err := fmt.Sscanf(parts[2]+" "+parts[3], "v=%d m=%d,t=%d,p=%d", &v, &m, &t, &p); err != nil ||
		v != argon2.Version || m < 8 || m > 1<<20 || t < 1 || t > 16 || p < 1 || p > 16 {
		return false
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[4])
	sum, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err != nil || err2 != nil || len(sum) == 0 {
		return false
	}
	got := argon2.IDKey([]byte(pw), salt, uint32(t), uint32(m), uint8(p), uint32(len(sum)))
	return subtle.ConstantTimeCompare(got, sum) == 1
}

// EnsureAdmin makes the administrator with a one-time password where there is
// none, and returns that password; "" where there is one already.
func (r *Registry) EnsureAdmin(ctx context.Context) (string, error) {
	var n int
	if err := r.db.Read.QueryRowContext(ctx, `SELECT count(*) FROM user`).Scan(&n); err != nil {
		return "", fmt.Errorf("look up users: %w", err)
	}
	if n > 0 {
		return "", nil
	}
	return r.ResetAdmin(ctx)
}

// ResetAdmin gives the administrator a new one-time password and ends all
// sessions.
func (r *Registry) ResetAdmin(ctx context.Context) (string, error) {
	pw := newSecret()
	h := hashPassword(pw)
	return pw, r.within(ctx, func(tx *sql.Tx) error {
		return errors.Join(setPassword(ctx, tx, h, true), audit.Append(ctx, tx, audit.Entry{Who: Console, What: "reset-password"}))
	})
}

func setPassword(ctx context.Context, tx *sql.Tx, hash string, oneTime bool) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO user (name, tenant, password, must_change) VALUES (?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET password = excluded.password, must_change = excluded.must_change`, AdminUser, DefaultTenant, hash, oneTime)
	if err != nil {
		return fmt.Errorf("keep password: %w", err)
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM session WHERE user = ?`, AdminUser); err != nil {
		return fmt.Errorf("end sessions: %w", err)
	}
	return nil
}

// Session is a logged-in user.
type Session struct {
	Tenant     string
	User       string
	MustChange bool
}

// verify checks the administrator's password under the limit on tries.
func (r *Registry) verify(ctx context.Context, pw string, from netip.Addr) error {
	if !r.tries.Take(from, time.Now()) {
		return ErrTooManyTries
	}
	if len(pw) > maxPassword {
		return ErrWrongPassword
	}
	var stored string
	if err := r.db.Read.QueryRowContext(ctx, `SELECT password FROM user WHERE name = ?`, AdminUser).Scan(&stored); err != nil {
		return fmt.Errorf("look up user: %w", err)
	}
	select {
	case r.hash <- struct{}{}:
		defer func() { <-r.hash }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if !checkPassword(stored, pw) {
		return ErrWrongPassword
	}
	r.tries.Forget(from)
	return nil
}

// Login checks the password and opens a session; the secret goes into the cookie
// and is not kept.
func (r *Registry) Login(ctx context.Context, pw string, from netip.Addr) (secret string, err error) {
	if err := r.verify(ctx, pw, from); err != nil {
		return "", err
	}
	return r.openSession(ctx)
}

func (r *Registry) openSession(ctx context.Context) (string, error) {
	secret := newSecret256()
	return secret, r.within(ctx, func(tx *sql.Tx) error {
		now := nowMs()
		_, err := tx.ExecContext(ctx, `DELETE FROM session WHERE made < ? OR used < ? OR
hash IN (SELECT hash FROM session ORDER BY used DESC LIMIT -1 OFFSET ?)`,
			now-sessionLife.Milliseconds(), now-sessionIdle.Milliseconds(), maxSessions-1)
		if err != nil {
			return fmt.Errorf("prune sessions: %w", err)
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO session (hash, user, made, used) VALUES (?, ?, ?, ?)`, hashOf(secret), AdminUser, now, now)
		if err != nil {
			return fmt.Errorf("open session: %w", err)
		}
		return nil
	})
}

// Session tells whose session a cookie's secret is.
func (r *Registry) Session(ctx context.Context, secret string) (Session, error) {
	var s Session
	var made, used int64
	h := hashOf(secret)
	err := r.db.Read.QueryRowContext(ctx, `SELECT u.tenant, u.name, u.must_change, s.made, s.used FROM session s JOIN user u ON u.name = s.user WHERE s.hash = ?`, h).
		Scan(&s.Tenant, &s.User, &s.MustChange, &made, &used)
	now := nowMs()
	if errors.Is(err, sql.ErrNoRows) || err == nil && (now-made > sessionLife.Milliseconds() || now-used > sessionIdle.Milliseconds()) {
		return Session{}, ErrUnknown
	}
	if err != nil {
		return Session{}, fmt.Errorf("look up session: %w", err)
	}
	if now-used > touchSession.Milliseconds() {
		if _, err := r.db.Write.ExecContext(ctx, `UPDATE session SET used = ? WHERE hash = ?`, now, h); err != nil {
			return Session{}, fmt.Errorf("touch session: %w", err)
		}
	}
	return s, nil
}

// Logout ends a session.
func (r *Registry) Logout(ctx context.Context, secret string) error {
	if _, err := r.db.Write.ExecContext(ctx, `DELETE FROM session WHERE hash = ?`, hashOf(secret)); err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	return nil
}

// SetPassword replaces the password, ends all sessions and opens a new one.
func (r *Registry) SetPassword(ctx context.Context, old, fresh string, from netip.Addr) (secret string, err error) {
	if utf8.RuneCountInString(fresh) < MinPassword || len(fresh) > maxPassword || fresh == old {
		return "", ErrWeakPassword
	}
	if err := r.verify(ctx, old, from); err != nil {
		return "", err
	}
	h := hashPassword(fresh)
	err = r.within(ctx, func(tx *sql.Tx) error {
		return errors.Join(setPassword(ctx, tx, h, false), audit.Append(ctx, tx, audit.Entry{Who: AdminUser, What: "set-password", Why: "from " + from.String()}))
	})
	if err != nil {
		return "", err
	}
	return r.openSession(ctx)
}

// Scope is what an API token may do.
type Scope string

// The scopes.
const (
	ScopeRead  Scope = "read"
	ScopeAdmin Scope = "admin"
)

const apiPrefix = "fk1_"

// NewAPIToken makes a token for programs. It is shown once and kept as a hash.
func (r *Registry) NewAPIToken(ctx context.Context, tenant string, scope Scope, life time.Duration) (string, error) {
	if scope != ScopeRead && scope != ScopeAdmin {
		return "", fmt.Errorf("scope %q: wants read or admin", scope)
	}
	if life <= 0 || life > maxAPILife {
		return "", fmt.Errorf("API token for %v: wants at most %v", life, maxAPILife)
	}
	secret := apiPrefix + newSecret256()
	return secret, r.within(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM api_token WHERE expires < ?`, nowMs()); err != nil {
			return fmt.Errorf("prune API tokens: %w", err)
		}
		if err := count(ctx, tx, "api_token", maxTokens); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO api_token (hash, tenant, scope, expires) VALUES (?, ?, ?, ?)`,
			hashOf(secret), tenant, string(scope), time.Now().Add(life).UnixMilli())
		if err != nil {
			return fmt.Errorf("keep API token: %w", err)
		}
		return audit.Append(ctx, tx, audit.Entry{
			Who: Console, Tenant: tenant, What: "api-token", Why: fmt.Sprintf("%s with scope %s, good for %v", TokenName(secret), scope, life),
		})
	})
}

// TokenName names an API token without giving it away.
func TokenName(secret string) string { return "token " + hex.EncodeToString(hashOf(secret)[:4]) }

// APIToken tells what a token may do and for which tenant.
func (r *Registry) APIToken(ctx context.Context, secret string) (tenant string, scope Scope, err error) {
	if !strings.HasPrefix(secret, apiPrefix) {
		return "", "", ErrUnknown
	}
	var expires int64
	err = r.db.Read.QueryRowContext(ctx, `SELECT tenant, scope, expires FROM api_token WHERE hash = ?`, hashOf(secret)).Scan(&tenant, &scope, &expires)
	if errors.Is(err, sql.ErrNoRows) || err == nil && expires < nowMs() {
		return "", "", ErrUnknown
	}
	if err != nil {
		return "", "", fmt.Errorf("look up API token: %w", err)
	}
	return tenant, scope, nil
}
