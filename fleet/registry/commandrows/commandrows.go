// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package commandrows keeps commands in the registry's database: beside the audit log, so
// that what a person does with a command and its entry there are one transaction. It
// knows rows alone; what they mean is for fleet/commands.
package commandrows

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

// ErrUnknown: there is no such command.
var ErrUnknown = errors.New("no such command")

// Schema makes the tables: a step of the registry's migrations. Times are ms since 1970.
const Schema = `
-- A command as it was given. counts: boards by state (JSON). local: on a board. expires 0:
-- it has none. approval: 0 none is wanted, 1 one is.
CREATE TABLE command (
  tenant TEXT NOT NULL REFERENCES tenant(name), id INTEGER NOT NULL, name TEXT NOT NULL, args BLOB NOT NULL,
  actor TEXT NOT NULL, author TEXT NOT NULL, reason TEXT NOT NULL, query TEXT NOT NULL, local INTEGER NOT NULL, dry INTEGER NOT NULL,
  given INTEGER NOT NULL, valid INTEGER NOT NULL, expires INTEGER NOT NULL,
  approval INTEGER NOT NULL, decided INTEGER NOT NULL DEFAULT 0, decider TEXT NOT NULL DEFAULT '', refused INTEGER NOT NULL DEFAULT 0, why TEXT NOT NULL DEFAULT '',
  counts TEXT NOT NULL, open INTEGER NOT NULL, -- open: boards without a last word
  PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
CREATE INDEX command_given ON command(tenant, given) WHERE open = 0;
-- A command on one board. own: its last word is the fleet's, not the board's. cancel: a
-- person wants it cancelled; target: of a cancel, the one that it is for. probe: of a
-- fleet that came from a backup: the board is asked and begins nothing.
CREATE TABLE command_board (
  id BLOB NOT NULL UNIQUE, tenant TEXT NOT NULL, command INTEGER NOT NULL, board TEXT NOT NULL,
  state TEXT NOT NULL, final INTEGER NOT NULL, own INTEGER NOT NULL DEFAULT 0, seq INTEGER NOT NULL DEFAULT 0, tries INTEGER NOT NULL DEFAULT 0,
  cancel INTEGER NOT NULL DEFAULT 0, probe INTEGER NOT NULL DEFAULT 0, target BLOB, heard INTEGER NOT NULL,
  code TEXT NOT NULL DEFAULT '', text TEXT NOT NULL DEFAULT '', value BLOB, percent INTEGER NOT NULL DEFAULT 0, events TEXT NOT NULL,
  UNIQUE (tenant, command, board), FOREIGN KEY (tenant, command) REFERENCES command(tenant, id) ON DELETE CASCADE
);
CREATE INDEX command_board_of ON command_board(tenant, board, command);
CREATE INDEX command_board_open ON command_board(command) WHERE final = 0;
-- The highest number that a command had on its way to a board. It outlives the board.
CREATE TABLE command_seq (tenant TEXT NOT NULL, board TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (tenant, board)) WITHOUT ROWID;
-- The number of the newest command, over all tenants.
CREATE TABLE command_number (one INTEGER PRIMARY KEY CHECK (one = 1), last INTEGER NOT NULL);
INSERT INTO command_number VALUES (1, 0);
`

// Approval is the word of a second person.
type Approval struct {
	Wanted  bool
	By      string // "": nobody yet
	Refused bool
	At      time.Time
	Why     string
}

// Command is a command as it was given.
type Command struct {
	Tenant  string
	ID      int64
	Name    string
	Args    []byte // CBOR
	Actor   string // as the audit log has it
	Author  string // the person behind the actor
	Reason  string
	Query   string
	Local   bool
	DryRun  bool
	Given   time.Time
	Valid   time.Duration // for how long a board may begin it, from when it is let out
	Expires time.Time     // zero: none
	Approval
	Counts map[string]int // boards by state
	Open   int            // boards without a last word
}

// Event is one step of a command on one board.
type Event struct {
	State string `json:"s"`
	At    int64  `json:"a"` // ms since 1970
	Text  string `json:"t,omitempty"`
}

// Board is a command on one board.
type Board struct {
	ID            [16]byte
	Tenant, Board string
	Command       int64
	State         string
	Final, Own    bool
	Seq           uint64
	Tries         int
	Cancel, Probe bool
	Target        [16]byte // zero: it is no cancel
	Heard         time.Time
	Code, Text    string
	Value         []byte // CBOR
	Percent       int
	Events        []Event
}

// Change is what one transaction writes.
type Change struct {
	// New are commands that are made, NewBoards their boards. Last is the newest number.
	New       []*Command
	NewBoards []*Board
	Last      int64
	// Commands and Boards are written over.
	Commands []*Command
	Boards   []*Board
	// Seqs are the highest numbers by board.
	Seqs []Seq
	// Notes go to the audit log.
	Notes []audit.Entry
}

// Seq is the highest number given out for a board.
type Seq struct {
	Tenant, Board string
	Seq           uint64
}

