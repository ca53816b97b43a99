// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package joins

import (
	"context"

	"fulmar/fleet/access"
	"fulmar/fleet/commands"
	"fulmar/fleet/twins"
	"fulmar/fleet/web"
	"fulmar/fleet/web/control"
	"fulmar/schema/rest"
)

// PageCommands are the commands for the page, whose people see all boards of their
// tenant.
type PageCommands struct{ *commands.Commands }

var _ control.Commands = PageCommands{}

// List implements [control.Commands].
func (c PageCommands) List(ctx context.Context, by access.Caller, board string, limit int) ([]rest.Command, error) {
	if board != "" {
		list, _, err := c.OfBoard(ctx, by.Tenant, board, "", limit)
		return list, err
	}
	list, _, err := c.Commands.List(ctx, by.Tenant, commands.Filter{Limit: limit})
	for i := range list {
		if err != nil {
			break
		}
		if list[i].Total == 1 { // a person looks for the board, and for why not
			var one *rest.Command
			if one, err = c.Get(ctx, by, list[i].ID); err == nil {
				list[i].Boards = one.Boards
			}
		}
	}
	return list, err
}

// Get implements [control.Commands].
func (c PageCommands) Get(ctx context.Context, by access.Caller, id string) (*rest.Command, error) {
	return c.Commands.Get(ctx, by.Tenant, id, true, nil)
}

// Kinds implements [control.Commands].
func (c PageCommands) Kinds(ctx context.Context, by access.Caller) ([]rest.CommandKind, error) {
	return c.Commands.Kinds(ctx, by.Tenant, nil)
}

// PageTwins are the twins for the page.
type PageTwins struct {
	*twins.Twins
	Look Look
}

var _ control.Twins = PageTwins{}

// Twin implements [control.Twins].
func (t PageTwins) Twin(ctx context.Context, by access.Caller, board string) (*rest.Twin, error) {
	ov, err := t.Look(ctx, by.Tenant)
	if err != nil {
		return nil, err
	}
	if ov.Board(board) == nil {
		return nil, web.ErrNotFound
	}
	x, err := t.Twins.Twin(ctx, by.Tenant, board)
	return &x, err
}

// Patch implements [control.Twins].
func (t PageTwins) Patch(ctx context.Context, by access.Caller, board string, version uint64, p rest.TwinPatch) error {
	_, err := t.Twins.Patch(ctx, by, board, p, int64(version))
	return err
}

// History implements [control.Twins].
func (t PageTwins) History(ctx context.Context, by access.Caller, board string, limit int) ([]rest.TwinEvent, error) {
	return t.Twins.History(ctx, by.Tenant, board, 0, limit)
}

// Conflicts implements [control.Twins].
func (t PageTwins) Conflicts(ctx context.Context, by access.Caller) ([]rest.TwinConflict, error) {
	return t.Twins.Conflicts(ctx, by.Tenant)
}

// Decide implements [control.Twins].
func (t PageTwins) Decide(ctx context.Context, by access.Caller, board, key, side string) error {
	_, err := t.Twins.Decide(ctx, by, rest.TwinDecision{Board: board, Key: key, Choose: side})
	return err
}
