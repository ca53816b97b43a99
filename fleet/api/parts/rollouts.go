// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package parts

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"fulmar/fleet/access"
	"fulmar/fleet/api/door"
	"fulmar/fleet/api/look"
	"fulmar/fleet/api/parts/route"
	"fulmar/fleet/web"
	"fulmar/schema/rest"
)

// rollouts are the routes of rollouts.
type rollouts struct {
	r     Rollouts
	looks *look.Looks
}

func (r *rollouts) mount(d *door.Door) {
	// A plan is full of defaults: only what it is about has to be said.
	d.Optional(rest.RolloutSpec{}, "gate", "limits")
	g := route.Group{Tag: "rollouts", Read: rest.BoardsRead, Edit: rest.RolloutsWrite}
	door.Handle(d, g.Route("list-rollouts", http.MethodGet, "rollouts", "Rollouts, newest first"), r.list)
	door.Handle(d, route.Makes(g.Route("create-rollout", http.MethodPost, "rollouts", "Plan a rollout; it does not start")), r.create)
	door.Handle(d, g.Route("forecast", http.MethodPost, "forecast", "Play a plan through; nothing is kept"), r.forecast)
	door.Handle(d, g.Route("get-rollout", http.MethodGet, "rollouts/{id}", "A rollout, its waves and its verdicts"), r.get)
	door.Handle(d, g.Route("list-rollout-boards", http.MethodGet, "rollouts/{id}/boards", "How far each board of it is"), r.boards)
	for _, do := range []string{rest.RolloutStart, rest.RolloutPause, rest.RolloutResume, rest.RolloutAbort, rest.RolloutRetry, rest.RolloutRollback, rest.RolloutApprove} {
		route := g.Route(do+"-rollout", http.MethodPost, "rollouts/{id}/"+do, strings.ToUpper(do[:1])+do[1:]+" a rollout")
		if do == rest.RolloutApprove {
			route.Right = rest.RolloutsApprove
		}
		door.Handle(d, route, func(ctx context.Context, by access.Caller, in *actIn) (*rolloutOut, error) {
			return r.act(ctx, by, in, do)
		})
	}
}

type rolloutOut struct {
	Tag  string `header:"ETag"`
	Body *rest.Rollout
}

func rolloutOf(r *rest.Rollout, err error) (*rolloutOut, error) {
	if err != nil {
		return nil, err
	}
	return &rolloutOut{door.Tag(r.Version), r}, nil
}

// sees tells whether the caller sees all boards of a rollout. One who is limited to
// some sees no rollout that touches others: it would tell of them, and an act on it
// would change them.
func (r *rollouts) sees(ctx context.Context, by access.Caller, id string) (bool, error) {
	if by.Boards == "" {
		return true, nil
	}
	s, err := r.looks.See(ctx, by, "")
	if err != nil {
		return false, err
	}
	boards, err := r.r.Boards(ctx, by.Tenant, id)
	if err != nil {
		return false, err
	}
	for i := range boards {
		if _, err := s.Board(boards[i].Board); err != nil {
			return false, nil
		}
	}
	return true, nil
}

// seen gives a rollout that the caller sees.
func (r *rollouts) seen(ctx context.Context, by access.Caller, id string) (*rest.Rollout, error) {
	if ok, err := r.sees(ctx, by, id); err != nil || !ok {
		if err == nil {
			err = web.ErrNotFound
		}
		return nil, err
	}
	return r.r.Get(ctx, by.Tenant, id)
}

func (r *rollouts) list(ctx context.Context, by access.Caller, _ *route.Nothing) (*route.ListOut[rest.Rollout], error) {
	all, err := r.r.List(ctx, by.Tenant)
	if err != nil {
		return nil, err
	}
	out := []rest.Rollout{}
	for i := range all {
		ok, err := r.sees(ctx, by, all[i].ID)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, all[i])
		}
	}
	return route.ListOf(out, nil)
}

type rolloutIn struct {
	ID  string `path:"id" maxLength:"64" doc:"Its id"`
	Tag string `header:"If-None-Match" doc:"The ETag of the answer that the caller has"`
}

func (r *rollouts) get(ctx context.Context, by access.Caller, in *rolloutIn) (*rolloutOut, error) {
	v, err := r.seen(ctx, by, in.ID)
	if err == nil && in.Tag != "" && door.Holds(in.Tag, door.Tag(v.Version)) {
		return nil, door.Same{Tag: door.Tag(v.Version)}
	}
	return rolloutOf(v, err)
}

