// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"fulmar/command"
	"fulmar/fleet/access"
	"fulmar/fleet/commands/form"
	"fulmar/fleet/registry/commandrows"
	"fulmar/schema"
	"fulmar/schema/rest"
)

const (
	// defaultValid is for how long a board may begin a command where nothing is said: a
	// person who gives one waits for it.
	defaultValid = 5 * time.Minute
	// maxValid is the most. What was right a week ago is not what anybody wants now.
	maxValid = 7 * 24 * time.Hour
	// approvalFor is how long a command waits for its second person.
	approvalFor = time.Hour
	maxQuery    = 1024 // bytes
	// maxSay bounds the arguments in the audit log, in bytes: a row takes 512 of all.
	maxSay = 200
)

var nameForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z][a-z0-9-]{0,63}$`) })

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
	o := &order{CommandSpec: s, valid: cmp.Or(time.Duration(s.ValidS)*time.Second, defaultValid), wants: slices.Contains(c.cfg.Approve, s.Name)}
	switch {
	case !nameForm().MatchString(s.Name):
		return nil, &Error{"/name", "wants the name of a command: a letter, then up to 63 of a-z 0-9 -"}
	case s.Name == nameCancel:
		return nil, &Error{"/name", "cancel is done to a command that was given"}
	case s.ValidS < 0 || s.ValidS > int64(maxValid/time.Second):
		return nil, &Error{"/valid_s", fmt.Sprintf("takes 1 to %d, which is 7 days; 0 is %d", int64(maxValid/time.Second), int64(defaultValid/time.Second))}
	case len(s.Reason) > schema.MaxFact:
		return nil, &Error{"/reason", fmt.Sprintf("takes at most %d bytes", schema.MaxFact)}
	case len(s.Query) > maxQuery:
		return nil, &Error{"/query", fmt.Sprintf("takes at most %d bytes", maxQuery)}
	case (len(s.Boards) == 0) == (s.Query == ""):
		return nil, &Error{"/boards", "wants boards, or query, and not both; a query that matches all boards is: not state=none"}
	}
	var fields []Field
	if c.cfg.Fields != nil {
		fields, _ = c.cfg.Fields(s.Name)
	}
	var err error
	if o.args, err = form.Encode(s.Args, command.MaxArgs); err != nil {
		return nil, &Error{"/args", err.Error()}
	}
	if err := checkFields(s.Args, fields); err != nil {
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
		if _, is := c.hello(key{by.Tenant, b}); !is {
			away = append(away, b)
		}
	}
	say := fmt.Sprintf("%s would get %s, to be begun within %v.", boards(len(o.boards)), s.Name, o.valid)
	if o.wants {
		say = fmt.Sprintf("%s would get %s once a second person agrees, to be begun within %v of that.", boards(len(o.boards)), s.Name, o.valid)
	}
	for _, x := range []struct {
		list []string
		what string
	}{{lack, "would refuse it, they have no such command"}, {silent, "have not told which commands they have"}, {away, "are not connected and get it when they are"}} {
		if len(x.list) > 0 {
			say += fmt.Sprintf(" %d %s: %s.", len(x.list), x.what, some(x.list))
		}
	}
	return say, nil
}

func boards(n int) string {
	if n == 1 {
		return "1 board"
	}
	return fmt.Sprintf("%d boards", n)
}

// some names the first few of a list.
func some(list []string) string {
	const few = 5
	if len(list) <= few {
		return strings.Join(list, ", ")
	}
	return strings.Join(list[:few], ", ") + " and others"
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
	v := view(h)
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
	say := Name(h.ID) + ": " + h.Name
	if args := string(form.Decode(h.Args)); args != "" && args != "{}" {
		say += " " + clip(args, maxSay)
	}
	if h.DryRun {
		say += ", to check only"
	}
	if len(list) == 1 {
		say += " to " + list[0]
	} else {
		say += " to " + boards(len(list))
	}
	if h.Reason != "" {
		say += ": " + h.Reason
	}
	return say
}
