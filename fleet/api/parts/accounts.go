// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package parts

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"fulmar/fleet/access"
	"fulmar/fleet/api/door"
	"fulmar/fleet/api/look"
	"fulmar/fleet/api/parts/route"
	"fulmar/fleet/web"
	"fulmar/schema/rest"
)

// maxLimit bounds the query of a token with that of its maker, in bytes: the accounts
// keep 1,000 with the words between them.
const maxLimit = 980

// accounts are the routes of users and tokens.
type accounts struct {
	a     Accounts
	looks *look.Looks
}

func (a *accounts) mount(d *door.Door) {
	g := route.Group{Tag: "users", Read: rest.UsersWrite, Edit: rest.UsersWrite}
	door.Handle(d, route.Whole(g.Route("list-users", http.MethodGet, "users", "People of the tenant")), a.users)
	door.Handle(d, route.Whole(route.Makes(route.Secret(g.Route("add-user", http.MethodPost, "users", "Add a user; the answer has their one-time password")))), a.add)
	door.Handle(d, route.Whole(g.Route("set-role", http.MethodPut, "users/{id}/role", "Give a user another role")), a.role)
	door.Handle(d, route.Whole(g.Route("disable-user", http.MethodPut, "users/{id}/disabled", "Shut a user out with their sessions and tokens, or let them in again")), a.disable)
	door.Handle(d, route.Whole(route.Secret(g.Route("reset-user", http.MethodPost, "users/{id}/reset", "Give a user a new one-time password"))), a.reset)
	door.Handle(d, route.Whole(g.Route("drop-second-factor", http.MethodDelete, "users/{id}/second-factor", "Let a user who lost it log in without their second factor")), a.drop)
	door.Handle(d, route.Whole(g.Route("remove-user", http.MethodDelete, "users/{id}", "Remove a user, their sessions and their tokens")), a.remove)
	own := route.Group{Tag: "tokens", Read: "", Edit: ""} // one's own; those of others with users:write
	door.Handle(d, own.Route("list-tokens", http.MethodGet, "tokens", "The caller's API tokens; with users:write those of all"), a.tokens)
	door.Handle(d, route.Makes(route.Secret(own.Route("make-token", http.MethodPost, "tokens", "Make an API token, whose rights are within the caller's; the answer has its secret"))), a.make)
	door.Handle(d, own.Route("revoke-token", http.MethodDelete, "tokens/{id}", "Revoke an API token"), a.revoke)
}

func (a *accounts) users(ctx context.Context, by access.Caller, _ *route.Nothing) (*route.ListOut[rest.User], error) {
	return route.ListOf(a.a.Users(ctx, by.Tenant))
}

// user finds a user, so that a dry run knows whether there is one.
func (a *accounts) user(ctx context.Context, by access.Caller, name string) error {
	all, err := a.a.Users(ctx, by.Tenant)
	if err == nil && !slices.ContainsFunc(all, func(u rest.User) bool { return u.Name == name }) {
		err = web.ErrNotFound
	}
	return err
}

type addUserIn struct {
	Dry  bool `query:"dry_run" doc:"Check all and change nothing"`
	Body struct {
		Name string    `json:"name" minLength:"1" maxLength:"64"`
		Role rest.Role `json:"role" enum:"viewer,operator,releaser,admin"`
	}
}

type oneTimeOut struct{ Body rest.OneTime }

func (a *accounts) add(ctx context.Context, by access.Caller, in *addUserIn) (*oneTimeOut, error) {
	if in.Dry {
		if err := a.user(ctx, by, in.Body.Name); err == nil {
			return nil, door.Fail(rest.CodeConflict, "there is a user of this name")
		}
		return nil, door.Would("A user would be added.")
	}
	pw, err := a.a.AddUser(ctx, by, in.Body.Name, in.Body.Role)
	return &oneTimeOut{rest.OneTime{Name: in.Body.Name, Password: pw}}, err
}

