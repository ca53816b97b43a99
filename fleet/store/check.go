// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"

	"fulmar/fleet/web"
	"fulmar/schema"
)

// checkRows bounds the batches read for one board's sample counts.
const checkRows = 100_000

// Check is what a board has delivered, in numbers a test can compare.
type Check struct {
	Board    string            `json:"board"`
	State    web.State         `json:"state"`
	Ledger   []web.Ledger      `json:"ledger"`
	Samples  map[string]uint64 `json:"samples"`  // good readings by series
	Batches  uint64            `json:"batches"`  // sample records stored
	Events   uint64            `json:"events"`   // event records stored, anchors of clocks included
	Pictures uint64            `json:"pictures"` // whole pictures here
	Refused  uint64            `json:"refused"`  // payloads that could not be understood
	// Cut is set where there were more batches than were counted in Samples.
	Cut bool `json:"cut,omitempty"`
}

// Check counts what the boards of a tenant delivered.
func (s *Store) Check(ctx context.Context, tenant string) ([]Check, error) {
	s.Stale(tenant) // its sums are held against what is counted below: both are of now
	o, err := s.Overview(ctx, tenant)
	if err != nil {
		return nil, err
	}
	out := make([]Check, 0, len(o.Boards))
	for i := range o.Boards {
		b := &o.Boards[i]
		c := Check{Board: b.Name, State: b.State, Ledger: b.Ledger, Samples: map[string]uint64{}}
		if err := s.countBoard(ctx, tenant, &c); err != nil {
			return nil, fmt.Errorf("count records of %s: %w", b.Name, err)
		}
		out = append(out, c)
	}
	return out, nil
}

func (s *Store) countBoard(ctx context.Context, tenant string, c *Check) error {
	id, err := s.boardID(ctx, tenant, c.Board)
	if err != nil || id == 0 {
		return err
	}
	err = s.ledger.Read.QueryRowContext(ctx, `SELECT
  (SELECT count(*) FROM telemetry WHERE board = ?1), (SELECT count(*) FROM event WHERE board = ?1) + (SELECT count(*) FROM anchor WHERE board = ?1),
  (SELECT count(*) FROM snapshot WHERE board = ?1 AND has = 1), (SELECT count(*) FROM refused WHERE tenant = ?2 AND board = ?3)`,
		id, tenant, c.Board).Scan(&c.Batches, &c.Events, &c.Pictures, &c.Refused)
	if err != nil {
		return err
	}
	rows, err := s.ledger.Read.QueryContext(ctx, `SELECT payload FROM telemetry WHERE board = ? ORDER BY at DESC LIMIT ?`, id, checkRows)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // Err tells
	for rows.Next() {
		var raw []byte
		var x schema.Samples
		if err := rows.Scan(&raw); err != nil {
			return err
		}
		if err := schema.Decode(raw, &x); err != nil {
			return err
		}
		for i, name := range x.Series {
			if x.Quality == nil || x.Quality[i] == schema.QualityGood {
				c.Samples[name]++
			}
		}
	}
	c.Cut = c.Batches > checkRows
	return rows.Err()
}
