// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ota

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"fulmar/ota/record"
	"fulmar/ota/release"
	"fulmar/ota/table"
	words "fulmar/schema/ota"
)

// switching puts it in force. What wants a restart ends here until that has been.
func (j *job) switching(ctx context.Context) outcome {
	if j.w.Asked != uint8(RestartNone) && !j.booted {
		return outcome{ask: Restart(j.w.Asked)}
	}
	var done outcome
	look := j.resumed
	out, ok := j.tries(ctx, words.Switch, func() error {
		if look {
			st, fell, err := j.inst.Look(ctx, j.w.Token)
			if err != nil {
				return err
			}
			switch st {
			case OnTrial, InForce:
				done = outcome{on: table.Taken}
				return nil
			case Fallen:
				done = outcome{on: table.Fell, reason: why(words.Launcher, "%s", fell)}
				return nil
			}
		}
		// Before the first call of Switch a fall is that of an earlier attempt.
		look = true
		restart, err := j.inst.Switch(ctx, j.w.Token)
		if err == nil && restart != RestartNone {
			done = outcome{ask: restart}
			return nil
		}
		if err == nil {
			var st Standing
			if st, _, err = j.inst.Look(ctx, j.w.Token); err == nil && st != OnTrial && st != InForce {
				err = fmt.Errorf("it is %s after the switch", st)
			}
		}
		done = outcome{on: table.Taken}
		return err
	})
	if !ok {
		return out
	}
	return done
}

// trial holds it to its contract.
func (j *job) trial(ctx context.Context) outcome {
	h := release.Health{}.With(j.w.Component)
	if j.c != nil {
		h = j.c.Health.With(j.w.Component)
	}
	var since time.Time
	for looked := false; ; looked = true {
		if !looked || !since.IsZero() {
			if out, ok := j.stands(ctx); !ok {
				return out
			}
		}
		verdict, text := j.deps.Gate.Look(j.w.Component, h, j.w.Notes)
		switch verdict {
		case Bad:
			return outcome{on: table.Sick, reason: why(words.Unhealthy, "%s", text)}
		case Good:
			if since.IsZero() {
				since = time.Now() // its monotonic part counts
			}
			if time.Since(since) >= time.Duration(h.HoldS)*time.Second {
				return outcome{on: table.Healthy}
			}
		default:
			since = time.Time{}
			j.note(ctx, -1, why(words.Unhealthy, "not yet: %s", text))
		}
		if sleep(ctx, j.cfg.Look) != nil {
			return outcome{}
		}
	}
}

// stands tells whether it is still in force. An installer that cannot tell is asked again:
// the trial's deadline bounds that.
func (j *job) stands(ctx context.Context) (outcome, bool) {
	st, fell, err := j.inst.Look(ctx, j.w.Token)
	switch {
	case ctx.Err() != nil:
		return outcome{}, false
	case err != nil:
		j.note(ctx, -1, why(words.Switch, "how it stands cannot be told: %v", err))
		return outcome{}, true
	case st == Fallen:
		return outcome{on: table.Fell, reason: why(words.Launcher, "%s", fell)}, false
	case st == NotYet:
		return outcome{on: table.Fell, reason: why(words.Launcher, "it is not in force any more")}, false
	}
	return outcome{}, true
}

// confirming ends the trial for good, and only then raises the floor: until then what ran
// before can be gone back to, whatever its epoch.
func (j *job) confirming(ctx context.Context) outcome {
	if out, ok := j.stands(ctx); !ok {
		return out
	}
	if out, ok := j.tries(ctx, words.Switch, func() error { return j.inst.Confirm(ctx, j.w.Token) }); !ok {
		return out
	}
	done := outcome{on: table.Confirmed}
	if err := raise(j.deps.Floor, j.w.Epoch); err != nil {
		// It is healthy and in force. Who could bring back what is older has to pass the
		// fleet's floor too.
		j.deps.Log.Warn("the floor of epochs could not be raised; it is tried at each start", "to", j.w.Epoch, "err", err)
		done.owed = j.w.Epoch
	}
	return done
}