type specIn struct {
	Dry  bool `query:"dry_run" doc:"Check all and keep nothing"`
	Body rest.RolloutSpec
}

func (r *rollouts) create(ctx context.Context, by access.Caller, in *specIn) (*rolloutOut, error) {
	if err := r.looks.Target(ctx, by, in.Body.Query, in.Body.Boards); err != nil {
		return nil, err
	}
	if in.Dry {
		f, err := r.r.Forecast(ctx, by, in.Body)
		if err != nil {
			return nil, err
		}
		return nil, door.Would(f.Sentence)
	}
	return rolloutOf(r.r.Create(ctx, by, in.Body))
}

type forecastIn struct{ Body rest.RolloutSpec }

type forecastOut struct{ Body *rest.Forecast }

func (r *rollouts) forecast(ctx context.Context, by access.Caller, in *forecastIn) (*forecastOut, error) {
	if err := r.looks.Target(ctx, by, in.Body.Query, in.Body.Boards); err != nil {
		return nil, err
	}
	f, err := r.r.Forecast(ctx, by, in.Body)
	return &forecastOut{f}, err
}

type actIn struct {
	ID    string      `path:"id" maxLength:"64" doc:"Its id"`
	Match string      `header:"If-Match" doc:"The ETag of the rollout that is acted upon; * is however it is"`
	Dry   bool        `query:"dry_run" doc:"Check all and change nothing"`
	Body  *actionBody `required:"false"`
}

// actionBody is a rest.RolloutAction whose Do is in the path.
type actionBody struct {
	Why     string `json:"why,omitempty" maxLength:"400" doc:"The reason, for the audit log"`
	Without string `json:"without,omitempty" maxLength:"1024" doc:"Of retry: a query of boards to leave out"`
	Only    string `json:"only,omitempty" maxLength:"1024" doc:"Of retry: a query of boards to try alone"`
	Scope   string `json:"scope,omitempty" enum:"wave,all" doc:"Of rollback: how much"`
}

func (r *rollouts) act(ctx context.Context, by access.Caller, in *actIn, do string) (*rolloutOut, error) {
	version, err := door.Version(in.Match)
	if err != nil {
		return nil, err
	}
	now, err := r.seen(ctx, by, in.ID)
	if err != nil {
		return nil, err
	}
	if version < 0 {
		version = now.Version
	}
	if version != now.Version {
		return nil, door.Stale(now.Version)
	}
	a := rest.RolloutAction{Do: do}
	if in.Body != nil {
		a.Why, a.Without, a.Only, a.Scope = in.Body.Why, in.Body.Without, in.Body.Only, in.Body.Scope
	}
	if in.Dry {
		if !slices.Contains(now.Actions, do) {
			return nil, door.Fail(rest.CodeConflict, "it is "+now.State+"; possible is "+strings.Join(now.Actions, ", "))
		}
		return nil, door.Would("Rollout " + now.ID + " would get: " + do + ".")
	}
	return rolloutOf(r.r.Act(ctx, by, in.ID, version, a))
}

type rolloutBoardsIn struct {
	ID        string `path:"id" maxLength:"64" doc:"Its id"`
	State     string `query:"state" maxLength:"16" doc:"Only boards of this state"`
	PageSize  int    `query:"page_size" minimum:"1" maximum:"1000" default:"100" doc:"Boards of one page"`
	PageToken string `query:"page_token" maxLength:"64" doc:"next of the page before"`
}

func (r *rollouts) boards(ctx context.Context, by access.Caller, in *rolloutBoardsIn) (*route.ListOut[rest.RolloutBoard], error) {
	if ok, err := r.sees(ctx, by, in.ID); err != nil || !ok {
		if err == nil {
			err = web.ErrNotFound
		}
		return nil, err
	}
	all, err := r.r.Boards(ctx, by.Tenant, in.ID)
	if err != nil {
		return nil, err
	}
	all = slices.Clone(all) // what a part gives may be its own
	slices.SortFunc(all, func(a, b rest.RolloutBoard) int { return strings.Compare(a.Board, b.Board) })
	out, _ := route.ListOf[rest.RolloutBoard](nil, nil)
	for i := range all {
		if all[i].Board <= in.PageToken || in.State != "" && all[i].State != in.State {
			continue
		}
		if len(out.Body.Items) == in.PageSize {
			out.Body.Next = out.Body.Items[in.PageSize-1].Board
			break
		}
		out.Body.Items = append(out.Body.Items, all[i])
	}
	return out, nil
}
