// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	"fulmar/fleet/web"
	"fulmar/fleet/web/form"
	"fulmar/fleet/web/live"
	"fulmar/schema/rest"
)

//go:embed templates
var files embed.FS

// readTimeout bounds one page. A password is hashed slowly on purpose.
const readTimeout = 15 * time.Second

// Pages are the settings.
type Pages struct {
	cfg   Config
	frame *web.Handler
	tmpl  map[string]*template.Template
}

// Mount adds the settings to the page.
func Mount(h *web.Handler, cfg Config) error {
	own, err := fs.Sub(files, "templates")
	if err != nil {
		return fmt.Errorf("read embedded templates: %w", err)
	}
	pieces, err := fs.Sub(files, "templates/pieces")
	if err != nil {
		return fmt.Errorf("read embedded templates: %w", err)
	}
	p := &Pages{cfg: cfg, frame: h}
	if p.tmpl, err = h.Parse(own, []fs.FS{form.Files, pieces}, "account", "users", "tokens", "alerts", "webhooks", "boards"); err != nil {
		return err
	}
	h.Mount(web.Page{Tab: "Settings", Path: "/settings", Right: rest.BoardsRead, Handler: func(w http.ResponseWriter, r *http.Request, _ web.Session) {
		http.Redirect(w, r, "/settings/account", http.StatusSeeOther)
	}}, web.Page{Path: "/settings/count", Right: rest.BoardsRead, Handler: p.count})
	for _, t := range tabs() {
		if !t.there(&cfg) {
			continue
		}
		pg := web.Page{Path: t.Path, Right: t.see, Handler: p.serve(t)}
		if t.Path == "/settings/alerts" {
			pg.Live = p.live
		}
		h.Mount(pg)
	}
	return nil
}

// live gives the live half of the alerts.
func (p *Pages) live(ctx context.Context, tenant string, u *url.URL) (*live.Sheet, error) {
	s := live.NewSheet(p.frame.Now())
	_, err := p.alerts(ctx, s, web.Session{Tenant: tenant, Role: rest.Viewer}.Caller(), u.Query(), nil)
	return s, err
}

// serve is one page of the settings: shown, or a form of it taken.
func (p *Pages) serve(t tab) func(http.ResponseWriter, *http.Request, web.Session) {
	return func(w http.ResponseWriter, r *http.Request, s web.Session) {
		ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
		defer cancel()
		switch r.Method {
		case http.MethodGet, http.MethodHead:
			p.draw(ctx, w, r, s, t, http.StatusOK, nil, nil, nil)
		case http.MethodPost:
			p.take(ctx, w, r, s, t)
		default:
			w.Header().Set("Allow", "GET, POST")
			http.Error(w, "this address takes GET and POST", http.StatusMethodNotAllowed)
		}
	}
}

func (p *Pages) take(ctx context.Context, w http.ResponseWriter, r *http.Request, s web.Session, t tab) {
	if s.Caller().May(t.change) != nil {
		p.frame.Fail(w, r, http.StatusForbidden, "You may not change this", "Your role looks on here. An admin gives roles.")
		return
	}
	f, err := form.Read(w, r, form.Max)
	if err != nil {
		p.frame.Fail(w, r, http.StatusRequestEntityTooLarge, "The form could not be read", "Nothing was done. Try again with less text.")
		return
	}
	once, show, err := p.change(ctx, s.Caller(), t.Path, f)
	switch {
	case err != nil:
		code, ok := p.refused(f, err)
		if !ok {
			p.frame.Failed(w, r, err)
			return
		}
		p.draw(ctx, w, r, s, t, code, f, nil, show)
	case !f.OK():
		p.draw(ctx, w, r, s, t, http.StatusUnprocessableEntity, f, nil, show)
	case once != nil || show != nil:
		p.draw(ctx, w, r, s, t, http.StatusOK, nil, once, show)
	default:
		next := t.Path
		if hook := r.URL.Query().Get("hook"); hook != "" {
			next += "?" + url.Values{"hook": {hook}}.Encode() + "#log"
		}
		http.Redirect(w, r, next, http.StatusSeeOther)
	}
}

// draw shows a page. An answer to a form is not live: its address takes forms, and what
// it shows once must not be asked for again.
func (p *Pages) draw(ctx context.Context, w http.ResponseWriter, r *http.Request, s web.Session, t tab, code int, f *form.Form, once *secret, more func(*accountView)) {
	sheet := live.NewSheet(p.frame.Now())
	v, err := p.show(ctx, sheet, s.Caller(), s.Role, t.Path, r.URL.Query(), f)
	if err != nil {
		p.frame.Failed(w, r, err)
		return
	}
	v.Secret = once
	if a, ok := v.Body.(*accountView); ok && more != nil {
		more(a)
	}
	if r.Method == http.MethodPost || t.Path != "/settings/alerts" {
		sheet = live.NewSheet(sheet.At)
	}
	name := strings.TrimPrefix(t.Path, "/settings/")
	p.frame.Draw(w, r, s, code, web.View{Template: p.tmpl[name], Name: "settings", Title: t.Name, Tab: "settings", Sheet: sheet, Data: v})
}

// count tells how many boards a query matches, for forms while somebody types.
func (p *Pages) count(w http.ResponseWriter, r *http.Request, s web.Session) {
	if p.cfg.Count == nil {
		http.NotFound(w, r)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	c, err := p.cfg.Count(ctx, s.Caller(), r.URL.Query().Get("q"))
	if err != nil {
		http.Error(w, "not counted right now", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(c) // the reader has gone: nobody is left to tell
}
