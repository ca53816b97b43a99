// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package auditlog

import (
	"context"
	"embed"
	"net/http"

	"fulmar/fleet/web"
	"fulmar/fleet/web/form"
	"fulmar/schema/rest"
)

//go:embed templates
var files embed.FS

// Config shapes the page.
type Config struct {
	Log Log
	// Command gives the command that lists the same entries; nil: none is shown.
	// [Command] is that of the program fulmar.
	Command func(rest.AuditFilter) string
}

// Pages gives the page of the audit log.
func Pages(cfg Config) []web.Page {
	return []web.Page{{
		Tab: "Audit", Path: "/audit", Right: rest.AuditRead,
		View: &web.View{
			Name: "audit", Files: form.With(files), Templates: []string{form.Pieces, "templates/audit.html"}, Assets: form.Assets(),
			Build: func(ctx context.Context, s *web.Shown) error { return show(ctx, s, cfg) },
		},
	}}
}

func show(ctx context.Context, s *web.Shown, cfg Config) error {
	v, err := build(ctx, s.Sheet, cfg.Log, s.Session.Tenant, s.Query, s.Want("rows"))
	if err != nil {
		return err
	}
	if !v.Form.OK() {
		s.Code = http.StatusBadRequest
	} else if cfg.Command != nil {
		v.Command = cfg.Command(filter(v.Form, s.At.Location()))
	}
	s.Title, s.Data = v.Headline, v
	return nil
}
