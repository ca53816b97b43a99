// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"fulmar/command"
	"fulmar/fleet/access"
	"fulmar/fleet/commands/form"
	"fulmar/fleet/commands/presence"
	"fulmar/fleet/commands/shown"
	"fulmar/fleet/commands/spec"
	"fulmar/fleet/registry/commandrows"
	"fulmar/internal/fit"
	"fulmar/schema/rest"
)

const (
	// approvalFor is how long a command waits for its second person.
	approvalFor = time.Hour
	// maxSay bounds the arguments in the audit log, in bytes: a row takes 512 of all.
	maxSay = 200
)

// order is a command that was checked: what Give makes rows of.
type order struct {
	rest.CommandSpec
	args   []byte
	valid  time.Duration
	boards []string
	wants  bool // a second person
}

// check reads what was given, and finds its boards.
func (c *Commands) check(ctx context.Context, by access.Caller, s rest.CommandSpec) (*order, error) {
	o := &order{CommandSpec: s, wants: slices.Contains(c.cfg.Approve, s.Name)}
	var fields []Field
	if c.cfg.Fields != nil {
		fields, _ = c.cfg.Fields(s.Name)
	}
	var err error
	if o.args, o.valid, err = spec.Read(s, fields); err != nil {
		return nil, err
	}
	o.boards, err = c.targets(ctx, by, s)
	return o, err
}

// targets gives the boards that are meant, all of which the caller sees.
func (c *Commands) targets(ctx context.Context, by access.Caller, s rest.CommandSpec) ([]string, error) {
	seen, err := c.cfg.Fleet.Boards(ctx, by, s.Query)
	if err != nil {
		return nil, err
	}
	if s.Query != "" {
		if len(seen) == 0 {
			return nil, ErrNoBoards
		}
		if len(seen) > maxBoards {
			return nil, fmt.Errorf("%w: %d boards match, a command takes %d; narrow the query", ErrTooMany, len(seen), maxBoards)
		}
		return seen, nil
	}
	have := make(map[string]bool, len(seen))
	for _, b := range seen {
		have[b] = true
	}
	out := slices.Compact(slices.Sorted(slices.Values(s.Boards)))
	for _, b := range out {
		if !have[b] {
			return nil, fmt.Errorf("%w: boards names one that is not there", ErrNoBoards)
		}
	}
	return out, nil
}

// Plan tells what Give would do, in a sentence.
func (c *Commands) Plan(ctx context.Context, by access.Caller, s rest.CommandSpec) (string, error) {
	if err := by.May(rest.CommandsSend); err != nil {
		return "", err
	}
	o, err := c.check(ctx, by, s)
	if err != nil {
		return "", err
	}
	kinds, err := c.cfg.Fleet.Kinds(ctx, by.Tenant)
	if err != nil {
		return "", err
	}
	var lack, silent, away []string
	for _, b := range o.boards {
		names, told := kinds[b]
		switch {
		case !told:
			silent = append(silent, b)
		case !slices.Contains(names, s.Name):
			lack = append(lack, b)
		}
		if _, is := c.here.Here(presence.Board{Tenant: by.Tenant, Name: b}); !is {
			away = append(away, b)
		}
	}
	return spec.Plan(s.Name, len(o.boards), o.valid, o.wants, lack, silent, away), nil
}

// Give keeps a command and sends it to the boards that are there; the others get it when
// they come. What it gives back has no rows of boards.
func (c *Commands) Give(ctx context.Context, by access.Caller, s rest.CommandSpec) (*rest.Command, error) {
	if err := by.May(rest.CommandsSend); err != nil {
		return nil, err
	}
	o, err := c.check(ctx, by, s)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.room(by.Tenant, o.boards); err != nil {
		return nil, err
	}
	e := c.edit()
	h := &commandrows.Command{
		Tenant: by.Tenant, Name: s.Name, Args: o.args, Actor: by.Who, Author: cmp.Or(by.Author, by.Who), Reason: s.Reason, Query: s.Query,
		DryRun: s.DryRun, Given: e.now, Valid: o.valid, Expires: e.now.Add(o.valid), Approval: commandrows.Approval{Wanted: o.wants},
	}
	state, text := rest.CommandQueued, ""
	if o.wants {
		state, text, h.Expires = rest.CommandWaiting, "a second person has to agree", e.now.Add(approvalFor)
	}
	e.make(h)
	for _, b := range o.boards {
		e.give(h, b, newID(e.now), state, text)
	}
	e.audit(by.Who, by.Tenant, single(o.boards), "command", sentence(h, o.boards))
	if err := e.save(ctx); err != nil {
		return nil, err
	}
	c.nudge()
	v := shown.View(h)
	return &v, nil
}

// room refuses what would be more than is kept open; c.mu is held.
func (c *Commands) room(tenant string, boards []string) error {
	if len(c.items)+len(boards) > maxOpen {
		return fmt.Errorf("%w: %d boards have commands that are not settled, at most %d; wait for some, or cancel", ErrTooMany, len(c.items), maxOpen)
	}
	for _, b := range boards {
		if q := c.queues[key{tenant, b}]; q != nil && len(q.items) >= maxQueue {
			return fmt.Errorf("%w: board %s has %d commands that are not settled, which is the most; wait for some, or cancel", ErrTooMany, b, len(q.items))
		}
	}
	return nil
}

// newID gives an id of which the first six bytes are the time: rows that are made at the
// same time lie together. The others are random; nothing depends on that nobody guesses
// them, envelopes are signed.
func newID(now time.Time) (id command.ID) {
	_, _ = rand.Read(id[:]) // never fails: crypto/rand ends the process instead
	var t [8]byte
	binary.BigEndian.PutUint64(t[:], uint64(now.UnixMilli()))
	copy(id[:6], t[2:])
	return id
}

// single is the board that an entry of the audit log is about, "" where it is several.
func single(boards []string) string {
	if len(boards) == 1 {
		return boards[0]
	}
	return ""
}

// sentence tells the audit log what was given to whom.
func sentence(h *commandrows.Command, list []string) string {
	say := shown.Name(h.ID) + ": " + h.Name
	if args := string(form.Decode(h.Args)); args != "" && args != "{}" {
		say += " " + fit.Text(args, maxSay)
	}
	if h.DryRun {
		say += ", to check only"
	}
	if len(list) == 1 {
		say += " to " + list[0]
	} else {
		say += " to " + spec.Count(len(list))
	}
	if h.Reason != "" {
		say += ": " + h.Reason
	}
	return say
}
