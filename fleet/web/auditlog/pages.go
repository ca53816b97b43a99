// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package auditlog

import (
	"context"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"time"

	"fulmar/fleet/web"
	"fulmar/fleet/web/form"
	"fulmar/fleet/web/live"
	"fulmar/schema/rest"
)

//go:embed templates
var files embed.FS

// readTimeout bounds one page.
const readTimeout = 10 * time.Second

// Config shapes the page.
type Config struct {
	Log Log
	// Command gives the command that lists the same entries; nil: none is shown.
	// [Command] is that of the program fulmar.
	Command func(rest.AuditFilter) string
}

// Pages is the page of the audit log.
type Pages struct {
	cfg   Config
	frame *web.Handler
	tmpl  map[string]*template.Template
}

// Mount adds the audit log to the page.
func Mount(h *web.Handler, cfg Config) error {
	own, err := fs.Sub(files, "templates")
	if err != nil {
		return fmt.Errorf("read embedded templates: %w", err)
	}
	p := &Pages{cfg: cfg, frame: h}
	if p.tmpl, err = h.Parse(own, []fs.FS{form.Files}, "audit"); err != nil {
		return err
	}
	h.Mount(web.Page{Tab: "Audit", Path: "/audit", Right: rest.AuditRead, Handler: p.serve, Live: p.live})
	return nil
}

func (p *Pages) live(ctx context.Context, tenant string, u *url.URL) (*live.Sheet, error) {
	s := live.NewSheet(p.frame.Now())
	_, err := build(ctx, s, p.cfg.Log, tenant, u.Query(), false)
	return s, err
}

func (p *Pages) serve(w http.ResponseWriter, r *http.Request, s web.Session) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "this address takes GET", http.StatusMethodNotAllowed)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	sheet := live.NewSheet(p.frame.Now())
	v, err := build(ctx, sheet, p.cfg.Log, s.Tenant, r.URL.Query(), true)
	if err != nil {
		p.frame.Failed(w, r, err)
		return
	}
	code := http.StatusOK
	if !v.Form.OK() {
		code = http.StatusBadRequest
	} else if p.cfg.Command != nil {
		v.Command = p.cfg.Command(filter(v.Form, sheet.At.Location()))
	}
	p.frame.Draw(w, r, s, code, web.View{Template: p.tmpl["audit"], Name: "audit", Title: v.Headline, Tab: "audit", Sheet: sheet, Data: v})
}
