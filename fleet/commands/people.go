// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"fulmar/command"
	"fulmar/fleet/access"
	"fulmar/fleet/commands/shown"
	"fulmar/fleet/commands/spec"
	"fulmar/fleet/commands/stage"
	"fulmar/fleet/registry/commandrows"
	"fulmar/internal/fit"
	"fulmar/schema"
	"fulmar/schema/rest"
)

// What is done to a command.
const (
	Cancel  = "cancel"
	Approve = "approve"
	Refuse  = "refuse"
)

// cancelValid is for how long a board may take a cancel, at the least, and how much
// longer than what it cancels: whatever is still begun can still be cancelled.
const cancelValid = 5 * time.Minute

// Act does what a person wants with a command that is not over.
func (c *Commands) Act(ctx context.Context, by access.Caller, id string, a rest.CommandAction) (*rest.Command, error) {
	if err := c.may(by, a); err != nil {
		return nil, err
	}
	n, err := c.Resolve(ctx, by.Tenant, id)
	if err != nil {
		return nil, err
	}
	if err := c.within(ctx, by, n); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.heads[number{by.Tenant, n}]
	if h == nil {
		if _, err := c.cfg.Rows.Get(ctx, by.Tenant, n); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %s is over", ErrState, shown.Name(n))
	}
	e := c.edit()
	if h, err = e.head(ctx, by.Tenant, n); err != nil {
		return nil, err
	}
	if a.Action == Cancel {
		err = e.cancel(ctx, by, h, a.Reason)
	} else {
		err = e.decide(ctx, by, h, a)
	}
	if err != nil {
		return nil, err
	}
	if err := e.save(ctx); err != nil {
		return nil, err
	}
	c.nudge()
	v := shown.View(h)
	return &v, nil
}

// Would tells what Act would do, in a sentence, and refuses what it would.
func (c *Commands) Would(ctx context.Context, by access.Caller, id string, a rest.CommandAction) (string, error) {
	if err := c.may(by, a); err != nil {
		return "", err
	}
	n, err := c.Resolve(ctx, by.Tenant, id)
	if err == nil {
		err = c.within(ctx, by, n)
	}
	if err != nil {
		return "", err
	}
	h, err := c.cfg.Rows.Get(ctx, by.Tenant, n)
	switch {
	case err != nil:
		return "", err
	case h.Open == 0:
		return "", fmt.Errorf("%w: %s is over", ErrState, shown.Name(n))
	case a.Action == Cancel:
		return fmt.Sprintf("%s would be cancelled on %s.", shown.Name(n), spec.Count(h.Open)), nil
	}
	if err := decidable(by, h, a); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s would get: %s.", shown.Name(n), a.Action), nil
}

func (c *Commands) may(by access.Caller, a rest.CommandAction) error {
	right := rest.CommandsApprove
	switch a.Action {
	case Cancel:
		right = rest.CommandsSend
	case Approve, Refuse:
	default:
		return &Error{Pointer: "/action", Detail: "wants cancel, approve or refuse"}
	}
	if len(a.Reason) > schema.MaxFact {
		return &Error{Pointer: "/reason", Detail: fmt.Sprintf("takes at most %d bytes", schema.MaxFact)}
	}
	return by.May(right)
}

// within refuses a caller with a limit where the command goes beyond it: it is not there.
func (c *Commands) within(ctx context.Context, by access.Caller, n int64) error {
	if by.Boards == "" {
		return nil
	}
	mine, err := c.cfg.Fleet.Boards(ctx, by, "")
	if err != nil {
		return err
	}
	ok := true
	err = c.cfg.Rows.Names(ctx, by.Tenant, n, func(b string) bool {
		ok = slices.Contains(mine, b)
		return ok
	})
	if err == nil && !ok {
		err = ErrUnknown
	}
	return err
}

func decidable(by access.Caller, h *commandrows.Command, a rest.CommandAction) error {
	switch {
	case !h.Wanted || h.By != "" || h.Counts[rest.CommandWaiting] == 0:
		return fmt.Errorf("%w: %s waits for nobody", ErrState, shown.Name(h.ID))
	case cmp.Or(by.Author, by.Who) == h.Author:
		return fmt.Errorf("%w: %s was given by %s", ErrSamePerson, shown.Name(h.ID), h.Author)
	}
	return nil
}

