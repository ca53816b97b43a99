// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"fulmar/fleet/store"
)

// DefaultTenant is the tenant that is always there.
const DefaultTenant = "default"

// Errors that callers act upon.
var (
	// ErrUnknown: no such board, token or session, or it is no longer valid.
	ErrUnknown = errors.New("unknown or expired")
	// ErrNameTaken: a board of this name is enrolled with another key.
	ErrNameTaken = errors.New("name is taken")
	// ErrTooMany: a bound on what the registry holds is reached.
	ErrTooMany = errors.New("too many")
)

// Bounds on rows that requests can make.
const (
	maxBoards    = 50_000 // what one SQLite server is meant for
	maxTokens    = 1000   // join tokens and API tokens, each
	maxSessions  = 100    // of the one administrator
	maxTokenLife = 30 * 24 * time.Hour
	maxAPILife   = 366 * 24 * time.Hour
)

// Registry is the open registry.
type Registry struct {
	db    *store.DB
	hash  chan struct{} // bounds password hashes at one time
	tries *limiter
}

// Open opens the registry in the data folder.
func Open(dir string) (*Registry, error) {
	db, err := store.OpenFile(filepath.Join(dir, "registry.db"), migrations())
	if err != nil {
		return nil, err
	}
	return &Registry{db: db, hash: make(chan struct{}, hashers), tries: newLimiter()}, nil
}

// Close closes the registry.
func (r *Registry) Close() error { return r.db.Close() }

func migrations() []string {
	return []string{`
CREATE TABLE tenant (name TEXT PRIMARY KEY) WITHOUT ROWID;
INSERT INTO tenant VALUES ('default');
CREATE TABLE board (
  tenant TEXT NOT NULL REFERENCES tenant(name), name TEXT NOT NULL,
  key_mode TEXT NOT NULL, facts TEXT NOT NULL, key_hash BLOB NOT NULL, token_hash BLOB NOT NULL,
  serial TEXT NOT NULL, fingerprint BLOB NOT NULL, previous BLOB, -- previous: replaced certificate, good until the new one is used
  not_after INTEGER NOT NULL, enrolled_at INTEGER NOT NULL, revoked_at INTEGER,
  PRIMARY KEY (tenant, name)
) WITHOUT ROWID;
CREATE TABLE join_token (
  hash BLOB PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenant(name),
  board TEXT NOT NULL DEFAULT '', -- not empty: only for this name, which it may replace
  uses_left INTEGER NOT NULL, expires INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE user (
  name TEXT PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenant(name),
  password TEXT NOT NULL, must_change INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE session (
  hash BLOB PRIMARY KEY, user TEXT NOT NULL REFERENCES user(name) ON DELETE CASCADE,
  made INTEGER NOT NULL, used INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE api_token (
  hash BLOB PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenant(name),
  scope TEXT NOT NULL, expires INTEGER NOT NULL
) WITHOUT ROWID;
`}
}

// within runs fn in a write transaction.
func (r *Registry) within(ctx context.Context, fn func(tx *sql.Tx) error) error {
	tx, err := r.db.Write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("write registry: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it is a no-op
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("write registry: %w", err)
	}
	return nil
}

// newSecret gives 128 bits as 26 characters of lower-case base32.
func newSecret() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}

func newSecret256() string {
	var b [32]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func hashOf(secret string) []byte {
	h := sha256.Sum256([]byte(secret))
	return h[:]
}

func nowMs() int64 { return time.Now().UnixMilli() }

// count refuses to go over a bound.
func count(ctx context.Context, tx *sql.Tx, table string, limit int) error {
	var n int
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		return fmt.Errorf("count rows of %s: %w", table, err)
	}
	if n >= limit {
		return fmt.Errorf("%w: table %s holds %d rows, at most %d", ErrTooMany, table, n, limit)
	}
	return nil
}
