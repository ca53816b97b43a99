// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"fmt"

	"fulmar/fleet/rollout/gate"
	"fulmar/fleet/rollout/plan"
	"fulmar/schema/rest"
)

// WaveSpec gives the words of the plan on the wave that runs.
func (r *Rollout) WaveSpec() rest.WaveSpec { return plan.WaveSpec(r.Spec, r.Wave) }

// Tried counts the boards of the wave that runs for its gate. Boards that were good in
// an earlier try say nothing about this one, and those that were not reachable from the
// first are not waited for.
func (r *Rollout) Tried() gate.Count {
	if r.Wave < 0 {
		return gate.Count{}
	}
	t := r.tallies[r.Wave]
	boards := -t.Silent - t.N[BoardOut] - t.Earlier
	for _, n := range t.N {
		boards += n
	}
	return gate.Count{Boards: boards, Good: t.N[BoardGood] - t.Earlier, Failed: t.Bad}
}

// Where names the wave that runs.
func (r *Rollout) Where() string {
	switch {
	case r.Wave < 0:
		return "no wave"
	case r.Wave == 0:
		return "the shadow phase"
	}
	return fmt.Sprintf("wave %d of %d", r.Wave, len(r.Spec.Waves))
}

// GuardsNow gives the guards of the wave that runs.
func (r *Rollout) GuardsNow() []rest.Guard {
	if r.Wave == 0 {
		if r.Spec.Shadow != nil && r.Spec.Shadow.Agreement != nil {
			return []rest.Guard{*r.Spec.Shadow.Agreement}
		}
		return nil
	}
	return r.Spec.Guards
}