type roleIn struct {
	ID   string `path:"id" maxLength:"64" doc:"The name of the user"`
	Dry  bool   `query:"dry_run" doc:"Check all and change nothing"`
	Body struct {
		Role rest.Role `json:"role" enum:"viewer,operator,releaser,admin"`
	}
}

func (a *accounts) role(ctx context.Context, by access.Caller, in *roleIn) (*struct{}, error) {
	if in.Dry {
		return nil, a.would(ctx, by, in.ID, "get another role")
	}
	return nil, a.a.SetRole(ctx, by, in.ID, in.Body.Role)
}

type disabledIn struct {
	ID   string `path:"id" maxLength:"64" doc:"The name of the user"`
	Dry  bool   `query:"dry_run" doc:"Check all and change nothing"`
	Body struct {
		Disabled bool `json:"disabled" doc:"true shuts them out, false lets them in"`
	}
}

func (a *accounts) disable(ctx context.Context, by access.Caller, in *disabledIn) (*struct{}, error) {
	switch {
	case in.Dry && in.Body.Disabled:
		return nil, a.would(ctx, by, in.ID, "be shut out, and every log-in and token of theirs with them")
	case in.Dry:
		return nil, a.would(ctx, by, in.ID, "be let in again")
	}
	return nil, a.a.Disable(ctx, by, in.ID, in.Body.Disabled)
}

func (a *accounts) would(ctx context.Context, by access.Caller, name, what string) error {
	if err := a.user(ctx, by, name); err != nil {
		return err
	}
	return door.Would("User " + name + " would " + what + ".")
}

func (a *accounts) reset(ctx context.Context, by access.Caller, in *route.IDIn) (*oneTimeOut, error) {
	if in.Dry {
		return nil, a.would(ctx, by, in.ID, "get a new one-time password")
	}
	pw, err := a.a.Reset(ctx, by, in.ID)
	return &oneTimeOut{rest.OneTime{Name: in.ID, Password: pw}}, err
}

func (a *accounts) drop(ctx context.Context, by access.Caller, in *route.IDIn) (*struct{}, error) {
	if in.Dry {
		return nil, a.would(ctx, by, in.ID, "log in without a second factor")
	}
	return nil, a.a.DropTOTP(ctx, by, in.ID)
}

func (a *accounts) remove(ctx context.Context, by access.Caller, in *route.IDIn) (*struct{}, error) {
	if in.Dry {
		return nil, a.would(ctx, by, in.ID, "be removed")
	}
	return nil, a.a.Remove(ctx, by, in.ID)
}

// mine gives the tokens that the caller may see.
func (a *accounts) mine(ctx context.Context, by access.Caller) ([]rest.Token, error) {
	all, err := a.a.Tokens(ctx, by.Tenant)
	if err != nil || by.Rights.Has(rest.UsersWrite) && by.Boards == "" {
		return all, err
	}
	return slices.DeleteFunc(slices.Clone(all), func(t rest.Token) bool { return t.By != by.Author }), nil
}

func (a *accounts) tokens(ctx context.Context, by access.Caller, _ *route.Nothing) (*route.ListOut[rest.Token], error) {
	return route.ListOf(a.mine(ctx, by))
}

type tokenIn struct {
	Dry  bool `query:"dry_run" doc:"Check all and change nothing"`
	Body rest.TokenSpec
}

type tokenOut struct{ Body rest.MadeToken }

func (a *accounts) make(ctx context.Context, by access.Caller, in *tokenIn) (*tokenOut, error) {
	if !in.Body.Rights.Within(by.Rights) {
		return nil, &door.Error{Code: rest.CodeNotAllowed, Detail: "nobody gives away rights that they do not have", Cause: access.ErrNotAllowed}
	}
	if err := a.check(ctx, by, &in.Body); err != nil {
		return nil, err
	}
	if in.Dry {
		return nil, door.Would("A token would be made.")
	}
	secret, t, err := a.a.MakeToken(ctx, by, in.Body)
	return &tokenOut{rest.MadeToken{Token: t, Secret: secret}}, err
}