// decide takes the word of the second person.
func (e *edit) decide(ctx context.Context, by access.Caller, h *commandrows.Command, a rest.CommandAction) error {
	if err := decidable(by, h, a); err != nil {
		return err
	}
	h.By, h.At, h.Why, h.Refused = by.Who, e.now, a.Reason, a.Action == Refuse
	if !h.Refused {
		h.Expires = e.now.Add(h.Valid)
	}
	e.touched.heads[h] = true
	said := func(verb string) string { return verb + " by " + by.Who + because(a.Reason) }
	n, one := 0, ""
	for _, it := range e.of(h) {
		if it.State != rest.CommandWaiting {
			continue
		}
		b := e.board(it.Board)
		n++
		one = b.Board
		var err error
		if h.Refused {
			err = e.end(ctx, b, rest.CommandRefused, "refused-by-person", said("refused"))
		} else {
			err = e.move(ctx, b, rest.CommandQueued, said("approved"))
		}
		if err != nil {
			return err
		}
	}
	if n != 1 {
		one = ""
	}
	e.audit(by.Who, h.Tenant, one, "command "+a.Action, fmt.Sprintf("%s: %s of %s to %s%s", shown.Name(h.ID), h.Name, h.Author, spec.Count(n), because(a.Reason)))
	return nil
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// of gives what is open of a command.
func (e *edit) of(h *commandrows.Command) (out []*item) {
	for _, it := range e.c.items {
		if it.Command == h.ID && it.Tenant == h.Tenant {
			out = append(out, it)
		}
	}
	slices.SortFunc(out, func(a, b *item) int { return cmp.Compare(a.Board.Board, b.Board.Board) })
	return out
}

// cancel ends at once what never left, and asks the boards that may have the rest.
func (e *edit) cancel(ctx context.Context, by access.Caller, h *commandrows.Command, reason string) error {
	var ask []*item
	n, one := 0, ""
	for _, it := range e.of(h) {
		switch {
		case it.Cancel:
			continue
		case command.ID(it.Target) != (command.ID{}):
			return fmt.Errorf("%w: %s is a cancel itself", ErrState, shown.Name(h.ID))
		}
		n++
		b := e.board(it.Board)
		one = b.Board
		if stage.Rank(b.State) < stage.Rank(rest.CommandSent) && !b.Probe {
			if err := e.end(ctx, b, rest.CommandCancelled, command.CodeCancelled, "cancelled by "+by.Who+" before it was sent"+because(reason)); err != nil {
				return err
			}
			continue
		}
		b.Cancel = true
		stage.Note(b, b.State, "cancel asked by "+by.Who+because(reason), e.now)
		e.touched.boards[b] = true
		ask = append(ask, it)
	}
	if n == 0 {
		return fmt.Errorf("%w: %s is being cancelled", ErrState, shown.Name(h.ID))
	}
	if len(ask) > 0 {
		if len(e.c.items)+len(ask) > maxOpen {
			return fmt.Errorf("%w: %d boards have commands that are not settled", ErrTooMany, len(e.c.items))
		}
		until := e.now.Add(cancelValid)
		if later := h.Expires.Add(cancelValid); later.After(until) {
			until = later
		}
		x := &commandrows.Command{
			Tenant: h.Tenant, Name: spec.NameCancel, Actor: by.Who, Author: cmp.Or(by.Author, by.Who), Reason: fit.Text("of "+shown.Name(h.ID)+because(reason), schema.MaxFact),
			Given: e.now, Valid: until.Sub(e.now), Expires: until,
		}
		e.make(x)
		for _, it := range ask {
			e.give(x, it.Board.Board, newID(e.now), rest.CommandQueued, "").Target = it.ID
		}
	}
	if n != 1 {
		one = ""
	}
	e.audit(by.Who, h.Tenant, one, "command cancel", fmt.Sprintf("%s: %s to %s%s", shown.Name(h.ID), h.Name, spec.Count(n), because(reason)))
	return nil
}

// Gone ends what is open for a board that was removed: another board may get its name.
func (c *Commands) Gone(ctx context.Context, tenant, board string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.queues[key{tenant, board}]
	if q == nil {
		return nil
	}
	e := c.edit()
	var errs []error
	for _, it := range q.items {
		state, text := rest.CommandCancelled, "the board was removed before it had it"
		if stage.Rank(it.State) >= stage.Rank(rest.CommandSent) {
			state, text = rest.CommandUnknown, "the board was removed"
		}
		errs = append(errs, e.end(ctx, e.board(it.Board), state, command.CodeCancelled, text))
	}
	return errors.Join(append(errs, e.save(ctx))...)
}
