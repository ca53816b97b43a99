// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package boardview

import (
	"context"
	"net/http"

	"fulmar/fleet/web"
	"fulmar/fleet/web/trust"
)

// decide takes a person's decision about a board.
func (h *views) decide(ctx context.Context, p *web.Shown, r *http.Request) (string, error) {
	return trust.Act(ctx, h.cfg.Keeper, p.Session.Tenant, p.Session.User, r)
}
