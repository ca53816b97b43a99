// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package joins

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"fulmar/fleet/access"
	"fulmar/fleet/registry/meta"
	"fulmar/fleet/web"
	"fulmar/schema/rest"
)

// Metas keeps metadata of boards. Whoever changes some sees it in the next look.
type Metas struct {
	*meta.Metas
	Stale func(tenant string) // lets the next look read again
}

// Set implements the API's Metas.
func (m Metas) Set(ctx context.Context, by access.Caller, board string, x rest.Meta, ifVersion int64) (rest.Meta, error) {
	defer m.Stale(by.Tenant)
	return m.Metas.Set(ctx, by, board, x, ifVersion)
}

// PageMetas is Metas for the page, whose words for errors are others.
type PageMetas struct{ Metas }

// Set implements the page's Metas.
func (m PageMetas) Set(ctx context.Context, by access.Caller, board string, x rest.Meta, ifVersion int64) (rest.Meta, error) {
	got, err := m.Metas.Set(ctx, by, board, x, ifVersion)
	switch {
	case errors.Is(err, meta.ErrStale):
		err = fmt.Errorf("%w: %w", web.ErrStale, err)
	case errors.Is(err, meta.ErrUnknown):
		err = fmt.Errorf("%w: %w", web.ErrNotFound, err)
	case errors.Is(err, meta.ErrInvalid), errors.Is(err, meta.ErrTooMany):
		err = &web.Problem{Code: http.StatusUnprocessableEntity, What: "Nothing was written: " + err.Error(), Do: "Go back and change that field."}
	}
	return got, err
}
