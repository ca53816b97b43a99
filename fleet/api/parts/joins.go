// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package parts

import (
	"context"
	"net/http"
	"slices"
	"strconv"

	"fulmar/fleet/access"
	"fulmar/fleet/api/door"
	"fulmar/fleet/api/parts/route"
	"fulmar/fleet/web"
	"fulmar/schema"
	"fulmar/schema/rest"
)

// Bounds on a join token to be made.
const (
	maxJoinBoards  = 10_000
	maxJoinSeconds = 30 * 24 * 3600
	joinSeconds    = 3600
)

// JoinTokens keeps the tokens with which boards enrol.
type JoinTokens interface {
	// JoinTokens gives those with which boards can still enrol.
	JoinTokens(ctx context.Context, tenant string) ([]rest.JoinToken, error)
	MakeJoinToken(ctx context.Context, by access.Caller, s rest.JoinTokenSpec) (rest.MadeJoinToken, error)
	RevokeJoinToken(ctx context.Context, by access.Caller, id string) error
}

// joinTokens are the routes of join tokens. They let in boards that nobody knows yet, and
// are for callers alone who see all boards.
type joinTokens struct{ j JoinTokens }

func (j *joinTokens) mount(d *door.Door) {
	g := route.Group{Tag: "admission", Read: rest.BoardsAdmit, Edit: rest.BoardsAdmit}
	door.Handle(d, route.Whole(g.Route("list-join-tokens", http.MethodGet, "join-tokens", "Tokens with which boards can still enrol; never their secrets")), j.list)
	door.Handle(d, route.Whole(route.Makes(route.Secret(g.Route("make-join-token", http.MethodPost, "join-tokens", "Make a token with which boards enrol; the answer has the text that a board is given")))), j.make)
	door.Handle(d, route.Whole(g.Route("revoke-join-token", http.MethodDelete, "join-tokens/{id}", "End a join token; boards that enrolled with it stay")), j.revoke)
}

func (j *joinTokens) list(ctx context.Context, by access.Caller, _ *route.Nothing) (*route.ListOut[rest.JoinToken], error) {
	return route.ListOf(j.j.JoinTokens(ctx, by.Tenant))
}

type joinTokenIn struct {
	Dry  bool `query:"dry_run" doc:"Check all and change nothing"`
	Body rest.JoinTokenSpec
}

type joinTokenOut struct{ Body rest.MadeJoinToken }

func (j *joinTokens) make(ctx context.Context, by access.Caller, in *joinTokenIn) (*joinTokenOut, error) {
	s := in.Body
	switch {
	case s.Board != "" && schema.CheckBoard(s.Board) != nil:
		return nil, door.WrongField("/board", "is no name of a board: 1 to 64 of a-z 0-9 - _ ., a letter or digit first")
	case s.Board != "" && s.Boards > 1:
		return nil, door.WrongField("/boards", "takes 1 with a board: the token is for that one alone")
	case s.Boards < 0 || s.Boards > maxJoinBoards:
		return nil, door.WrongField("/boards", "takes 1 to "+strconv.Itoa(maxJoinBoards)+"; 0 is 1")
	case s.Seconds < 0 || s.Seconds > maxJoinSeconds:
		return nil, door.WrongField("/seconds", "takes 1 to "+strconv.Itoa(maxJoinSeconds)+", which is 30 days; 0 is an hour")
	case in.Dry:
		return nil, door.Would("A join token would be made.")
	}
	s.Boards = max(s.Boards, 1)
	if s.Seconds == 0 {
		s.Seconds = joinSeconds
	}
	made, err := j.j.MakeJoinToken(ctx, by, s)
	return &joinTokenOut{made}, err
}

func (j *joinTokens) revoke(ctx context.Context, by access.Caller, in *route.IDIn) (*struct{}, error) {
	if !in.Dry {
		return nil, j.j.RevokeJoinToken(ctx, by, in.ID)
	}
	all, err := j.j.JoinTokens(ctx, by.Tenant)
	switch {
	case err != nil:
		return nil, err
	case !slices.ContainsFunc(all, func(t rest.JoinToken) bool { return t.ID == in.ID }):
		return nil, web.ErrNotFound
	}
	return nil, door.Would("The join token would be revoked.")
}
