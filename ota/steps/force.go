// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package steps

import (
	"context"
	"errors"
	"fmt"
	"time"

	"fulmar/ota/release"
	"fulmar/ota/seam"
	"fulmar/ota/table"
	words "fulmar/schema/ota"
)

// switching puts it in force. What wants a restart ends here until that has been.
func (j *Job) switching(ctx context.Context) Outcome {
	if j.Work.Asked != uint8(seam.RestartNone) && !j.Booted {
		return Outcome{Ask: seam.Restart(j.Work.Asked)}
	}
	var done Outcome
	look := j.Resumed
	out, ok := j.tries(ctx, words.Switch, func() error {
		if look {
			st, fell, err := j.inst.Look(ctx, j.Work.Token)
			if err != nil {
				return err
			}
			switch st {
			case seam.OnTrial, seam.InForce:
				done = Outcome{On: table.Taken}
				return nil
			case seam.Fallen:
				done = Outcome{On: table.Fell, Reason: Why(words.Launcher, "%s", fell)}
				return nil
			}
		}
		// Before the first call of Switch a fall is that of an earlier attempt.
		look = true
		restart, err := j.inst.Switch(ctx, j.Work.Token)
		if err == nil && restart != seam.RestartNone {
			done = Outcome{Ask: restart}
			return nil
		}
		if err == nil {
			var st seam.Standing
			if st, _, err = j.inst.Look(ctx, j.Work.Token); err == nil && st != seam.OnTrial && st != seam.InForce {
				err = fmt.Errorf("it is %s after the switch", st)
			}
		}
		done = Outcome{On: table.Taken}
		return err
	})
	if !ok {
		return out
	}
	return done
}

// trial holds it to its contract.
func (j *Job) trial(ctx context.Context) Outcome {
	h := release.Health{}.With(j.Work.Component)
	if j.c != nil {
		h = j.c.Health.With(j.Work.Component)
	}
	var since time.Time
	for looked := false; ; looked = true {
		if !looked || !since.IsZero() {
			if out, ok := j.stands(ctx); !ok {
				return out
			}
		}
		verdict, text := j.Gate.Look(j.Work.Component, h, j.Work.Notes)
		switch verdict {
		case seam.Bad:
			return Outcome{On: table.Sick, Reason: Why(words.Unhealthy, "%s", text)}
		case seam.Good:
			if since.IsZero() {
				since = time.Now() // its monotonic part counts
			}
			if time.Since(since) >= time.Duration(h.HoldS)*time.Second {
				return Outcome{On: table.Healthy}
			}
		default:
			since = time.Time{}
			j.Note(ctx, -1, Why(words.Unhealthy, "not yet: %s", text))
		}
		if Sleep(ctx, j.Look) != nil {
			return Outcome{}
		}
	}
}

// stands tells whether it is still in force. An installer that cannot tell is asked again:
// the trial's deadline bounds that.
func (j *Job) stands(ctx context.Context) (Outcome, bool) {
	st, fell, err := j.inst.Look(ctx, j.Work.Token)
	switch {
	case ctx.Err() != nil:
		return Outcome{}, false
	case err != nil:
		j.Note(ctx, -1, Why(words.Switch, "how it stands cannot be told: %v", err))
		return Outcome{}, true
	case st == seam.Fallen:
		return Outcome{On: table.Fell, Reason: Why(words.Launcher, "%s", fell)}, false
	case st == seam.NotYet:
		return Outcome{On: table.Fell, Reason: Why(words.Launcher, "it is not in force any more")}, false
	}
	return Outcome{}, true
}

// confirming ends the trial for good, and only then raises the floor: until then what ran
// before can be gone back to, whatever its epoch.
func (j *Job) confirming(ctx context.Context) Outcome {
	if out, ok := j.stands(ctx); !ok {
		return out
	}
	if out, ok := j.tries(ctx, words.Switch, func() error { return j.inst.Confirm(ctx, j.Work.Token) }); !ok {
		return out
	}
	done := Outcome{On: table.Confirmed}
	if err := Raise(j.Floor, j.Work.Epoch); err != nil {
		// It is healthy and in force. Who could bring back what is older has to pass the
		// fleet's floor too.
		j.Log.Warn("the floor of epochs could not be raised; it is tried at each start", "to", j.Work.Epoch, "err", err)
		done.Owed = j.Work.Epoch
	}
	return done
}

// rollingBack puts in force what ran before.
func (j *Job) rollingBack(ctx context.Context) Outcome {
	if j.Work.Asked != uint8(seam.RestartNone) && !j.Booted {
		return Outcome{Ask: seam.Restart(j.Work.Asked)}
	}
	if s := j.Mem.Shadow; j.Work.Act == release.ActUndo && s != nil && s.Token == j.Work.Token && s.Rollout == j.Work.Rollout {
		out, ok := j.tries(ctx, words.Switch, func() error { return j.endShadow(ctx) })
		if ok {
			return Outcome{On: table.Gone, Reason: j.Work.Reason}
		}
		return out
	}
	look := j.Resumed
	var done Outcome
	out, ok := j.tries(ctx, words.Switch, func() error {
		if look {
			if back, err := j.isBack(ctx); back || err != nil {
				done = Outcome{On: table.Gone, Reason: j.Work.Reason}
				return err
			}
		}
		look = true
		restart, err := j.back(ctx)
		if err != nil {
			return fmt.Errorf("could not go back: %w", err)
		}
		if restart != seam.RestartNone {
			done = Outcome{Ask: restart}
			return nil
		}
		back, err := j.isBack(ctx)
		if err == nil && !back {
			err = errors.New("it is still in force after going back")
		}
		done = Outcome{On: table.Gone, Reason: j.Work.Reason}
		return err
	})
	if !ok {
		if out.On != "" { // both are told: why it went back, and why it could not
			out.Reason = Why(words.Switch, "%.100s; it went back because of %s", out.Reason, j.Work.Reason)
		}
		return out
	}
	return done
}

func (j *Job) endShadow(ctx context.Context) error {
	s, ok := j.inst.(seam.Shadower)
	if !ok {
		return errors.New("the installer knows no shadows")
	}
	return s.Shadow(ctx, "")
}

// back goes back; where the installer has nothing to go back to by itself, what this
// board keeps from before is put in force.
func (j *Job) back(ctx context.Context) (seam.Restart, error) {
	restart, err := j.inst.Back(ctx, j.Work.Token, j.Work.Reason)
	if past := j.Mem.Past; err != nil && j.Work.Act == release.ActUndo && past != nil && past.Token != "" {
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
func (j *Job) isBack(ctx context.Context) (bool, error) {
	st, _, err := j.inst.Look(ctx, j.Work.Token)
	if err != nil || st == seam.InForce || st == seam.OnTrial {
		return false, err
	}
	if past := j.Mem.Past; j.Work.Act == release.ActUndo && past != nil && past.Token != "" {
		if st, _, err := j.inst.Look(ctx, past.Token); err == nil && st == seam.OnTrial {
			return true, j.inst.Confirm(ctx, past.Token)
		}
	}
	return true, nil
}

// Raise raises the floor, if it is lower.
func Raise(f seam.Floor, to uint64) error {
	now, err := f.Floor()
	if err != nil || now >= to {
		return err
	}
	return f.Raise(to)
}

// Sleep waits, unless ctx ends.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
