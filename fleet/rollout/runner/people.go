// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/rollout"
	"fulmar/fleet/rollout/book"
	"fulmar/fleet/rollout/plan"
	"fulmar/fleet/rollout/state"
	"fulmar/schema/rest"
)

// maxWhy bounds what a person says to an act, in bytes.
const maxWhy = 256

// List gives a tenant's rollouts, newest first. Those that are over come without the
// names of their boards.
func (x *Rollouts) List(ctx context.Context, tenant string) ([]rest.Rollout, error) {
	heads, err := x.book.Heads(ctx, tenant)
	if err != nil {
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	out := []rest.Rollout{}
	for _, h := range heads {
		if r := x.open[key{tenant, h.ID}]; r != nil {
			h = r
		}
		v := h.View()
		v.Done = x.doneAbout(h)
		out = append(out, v)
	}
	return out, nil
}

// aboutFor is how long an estimate is shown before it is made anew: it plays 100,000
// boards through in 0.1 s, and a page asks each second.
const aboutFor = time.Minute

// about is an estimate of when a rollout is done.
type about struct {
	version int64
	made    time.Time
	done    *time.Time
}

// doneAbout tells when a rollout that runs is done; x.mu is held.
func (x *Rollouts) doneAbout(r *state.Rollout) *time.Time {
	k, now := key{r.Tenant, r.ID}, time.Now().UTC()
	if x.open[k] == nil {
		delete(x.about, k)
		return nil
	}
	if a, ok := x.about[k]; ok && a.version == r.Version && now.Sub(a.made) < aboutFor {
		return a.done
	}
	x.about[k] = about{r.Version, now, r.DoneAbout(now)}
	return x.about[k].done
}

// Get gives one with its steps.
func (x *Rollouts) Get(ctx context.Context, tenant, id string) (*rest.Rollout, error) {
	x.mu.Lock()
	r, err := x.find(ctx, tenant, id)
	if err != nil {
		x.mu.Unlock()
		return nil, err
	}
	v := r.View()
	v.Done = x.doneAbout(r)
	x.mu.Unlock()
	v.Steps, err = x.book.Steps(ctx, tenant, id)
	return &v, err
}

// Boards gives the boards of a rollout, in the order in which they get it.
func (x *Rollouts) Boards(ctx context.Context, tenant, id string) ([]rest.RolloutBoard, error) {
	past, err := x.book.Past(ctx, tenant, id)
	if err != nil {
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	r, err := x.find(ctx, tenant, id)
	if err != nil {
		return nil, err
	}
	out := make([]rest.RolloutBoard, len(r.Boards))
	for i := range r.Boards {
		out[i] = r.ViewBoard(i)
		out[i].Past = past[out[i].Board]
	}
	return out, nil
}

// plan makes the plan of a spec, of the boards that the caller may change.
func (x *Rollouts) plan(ctx context.Context, by access.Caller, s rest.RolloutSpec) (rest.RolloutSpec, *plan.Plan, error) {
	s, err := plan.Complete(s)
	if err != nil {
		return s, nil, err
	}
	note, err := x.fill(ctx, by.Tenant, &s)
	if err != nil {
		return s, nil, err
	}
	all, err := x.cfg.Fleet.Boards(ctx, by.Tenant, s.Query, s.Component)
	if err != nil {
		return s, nil, err
	}
	if all, err = x.within(ctx, by, s.Component, all); err != nil {
		return s, nil, err
	}
	has, _, err := x.book.Others(ctx, by.Tenant, "", s.Component)
	if err != nil {
		return s, nil, err
	}
	for i := range all {
		all[i].Busy = has[all[i].Board]
		note(&all[i])
	}
	p, err := plan.Make(s, all)
	return s, p, err
}

// fill fills in what the release of a plan says.
func (x *Rollouts) fill(ctx context.Context, tenant string, s *rest.RolloutSpec) (func(*plan.Candidate), error) {
	if x.cfg.Releases == nil {
		return func(*plan.Candidate) {}, nil
	}
	return x.cfg.Releases.Fill(ctx, tenant, s)
}

// planned tells that a release is wanted.
func (x *Rollouts) planned() {
	if x.cfg.Releases != nil {
		x.cfg.Releases.Planned()
	}
}

// within keeps the boards that a caller with a limit may change.
func (x *Rollouts) within(ctx context.Context, by access.Caller, component string, all []plan.Candidate) ([]plan.Candidate, error) {
	if by.Boards == "" {
		return all, nil
	}
	mine, err := x.names(ctx, by.Tenant, by.Boards, component)
	if err != nil {
		return nil, err
	}
	var out []plan.Candidate
	for _, c := range all {
		if mine[c.Board] {
			out = append(out, c)
		}
	}
	return out, nil
}

func (x *Rollouts) names(ctx context.Context, tenant, query, component string) (map[string]bool, error) {
	list, err := x.cfg.Fleet.Boards(ctx, tenant, query, component)
	if err != nil {
		return nil, err
	}
	out := make(map[string]bool, len(list))
	for _, c := range list {
		out[c.Board] = true
	}
	return out, nil
}

// Forecast plays a plan through; nothing is changed. Where no board is left in it, the
// forecast says why beside plan.ErrNoBoards.
func (x *Rollouts) Forecast(ctx context.Context, by access.Caller, s rest.RolloutSpec) (*rest.Forecast, error) {
	if err := by.May(rest.BoardsRead); err != nil {
		return nil, err
	}
	s, p, err := x.plan(ctx, by, s)
	if errors.Is(err, plan.ErrNoBoards) {
		return &rest.Forecast{LeftOut: p.LeftOut, Waves: []rest.ForecastWave{}, Sentence: "no board is left in the plan"}, err
	}
	if err != nil {
		return nil, err
	}
	f := plan.Forecast(s, p, plan.Typical, time.Now())
	return &f, nil
}

// Create keeps a plan. Nothing is sent before it is started.
func (x *Rollouts) Create(ctx context.Context, by access.Caller, s rest.RolloutSpec) (*rest.Rollout, error) {
	if err := by.May(rest.RolloutsWrite); err != nil {
		return nil, err
	}
	s, p, err := x.plan(ctx, by, s)
	if err != nil {
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.open) >= maxOpen {
		return nil, fmt.Errorf("%w: %d rollouts are not over, at most %d; abort some", ErrTooMany, len(x.open), maxOpen)
	}
	for i, id := range s.After {
		state, err := x.book.State(ctx, by.Tenant, id)
		if err == nil && state == "" {
			err = fmt.Errorf("%w: %s", book.ErrUnknown, id)
		}
		if err != nil {
			return nil, &plan.Error{Pointer: fmt.Sprintf("/after/%d", i), Detail: err.Error()}
		}
	}
	r, err := rollout.New("", by.Tenant, author(by), s, p, time.Now().UTC().Truncate(time.Millisecond))
	if err != nil {
		return nil, err
	}
	if err := x.book.Create(ctx, r, by.Who); err != nil {
		return nil, err
	}
	x.keep(r)
	x.planned()
	if x.cfg.Changed != nil {
		x.cfg.Changed(r.Tenant, r.ID)
	}
	v := r.View()
	return &v, nil
}

// author is the person behind a caller.
func author(by access.Caller) string { return cmp.Or(by.Author, by.Who) }

// Act does what a person wants with a rollout of the version that they saw; -1: of any.
func (x *Rollouts) Act(ctx context.Context, by access.Caller, id string, version int64, a rest.RolloutAction) (*rest.Rollout, error) {
	right := rest.RolloutsWrite
	if a.Do == rest.RolloutApprove {
		right = rest.RolloutsApprove
	}
	if err := by.May(right); err != nil {
		return nil, err
	}
	if len(a.Why) > maxWhy {
		return nil, &plan.Error{Pointer: "/why", Detail: fmt.Sprintf("%d bytes, at most %d", len(a.Why), maxWhy)}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	r, err := x.find(ctx, by.Tenant, id)
	if err != nil {
		return nil, err
	}
	if version >= 0 && version != r.Version {
		return nil, fmt.Errorf("%w: rollout %s is of version %d by now", ErrStale, id, r.Version)
	}
	if err := x.mine(ctx, by, r); err != nil {
		return nil, err
	}
	ev, claim, err := x.event(ctx, by, r, a)
	if err != nil {
		return nil, err
	}
	if err := x.apply(ctx, r, claim, ev); err != nil {
		return nil, err
	}
	v := r.View()
	return &v, nil
}

// mine refuses a caller with a limit where the rollout goes beyond it.
func (x *Rollouts) mine(ctx context.Context, by access.Caller, r *state.Rollout) error {
	if by.Boards == "" {
		return nil
	}
	mine, err := x.names(ctx, by.Tenant, by.Boards, r.Spec.Component)
	if err != nil {
		return err
	}
	for i := range r.Boards {
		if !mine[r.Boards[i].Name] {
			return fmt.Errorf("%w: rollout %s has boards beyond %q", access.ErrNotAllowed, r.ID, by.Boards)
		}
	}
	return nil
}

// event makes the event of an act. claim tells that the boards are taken for it.
func (x *Rollouts) event(ctx context.Context, by access.Caller, r *state.Rollout, a rest.RolloutAction) (ev rollout.Event, claim bool, err error) {
	who := rollout.Person{Who: by.Who, Author: author(by)}
	switch a.Do {
	case rest.RolloutApprove:
		return rollout.Approve{By: who}, false, nil
	case rest.RolloutPause:
		return rollout.Pause{By: who, Why: a.Why}, false, nil
	case rest.RolloutResume:
		return rollout.Resume{By: who, Why: a.Why}, false, nil
	case rest.RolloutAbort:
		return rollout.Abort{By: who, Why: a.Why}, false, nil
	}
	has, had, err := x.book.Others(ctx, r.Tenant, r.ID, r.Spec.Component)
	if err != nil {
		return nil, false, err
	}
	if a.Do == rest.RolloutStart || a.Do == rest.RolloutRetry {
		spec := r.Spec // a release may have been removed since it was planned, or its keys dropped
		if _, err := x.fill(ctx, r.Tenant, &spec); err != nil {
			return nil, false, err
		}
	}
	epoch, err := x.book.Epoch(ctx)
	if err != nil {
		return nil, false, err
	}
	switch a.Do {
	case rest.RolloutStart:
		return rollout.Start{By: who, Epoch: epoch, Skip: has}, true, x.before(ctx, r)
	case rest.RolloutRetry:
		without, err := x.chosen(ctx, r, a)
		if err == nil {
			err = x.before(ctx, r)
		}
		return rollout.Retry{By: who, Why: a.Why, Epoch: epoch, Without: without, Skip: has}, true, err
	case rest.RolloutRollback:
		if a.Scope != "" && a.Scope != "wave" && a.Scope != "all" {
			return nil, false, &plan.Error{Pointer: "/scope", Detail: "wants wave or all"}
		}
		return rollout.Rollback{By: who, Why: a.Why, Epoch: epoch, All: a.Scope == "all", Skip: had}, true, nil
	}
	return nil, false, &plan.Error{Pointer: "/do", Detail: "wants start, approve, pause, resume, abort, retry or rollback"}
}

// before brings what is known of the rollouts that come first up to date.
func (x *Rollouts) before(ctx context.Context, r *state.Rollout) error {
	for _, id := range r.Spec.After {
		state, err := x.book.State(ctx, r.Tenant, id)
		if err == nil {
			err = x.apply(ctx, r, false, rollout.Dependency{ID: id, State: state})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// chosen gives the boards that a retry leaves out.
func (x *Rollouts) chosen(ctx context.Context, r *state.Rollout, a rest.RolloutAction) (map[string]bool, error) {
	out := map[string]bool{}
	if a.Without != "" {
		not, err := x.names(ctx, r.Tenant, a.Without, r.Spec.Component)
		if err != nil {
			return nil, err
		}
		out = not
	}
	if a.Only != "" {
		only, err := x.names(ctx, r.Tenant, a.Only, r.Spec.Component)
		if err != nil {
			return nil, err
		}
		for i := range r.Boards {
			if b := r.Boards[i].Name; !only[b] {
				out[b] = true
			}
		}
	}
	return out, nil
}
