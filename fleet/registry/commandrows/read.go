// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commandrows

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
)

const (
	commandColumns = `c.tenant, c.id, c.name, c.args, c.actor, c.author, c.reason, c.query, c.local, c.dry, c.given, c.valid, c.expires, c.approval, c.decided, c.decider, c.refused, c.why, c.counts, c.open`
	boardColumns   = `b.id, b.tenant, b.command, b.board, b.state, b.final, b.own, b.seq, b.tries, b.cancel, b.probe, b.target, b.heard, b.code, b.text, b.value, b.percent, b.events`
)

// Filter narrows a list of commands.
type Filter struct {
	Board  string // only those for this board
	State  string // only those that have a board in this state
	Before int64  // only older ones than this number; 0: from the newest
	Limit  int
}

// rows runs a query and calls fn for each row of it.
func (t *Table) rows(ctx context.Context, q string, args []any, fn func(scan func(...any) error) error) error {
	rows, err := t.db.Read.QueryContext(ctx, q, args...)
	if err != nil {
		return fmt.Errorf("read commands: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	for rows.Next() {
		if err := fn(rows.Scan); err != nil {
			return fmt.Errorf("read commands: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read commands: %w", err)
	}
	return nil
}

func scanCommand(scan func(...any) error, more ...any) (*Command, error) {
	c := new(Command)
	var given, valid, expires, decided int64
	var counts string
	err := scan(append([]any{
		&c.Tenant, &c.ID, &c.Name, &c.Args, &c.Actor, &c.Author, &c.Reason, &c.Query, &c.Local, &c.DryRun, &given, &valid, &expires,
		&c.Wanted, &decided, &c.By, &c.Refused, &c.Why, &counts, &c.Open,
	}, more...)...)
	if err != nil {
		return nil, err
	}
	c.Given, c.Expires, c.At, c.Valid = at(given), at(expires), at(decided), millis(valid)
	return c, json.Unmarshal([]byte(counts), &c.Counts)
}

func scanBoard(scan func(...any) error, more ...any) (*Board, error) {
	b := new(Board)
	var id, target []byte
	var seq, heard int64
	var events string
	err := scan(append([]any{
		&id, &b.Tenant, &b.Command, &b.Board, &b.State, &b.Final, &b.Own, &seq, &b.Tries, &b.Cancel, &b.Probe, &target, &heard, &b.Code, &b.Text, &b.Value, &b.Percent, &events,
	}, more...)...)
	if err != nil {
		return nil, err
	}
	copy(b.ID[:], id)
	copy(b.Target[:], target)
	b.Seq, b.Heard = uint64(seq), at(heard)
	return b, json.Unmarshal([]byte(events), &b.Events)
}

// Open reads all boards without a last word, in the order in which their commands were
// given, and those commands.
func (t *Table) Open(ctx context.Context) (commands []*Command, boards []*Board, err error) {
	err = t.rows(ctx, `SELECT `+commandColumns+` FROM command c WHERE c.open > 0 ORDER BY c.id`, nil, func(scan func(...any) error) error {
		c, err := scanCommand(scan)
		commands = append(commands, c)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	err = t.rows(ctx, `SELECT `+boardColumns+` FROM command_board b WHERE b.final = 0 ORDER BY b.command`, nil, func(scan func(...any) error) error {
		b, err := scanBoard(scan)
		boards = append(boards, b)
		return err
	})
	return commands, boards, err
}

// Numbers gives the newest number of a command, and the highest that each board was sent.
func (t *Table) Numbers(ctx context.Context) (last int64, seqs []Seq, err error) {
	if err := t.db.Read.QueryRowContext(ctx, `SELECT last FROM command_number`).Scan(&last); err != nil {
		return 0, nil, fmt.Errorf("read commands: %w", err)
	}
	err = t.rows(ctx, `SELECT tenant, board, seq FROM command_seq`, nil, func(scan func(...any) error) error {
		var s Seq
		var n int64
		err := scan(&s.Tenant, &s.Board, &n)
		s.Seq = uint64(n)
		seqs = append(seqs, s)
		return err
	})
	return last, seqs, err
}

// Get gives one command.
func (t *Table) Get(ctx context.Context, tenant string, id int64) (*Command, error) {
	c, err := scanCommand(t.db.Read.QueryRowContext(ctx, `SELECT `+commandColumns+` FROM command c WHERE c.tenant = ? AND c.id = ?`, tenant, id).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrUnknown
	}
	if err != nil {
		return nil, fmt.Errorf("read commands: %w", err)
	}
	return c, nil
}

// Find gives the command on one board that an id names, of whatever tenant.
func (t *Table) Find(ctx context.Context, id [16]byte) (*Board, error) {
	b, err := scanBoard(t.db.Read.QueryRowContext(ctx, `SELECT `+boardColumns+` FROM command_board b WHERE b.id = ?`, id[:]).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrUnknown
	}
	if err != nil {
		return nil, fmt.Errorf("read commands: %w", err)
	}
	return b, nil
}

// List gives a tenant's commands, newest first.
func (t *Table) List(ctx context.Context, tenant string, f Filter) (out []*Command, err error) {
	q, args := `SELECT `+commandColumns+` FROM command c WHERE c.tenant = ?1 AND (?2 = 0 OR c.id < ?2)`, []any{tenant, f.Before, f.Limit}
	switch {
	case f.Board != "" && f.State != "":
		q, args = q+` AND EXISTS (SELECT 1 FROM command_board b WHERE b.tenant = c.tenant AND b.command = c.id AND b.board = ?4 AND b.state = ?5)`, append(args, f.Board, f.State)
	case f.Board != "":
		q, args = q+` AND c.id IN (SELECT b.command FROM command_board b WHERE b.tenant = ?1 AND b.board = ?4)`, append(args, f.Board)
	case f.State != "":
		q, args = q+` AND json_extract(c.counts, '$."' || ?4 || '"') > 0`, append(args, f.State)
	}
	err = t.rows(ctx, q+` ORDER BY c.id DESC LIMIT ?3`, args, func(scan func(...any) error) error {
		c, err := scanCommand(scan)
		out = append(out, c)
		return err
	})
	return out, err
}

// Boards gives the boards of a command: those without a last word first, then those that
// are not done, then by name; at most limit.
func (t *Table) Boards(ctx context.Context, tenant string, id int64, limit int) (out []*Board, err error) {
	err = t.rows(ctx, `SELECT `+boardColumns+` FROM command_board b WHERE b.tenant = ? AND b.command = ?
ORDER BY b.final, b.state = 'done', b.board LIMIT ?`, []any{tenant, id, limit}, func(scan func(...any) error) error {
		b, err := scanBoard(scan)
		out = append(out, b)
		return err
	})
	return out, err
}

// errEnough ends a walk.
var errEnough = errors.New("enough")

// Names calls fn with the name of each board of a command until it says no.
func (t *Table) Names(ctx context.Context, tenant string, id int64, fn func(board string) bool) error {
	err := t.rows(ctx, `SELECT board FROM command_board WHERE tenant = ? AND command = ?`, []any{tenant, id}, func(scan func(...any) error) error {
		var name string
		if err := scan(&name); err != nil {
			return err
		}
		if !fn(name) {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// Of gives the commands of one board, newest first, each with that board's row.
func (t *Table) Of(ctx context.Context, tenant, board string, before int64, limit int) (commands []*Command, boards []*Board, err error) {
	err = t.rows(ctx, `SELECT `+boardColumns+` FROM command_board b WHERE b.tenant = ?1 AND b.board = ?2 AND (?3 = 0 OR b.command < ?3) ORDER BY b.command DESC LIMIT ?4`,
		[]any{tenant, board, before, limit}, func(scan func(...any) error) error {
			b, err := scanBoard(scan)
			boards = append(boards, b)
			return err
		})
	for _, b := range boards {
		if err != nil {
			break
		}
		var c *Command
		c, err = t.Get(ctx, tenant, b.Command)
		commands = append(commands, c)
	}
	return commands, boards, err
}
