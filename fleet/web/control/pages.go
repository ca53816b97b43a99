// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"embed"
	"encoding/json"
	"net/http"
	"net/url"

	"fulmar/fleet/web"
	"fulmar/fleet/web/form"
	"fulmar/schema/rest"
)

//go:embed templates
var files embed.FS

const (
	maxID   = 64  // bytes of a command's id
	maxWhy  = 256 // bytes of a reason: as boards take it
	maxName = 64  // bytes of a command's or a board's name
)

// pages are the pages of commands and twins.
type pages struct{ cfg Config }

// Pages gives the pages, in the order of the bar.
func Pages(cfg Config) []web.Page {
	p := &pages{cfg}
	view := func(name string, build func(context.Context, *web.Shown) error) *web.View {
		return &web.View{
			Name: "ctl-" + name, Files: form.With(files), Templates: []string{form.Pieces, "templates/pieces.html", "templates/" + name + ".html"},
			Assets: form.Assets(), Build: build,
		}
	}
	one := view("one", p.one)
	one.Personal = true // whoever gave it has other buttons
	return []web.Page{
		{Tab: "Commands", Path: "/commands", Right: rest.BoardsRead, View: view("list", p.list)},
		{Tab: "Commands", Path: "/commands/new", Right: rest.CommandsSend, View: view("give", p.blank), Act: p.give, MaxForm: form.Max},
		{Tab: "Commands", Path: "/commands/{id}", Right: rest.BoardsRead, View: one, Act: p.act, MaxForm: form.Max},
		{Tab: "Commands", Path: "/conflicts", Right: rest.BoardsRead, View: view("conflicts", p.conflicts), Act: p.decide, ActRight: rest.CommandsSend},
		{Tab: "Fleet", Path: "/boards/{board}/control", Right: rest.BoardsRead, View: view("twin", p.twin), Act: p.set, ActRight: rest.CommandsSend, MaxForm: form.Max},
		{Path: "/commands/count", Right: rest.BoardsRead, Serve: p.count},
	}
}

// count tells how many boards a query matches, for the form while somebody types.
func (p *pages) count(w http.ResponseWriter, r *http.Request, s web.Session) error {
	if p.cfg.Count == nil {
		return web.ErrNotFound
	}
	c, err := p.cfg.Count(r.Context(), s.Caller(), r.URL.Query().Get("q"))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(c) // the reader has gone: nobody is left to tell
	return nil
}

// to gives the address of a command.
func to(id string) string { return "/commands/" + url.PathEscape(id) }
