// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package rollouts keeps rollouts in the registry's database: beside the audit log, so
// that a step and its entry there are one transaction. It knows rows alone; what they
// mean is for fleet/rollout.
package rollouts

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"fulmar/fleet/audit"
	"fulmar/fleet/store"
)

// Bounds on what is kept of a tenant.
const (
	// maxRollouts is how many are kept; older ones that are over go with their boards.
	// One a day for three years.
	maxRollouts = 1000
	// maxSteps is how many steps of one rollout are kept, the newest ones. Rollouts of
	// 20 waves have about 100; a person who pauses and resumes for hours adds to them.
	maxSteps = 5000
)

// ErrUnknown: there is no such rollout.
var ErrUnknown = errors.New("no such rollout")

// ErrClaimed: a board is in another rollout of the same component.
var ErrClaimed = errors.New("board is in another rollout")

// Schema makes the tables: a step of the registry's migrations. Times are ms since 1970.
const Schema = `
-- Rollouts: spec is what was planned, head how far it is (JSON), plan the boards as they
-- were planned, in one piece; those that have moved since are in rollout_board.
CREATE TABLE rollout (
  tenant TEXT NOT NULL REFERENCES tenant(name), id INTEGER NOT NULL, version INTEGER NOT NULL, over INTEGER NOT NULL,
  spec BLOB NOT NULL, head BLOB NOT NULL, PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
CREATE TABLE rollout_plan (
  tenant TEXT NOT NULL, id INTEGER NOT NULL, boards BLOB NOT NULL,
  PRIMARY KEY (tenant, id), FOREIGN KEY (tenant, id) REFERENCES rollout(tenant, id) ON DELETE CASCADE
);
CREATE TABLE rollout_board (
  tenant TEXT NOT NULL, id INTEGER NOT NULL, n INTEGER NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (tenant, id, n), FOREIGN KEY (tenant, id) REFERENCES rollout(tenant, id) ON DELETE CASCADE
) WITHOUT ROWID;
-- What happened, step by step, and how each attempt of a board ended. Rows are only added.
CREATE TABLE rollout_step (
  tenant TEXT NOT NULL, id INTEGER NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, who TEXT NOT NULL,
  was TEXT NOT NULL, became TEXT NOT NULL, say TEXT NOT NULL,
  PRIMARY KEY (tenant, id, seq), FOREIGN KEY (tenant, id) REFERENCES rollout(tenant, id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE rollout_attempt (
  tenant TEXT NOT NULL, id INTEGER NOT NULL, board TEXT NOT NULL, attempt INTEGER NOT NULL, at INTEGER NOT NULL,
  state TEXT NOT NULL, say TEXT NOT NULL,
  PRIMARY KEY (tenant, id, board, attempt, at, state), FOREIGN KEY (tenant, id) REFERENCES rollout(tenant, id) ON DELETE CASCADE
) WITHOUT ROWID;
-- One rollout at a time for each component of a board. Not active: the last one that had it.
CREATE TABLE rollout_claim (
  tenant TEXT NOT NULL, component TEXT NOT NULL, board TEXT NOT NULL, id INTEGER NOT NULL, active INTEGER NOT NULL,
  PRIMARY KEY (tenant, component, board)
) WITHOUT ROWID;
-- Numbers of rollouts and of attempts: they rise for ever, over all tenants.
CREATE TABLE rollout_number (one INTEGER PRIMARY KEY CHECK (one = 1), last INTEGER NOT NULL, epoch INTEGER NOT NULL);
INSERT INTO rollout_number VALUES (1, 0, 0);
`

// Row is one rollout.
type Row struct {
	Tenant     string
	ID         int64
	Version    int64
	Over       bool
	Spec, Head []byte
}

// Board is one board's row.
type Board struct {
	N    int
	Body []byte
}

// Step is one step of its history.
type Step struct {
	At            time.Time
	Who, Was, Now string
	Say           string
}

// Attempt is how an attempt of a board ended.
type Attempt struct {
	Board   string
	Attempt uint64
	At      time.Time
	State   string
	Say     string
}

