// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"errors"
	"net/http"

	"fulmar/fleet/access"
	"fulmar/fleet/registry/meta"
	"fulmar/fleet/web"
	"fulmar/fleet/web/views"
	"fulmar/schema/rest"
)

// pages puts the views of the page together, in the order of its bar.
func (s *Server) pages(src web.Source) []web.Page {
	said := said{s.reg.Meta()}
	return views.Pages(views.Config{Source: src, Keeper: decider{s.reg}, Saved: said, Metas: said, Log: s.log})
}

// said lets the page keep what people say of boards, with the page's errors.
type said struct{ *meta.Metas }

// Set implements [boardview.Metas].
func (m said) Set(ctx context.Context, by access.Caller, board string, x rest.Meta, ifVersion int64) (rest.Meta, error) {
	out, err := m.Metas.Set(ctx, by, board, x, ifVersion)
	return out, saidError(err)
}

// SaveQuery implements [fleetview.Saved].
func (m said) SaveQuery(ctx context.Context, by access.Caller, q rest.SavedQuery) (rest.SavedQuery, error) {
	out, err := m.Metas.SaveQuery(ctx, by, q)
	return out, saidError(err)
}

// RemoveQuery implements [fleetview.Saved].
func (m said) RemoveQuery(ctx context.Context, by access.Caller, name string) error {
	return saidError(m.Metas.RemoveQuery(ctx, by, name))
}

// saidError turns the errors of what is kept into the page's.
func saidError(err error) error {
	switch {
	case errors.Is(err, meta.ErrStale):
		return web.ErrStale
	case errors.Is(err, meta.ErrUnknown):
		return web.ErrNotFound
	case errors.Is(err, meta.ErrInvalid), errors.Is(err, meta.ErrTooMany):
		return &web.Problem{Code: http.StatusUnprocessableEntity, What: "This was not kept: " + err.Error(), Do: "Nothing was changed; correct it and send it again."}
	}
	return err
}
