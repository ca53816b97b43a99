// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package parts are the routes of the API over the parts of the fleet that are kept
// apart: what people say of boards, rollouts, alerts, webhooks, users, tokens and the
// audit log. Each part comes as a small interface that is declared here; the routes
// translate, and decide nothing that a part decides.
//
// A caller who is limited to some boards sees the rollouts that touch no other board.
// The parts keep plans, acts and new tokens of such a caller within the limit.
package parts

import (
	"context"
	"net/http"

	"fulmar/fleet/access"
	"fulmar/fleet/api/door"
	"fulmar/fleet/api/look"
	"fulmar/fleet/api/parts/route"
	"fulmar/fleet/api/parts/upload"
	"fulmar/schema/rest"
)

// Metas keeps what people say of boards.
type Metas interface {
	// Get gives the zero Meta where nothing was said.
	Get(ctx context.Context, tenant, board string) (rest.Meta, error)
	// Set replaces it where its version is ifVersion; -1 is any.
	Set(ctx context.Context, by access.Caller, board string, m rest.Meta, ifVersion int64) (rest.Meta, error)
}

// Rollouts plans and does rollouts.
type Rollouts interface {
	List(ctx context.Context, tenant string) ([]rest.Rollout, error)
	Get(ctx context.Context, tenant, id string) (*rest.Rollout, error)
	Forecast(ctx context.Context, by access.Caller, s rest.RolloutSpec) (*rest.Forecast, error)
	Create(ctx context.Context, by access.Caller, s rest.RolloutSpec) (*rest.Rollout, error)
	Act(ctx context.Context, by access.Caller, id string, version int64, a rest.RolloutAction) (*rest.Rollout, error)
	Boards(ctx context.Context, tenant, id string) ([]rest.RolloutBoard, error)
}

// Accounts keeps users and tokens.
type Accounts interface {
	Users(ctx context.Context, tenant string) ([]rest.User, error)
	AddUser(ctx context.Context, by access.Caller, name string, role rest.Role) (oneTime string, err error)
	SetRole(ctx context.Context, by access.Caller, name string, role rest.Role) error
	Reset(ctx context.Context, by access.Caller, name string) (oneTime string, err error)
	Disable(ctx context.Context, by access.Caller, name string, out bool) error
	Remove(ctx context.Context, by access.Caller, name string) error
	DropTOTP(ctx context.Context, by access.Caller, name string) error
	Tokens(ctx context.Context, tenant string) ([]rest.Token, error)
	MakeToken(ctx context.Context, by access.Caller, s rest.TokenSpec) (secret string, t rest.Token, err error)
	RevokeToken(ctx context.Context, by access.Caller, id string) error
}

// Audit reads the audit log.
type Audit interface {
	// Entries gives rows after seq, at most limit; before it where the filter says newest
	// first, and 0 is the end then.
	Entries(ctx context.Context, tenant string, after int64, limit int, f rest.AuditFilter) ([]rest.AuditEntry, error)
	Head(ctx context.Context) (rest.AuditHead, error)
}

// Alerts keeps rules, and what they found.
type Alerts interface {
	Rules(ctx context.Context, tenant string) ([]rest.AlertRule, error)
	PutRule(ctx context.Context, by access.Caller, r rest.AlertRule) (rest.AlertRule, error)
	RemoveRule(ctx context.Context, by access.Caller, id string) error
	Alerts(ctx context.Context, tenant string) []rest.Alert
}

// Hooks keeps webhooks and what was delivered.
type Hooks interface {
	Hooks(ctx context.Context, tenant string) ([]rest.Webhook, error)
	PutHook(ctx context.Context, by access.Caller, h rest.Webhook) (rest.Webhook, error)
	RemoveHook(ctx context.Context, by access.Caller, id string) error
	// Deliveries gives those with an ID below before, newest first; 0 is from the newest.
	Deliveries(ctx context.Context, tenant, hook string, before int64, limit int) ([]rest.Delivery, error)
	Redeliver(ctx context.Context, by access.Caller, delivery int64) error
}

// Parts are the parts that there are; a nil one leaves its routes out.
type Parts struct {
	Looks    *look.Looks
	Metas    Metas
	Rollouts Rollouts
	Accounts Accounts
	Audit    Audit
	Alerts   Alerts
	Hooks    Hooks
	Joins    JoinTokens
	Twins    Twins
	Commands Commands
	Releases upload.Releases
}

// Mount adds the routes of the parts that there are.
func (p Parts) Mount(d *door.Door) {
	if p.Metas != nil {
		(&metas{p.Metas, p.Looks}).mount(d)
	}
	if p.Rollouts != nil {
		(&rollouts{p.Rollouts, p.Looks}).mount(d)
	}
	if p.Accounts != nil {
		(&accounts{p.Accounts, p.Looks}).mount(d)
	}
	if p.Audit != nil {
		(&auditLog{p.Audit}).mount(d)
	}
	if p.Alerts != nil {
		(&alerts{p.Alerts, p.Looks}).mount(d)
	}
	if p.Hooks != nil {
		(&hooks{p.Hooks}).mount(d)
	}
	if p.Joins != nil {
		(&joinTokens{p.Joins}).mount(d)
	}
	if p.Twins != nil {
		(&twins{p.Twins, p.Looks}).mount(d)
	}
	if p.Commands != nil {
		(&commands{p.Commands, p.Looks}).mount(d)
	}
	if p.Releases != nil {
		upload.Mount(d, p.Releases)
	}
}

// metas are the routes of what people say of boards.
type metas struct {
	m     Metas
	looks *look.Looks
}

func (m *metas) mount(d *door.Door) {
	g := route.Group{Tag: "boards", Read: rest.BoardsRead, Edit: rest.BoardsWrite}
	door.Handle(d, g.Route("get-meta", http.MethodGet, "boards/{board}/meta", "What people say of a board"), m.get)
	door.Handle(d, g.Route("set-meta", http.MethodPut, "boards/{board}/meta", "Say it anew"), m.set)
}

type metaOut struct {
	Tag  string `header:"ETag"`
	Body rest.Meta
}

func (m *metas) there(ctx context.Context, by access.Caller, board string) error {
	_, err := m.looks.Board(ctx, by, board)
	return err
}

type metaIn struct {
	Board string `path:"board" doc:"Its name"`
}

func (m *metas) get(ctx context.Context, by access.Caller, in *metaIn) (*metaOut, error) {
	if err := m.there(ctx, by, in.Board); err != nil {
		return nil, err
	}
	v, err := m.m.Get(ctx, by.Tenant, in.Board)
	return &metaOut{door.Tag(v.Version), v}, err
}

type setMetaIn struct {
	Board string `path:"board" doc:"Its name"`
	Match string `header:"If-Match" doc:"The ETag of what is replaced; * is whatever there is"`
	Dry   bool   `query:"dry_run" doc:"Check all and change nothing"`
	Body  rest.Meta
}

func (m *metas) set(ctx context.Context, by access.Caller, in *setMetaIn) (*metaOut, error) {
	version, err := door.Version(in.Match)
	if err == nil {
		err = m.there(ctx, by, in.Board)
	}
	if err != nil {
		return nil, err
	}
	now, err := m.m.Get(ctx, by.Tenant, in.Board)
	if err != nil {
		return nil, err
	}
	if version >= 0 && now.Version != version {
		return nil, door.Stale(now.Version)
	}
	if in.Dry {
		return nil, door.Would("What is said of board " + in.Board + " would be replaced.")
	}
	v, err := m.m.Set(ctx, by, in.Board, in.Body, version)
	return &metaOut{door.Tag(v.Version), v}, err
}