// Change is what one transaction writes.
type Change struct {
	Row      Row
	Plan     []byte // of Create: the boards as planned
	Boards   []Board
	Steps    []Step
	Attempts []Attempt
	// Claim takes these boards for Component, Release lets all go that the rollout has.
	Component string
	Claim     []string
	Release   bool
	// Note is a word for the audit log beside those of the steps; "" none.
	Note, Who string
	// Tell is called last, in the same transaction; nil: nothing is.
	Tell func(ctx context.Context, tx *sql.Tx) error
}

// Table is the tables in a database.
type Table struct{ db *store.DB }

// New gives the tables in db, whose migrations hold [Schema].
func New(db *store.DB) *Table { return &Table{db} }

func (t *Table) within(ctx context.Context, fn func(tx *sql.Tx) error) error {
	tx, err := t.db.Write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("keep rollout: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it is a no-op
	if err := fn(tx); err != nil {
		return fmt.Errorf("keep rollout: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("keep rollout: %w", err)
	}
	return nil
}

// lostEpochs is how many numbers a restored registry passes over: what was given out after
// its backup, a rollout a minute for two years. 24 bits of an attempt are its counter, so
// there is room for half a million restores.
const lostEpochs = 1 << 20

// Restored lets attempts go on above those that were given after the backup and are not
// known here: boards do nothing of an attempt that is not above all they have seen.
func Restored(ctx context.Context, tx *sql.Tx) error {
	if _, err := tx.ExecContext(ctx, `UPDATE rollout_number SET epoch = epoch + ?`, lostEpochs); err != nil {
		return fmt.Errorf("settle the restored rollouts: %w", err)
	}
	return nil
}

// Epoch gives a number that no rollout was given before.
func (t *Table) Epoch(ctx context.Context) (n uint64, err error) {
	err = t.within(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `UPDATE rollout_number SET epoch = epoch + 1 RETURNING epoch`).Scan(&n)
	})
	return n, err
}

