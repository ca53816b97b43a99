// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package shown tells what became of commands, as the API and the page show it.
package shown

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"fulmar/command"
	"fulmar/fleet/commands/form"
	"fulmar/fleet/commands/spec"
	"fulmar/fleet/registry/commandrows"
	"fulmar/schema/rest"
)

// Rows has what is kept of commands: *commandrows.Table.
type Rows interface {
	Get(ctx context.Context, tenant string, id int64) (*commandrows.Command, error)
	Find(ctx context.Context, id [16]byte) (*commandrows.Board, error)
	List(ctx context.Context, tenant string, f commandrows.Filter) ([]*commandrows.Command, error)
	Boards(ctx context.Context, tenant string, id int64, limit int) ([]*commandrows.Board, error)
	Names(ctx context.Context, tenant string, id int64, fn func(board string) bool) error
	Of(ctx context.Context, tenant, board string, before int64, limit int) ([]*commandrows.Command, []*commandrows.Board, error)
}

// Reader reads commands.
type Reader struct {
	rows    Rows
	told    func(ctx context.Context, tenant string) (map[string][]string, error)
	approve []string
}

// New reads in rows. told gives the names of the commands that each board of a tenant says
// it has; approve lists those that want a second person.
func New(rows Rows, told func(ctx context.Context, tenant string) (map[string][]string, error), approve []string) *Reader {
	return &Reader{rows, told, approve}
}

// Name gives the id of a command of this number: c-31.
func Name(n int64) string { return fmt.Sprintf("c-%d", n) }

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

// Parse reads the id of a command: c-31.
func Parse(id string) (int64, error) {
	digits, ok := strings.CutPrefix(id, "c-")
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || n < 1 || id != Name(n) {
		return 0, fmt.Errorf("%w: ids look like c-31", commandrows.ErrUnknown)
	}
	return n, nil
}

// Resolve reads the id of a command, or of one for one board (32 hex digits).
func (c *Reader) Resolve(ctx context.Context, tenant, id string) (int64, error) {
	one, err := command.ParseID(id)
	if err != nil {
		return Parse(id)
	}
	b, err := c.rows.Find(ctx, one)
	if err == nil && b.Tenant != tenant {
		err = commandrows.ErrUnknown
	}
	if err != nil {
		return 0, err
	}
	return b.Command, nil
}

// List gives commands, newest first, without rows of boards. next is what Before wants
// for those after them, "" at the end.
func (c *Reader) List(ctx context.Context, tenant string, f Filter) (list []rest.Command, next string, err error) {
	rows := commandrows.Filter{Board: f.Board, State: f.State, Limit: min(max(f.Limit, 1), maxShown)}
	if f.Before != "" {
		if rows.Before, err = Parse(f.Before); err != nil {
			return nil, "", err
		}
	}
	list = []rest.Command{}
	for {
		all, err := c.rows.List(ctx, tenant, rows)
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
				list = append(list, View(h))
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
func (c *Reader) sees(ctx context.Context, h *commandrows.Command, seen func(string) bool) (ok bool, err error) {
	ok = true
	if seen != nil {
		err = c.rows.Names(ctx, h.Tenant, h.ID, func(b string) bool {
			ok = seen(b)
			return ok
		})
	}
	return ok, err
}

// Get gives a command with its boards, by its id or that of one board's. What is not done
// comes first. rows false leaves the boards out: who asks how far it is asks often.
func (c *Reader) Get(ctx context.Context, tenant, id string, rows bool, sees func(board string) bool) (*rest.Command, error) {
	n, err := c.Resolve(ctx, tenant, id)
	if err != nil {
		return nil, err
	}
	h, err := c.rows.Get(ctx, tenant, n)
	if err != nil {
		return nil, err
	}
	if ok, err := c.sees(ctx, h, sees); err != nil || !ok {
		if err == nil {
			err = commandrows.ErrUnknown
		}
		return nil, err
	}
	v := View(h)
	if !rows {
		return &v, nil
	}
	list, err := c.rows.Boards(ctx, tenant, n, maxShown)
	for _, b := range list {
		v.Boards = append(v.Boards, row(b))
	}
	return &v, err
}

// OfBoard gives the commands of one board, newest first, each as if it was for this board
// alone. next is as for List.
func (c *Reader) OfBoard(ctx context.Context, tenant, board, before string, limit int) (list []rest.Command, next string, err error) {
	n := int64(0)
	if before != "" {
		if n, err = Parse(before); err != nil {
			return nil, "", err
		}
	}
	limit = min(max(limit, 1), maxShown)
	heads, rows, err := c.rows.Of(ctx, tenant, board, n, limit)
	if err != nil {
		return nil, "", err
	}
	list = make([]rest.Command, len(heads))
	for i, h := range heads {
		v := View(h)
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
func (c *Reader) Kinds(ctx context.Context, tenant string, sees func(board string) bool) ([]rest.CommandKind, error) {
	told, err := c.told(ctx, tenant)
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
		if n != spec.NameCancel {
			out = append(out, rest.CommandKind{Name: n, Boards: boards, Approval: slices.Contains(c.approve, n)})
		}
	}
	slices.SortFunc(out, func(a, b rest.CommandKind) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// View is a command as the API tells it.
func View(h *commandrows.Command) rest.Command {
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
