// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"fulmar/fleet/store/look"
	"fulmar/fleet/web"
)

// Enrolled is a board as the registry knows it.
type Enrolled = look.Enrolled

// What the fleet itself reports about a board, beside what the board does.
const (
	SubjectVersion    = look.SubjectVersion
	SubjectUnreadable = look.SubjectUnreadable
)

// Store answers questions about what boards have said.
type Store struct {
	ledger  *DB
	look    *look.Look
	picture func(tenant, board, name string) (*os.File, error)
}

var _ web.Source = (*Store)(nil)

// New makes a store over the ledger; enrolled lists the boards of a tenant and never
// changes a list it gave,
// picture opens a whole picture (fs.ErrNotExist where there is none).
func New(ledger *DB, enrolled func(context.Context, string) ([]Enrolled, error), picture func(tenant, board, name string) (*os.File, error)) *Store {
	return &Store{ledger: ledger, picture: picture, look: look.New(look.Config{
		Read: ledger.Read, Live: &ledger.Live, Version: ledger.Version, Enrolled: enrolled,
	})}
}

// Overview implements [web.Source]: the newest snapshot, at most a second old. It is
// shared by all who ask, and nobody may change anything in it.
func (s *Store) Overview(ctx context.Context, tenant string) (*web.Overview, error) {
	return s.look.Overview(ctx, tenant)
}

// Stale has the next Overview of a tenant made anew, whatever the age of the last: for who
// has just changed something in the registry and looks whether it is there.
func (s *Store) Stale(tenant string) { s.look.Stale(tenant) }

// Board gives one board of the newest snapshot; web.ErrNotFound for one nobody knows.
func (s *Store) Board(ctx context.Context, tenant, board string) (*web.Board, error) {
	o, err := s.look.Overview(ctx, tenant)
	if err != nil {
		return nil, err
	}
	if b := look.Find(o, board); b != nil {
		return b, nil
	}
	return nil, web.ErrNotFound
}

// at turns ms since 1970 into a time; 0 is the zero time.
func at(ms int64) time.Time { return look.When(ms) }

// Picture implements [web.Source].
func (s *Store) Picture(ctx context.Context, tenant, board, blob string) (io.ReadSeekCloser, error) {
	var n int
	err := s.ledger.Read.QueryRowContext(ctx, `SELECT count(*) FROM snapshot s JOIN board b ON b.id = s.board
WHERE b.tenant = ? AND b.name = ? AND s.name = ? AND s.has = 1`, tenant, board, blob).Scan(&n)
	if err != nil {
		return nil, fmt.Errorf("look up picture: %w", err)
	}
	if n == 0 {
		return nil, web.ErrNotFound
	}
	f, err := s.picture(tenant, board, blob)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, web.ErrNotFound // evicted between the two
	}
	if err != nil {
		return nil, fmt.Errorf("open picture: %w", err)
	}
	return f, nil
}
