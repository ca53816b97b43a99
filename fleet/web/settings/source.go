// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"context"

	"fulmar/fleet/access"
	"fulmar/fleet/web"
	"fulmar/fleet/web/form"
	"fulmar/schema/rest"
)

// Accounts keeps users and API tokens. A second factor is set up on a page of its own.
type Accounts interface {
	Users(ctx context.Context, tenant string) ([]rest.User, error)
	AddUser(ctx context.Context, by access.Caller, name string, role rest.Role) (oneTime string, err error)
	Disable(ctx context.Context, by access.Caller, name string, out bool) error
	SetRole(ctx context.Context, by access.Caller, name string, role rest.Role) error
	Reset(ctx context.Context, by access.Caller, name string) (oneTime string, err error)
	Remove(ctx context.Context, by access.Caller, name string) error

	Tokens(ctx context.Context, tenant string) ([]rest.Token, error)
	MakeToken(ctx context.Context, by access.Caller, s rest.TokenSpec) (secret string, t rest.Token, err error)
	RevokeToken(ctx context.Context, by access.Caller, id string) error

	// DropTOTP takes the second factor off from somebody who lost it; RequireTOTP wants
	// one of everybody from a role on, "" of nobody.
	DropTOTP(ctx context.Context, by access.Caller, user string) error
	RequireTOTP(ctx context.Context, by access.Caller, from rest.Role) error
	TOTPFrom(ctx context.Context, tenant string) (from rest.Role, err error)
}

// Logins lists where a person is logged in, and ends one of them.
type Logins interface {
	Logins(ctx context.Context, user, here string) ([]rest.Login, error)
	EndLogin(ctx context.Context, user, id string) error
}

// Alerts keeps alert rules and tells what they found.
type Alerts interface {
	Rules(ctx context.Context, tenant string) ([]rest.AlertRule, error)
	// PutRule makes a rule or changes one, which has to be at the version of r: 0
	// for a new one.
	PutRule(ctx context.Context, by access.Caller, r rest.AlertRule) (rest.AlertRule, error)
	RemoveRule(ctx context.Context, by access.Caller, id string) error
	Alerts(ctx context.Context, tenant string) []rest.Alert
}

// Hooks keeps webhooks and what was delivered to them.
type Hooks interface {
	Hooks(ctx context.Context, tenant string) ([]rest.Webhook, error)
	PutHook(ctx context.Context, by access.Caller, h rest.Webhook) (rest.Webhook, error)
	RemoveHook(ctx context.Context, by access.Caller, id string) error
	Deliveries(ctx context.Context, tenant, hook string, before int64, limit int) ([]rest.Delivery, error)
	Redeliver(ctx context.Context, by access.Caller, delivery int64) error
}

// Joins keeps the tokens with which boards enrol.
type Joins interface {
	// JoinTokens gives those with which boards can still enrol.
	JoinTokens(ctx context.Context, tenant string) ([]rest.JoinToken, error)
	MakeJoinToken(ctx context.Context, by access.Caller, s rest.JoinTokenSpec) (rest.MadeJoinToken, error)
	RevokeJoinToken(ctx context.Context, by access.Caller, id string) error
}

// Config shapes the pages. What is nil is not shown.
type Config struct {
	Accounts Accounts
	Logins   Logins
	// Here names the session that asks, as Logins does; nil: none is marked.
	Here func(web.Session) string
	// SecondFactor is the address where a person sets up a second factor; "": nowhere.
	SecondFactor string
	Alerts       Alerts
	Hooks        Hooks
	Joins        Joins
	// Count tells how many boards a query matches; nil: forms do not count.
	Count func(ctx context.Context, by access.Caller, query string) (rest.QueryCheck, error)
	// Problem puts an error of a part into words; false for a fault of the server.
	Problem form.Explain
}
