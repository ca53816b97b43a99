// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"context"
	"embed"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"fulmar/fleet/web"
	"fulmar/fleet/web/form"
	"fulmar/schema/rest"
)

//go:embed templates
var files embed.FS

// pages are the settings.
type pages struct{ cfg Config }

// Pages gives the pages of the settings, as many as cfg has parts for.
func Pages(cfg Config) []web.Page {
	p := &pages{cfg}
	out := []web.Page{
		{Path: "/settings", Serve: func(w http.ResponseWriter, r *http.Request, _ web.Session) error {
			http.Redirect(w, r, "/settings/account", http.StatusSeeOther)
			return nil
		}},
		{Path: "/settings/count", Right: rest.BoardsRead, Serve: p.count},
	}
	for _, t := range tabs() {
		if !t.there(&cfg) {
			continue
		}
		name := strings.TrimPrefix(t.Path, "/settings/")
		out = append(out, web.Page{
			Tab: "Settings", Path: t.Path, Right: t.see, ActRight: t.change, MaxForm: form.Max, Act: p.act(t),
			View: &web.View{
				Name: "set-" + name, Files: form.With(files), Templates: []string{form.Pieces, "templates/frame.html", "templates/" + name + ".html"}, Assets: form.Assets(),
				Personal: t.Path != "/settings/alerts",
				Build:    func(ctx context.Context, s *web.Shown) error { return p.draw(ctx, s, t, nil, nil) },
			},
		})
	}
	return out
}

// act does what a form of one page asks for.
func (p *pages) act(t tab) func(context.Context, *web.Shown, *http.Request) (string, error) {
	return func(ctx context.Context, s *web.Shown, r *http.Request) (string, error) {
		f, err := form.Read(r)
		if err != nil {
			return "", err
		}
		once, err := p.change(ctx, s.Session.Caller(), t.Path, f)
		if err != nil {
			var ok bool
			if s.Code, ok = p.refused(f, err); !ok {
				return "", err
			}
		}
		switch {
		case !f.OK():
			err = p.draw(ctx, s, t, f, nil)
		case once != nil:
			s.Code = http.StatusOK
			err = p.draw(ctx, s, t, nil, once)
		default:
			if hook := s.Query.Get("hook"); hook != "" {
				return t.Path + "?" + url.Values{"hook": {hook}}.Encode(), nil
			}
			return t.Path, nil
		}
		if err != nil {
			return "", err
		}
		return "", web.ErrAgain
	}
}

// draw fills in a page. f is a form that was refused, once what is shown this once.
func (p *pages) draw(ctx context.Context, s *web.Shown, t tab, f *form.Form, once *secret) error {
	v, err := p.show(ctx, s.Sheet, s.Session, t.Path, s.Query, f)
	if err != nil {
		return err
	}
	v.Secret = once
	s.Title, s.Data = t.Name, v
	return nil
}

// count tells how many boards a query matches, for forms while somebody types.
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
