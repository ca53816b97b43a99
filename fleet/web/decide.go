// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"context"
	"errors"
	"net/http"

	"fulmar/fleet/web/trust"
	"fulmar/schema/rest"
)

// pending lists the boards that wait for a person.
func (h *Handler) pending(ctx context.Context, tenant string) ([]trust.Request, error) {
	if h.cfg.Keeper == nil {
		return nil, nil
	}
	return h.cfg.Keeper.Pending(ctx, tenant)
}

// decide takes a person's decision about a board.
func (h *Handler) decide(w http.ResponseWriter, r *http.Request, s Session) {
	if h.cfg.Keeper == nil {
		h.failed(w, r, ErrNotFound)
		return
	}
	if s.Caller().May(rest.BoardsAdmit) != nil {
		h.fail(w, r, http.StatusForbidden, "You may not decide about boards", "Ask an administrator: it takes the right "+string(rest.BoardsAdmit)+".")
		return
	}
	if !h.readForm(w, r) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	next, err := trust.Act(ctx, h.cfg.Keeper, s.Tenant, s.User, r)
	var no *trust.Problem
	switch {
	case err == nil:
		http.Redirect(w, r, local(next), http.StatusSeeOther)
	case errors.As(err, &no):
		h.fail(w, r, no.Code, no.What, no.Do)
	default:
		h.cfg.Log.Error("decision not kept", "path", r.URL.Path, "err", err)
		h.fail(w, r, http.StatusServiceUnavailable, "This cannot be done right now", "Nothing was changed. Try again in a minute; the server's log says why.")
	}
}
