// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package parts

import (
	"context"
	"net/http"

	"fulmar/fleet/access"
	"fulmar/fleet/api/door"
	"fulmar/fleet/api/look"
	"fulmar/fleet/api/parts/route"
	"fulmar/fleet/web"
	"fulmar/schema/rest"
)

// CommandFilter narrows a list of commands.
type CommandFilter struct {
	Board, State string
	Before       string // only older ones than this id; "" from the newest
	Limit        int
	// Sees tells which boards the caller sees; nil: all. A command to others is left out.
	Sees func(board string) bool
}

// Commands gives commands to boards and keeps what became of them.
type Commands interface {
	// List gives commands, newest first, without rows of boards, and what Before wants for
	// those after them.
	List(ctx context.Context, tenant string, f CommandFilter) (list []rest.Command, next string, err error)
	// Get gives one, by its id or that of one board's; rows: with its boards.
	Get(ctx context.Context, tenant, id string, rows bool, sees func(board string) bool) (*rest.Command, error)
	// OfBoard gives those of one board, each as if it was for this board alone.
	OfBoard(ctx context.Context, tenant, board, before string, limit int) (list []rest.Command, next string, err error)
	// Kinds gives the commands that boards say they have.
	Kinds(ctx context.Context, tenant string, sees func(board string) bool) ([]rest.CommandKind, error)
	Give(ctx context.Context, by access.Caller, s rest.CommandSpec) (*rest.Command, error)
	// Plan tells what Give would do, in a sentence.
	Plan(ctx context.Context, by access.Caller, s rest.CommandSpec) (string, error)
	// Act cancels, approves or refuses; Would tells what it would do.
	Act(ctx context.Context, by access.Caller, id string, a rest.CommandAction) (*rest.Command, error)
	Would(ctx context.Context, by access.Caller, id string, a rest.CommandAction) (string, error)
}

// commands are the routes of commands.
type commands struct {
	c     Commands
	looks *look.Looks
}

func (c *commands) mount(d *door.Door) {
	g := route.Group{Tag: "commands", Read: rest.BoardsRead, Edit: rest.CommandsSend}
	door.Handle(d, route.Makes(g.Route("give-command", http.MethodPost, "commands", "Give a command to boards, or to those that a query matches now")), c.give)
	door.Handle(d, g.Route("list-commands", http.MethodGet, "commands", "Commands, newest first; to a caller who is limited to some boards, those to them alone"), c.list)
	door.Handle(d, g.Route("list-command-kinds", http.MethodGet, "commands/kinds", "The commands that boards say they have"), c.kinds)
	door.Handle(d, g.Route("get-command", http.MethodGet, "commands/{id}", "A command and how far each board is; at most 1,000 boards, what is not done first"), c.get)
	act := g.Route("act-on-command", http.MethodPost, "commands/{id}/actions", "Cancel a command (right commands:send), or as a second person approve or refuse it (right commands:approve)")
	act.Right = rest.BoardsRead // and the action's own, which the part asks for
	door.Handle(d, act, c.act)
	door.Handle(d, g.Route("list-board-commands", http.MethodGet, "boards/{board}/commands", "Commands of one board, newest first, those given on it among them"), c.ofBoard)
}

type commandOut struct{ Body *rest.Command }

type giveIn struct {
	Dry  bool `query:"dry_run" doc:"Check all and give nothing; says which boards lack the command"`
	Body rest.CommandSpec
}

func (c *commands) give(ctx context.Context, by access.Caller, in *giveIn) (*commandOut, error) {
	if err := c.looks.Target(ctx, by, in.Body.Query, in.Body.Boards); err != nil {
		return nil, err
	}
	if in.Dry {
		say, err := c.c.Plan(ctx, by, in.Body)
		if err != nil {
			return nil, err
		}
		return nil, door.Would(say)
	}
	v, err := c.c.Give(ctx, by, in.Body)
	return &commandOut{v}, err
}

type commandsIn struct {
	Board     string `query:"board" maxLength:"64" doc:"Only commands to this board"`
	State     string `query:"state" maxLength:"20" doc:"Only commands that have a board in this state"`
	PageSize  int    `query:"page_size" minimum:"1" maximum:"1000" default:"100" doc:"Commands of one page"`
	PageToken string `query:"page_token" maxLength:"32" doc:"next of the page before"`
}

type commandsOut struct{ Body rest.List[rest.Command] }

func pageOf(list []rest.Command, next string, err error) (*commandsOut, error) {
	if list == nil {
		list = []rest.Command{}
	}
	return &commandsOut{rest.List[rest.Command]{Items: list, Next: next}}, err
}

func (c *commands) list(ctx context.Context, by access.Caller, in *commandsIn) (*commandsOut, error) {
	sees, err := c.looks.Names(ctx, by)
	if err != nil {
		return nil, err
	}
	return pageOf(c.c.List(ctx, by.Tenant, CommandFilter{Board: in.Board, State: in.State, Before: in.PageToken, Limit: in.PageSize, Sees: sees}))
}

func (c *commands) kinds(ctx context.Context, by access.Caller, _ *route.Nothing) (*route.ListOut[rest.CommandKind], error) {
	sees, err := c.looks.Names(ctx, by)
	if err != nil {
		return nil, err
	}
	return route.ListOf(c.c.Kinds(ctx, by.Tenant, sees))
}

type commandIn struct {
	ID   string `path:"id" maxLength:"64" doc:"Its id, or that of one board's"`
	Rows string `query:"boards" enum:"all,none" default:"all" doc:"none leaves the boards out, for who asks often how far it is"`
}

func (c *commands) get(ctx context.Context, by access.Caller, in *commandIn) (*commandOut, error) {
	sees, err := c.looks.Names(ctx, by)
	if err != nil {
		return nil, err
	}
	v, err := c.c.Get(ctx, by.Tenant, in.ID, in.Rows != "none", sees)
	return &commandOut{v}, err
}

type commandActIn struct {
	ID   string `path:"id" maxLength:"64" doc:"Its id, or that of one board's"`
	Dry  bool   `query:"dry_run" doc:"Check all and change nothing"`
	Body rest.CommandAction
}

func (c *commands) act(ctx context.Context, by access.Caller, in *commandActIn) (*commandOut, error) {
	sees, err := c.looks.Names(ctx, by)
	if err == nil {
		_, err = c.c.Get(ctx, by.Tenant, in.ID, false, sees)
	}
	if err != nil {
		return nil, err
	}
	if in.Dry {
		say, err := c.c.Would(ctx, by, in.ID, in.Body)
		if err != nil {
			return nil, err
		}
		return nil, door.Would(say)
	}
	v, err := c.c.Act(ctx, by, in.ID, in.Body)
	return &commandOut{v}, err
}

type boardCommandsIn struct {
	Board     string `path:"board" doc:"Its name"`
	PageSize  int    `query:"page_size" minimum:"1" maximum:"1000" default:"100" doc:"Commands of one page"`
	PageToken string `query:"page_token" maxLength:"32" doc:"next of the page before"`
}

func (c *commands) ofBoard(ctx context.Context, by access.Caller, in *boardCommandsIn) (*commandsOut, error) {
	sees, err := c.looks.Names(ctx, by)
	if err != nil {
		return nil, err
	}
	if _, err := c.looks.Board(ctx, by, in.Board); err != nil || sees != nil && !sees(in.Board) {
		if err == nil {
			err = web.ErrNotFound
		}
		return nil, err
	}
	return pageOf(c.c.OfBoard(ctx, by.Tenant, in.Board, in.PageToken, in.PageSize))
}
