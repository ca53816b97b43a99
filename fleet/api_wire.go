// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"fulmar/fleet/api"
	"fulmar/fleet/api/door"
	"fulmar/fleet/api/look"
	"fulmar/fleet/api/parts"
	"fulmar/fleet/query"
	"fulmar/fleet/query/boards"
	"fulmar/fleet/registry/accounts"
	"fulmar/fleet/registry/meta"
	"fulmar/fleet/registry/rollouts"
	"fulmar/fleet/rollout"
	"fulmar/fleet/rollout/plan"
	"fulmar/fleet/rollout/runner"
	"fulmar/fleet/store"
	"fulmar/fleet/web"
	"fulmar/schema/rest"
)

// wireAPI makes the API of the parts and puts it where it belongs.
func (s *Server) wireAPI(mux *http.ServeMux, src *store.Store, who auth, hub *api.Hub) error {
	h, err := api.New(api.Config{
		Caller: who.Caller, Source: src, Hub: hub, Log: s.log, Known: knownErrors(), Fault: planFault, Parse: parseQuery,
		Keys: s.reg.Requests(), Check: src.Check, Keeper: keeper{s.reg, s, src.Stale},
		Parts: parts.Parts{Metas: s.reg.Meta(), Accounts: s.reg.Accounts()},
	})
	if err != nil {
		return fmt.Errorf("make the API: %w", err)
	}
	mux.Handle("/api/", h)
	return nil
}

// parseQuery understands a query over boards for the API.
func parseQuery(text string) (look.Matcher, string, error) {
	q, err := query.Parse(text)
	if err != nil {
		out := &look.QueryError{Column: 1, What: "it is not understood"}
		var wrong *query.Error
		if errors.As(err, &wrong) {
			out.Column, out.What, out.Do = wrong.Column, wrong.What, wrong.Do
		}
		return nil, "", out
	}
	return func(b *web.Board, now time.Time) bool { return q.Match(boards.Of(b), now) }, q.String(), nil
}

// planFault finds the field of a plan that an error is about.
func planFault(err error) (rest.Fault, bool) {
	var wrong *plan.Error
	if !errors.As(err, &wrong) {
		return rest.Fault{}, false
	}
	return rest.Fault{Pointer: wrong.Pointer, Detail: wrong.Detail}, true
}

// knownErrors says what the errors of the parts are to those who use the API.
func knownErrors() []door.Known {
	return []door.Known{
		{Err: meta.ErrStale, Code: rest.CodeStale},
		{Err: meta.ErrInvalid, Code: rest.CodeRefused, Say: true},
		{Err: meta.ErrTooMany, Code: rest.CodeFull, Say: true},
		{Err: meta.ErrUnknown, Code: rest.CodeNotFound},
		{Err: accounts.ErrUnknown, Code: rest.CodeNotFound},
		{Err: accounts.ErrLastAdmin, Code: rest.CodeConflict, Say: true},
		{Err: accounts.ErrNameTaken, Code: rest.CodeConflict, Say: true},
		{Err: accounts.ErrBadName, Code: rest.CodeRefused, Say: true},
		{Err: accounts.ErrTooMany, Code: rest.CodeFull, Say: true},
		{Err: rollouts.ErrUnknown, Code: rest.CodeNotFound},
		{Err: rollouts.ErrClaimed, Code: rest.CodeConflict, Say: true},
		{Err: rollout.ErrState, Code: rest.CodeConflict, Say: true},
		{Err: rollout.ErrSamePerson, Code: rest.CodeSecondPerson},
		{Err: plan.ErrNoBoards, Code: rest.CodeTargetEmpty, Say: true},
		{Err: runner.ErrStale, Code: rest.CodeStale},
		{Err: runner.ErrTooMany, Code: rest.CodeFull, Say: true},
		{Err: runner.ErrQuery, Code: rest.CodeRefused, Say: true},
	}
}
