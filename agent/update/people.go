// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package update

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"fulmar/agent/attest"
	"fulmar/agent/update/bundles"
	"fulmar/inference/worker"
	"fulmar/ota"
	"fulmar/ota/prove"
	"fulmar/schema/onboard"
)

// State tells people how updates stand.
func (s *Service) State(ctx context.Context) onboard.Updates {
	out := onboard.Updates{Off: s.off, Components: []onboard.Component{}, Slot: s.cfg.Slot, Hold: int64(s.hold.left() / time.Second)}
	if out.Hold > 0 {
		out.HoldBy = s.hold.by()
	}
	st := s.updater.Status()
	if st.Trouble != "" && out.Off == "" {
		out.Off = st.Trouble
	}
	out.Unsure = st.Lost
	versions := s.parts.versions(ctx)
	names := s.parts.names()
	for n := range st.Components {
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	for _, n := range names {
		c := onboard.Component{Name: n, Version: versions[n]}
		if m := st.Components[n]; m != nil {
			c.Word, c.Reason = m.Word, m.Reason
			if m.Runs != nil {
				c.Release = m.Runs.Release
			}
		}
		out.Components = append(out.Components, c)
	}
	if st.Work != nil {
		w := job(st.Work)
		out.Work = &w
	}
	for i := range st.Waiting {
		out.Waiting = append(out.Waiting, job(&st.Waiting[i]))
	}
	var err error
	var known bool
	if out.Floor, known, err = s.cfg.Floor.Known(); err != nil && !known || err != nil && out.Off == "" {
		out.FloorError = err.Error()
	}
	moment := ota.ToSwitch
	if st.Work == nil {
		moment = ota.ToFetch
	}
	for _, r := range s.board().Ask("agent", moment) {
		out.Blocked = append(out.Blocked, r.Reason+": "+r.Text)
	}
	return out
}

func job(j *ota.Job) onboard.Update {
	return onboard.Update{
		Rollout: j.Rollout, Component: j.Component, Release: j.Release, Act: j.Act, Attempt: j.Attempt, State: j.State, Reason: j.Reason,
		Progress: j.Progress, Since: int64(j.Since / time.Second), Ends: int64(j.Ends / time.Second),
	}
}

// History tells the updates that are over, the newest first.
func (s *Service) History() ([]onboard.PastUpdate, error) {
	all, err := s.updater.History()
	if err != nil {
		return nil, err
	}
	var out []onboard.PastUpdate
	for _, p := range slices.Backward(all) {
		past := onboard.PastUpdate{
			Rollout: p.Rollout, Component: p.Component, Release: p.Release, Before: p.Before, Attempt: p.Attempt, Act: p.Act,
			Word: p.Word, Reason: p.Reason, Path: p.Path, Took: p.Took / 1000, Boots: p.Boots,
		}
		if p.Wall > 0 {
			past.At = time.UnixMilli(p.Wall).UTC()
		}
		out = append(out, past)
	}
	return out, nil
}

// Abort ends an update, whichever is in work for "".
func (s *Service) Abort(ctx context.Context, component, who, why string) error {
	s.cfg.Log.Info("an update is aborted by a person", "component", component, "who", who, "why", why)
	return s.updater.Abort(ctx, component)
}

// Hold keeps updates away for a while.
func (s *Service) Hold(d time.Duration, who string) error { return s.hold.set(d, who) }

// Bundle takes a release bundle in as it streams by.
func (s *Service) Bundle(ctx context.Context, r io.Reader, who string) (onboard.Taken, error) {
	if s.off != "" {
		return onboard.Taken{}, errors.New(s.off)
	}
	select {
	case <-s.begun:
	default:
		return onboard.Taken{}, fmt.Errorf("the record of updates is not read yet, try again in a moment: %s", cmp.Or(s.updater.Status().Trouble, "fulmard has just started"))
	}
	return bundles.Take(ctx, bundles.Config{
		Shelf: s.shelf, Keys: s.cfg.Keys, Learn: s.cfg.Learn, Board: s.prover, Installer: s.parts.installer, Unmet: s.unmet, Offer: s.updater.Offer,
	}, r)
}

// prover is who proves a bundle.
func (s *Service) prover() (b prove.Board, err error) {
	b.Tenant, b.Name = s.cfg.Name()
	if b.Floor, err = s.cfg.Floor.Floor(); err != nil {
		return b, err
	}
	b.Attempts = func(component string) uint64 {
		n, _ := s.updater.Attempts(component)
		return n
	}
	return b, nil
}

// RepairFloor makes the floor anew at what the fleet remembers, after a person has looked.
func (s *Service) RepairFloor(ctx context.Context, who string) (uint64, error) {
	if n, err := s.cfg.Floor.Floor(); err == nil {
		return n, fmt.Errorf("the floor is whole, at epoch %d: there is nothing to repair", n)
	}
	f, err := s.intake.Ask(ctx)
	if err != nil {
		return 0, fmt.Errorf("the fleet does not tell what it remembers: %w", err)
	}
	s.cfg.Log.Warn("the floor is made anew at what the fleet remembers", "who", who, "floor", f.Floor)
	if err := s.cfg.Floor.Repair(f.Floor); err != nil {
		return 0, err
	}
	s.intake.Again()
	return f.Floor, nil
}

// Proof is what the attested report tells of updates.
func (s *Service) Proof() attest.Updates {
	v, _, _ := s.cfg.Floor.Known()
	return attest.Updates{Slot: s.cfg.Slot, Components: s.parts.versions(context.Background()), Files: s.parts.files(), Floor: v}
}

// Setup has the worker load models that came over the air.
func (s *Service) Setup(w worker.Setup) worker.Setup { return s.parts.setup(w) }
