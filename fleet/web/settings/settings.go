// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"fulmar/fleet/access"
	"fulmar/fleet/web"
	"fulmar/fleet/web/form"
	"fulmar/fleet/web/live"
	"fulmar/schema/rest"
)

// errNothing: a form asks for nothing that there is; errGone: what it names is not there.
var (
	errNothing = errors.New("the form asks for nothing that can be done here")
	errGone    = errors.New("this is not there any more")
)

// secret is what is shown once.
type secret struct{ Title, Text, Note string }

// tab is one page of the settings.
type tab struct {
	Path, Name string
	see        rest.Right // who may see it
	change     rest.Right // who may change something in it
	there      func(*Config) bool
}

// tabs lists the pages in their order.
func tabs() []tab {
	accounts := func(c *Config) bool { return c.Accounts != nil }
	alerts, hooks := func(c *Config) bool { return c.Alerts != nil }, func(c *Config) bool { return c.Hooks != nil }
	return []tab{
		{"/settings/account", "Your account", rest.BoardsRead, rest.BoardsRead, func(*Config) bool { return true }},
		{"/settings/alerts", "Alerts", rest.BoardsRead, rest.AlertsWrite, alerts},
		{"/settings/webhooks", "Webhooks", rest.AlertsWrite, rest.AlertsWrite, hooks},
		{"/settings/tokens", "API tokens", rest.BoardsRead, rest.BoardsRead, accounts},
		{"/settings/users", "Users", rest.UsersWrite, rest.UsersWrite, accounts},
		{"/settings/boards", "Enrol boards", rest.BoardsAdmit, rest.BoardsAdmit, func(c *Config) bool { return c.Joins != nil }},
	}
}

// view is what every page of the settings has.
type view struct {
	Nav    []tab // those that this person may see
	Here   string
	Secret *secret // shown once, in the answer that made it
	Saved  string
	Form   *form.Form // with what is wrong
	Body   any
}

// nav lists the pages that by may see.
func (p *pages) nav(by access.Caller) (out []tab) {
	for _, t := range tabs() {
		if t.there(&p.cfg) && by.May(t.see) == nil {
			out = append(out, t)
		}
	}
	return out
}

// show builds the page of a path. f is a form that was refused; nil: none.
func (p *pages) show(ctx context.Context, s *live.Sheet, who web.Session, path string, q url.Values, f *form.Form) (*view, error) {
	by := who.Caller()
	v := &view{Nav: p.nav(by), Here: path, Form: f}
	if f == nil {
		v.Form = form.New()
	}
	var err error
	switch path {
	case "/settings/account":
		v.Body, err = p.account(ctx, s, who)
	case "/settings/users":
		v.Body, err = p.users(ctx, s, by, v.Form)
	case "/settings/tokens":
		if f == nil {
			v.Form.Set("days", "90")
		}
		v.Body, err = p.tokens(ctx, s, by, v.Form)
	case "/settings/alerts":
		v.Body, err = p.alerts(ctx, s, by, q, f)
	case "/settings/webhooks":
		v.Body, err = p.hooks(ctx, s, by, q, f)
	case "/settings/boards":
		if f == nil {
			v.Form.Set("boards", "1")
		}
		v.Body, err = p.joins(ctx, s, by, v.Form)
	}
	return v, err
}

// change does what a form of the page asks for. It gives what is shown once.
func (p *pages) change(ctx context.Context, by access.Caller, path string, f *form.Form) (once *secret, err error) {
	switch path {
	case "/settings/account":
		err = p.changeAccount(ctx, by, f)
	case "/settings/users":
		once, err = p.changeUsers(ctx, by, f)
	case "/settings/tokens":
		once, err = p.changeTokens(ctx, by, f)
	case "/settings/alerts":
		err = p.changeAlerts(ctx, by, f)
	case "/settings/webhooks":
		once, err = p.changeHooks(ctx, by, f)
	case "/settings/boards":
		once, err = p.changeJoins(ctx, by, f)
	}
	if err != nil || once != nil && once.Text == "" {
		once = nil
	}
	return once, err
}

// refused writes an error into the form and gives the status; false for a fault of the
// server.
func (p *pages) refused(f *form.Form, err error) (code int, ok bool) {
	switch {
	case errors.Is(err, errNothing):
		f.Refuse("Nothing was done: the form asks for nothing that can be done here.", "Press one of the buttons.")
		return http.StatusBadRequest, true
	case errors.Is(err, errGone):
		f.Refuse("Nothing was done: it is not there any more.", "Somebody else may have removed it.")
		return http.StatusNotFound, true
	case errors.Is(err, access.ErrNotAllowed):
		f.Refuse("Nothing was done: you may not do that.", "An admin gives roles.")
		return http.StatusForbidden, true
	}
	if p.cfg.Problem == nil {
		return 0, false
	}
	pr, ok := p.cfg.Problem(err)
	if !ok {
		return 0, false
	}
	f.Take(pr, func(pointer string) string {
		if pointer == "/name" && f.Raw("user") != "" {
			return "user"
		}
		return fieldOf(pointer)
	})
	if pr.Status < 400 || pr.Status > 499 {
		return http.StatusUnprocessableEntity, true
	}
	return pr.Status, true
}

// fieldOf gives the field of a form for a JSON pointer of the API.
func fieldOf(pointer string) string {
	return map[string]string{
		"/name": "name", "/role": "role", "/rights": "rights", "/boards": "boards", "/days": "days", "/id": "id", "/summary": "summary", "/severity": "severity",
		"/q": "query", "/promql": "promql", "/for": "for", "/by": "by", "/url": "url", "/kind": "kind", "/events": "events", "/internal": "internal", "/code": "code",
	}[pointer]
}
