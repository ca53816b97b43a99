// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"errors"
	"time"

	"fulmar/fleet/rollout/plan"
	"fulmar/fleet/rollout/state"
	"fulmar/schema/rest"
)

// Errors that callers act upon.
var (
	// ErrState: the rollout is in no state in which this can be done.
	ErrState = errors.New("not possible now")
	// ErrSamePerson: who planned or started it cannot approve it.
	ErrSamePerson = errors.New("a second person has to approve it")
)

// New makes a rollout of a plan. author is the person behind it.
func New(id, tenant, author string, s rest.RolloutSpec, p *plan.Plan, now time.Time) (*state.Rollout, error) {
	r := &state.Rollout{
		ID: id, Tenant: tenant, Spec: s, LeftOut: p.LeftOut, State: state.Planned, Since: now, Deadline: now.Add(planLife),
		Wave: -1, Author: author, Created: now, HookOK: true,
	}
	for _, w := range p.Waves {
		r.Waves = append(r.Waves, state.WaveState{Wave: w})
	}
	r.Boards = make([]state.Board, len(p.Boards))
	for i := range p.Boards {
		b := &p.Boards[i]
		r.Boards[i] = state.Board{
			Name: b.Board, Site: b.Site, Zone: b.Zone, Facts: b.Facts, Was: b.Release, Release: b.Release, Wave: b.Wave, Shadow: b.Shadow, Silent: !b.Reachable,
			Since: now,
		}
	}
	return r, r.Wake()
}
