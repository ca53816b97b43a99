// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"fulmar/command"
	"fulmar/fleet/commands/stage"
	"fulmar/fleet/registry/commandrows"
	"fulmar/schema/rest"
)

// Report takes a board's word on a command; it returns once that is stored, and gives an
// error where it is not: the board says it again.
func (c *Commands) Report(ctx context.Context, tenant, board string, r command.Report) error {
	if err := r.Validate(); err != nil {
		return err
	}
	done := make(chan error, 1)
	select {
	case c.words <- word{key{tenant, board}, &r, done}:
	case <-c.ended:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-c.ended:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// take stores boards' words, as many as wait, in one transaction.
func (c *Commands) take(ctx context.Context, first word) {
	batch := []word{first}
	for len(batch) < maxBatch {
		select {
		case w := <-c.words:
			batch = append(batch, w)
			continue
		default:
		}
		break
	}
	c.mu.Lock()
	e := c.edit()
	stored := batch[:0:0]
	for _, w := range batch {
		if err := e.report(ctx, w); err != nil {
			w.done <- err
			continue
		}
		stored = append(stored, w)
	}
	err := e.save(ctx)
	due := len(c.due) > 0
	c.mu.Unlock()
	if err != nil {
		c.cfg.Log.Error("words of boards on commands are not stored; they say them again", "words", len(stored), "error", err.Error())
	}
	for _, w := range stored {
		w.done <- err
	}
	if due {
		c.nudge()
	}
}

// report takes one word. What can never be taken is taken and forgotten, so that its
// board does not say it for ever.
func (e *edit) report(ctx context.Context, w word) error {
	id := w.report.Result.ID
	b := e.boards[id]
	if b == nil {
		if it := e.c.items[id]; it != nil {
			b = it.Board
		} else {
			var err error
			if b, err = e.c.cfg.Rows.Find(ctx, id); errors.Is(err, ErrUnknown) {
				return e.stranger(w)
			} else if err != nil {
				return err
			}
		}
		if b.Tenant == w.tenant && b.Board == w.board {
			b = e.board(b)
		}
	}
	if b.Tenant != w.tenant || b.Board != w.board {
		e.c.cfg.Log.Warn("a board's word on a command of another board is not taken", "tenant", w.tenant, "board", w.board, "command", id.String())
		return nil
	}
	h, err := e.head(ctx, b.Tenant, b.Command)
	if err != nil {
		return err
	}
	return e.hear(ctx, b, h, &w.report.Result)
}

// hear takes a result into a row.
func (e *edit) hear(ctx context.Context, b *commandrows.Board, h *commandrows.Command, r *command.Result) error {
	state := r.State.String()
	if b.Final && !b.Own {
		return nil // the board's last word stands
	}
	if r.State == command.Refused && r.Code == command.CodeReplayed {
		return e.overtaken(ctx, b, h, r)
	}
	if b.Probe && r.State == command.Expired && h.Local { // its number is of another actor: it says nothing
		return e.end(ctx, b, rest.CommandUnknown, "", forgotten)
	}
	if !r.State.Final() {
		if b.Final || stage.Rank(state) < stage.Rank(b.State) {
			return nil
		}
		text := cmp.Or(r.Text, b.Text)
		if state == b.State && !b.Probe && b.Percent == int(r.Percent) && b.Text == text {
			return nil
		}
		b.Heard, b.Probe, b.Percent, b.Text = e.now, false, int(r.Percent), text
		e.touched.boards[b] = true
		if state == b.State {
			return nil
		}
		return e.move(ctx, b, state, r.Text)
	}
	text := r.Text
	if b.Final {
		text = fmt.Sprintf("late word of the board, after %q: %s", b.State, r.Text)
	}
	b.Heard, b.Own, b.Probe, b.Code, b.Text, b.Value = e.now, false, false, r.Code, r.Text, r.Value
	if r.State == command.Done {
		b.Percent = 100
	}
	return e.move(ctx, b, state, text)
}

const forgotten = "this fleet came from a backup, and the board does not know the command any more: look whether it had its effect"

// overtaken deals with the word that a command's number is not above one that came
// already, and that its board does not know its id.
func (e *edit) overtaken(ctx context.Context, b *commandrows.Board, h *commandrows.Command, r *command.Result) error {
	switch {
	case b.Final, stage.Rank(b.State) >= stage.Rank(rest.CommandAccepted) && !b.Probe:
		return nil // of an envelope that was underway twice
	case b.Probe:
		return e.end(ctx, b, rest.CommandUnknown, r.Code, forgotten)
	case b.Cancel:
		if e.cancelling(b.ID) {
			return nil // its cancel is under way, and says more
		}
		return e.end(ctx, b, rest.CommandCancelled, command.CodeCancelled, "cancelled before the board had it")
	case b.Tries >= maxTries:
		b.Code, b.Text = r.Code, r.Text
		return e.move(ctx, b, rest.CommandRefused, r.Text)
	}
	// It leaves again with a new number: its id keeps it from being done twice.
	b.Seq = 0
	b.Tries++
	e.touched.boards[b] = true
	if it := e.c.items[b.ID]; it != nil {
		it.again = time.Time{}
	}
	return nil
}

// cancelling tells whether a cancel of the command has not ended.
func (e *edit) cancelling(id command.ID) bool {
	it := e.c.items[id]
	if it == nil {
		return false
	}
	q := e.c.queues[key{it.Tenant, it.Board.Board}]
	for _, x := range q.items {
		if command.ID(x.Target) != id {
			continue
		}
		if now := e.boards[x.ID]; now == nil || !now.Final {
			return true
		}
	}
	return false
}

// maxOpenLocal bounds the commands given on one board that have not ended: its queue and
// what runs. Of more than that the last word is taken alone.
const maxOpenLocal = 128

// stranger takes a word on a command that is not known here: given on the board, or by a
// server of which this one is an older copy.
func (e *edit) stranger(w word) error {
	r, given := &w.report.Result, w.report.Command
	if given != nil && (given.Tenant != "" || given.Board != "") && (given.Tenant != w.tenant || given.Board != w.board) { // of what the board counts itself there is neither
		e.c.cfg.Log.Warn("a board's word on a command of another board is not taken", "tenant", w.tenant, "board", w.board, "command", r.ID.String())
		return nil
	}
	if r.State == command.Refused && r.Code == command.CodeReplayed {
		return nil
	}
	if !r.State.Final() && (given == nil || e.openLocal(w.key) >= maxOpenLocal || len(e.c.items) >= maxOpen) {
		return nil
	}
	h := &commandrows.Command{Tenant: w.tenant, Local: true, Given: e.now, Actor: "board " + w.board, Reason: "This fleet came from a backup: what the command was is not known here."}
	text := ""
	if given != nil {
		h.Name, h.Args, h.DryRun = given.Name, given.Args, given.DryRun
		// Else this fleet gave it, before it was put back; or the board names somebody that
		// it cannot speak for.
		if kind, _, own := strings.Cut(given.Actor, "/"); given.Actor == command.ActorBoard || own && (kind == command.ActorLocal || kind == command.ActorRule || kind == command.ActorKey) {
			h.Actor, h.Reason = given.Actor, given.Reason
		}
		if t := w.report.Given; t.Wall != 0 {
			text = "given on the board at " + time.UnixMilli(t.Wall).UTC().Format(time.DateTime) + " UTC by its clock"
		}
	}
	e.make(h)
	b := e.give(h, w.board, r.ID, rest.CommandAccepted, text)
	return e.hear(context.Background(), b, h, r)
}

func (e *edit) openLocal(k key) (n int) {
	if q := e.c.queues[k]; q != nil {
		for _, it := range q.items {
			if it.cmd.Local {
				n++
			}
		}
	}
	for _, b := range e.change.NewBoards {
		if b.Tenant == k.tenant && b.Board == k.board && !b.Final {
			n++
		}
	}
	return n
}
