// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package joins

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"fulmar/fleet/access"
	"fulmar/fleet/api/door"
	"fulmar/fleet/registry/accounts"
	"fulmar/fleet/registry/meta"
	"fulmar/fleet/rollout"
	"fulmar/fleet/rollout/book"
	"fulmar/fleet/rollout/plan"
	"fulmar/fleet/rollout/runner"
	"fulmar/fleet/web"
	"fulmar/schema/rest"
)

// Known are the errors of the parts and what they mean to whoever asked.
func Known() []door.Known {
	say := func(code rest.Code, errs ...error) (out []door.Known) {
		for _, err := range errs {
			out = append(out, door.Known{Err: err, Code: code, Say: true})
		}
		return out
	}
	var out []door.Known
	for _, k := range [][]door.Known{
		say(rest.CodeStale, meta.ErrStale, runner.ErrStale),
		say(rest.CodeTargetEmpty, plan.ErrNoBoards),
		say(rest.CodeSecondPerson, rollout.ErrSamePerson),
		say(rest.CodeQuery, runner.ErrQuery),
		say(rest.CodeConflict, rollout.ErrState, accounts.ErrLastAdmin, accounts.ErrNameTaken),
		say(rest.CodeRefused, meta.ErrInvalid, accounts.ErrBadName, &plan.Error{}),
		say(rest.CodeFull, meta.ErrTooMany, accounts.ErrTooMany, runner.ErrTooMany),
		say(rest.CodeNotFound, meta.ErrUnknown, accounts.ErrUnknown, book.ErrUnknown),
	} {
		out = append(out, k...)
	}
	return out
}

// Explain puts an error of a part into words for a form; false for a fault of the
// server.
func Explain(err error) (rest.Problem, bool) {
	for _, k := range Known() {
		if errors.Is(err, k.Err) {
			row := k.Code.Row()
			return rest.Problem{Type: k.Code.Type(), Code: string(k.Code), Title: row.Title, Status: row.Status, Detail: err.Error(), Do: row.Do}, true
		}
	}
	return rest.Problem{}, false
}

// Metas keeps metadata for the page, whose words for errors are others.
type Metas struct{ *meta.Metas }

// Set implements the page's Metas.
func (m Metas) Set(ctx context.Context, by access.Caller, board string, x rest.Meta, ifVersion int64) (rest.Meta, error) {
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
