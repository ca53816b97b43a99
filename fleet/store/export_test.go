// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"time"

	"fulmar/fleet/store/look"
	"fulmar/fleet/web"
)

// SeriesAt is Series with the rollup chosen by the test.
func (s *Store) SeriesAt(ctx context.Context, q web.SeriesQuery, level int64) ([]web.Series, error) {
	return s.seriesAt(ctx, q, level)
}

// Migrations are the steps of the ledger.
func Migrations() []string { return ledgerMigrations() }

// Eager makes each Overview a new one.
func (s *Store) Eager() *Store {
	s.look.SetEvery(0)
	return s
}

// SetEvery sets how old a snapshot may be.
func (s *Store) SetEvery(d time.Duration) { s.look.SetEvery(d) }

// AtTime is a store beside this one, at another time.
func (s *Store) AtTime(now func() time.Time) *Store {
	list := func(context.Context, string) ([]Enrolled, error) { return nil, nil }
	return &Store{ledger: s.ledger, look: look.New(look.Config{
		Read: s.ledger.Read, Live: &s.ledger.Live, Version: s.ledger.Version, Enrolled: list, Now: now,
	})}
}
