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
	return got, pageError(err)
}

// SaveQuery implements the page's Saved.
func (m PageMetas) SaveQuery(ctx context.Context, by access.Caller, q rest.SavedQuery) (rest.SavedQuery, error) {
	got, err := m.Metas.SaveQuery(ctx, by, q)
	return got, pageError(err)
}

// RemoveQuery implements the page's Saved.
func (m PageMetas) RemoveQuery(ctx context.Context, by access.Caller, name string) error {
	return pageError(m.Metas.RemoveQuery(ctx, by, name))
}

// pageError gives an error of what is said of boards as the page knows it.
func pageError(err error) error {
	switch {
	case errors.Is(err, meta.ErrStale):
		return fmt.Errorf("%w: %w", web.ErrStale, err)
	case errors.Is(err, meta.ErrUnknown):
		return fmt.Errorf("%w: %w", web.ErrNotFound, err)
	case errors.Is(err, meta.ErrInvalid), errors.Is(err, meta.ErrTooMany):
		return &web.Problem{Code: http.StatusUnprocessableEntity, What: "Nothing was written: " + err.Error(), Do: "Go back and change that field."}
	}
	return err
}
