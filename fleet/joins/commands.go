// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package joins

import (
	"context"
	"errors"
	"fmt"

	"fulmar/fleet/access"
	"fulmar/fleet/api/door"
	"fulmar/fleet/api/parts"
	"fulmar/fleet/commands"
	"fulmar/fleet/gateway"
	"fulmar/fleet/query"
	"fulmar/fleet/query/boards"
	"fulmar/schema/rest"
)

// Commands are the commands for the API.
type Commands struct{ *commands.Commands }

var _ parts.Commands = Commands{}

// List implements [parts.Commands].
func (c Commands) List(ctx context.Context, tenant string, f parts.CommandFilter) ([]rest.Command, string, error) {
	return c.Commands.List(ctx, tenant, commands.Filter(f))
}

// CommandBoards gives commands the boards that they are for.
type CommandBoards struct {
	Look Look
	// Told gives the names of the commands that each board of a tenant says it has; nil:
	// none has told.
	Told func(ctx context.Context, tenant string) (map[string][]string, error)
}

var _ commands.Fleet = CommandBoards{}

// Boards implements [commands.Fleet].
func (c CommandBoards) Boards(ctx context.Context, by access.Caller, q string) ([]string, error) {
	limit, err := query.Parse(by.Boards)
	if err != nil {
		return nil, &door.Error{Code: rest.CodeLimited, Detail: "the limit of this token is not understood; make the token anew", Cause: err}
	}
	parsed, err := query.Parse(q)
	if bad := new(query.Error); errors.As(err, &bad) {
		return nil, &commands.Error{Pointer: "/query", Detail: bad.What}
	} else if err != nil {
		return nil, err
	}
	ov, err := c.Look(ctx, by.Tenant)
	if err != nil {
		return nil, err
	}
	list := boards.Select(ov, query.And(parsed, limit))
	out := make([]string, len(list))
	for i, b := range list {
		out[i] = b.Name
	}
	return out, nil
}

// Kinds implements [commands.Fleet].
func (c CommandBoards) Kinds(ctx context.Context, tenant string) (map[string][]string, error) {
	if c.Told == nil {
		return nil, nil
	}
	return c.Told(ctx, tenant)
}

// CommandCourier takes commands through a gateway, which may be made later.
type CommandCourier func() *gateway.Gateway

var _ commands.Courier = CommandCourier(nil)

// SendCommand implements [commands.Courier].
func (g CommandCourier) SendCommand(tenant, board, id string, envelope []byte) error {
	err := g().SendCommand(tenant, board, id, envelope)
	if errors.Is(err, gateway.ErrAway) {
		return fmt.Errorf("%w: %w", commands.ErrAway, err)
	}
	return err
}