// rollingBack puts in force what ran before.
func (j *job) rollingBack(ctx context.Context) outcome {
	if j.w.Asked != uint8(RestartNone) && !j.booted {
		return outcome{ask: Restart(j.w.Asked)}
	}
	if s := j.mem.Shadow; j.w.Act == release.ActUndo && s != nil && s.Token == j.w.Token && s.Rollout == j.w.Rollout {
		out, ok := j.tries(ctx, words.Switch, func() error { return j.endShadow(ctx) })
		if ok {
			return outcome{on: table.Gone, reason: j.w.Reason}
		}
		return out
	}
	look := j.resumed
	var done outcome
	out, ok := j.tries(ctx, words.Switch, func() error {
		if look {
			if back, err := j.isBack(ctx); back || err != nil {
				done = outcome{on: table.Gone, reason: j.w.Reason}
				return err
			}
		}
		look = true
		restart, err := j.back(ctx)
		if err != nil {
			return fmt.Errorf("could not go back: %w", err)
		}
		if restart != RestartNone {
			done = outcome{ask: restart}
			return nil
		}
		back, err := j.isBack(ctx)
		if err == nil && !back {
			err = errors.New("it is still in force after going back")
		}
		done = outcome{on: table.Gone, reason: j.w.Reason}
		return err
	})
	if !ok {
		if out.on != "" { // both are told: why it went back, and why it could not
			out.reason = why(words.Switch, "%.100s; it went back because of %s", out.reason, j.w.Reason)
		}
		return out
	}
	return done
}

func (j *job) endShadow(ctx context.Context) error {
	s, ok := j.inst.(Shadower)
	if !ok {
		return errors.New("the installer knows no shadows")
	}
	return s.Shadow(ctx, "")
}

// back goes back; where the installer has nothing to go back to by itself, what this
// board keeps from before is put in force.
func (j *job) back(ctx context.Context) (Restart, error) {
	restart, err := j.inst.Back(ctx, j.w.Token, j.w.Reason)
	if past := j.mem.Past; err != nil && j.w.Act == release.ActUndo && past != nil && past.Token != "" {
		again, serr := j.inst.Switch(ctx, past.Token)
		if serr == nil {
			return again, nil
		}
		err = errors.Join(err, serr)
	}
	return restart, err
}

// isBack tells whether it is out of force, and confirms what is instead, if that is kept
// from before and on trial.
func (j *job) isBack(ctx context.Context) (bool, error) {
	st, _, err := j.inst.Look(ctx, j.w.Token)
	if err != nil || st == InForce || st == OnTrial {
		return false, err
	}
	if past := j.mem.Past; j.w.Act == release.ActUndo && past != nil && past.Token != "" {
		if st, _, err := j.inst.Look(ctx, past.Token); err == nil && st == OnTrial {
			return true, j.inst.Confirm(ctx, past.Token)
		}
	}
	return true, nil
}

// sweep is what is to be removed after an update.
type sweep struct {
	component string // "" none
	manifest  *release.Manifest
	patches   []release.Patch
}

// sweep removes what no update in work or waiting needs.
func (m *machine) sweep(ctx context.Context, s sweep) outcome {
	ctx, cancel := context.WithTimeout(ctx, sweepLimit)
	defer cancel()
	r := m.rec.Load() // nothing that is begun later is touched: it begins after this
	var errs []error
	var c *release.Component
	if s.manifest != nil {
		c = s.manifest.Component(s.component)
	}
	if w := r.Work; w == nil || w.State == string(table.Offered) {
		errs = append(errs, m.bring.Forget(c, s.patches))
	}
	if inst := m.deps.Installer(s.component); s.component != "" && inst != nil {
		var keep []string
		if mem := r.Components[s.component]; mem != nil {
			for _, v := range []*record.Version{mem.Runs, mem.Past, mem.Shadow} {
				if v != nil && v.Token != "" {
					keep = append(keep, v.Token)
				}
			}
		}
		if w := r.Work; w != nil && w.Component == s.component && w.Token != "" {
			keep = append(keep, w.Token)
		}
		errs = append(errs, inst.Sweep(ctx, keep))
	}
	if err := errors.Join(errs...); err != nil {
		m.deps.Log.Warn("what an update left could not all be removed; the next one tries again", "err", err)
	}
	return outcome{}
}

// sweepManifests removes those of orders that are over. It is the loop's own: a manifest is
// there before its order is in the record.
func (m *machine) sweepManifests() {
	r := m.rec.Load()
	keep := map[string]bool{}
	if r.Work != nil {
		keep[r.Work.Hash.String()] = true
	}
	for i := range r.Queue {
		keep[r.Queue[i].Hash.String()] = true
	}
	ents, err := os.ReadDir(m.manifests())
	for _, e := range ents {
		if !keep[e.Name()] {
			err = errors.Join(err, m.deps.Disk.RemoveAll(filepath.Join(m.manifests(), e.Name())))
		}
	}
	if err != nil {
		m.deps.Log.Warn("manifests of updates that are over could not be removed", "err", err)
	}
}