// Create keeps a new rollout. fill is called with its number and gives what to write.
func (t *Table) Create(ctx context.Context, tenant string, fill func(id int64) (Change, error)) error {
	return t.within(ctx, func(tx *sql.Tx) error {
		var id int64
		if err := tx.QueryRowContext(ctx, `UPDATE rollout_number SET last = last + 1 RETURNING last`).Scan(&id); err != nil {
			return err
		}
		c, err := fill(id)
		if err != nil {
			return err
		}
		c.Row.ID, c.Row.Tenant = id, tenant
		_, err = tx.ExecContext(ctx, `INSERT INTO rollout (tenant, id, version, over, spec, head) VALUES (?, ?, ?, ?, ?, ?)`, tenant, id, c.Row.Version, c.Row.Over, c.Row.Spec, c.Row.Head)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO rollout_plan (tenant, id, boards) VALUES (?, ?, ?)`, tenant, id, c.Plan); err != nil {
			return err
		}
		if err := prune(ctx, tx, tenant); err != nil {
			return err
		}
		return write(ctx, tx, c)
	})
}

// prune drops the oldest rollouts that are over.
func prune(ctx context.Context, tx *sql.Tx, tenant string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM rollout WHERE tenant = ?1 AND over = 1 AND id IN (
  SELECT id FROM rollout WHERE tenant = ?1 ORDER BY id DESC LIMIT -1 OFFSET ?2)`, tenant, maxRollouts)
	return err
}

// Save writes what has changed of a rollout.
func (t *Table) Save(ctx context.Context, c Change) error {
	return t.within(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE rollout SET version = ?, over = ?, head = ? WHERE tenant = ? AND id = ?`, c.Row.Version, c.Row.Over, c.Row.Head, c.Row.Tenant, c.Row.ID)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n != 1 {
			return errors.Join(fmt.Errorf("%w: r-%d", ErrUnknown, c.Row.ID), err)
		}
		return write(ctx, tx, c)
	})
}

func write(ctx context.Context, tx *sql.Tx, c Change) error {
	tenant, id := c.Row.Tenant, c.Row.ID
	for _, put := range []func(context.Context, *sql.Tx, Change) error{putBoards, putSteps, putAttempts, putClaims} {
		if err := put(ctx, tx, c); err != nil {
			return err
		}
	}
	if c.Note != "" {
		err := audit.Append(ctx, tx, audit.Entry{Who: c.Who, Tenant: tenant, What: "rollout", Why: fmt.Sprintf("r-%d: %s", id, c.Note)})
		if err != nil {
			return err
		}
	}
	if c.Tell == nil {
		return nil
	}
	return c.Tell(ctx, tx)
}

func putBoards(ctx context.Context, tx *sql.Tx, c Change) error {
	if len(c.Boards) == 0 {
		return nil
	}
	st, err := tx.PrepareContext(ctx, `INSERT OR REPLACE INTO rollout_board (tenant, id, n, body) VALUES (?, ?, ?, ?)`)
	if err != nil {
		return err
	}
	defer st.Close() //nolint:errcheck // of this transaction
	for _, b := range c.Boards {
		if _, err := st.ExecContext(ctx, c.Row.Tenant, c.Row.ID, b.N, b.Body); err != nil {
			return err
		}
	}
	return nil
}

// putSteps adds steps and the entries of the audit log that belong to them.
func putSteps(ctx context.Context, tx *sql.Tx, c Change) error {
	tenant, id := c.Row.Tenant, c.Row.ID
	for _, s := range c.Steps {
		var seq int64
		err := tx.QueryRowContext(ctx, `INSERT INTO rollout_step (tenant, id, seq, at, who, was, became, say)
SELECT ?1, ?2, coalesce(max(seq), 0) + 1, ?3, ?4, ?5, ?6, ?7 FROM rollout_step WHERE tenant = ?1 AND id = ?2 RETURNING seq`,
			tenant, id, s.At.UnixMilli(), s.Who, s.Was, s.Now, s.Say).Scan(&seq)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM rollout_step WHERE tenant = ? AND id = ? AND seq <= ?`, tenant, id, seq-maxSteps); err != nil {
			return err
		}
		err = audit.Append(ctx, tx, audit.Entry{Who: s.Who, Tenant: tenant, What: "rollout " + s.Now, Why: fmt.Sprintf("r-%d: %s", id, s.Say)})
		if err != nil {
			return err
		}
	}
	return nil
}

func putAttempts(ctx context.Context, tx *sql.Tx, c Change) error {
	for _, a := range c.Attempts {
		_, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO rollout_attempt (tenant, id, board, attempt, at, state, say) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			c.Row.Tenant, c.Row.ID, a.Board, int64(a.Attempt), a.At.UnixMilli(), a.State, a.Say)
		if err != nil {
			return err
		}
	}
	return nil
}

func putClaims(ctx context.Context, tx *sql.Tx, c Change) error {
	tenant, id := c.Row.Tenant, c.Row.ID
	if c.Release {
		if _, err := tx.ExecContext(ctx, `UPDATE rollout_claim SET active = 0 WHERE tenant = ? AND component = ? AND id = ?`, tenant, c.Component, id); err != nil {
			return err
		}
	}
	if len(c.Claim) == 0 {
		return nil
	}
	list, err := json.Marshal(c.Claim)
	if err != nil {
		return err
	}
	// WHERE true keeps SQLite's parser from taking ON for a join.
	res, err := tx.ExecContext(ctx, `INSERT INTO rollout_claim (tenant, component, board, id, active)
SELECT ?1, ?2, value, ?3, 1 FROM json_each(?4) WHERE true
ON CONFLICT DO UPDATE SET id = ?3, active = 1 WHERE active = 0 OR id = ?3`, tenant, c.Component, id, string(list))
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n != int64(len(c.Claim)) {
		return errors.Join(fmt.Errorf("%w: %d of %d boards", ErrClaimed, int64(len(c.Claim))-n, len(c.Claim)), err)
	}
	return nil
}