// check says which field of a token to be made is wrong. Who makes it keeps it within
// the caller's own limit.
func (a *accounts) check(ctx context.Context, by access.Caller, s *rest.TokenSpec) error {
	switch {
	case s.Rights == 0:
		return door.WrongField("/rights", "takes at least one: a token without rights lets nobody in")
	case s.Days < 0 || s.Days > 366:
		return door.WrongField("/days", "takes 1 to 366; 0 is 90")
	case len(s.Name) > 64 || !utf8.ValidString(s.Name) || strings.ContainsFunc(s.Name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return door.WrongField("/name", "takes at most 64 bytes of one line")
	}
	if len(s.Boards)+len(by.Boards) > maxLimit {
		return door.WrongField("/boards", "takes a query of at most 980 bytes, with the limit of whoever makes it")
	}
	_, err := a.looks.See(ctx, by, s.Boards) // its errors point at a column
	return err
}

func (a *accounts) revoke(ctx context.Context, by access.Caller, in *route.IDIn) (*struct{}, error) {
	mine, err := a.mine(ctx, by)
	if err == nil && !slices.ContainsFunc(mine, func(t rest.Token) bool { return t.ID == in.ID }) {
		err = web.ErrNotFound
	}
	switch {
	case err != nil:
		return nil, err
	case in.Dry:
		return nil, door.Would("The token would be revoked.")
	}
	return nil, a.a.RevokeToken(ctx, by, in.ID)
}

// auditLog are the routes of the audit log.
type auditLog struct{ a Audit }

func (a *auditLog) mount(d *door.Door) {
	g := route.Group{Tag: "audit", Read: rest.AuditRead, Edit: ""}
	door.Handle(d, route.Whole(g.Route("list-audit", http.MethodGet, "audit", "Who did what, when and why")), a.entries)
	door.Handle(d, route.Whole(g.Route("get-audit-head", http.MethodGet, "audit/head", "The newest row, signed by the server")), a.head)
}

type auditIn struct {
	Who       string    `query:"who" maxLength:"128" doc:"Only of this person, program or board"`
	What      string    `query:"what" maxLength:"64" doc:"Only of this word: revoke, approve, log-in"`
	Board     string    `query:"board" maxLength:"64" doc:"Only of this board"`
	From      time.Time `query:"from" doc:"Only from then on"`
	To        time.Time `query:"to" doc:"Only before then"`
	Newest    bool      `query:"newest" doc:"Newest first"`
	PageSize  int       `query:"page_size" minimum:"1" maximum:"1000" default:"100" doc:"Rows of one page"`
	PageToken string    `query:"page_token" maxLength:"20" doc:"next of the page before"`
}

func (a *auditLog) entries(ctx context.Context, by access.Caller, in *auditIn) (*route.ListOut[rest.AuditEntry], error) {
	after := int64(0)
	if in.PageToken != "" {
		var err error
		if after, err = strconv.ParseInt(in.PageToken, 10, 64); err != nil || after < 1 {
			return nil, door.Fail(rest.CodePageToken, "")
		}
	}
	f := rest.AuditFilter{Who: in.Who, What: in.What, Board: in.Board, From: in.From, To: in.To, Newest: in.Newest}
	out, err := route.ListOf(a.a.Entries(ctx, by.Tenant, after, in.PageSize, f))
	if n := len(out.Body.Items); err == nil && n == in.PageSize {
		out.Body.Next = strconv.FormatInt(out.Body.Items[n-1].Seq, 10)
	}
	return out, err
}

type auditHeadOut struct{ Body rest.AuditHead }

func (a *auditLog) head(ctx context.Context, _ access.Caller, _ *route.Nothing) (*auditHeadOut, error) {
	h, err := a.a.Head(ctx)
	return &auditHeadOut{h}, err
}
