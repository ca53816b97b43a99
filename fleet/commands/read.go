// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"fulmar/command"
	"fulmar/fleet/commands/form"
	"fulmar/fleet/registry/commandrows"
	"fulmar/schema/rest"
)

// maxShown bounds the rows of boards in one answer.
const maxShown = 1000

// Filter narrows a list.
type Filter struct {
	Board, State string
	Before       string // only older ones than this id; "" from the newest
	Limit        int
	// Sees tells which boards the caller sees; nil: all. A command to others is left out.
	Sees func(board string) bool
}

// parse reads the id of a command: c-31.
func parse(id string) (int64, error) {
	digits, ok := strings.CutPrefix(id, "c-")
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || n < 1 || id != Name(n) {
		return 0, fmt.Errorf("%w: ids look like c-31", ErrUnknown)
	}
	return n, nil
}

// resolve reads the id of a command, or of one for one board (32 hex digits).
func (c *Commands) resolve(ctx context.Context, tenant, id string) (int64, error) {
	one, err := command.ParseID(id)
	if err != nil {
		return parse(id)
	}
	b, err := c.cfg.Rows.Find(ctx, one)
	if err == nil && b.Tenant != tenant {
		err = ErrUnknown
	}
	if err != nil {
		return 0, err
	}
	return b.Command, nil
}

// List gives commands, newest first, without rows of boards. next is what Before wants
// for those after them, "" at the end.
func (c *Commands) List(ctx context.Context, tenant string, f Filter) (list []rest.Command, next string, err error) {
	rows := commandrows.Filter{Board: f.Board, State: f.State, Limit: min(max(f.Limit, 1), maxShown)}
	if f.Before != "" {
		if rows.Before, err = parse(f.Before); err != nil {
			return nil, "", err
		}
	}
	list = []rest.Command{}
	for {
		all, err := c.cfg.Rows.List(ctx, tenant, rows)
		if err != nil {
			return nil, "", err
		}
		for _, h := range all {
			rows.Before = h.ID
			ok, err := c.sees(ctx, h, f.Sees)
			if err != nil {
				return nil, "", err
			}
			if ok {
				list = append(list, view(h))
			}
			if len(list) == rows.Limit {
				return list, Name(h.ID), nil
			}
		}
		if len(all) < rows.Limit {
			return list, "", nil
		}
	}
}

// sees tells whether all boards of a command are seen.
func (c *Commands) sees(ctx context.Context, h *commandrows.Command, seen func(string) bool) (ok bool, err error) {
	ok = true
	if seen != nil {
		err = c.cfg.Rows.Names(ctx, h.Tenant, h.ID, func(b string) bool {
			ok = seen(b)
			return ok
		})
	}
	return ok, err
}

// Get gives a command with its boards, by its id or that of one board's. What is not done
// comes first. rows false leaves the boards out: who asks how far it is asks often.
func (c *Commands) Get(ctx context.Context, tenant, id string, rows bool, sees func(board string) bool) (*rest.Command, error) {
	n, err := c.resolve(ctx, tenant, id)
	if err != nil {
		return nil, err
	}
	h, err := c.cfg.Rows.Get(ctx, tenant, n)
	if err != nil {
		return nil, err
	}
	if ok, err := c.sees(ctx, h, sees); err != nil || !ok {
		if err == nil {
			err = ErrUnknown
		}
		return nil, err
	}
	v := view(h)
	if !rows {
		return &v, nil
	}
	list, err := c.cfg.Rows.Boards(ctx, tenant, n, maxShown)
	for _, b := range list {
		v.Boards = append(v.Boards, row(b))
	}
	return &v, err
}

// OfBoard gives the commands of one board, newest first, each as if it was for this board
// alone. next is as for List.
func (c *Commands) OfBoard(ctx context.Context, tenant, board, before string, limit int) (list []rest.Command, next string, err error) {
	n := int64(0)
	if before != "" {
		if n, err = parse(before); err != nil {
			return nil, "", err
		}
	}
	limit = min(max(limit, 1), maxShown)
	heads, rows, err := c.cfg.Rows.Of(ctx, tenant, board, n, limit)
	if err != nil {
		return nil, "", err
	}
	list = make([]rest.Command, len(heads))
	for i, h := range heads {
		v := view(h)
		v.Query, v.Counts, v.Total, v.Boards = "", map[string]int{rows[i].State: 1}, 1, []rest.CommandBoard{row(rows[i])}
		list[i] = v
	}
	if len(list) == limit {
		next = list[limit-1].ID
	}
	return list, next, nil
}

// Kinds gives the commands that boards say they have, by name; of those boards that sees
// lets through, nil: all.
func (c *Commands) Kinds(ctx context.Context, tenant string, sees func(board string) bool) ([]rest.CommandKind, error) {
	told, err := c.cfg.Fleet.Kinds(ctx, tenant)
	if err != nil {
		return nil, err
	}
	count := map[string]int{}
	for board, names := range told {
		if sees != nil && !sees(board) {
			continue
		}
		for _, n := range names {
			count[n]++
		}
	}
	out := []rest.CommandKind{}
	for n, boards := range count {
		if n != nameCancel {
			out = append(out, rest.CommandKind{Name: n, Boards: boards, Approval: slices.Contains(c.cfg.Approve, n)})
		}
	}
	slices.SortFunc(out, func(a, b rest.CommandKind) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// view is a command as the API tells it.
func view(h *commandrows.Command) rest.Command {
	v := rest.Command{
		ID: Name(h.ID), Name: h.Name, Args: form.Decode(h.Args), Actor: h.Actor, Reason: h.Reason, Local: h.Local, DryRun: h.DryRun, Query: h.Query,
		Given: h.Given, Expires: h.Expires, Counts: map[string]int{},
	}
	for s, n := range h.Counts {
		v.Counts[s] = n
		v.Total += n
	}
	if h.Wanted {
		v.Approval = &rest.CommandApproval{Wanted: true, By: h.By, Refused: h.Refused, At: h.At, Reason: h.Why}
	}
	return v
}

func row(b *commandrows.Board) rest.CommandBoard {
	v := rest.CommandBoard{ID: command.ID(b.ID).String(), Board: b.Board, State: b.State, Code: b.Code, Text: b.Text, Value: form.Decode(b.Value), Percent: b.Percent}
	for _, e := range b.Events {
		v.Events = append(v.Events, rest.CommandEvent{State: e.State, At: time.UnixMilli(e.At).UTC(), Text: e.Text})
	}
	return v
}
