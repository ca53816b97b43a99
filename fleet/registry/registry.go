// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base32"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"fulmar/fleet/audit"
	"fulmar/fleet/registry/accounts"
	"fulmar/fleet/registry/commandrows"
	"fulmar/fleet/registry/idem"
	"fulmar/fleet/registry/meta"
	"fulmar/fleet/registry/proofs"
	"fulmar/fleet/registry/releaserows"
	"fulmar/fleet/registry/rollouts"
	"fulmar/fleet/registry/rolls"
	"fulmar/fleet/registry/twinrows"
	"fulmar/fleet/store"
)

// DefaultTenant is the tenant that is always there.
const DefaultTenant = accounts.DefaultTenant

// Console is who acts on the data folder, in the audit log: the rights of its files are
// the authority.
const Console = accounts.Console

// Errors that callers act upon.
var (
	// ErrUnknown: no such board, token or session, or it is no longer valid.
	ErrUnknown = errors.New("unknown or expired")
	// ErrNameTaken: a board of this name is enrolled with another key.
	ErrNameTaken = errors.New("name is taken")
	// ErrRevoked: the board, its TPM or its key was revoked.
	ErrRevoked = errors.New("revoked")
	// ErrOtherKey: a key in a TPM is renewed with that key alone.
	ErrOtherKey = errors.New("another key than the one proven to be in the TPM")
	// ErrRefused: a person refused the board's request.
	ErrRefused = errors.New("refused by a person")
	// ErrElsewhere: the TPM or the key is that of a board with another name.
	ErrElsewhere = errors.New("its TPM or key is that of another board")
	// ErrTooMany: a bound on what the registry holds is reached.
	ErrTooMany = errors.New("too many")
)

// Bounds on rows that requests can make.
const (
	maxBoards    = 50_000 // what one SQLite server is meant for
	maxTokens    = 1000   // join tokens
	maxTokenLife = 30 * 24 * time.Hour
	// maxRequests bounds the boards that wait for a person, who can look through no
	// more; maxFrom those of one address: a site behind one, with room to spare.
	maxRequests = 1000
	maxFrom     = 300
	// requestLife is how long a request stays that is not asked again, and a decision.
	requestLife = 24 * time.Hour
	// shutLife is how long a server may take to hear of a board that was shut out; it
	// looks each second.
	shutLife = 24 * time.Hour
)

// Registry is the open registry.
type Registry struct {
	db  *store.DB
	who *accounts.Accounts
}

// Open opens the registry in the data folder.
func Open(dir string) (*Registry, error) {
	db, err := store.OpenFile(filepath.Join(dir, "registry.db"), migrations())
	if err != nil {
		return nil, err
	}
	return &Registry{db: db, who: accounts.New(db)}, nil
}

// Audit reads the log of who did what to which board.
func (r *Registry) Audit() *audit.Log { return audit.New(r.db) }

// Accounts keeps who may come in: people and programs.
func (r *Registry) Accounts() *accounts.Accounts { return r.who }

// Proofs keeps the boards' attestations.
func (r *Registry) Proofs() *proofs.Table { return proofs.New(r.db) }

// Database is the registry's file, for the parts of the fleet whose tables it holds:
// what belongs into one transaction with the audit log.
func (r *Registry) Database() *store.DB { return r.db }

// Meta keeps what people say of boards, and saved queries.
func (r *Registry) Meta() *meta.Metas { return meta.New(r.db) }

// Rollouts keeps the rollouts.
func (r *Registry) Rollouts() *rollouts.Table { return rollouts.New(r.db) }

// Twins keeps the fleet's side of the boards' twins.
func (r *Registry) Twins() *twinrows.Table { return twinrows.New(r.db) }

// Commands keeps commands to boards.
func (r *Registry) Commands() *commandrows.Table { return commandrows.New(r.db) }

// Releases keeps releases, and what boards were told and have committed of them.
func (r *Registry) Releases() *releaserows.Table { return releaserows.New(r.db) }

// Roll gives a number that changes with what is known of boards, their proofs and their
// requests, whoever changed it.
func (r *Registry) Roll(ctx context.Context) (int64, error) { return rolls.Count(ctx, r.db.Read) }

// Requests keeps what requests of the API with an Idempotency-Key were answered.
func (r *Registry) Requests() *idem.Table { return idem.New(r.db) }

// Note writes a row of the audit log that is of no act on the registry.
func (r *Registry) Note(ctx context.Context, e audit.Entry) error {
	return r.within(ctx, func(tx *sql.Tx) error { return audit.Append(ctx, tx, e) })
}

// Close closes the registry.
func (r *Registry) Close() error { return r.db.Close() }

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
