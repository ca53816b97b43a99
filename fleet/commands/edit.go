// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"maps"
	"slices"
	"time"

	"fulmar/command"
	"fulmar/fleet/audit"
	"fulmar/fleet/commands/stage"
	"fulmar/fleet/registry/commandrows"
	"fulmar/schema/rest"
)

// edit is a change of commands that becomes one transaction. It works on copies: where
// it cannot be stored, nothing has happened. c.mu is held from its making to its end.
type edit struct {
	c      *Commands
	now    time.Time
	heads  map[number]*commandrows.Command
	boards map[command.ID]*commandrows.Board
	fresh  map[command.ID]bool // boards that are not stored yet
	// touched are what differs from what is stored.
	touched struct {
		heads  map[*commandrows.Command]bool
		boards map[*commandrows.Board]bool
	}
	change commandrows.Change
}

func (c *Commands) edit() *edit {
	e := &edit{
		c: c, now: time.Now().UTC().Truncate(time.Millisecond), heads: map[number]*commandrows.Command{}, boards: map[command.ID]*commandrows.Board{},
		fresh: map[command.ID]bool{}, change: commandrows.Change{Last: c.last},
	}
	e.touched.heads, e.touched.boards = map[*commandrows.Command]bool{}, map[*commandrows.Board]bool{}
	return e
}

// head gives a command to be changed.
func (e *edit) head(ctx context.Context, tenant string, id int64) (*commandrows.Command, error) {
	n := number{tenant, id}
	if h := e.heads[n]; h != nil {
		return h, nil
	}
	was := e.c.heads[n]
	if was == nil { // of which all boards have had their last word
		var err error
		if was, err = e.c.cfg.Rows.Get(ctx, tenant, id); err != nil {
			return nil, err
		}
	}
	h := *was
	h.Counts = maps.Clone(was.Counts)
	e.heads[n] = &h
	return &h, nil
}

// board gives a row to be changed.
func (e *edit) board(was *commandrows.Board) *commandrows.Board {
	if b := e.boards[was.ID]; b != nil {
		return b
	}
	b := *was
	b.Events = slices.Clone(was.Events)
	e.boards[was.ID] = &b
	return &b
}

// make adds a command. Its boards follow by give.
func (e *edit) make(h *commandrows.Command) {
	e.change.Last++
	h.ID, h.Counts = e.change.Last, map[string]int{}
	e.heads[number{h.Tenant, h.ID}] = h
	e.change.New = append(e.change.New, h)
	e.touched.heads[h] = true
}

// give adds a board to a command that was just made.
func (e *edit) give(h *commandrows.Command, board string, id command.ID, state, text string) *commandrows.Board {
	b := &commandrows.Board{ID: id, Tenant: h.Tenant, Board: board, Command: h.ID, State: state, Heard: e.now}
	stage.Note(b, state, text, e.now)
	h.Counts[state]++
	h.Open++
	e.boards[id], e.fresh[id] = b, true
	e.change.NewBoards = append(e.change.NewBoards, b)
	return b
}

// move brings a row that the edit holds into another state.
func (e *edit) move(ctx context.Context, b *commandrows.Board, state, text string) error {
	h, err := e.head(ctx, b.Tenant, b.Command)
	if err != nil {
		return err
	}
	if h.Counts[b.State]--; h.Counts[b.State] <= 0 {
		delete(h.Counts, b.State)
	}
	h.Counts[state]++
	if final := rest.CommandFinal(state); final && !b.Final {
		b.Final = true
		h.Open--
	}
	b.State = state
	stage.Note(b, state, text, e.now)
	e.touched.heads[h], e.touched.boards[b] = true, true
	return nil
}

// end gives a row a last word that is the fleet's own.
func (e *edit) end(ctx context.Context, b *commandrows.Board, state, code, text string) error {
	b.Own, b.Code, b.Text = true, code, text
	return e.move(ctx, b, state, text)
}

// audit adds an entry for the audit log.
func (e *edit) audit(who, tenant, board, what, why string) {
	e.change.Notes = append(e.change.Notes, audit.Entry{Who: who, Tenant: tenant, Board: board, What: what, Why: why})
}

// save stores the edit, and only then takes it into memory.
func (e *edit) save(ctx context.Context) error {
	made := map[*commandrows.Command]bool{}
	for _, h := range e.change.New {
		made[h] = true
	}
	for h := range e.touched.heads {
		if !made[h] {
			e.change.Commands = append(e.change.Commands, h)
		}
	}
	for b := range e.touched.boards {
		if !e.fresh[b.ID] {
			e.change.Boards = append(e.change.Boards, b)
		}
	}
	if len(e.change.New)+len(e.change.Commands)+len(e.change.Boards)+len(e.change.Seqs) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	if err := e.c.cfg.Rows.Write(ctx, &e.change); err != nil {
		return err
	}
	e.c.last = e.change.Last
	for _, s := range e.change.Seqs {
		k := key{s.Tenant, s.Board}
		e.c.seqs[k] = max(e.c.seqs[k], s.Seq)
	}
	for h := range e.touched.heads {
		n := number{h.Tenant, h.ID}
		if have := e.c.heads[n]; have != nil {
			*have = *h // the items point to it
		} else if h.Open > 0 {
			e.c.heads[n] = h
		}
		if h.Open == 0 {
			delete(e.c.heads, n)
		}
	}
	for _, b := range e.change.NewBoards { // in order
		if !b.Final {
			e.c.add(e.c.heads[number{b.Tenant, b.Command}], b)
		}
	}
	for b := range e.touched.boards {
		it := e.c.items[b.ID]
		switch {
		case it == nil:
		case b.Final:
			e.c.drop(b.ID)
		default:
			it.Board = b
			e.c.due[key{b.Tenant, b.Board}] = struct{}{}
		}
	}
	return nil
}
