// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"

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
