// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"context"
	"net/url"

	"fulmar/fleet/web/live"
)

// For the tests, which stand outside: they put the views into the frame.
const (
	MaxForm     = maxForm
	MaxQuery    = maxQuery
	MaxParts    = maxParts
	ThemeCookie = themeCookie
)

// LiveSheet builds the live half of a view as the hub does.
func (h *Handler) LiveSheet(ctx context.Context, s Session, u *url.URL) (*live.Sheet, error) {
	p, err := h.build(ctx, s, u, map[string]bool{})
	if err != nil {
		return nil, err
	}
	return p.Sheet, nil
}
