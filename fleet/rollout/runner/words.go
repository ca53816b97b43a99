// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"context"
	"slices"

	"fulmar/fleet/rollout"
	"fulmar/fleet/rollout/state"
	"fulmar/schema/ota"
)

// claimed is the level of a board that nobody can ask for a proof.
const claimed = "claimed"

// Report takes a board's word; it returns once that is stored.
func (x *Rollouts) Report(ctx context.Context, tenant, board string, s ota.State) error {
	level := ""
	if s.State == ota.Committed {
		level = claimed
		if x.cfg.Prover != nil {
			var err error
			if level, err = x.cfg.Prover.Level(ctx, tenant, board); err != nil {
				return err
			}
		}
	}
	return x.put(ctx, tenant, s.Rollout, rollout.Report{
		Board: board, Attempt: s.Attempt, Word: s.State, Progress: int(s.Progress), Reason: s.Reason, Release: s.Release, Level: level,
	})
}

// Proven takes what became of a board's word that it has committed; it returns once that
// is stored. level where it counts, why where it does not.
func (x *Rollouts) Proven(ctx context.Context, c Claim, level, why string) error {
	return x.put(ctx, c.Tenant, c.Rollout, rollout.Proven{Board: c.Board, Attempt: c.Attempt, Level: level, Why: why})
}

// put waits until an event on a rollout is stored.
func (x *Rollouts) put(ctx context.Context, tenant, id string, ev rollout.Event) error {
	done := make(chan error, 1)
	select {
	case x.words <- word{tenant: tenant, id: id, done: done, ev: ev}:
	case <-x.ended:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-x.ended:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// prove asks for the proofs that are wanted, and tells which boards run the release by now.
func (x *Rollouts) prove(ctx context.Context, r *state.Rollout, fx rollout.Effects) {
	if x.cfg.Prover != nil {
		for _, i := range fx.Prove {
			b := &r.Boards[i]
			x.cfg.Prover.Prove(Claim{r.Tenant, r.ID, b.Name, r.Spec.Component, r.Spec.Release, b.Attempt})
		}
	}
	if x.cfg.Releases == nil || len(fx.Good) == 0 {
		return
	}
	var names []string
	for _, i := range fx.Good {
		names = append(names, r.Boards[i].Name)
	}
	if err := x.cfg.Releases.Committed(ctx, r.Tenant, r.Spec.Component, r.Spec.Release, names); err != nil {
		x.cfg.Log.Error("not noted what boards run", "rollout", r.ID, "error", err.Error())
	}
}

// Uses gives the rollouts that are not over and want a release.
func (x *Rollouts) Uses(tenant, release string) (ids []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for k, r := range x.open {
		if k.tenant == tenant && r.Spec.Release == release {
			ids = append(ids, k.id)
		}
	}
	slices.Sort(ids)
	return ids
}