// Table is the tables in a database.
type Table struct{ db *store.DB }

// New gives the tables in db, whose migrations hold [Schema].
func New(db *store.DB) *Table { return &Table{db} }

func (t *Table) within(ctx context.Context, fn func(tx *sql.Tx) error) error {
	tx, err := t.db.Write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("keep commands: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it is a no-op
	if err := fn(tx); err != nil {
		return fmt.Errorf("keep commands: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("keep commands: %w", err)
	}
	return nil
}

// Write makes a change durable, or nothing of it.
func (t *Table) Write(ctx context.Context, c *Change) error {
	return t.within(ctx, func(tx *sql.Tx) error {
		for _, put := range []func(context.Context, *sql.Tx, *Change) error{putNew, putCommands, putBoards, putSeqs} {
			if err := put(ctx, tx, c); err != nil {
				return err
			}
		}
		for _, n := range c.Notes {
			if err := audit.Append(ctx, tx, n); err != nil {
				return err
			}
		}
		return nil
	})
}

// each runs fn with a prepared statement once for each of list.
func each[T any](ctx context.Context, tx *sql.Tx, q string, list []T, args func(T) ([]any, error)) error {
	if len(list) == 0 {
		return nil
	}
	st, err := tx.PrepareContext(ctx, q)
	if err != nil {
		return err
	}
	defer st.Close() //nolint:errcheck // of this transaction
	for _, x := range list {
		a, err := args(x)
		if err != nil {
			return err
		}
		if _, err := st.ExecContext(ctx, a...); err != nil {
			return err
		}
	}
	return nil
}

func putNew(ctx context.Context, tx *sql.Tx, c *Change) error {
	if len(c.New) == 0 {
		return nil
	}
	if _, err := tx.ExecContext(ctx, `UPDATE command_number SET last = max(last, ?)`, c.Last); err != nil {
		return err
	}
	err := each(ctx, tx, `INSERT INTO command (tenant, id, name, args, actor, author, reason, query, local, dry, given, valid, expires, approval, decided, decider, refused, why, counts, open)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, c.New, func(x *Command) ([]any, error) {
		counts, err := json.Marshal(x.Counts)
		return []any{
			x.Tenant, x.ID, x.Name, append([]byte{}, x.Args...), x.Actor, x.Author, x.Reason, x.Query, x.Local, x.DryRun, ms(x.Given), x.Valid.Milliseconds(), ms(x.Expires),
			x.Wanted, ms(x.At), x.By, x.Refused, x.Why, string(counts), x.Open,
		}, err
	})
	if err != nil {
		return err
	}
	return each(ctx, tx, `INSERT INTO command_board (id, tenant, command, board, state, final, own, seq, tries, cancel, probe, target, heard, code, text, value, percent, events)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, c.NewBoards, func(b *Board) ([]any, error) {
		events, err := json.Marshal(b.Events)
		return []any{
			b.ID[:], b.Tenant, b.Command, b.Board, b.State, b.Final, b.Own, int64(b.Seq), b.Tries, b.Cancel, b.Probe, target(b), ms(b.Heard), b.Code, b.Text, b.Value, b.Percent, string(events),
		}, err
	})
}

func target(b *Board) []byte {
	if b.Target == ([16]byte{}) {
		return nil
	}
	return b.Target[:]
}

func putCommands(ctx context.Context, tx *sql.Tx, c *Change) error {
	return each(ctx, tx, `UPDATE command SET expires = ?, decided = ?, decider = ?, refused = ?, why = ?, counts = ?, open = ? WHERE tenant = ? AND id = ?`, c.Commands, func(x *Command) ([]any, error) {
		counts, err := json.Marshal(x.Counts)
		return []any{ms(x.Expires), ms(x.At), x.By, x.Refused, x.Why, string(counts), x.Open, x.Tenant, x.ID}, err
	})
}

func putBoards(ctx context.Context, tx *sql.Tx, c *Change) error {
	return each(ctx, tx, `UPDATE command_board SET state = ?, final = ?, own = ?, seq = ?, tries = ?, cancel = ?, probe = ?, heard = ?, code = ?, text = ?, value = ?, percent = ?, events = ? WHERE id = ?`,
		c.Boards, func(b *Board) ([]any, error) {
			events, err := json.Marshal(b.Events)
			return []any{b.State, b.Final, b.Own, int64(b.Seq), b.Tries, b.Cancel, b.Probe, ms(b.Heard), b.Code, b.Text, b.Value, b.Percent, string(events), b.ID[:]}, err
		})
}

func putSeqs(ctx context.Context, tx *sql.Tx, c *Change) error {
	return each(ctx, tx, `INSERT INTO command_seq (tenant, board, seq) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET seq = max(seq, excluded.seq)`, c.Seqs, func(s Seq) ([]any, error) {
		return []any{s.Tenant, s.Board, int64(s.Seq)}, nil
	})
}

// ms is a moment in milliseconds since 1970, 0 for the zero time.
func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func at(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
