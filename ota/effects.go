// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ota

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"fulmar/ota/bring"
	"fulmar/ota/record"
	"fulmar/ota/release"
	"fulmar/ota/table"
	"fulmar/schema"
	words "fulmar/schema/ota"
)

// job is all that an effect knows: a picture of the moment in which its state began.
type job struct {
	*machine // its deps alone: the rest is the loop's

	w        *record.Work
	mem      *record.Component
	manifest *release.Manifest // nil for undo, and where it is gone
	c        *release.Component
	inst     Installer
	paths    map[string]string
	step     int
	resumed  bool // found by a start of the program
	booted   bool // what it asked to start again has
}

func (m *machine) job() *job {
	r := m.rec.Load()
	w := r.Work
	j := &job{machine: m, w: w, mem: r.Components[w.Component], manifest: m.manifest(w), inst: m.deps.Installer(w.Component), paths: m.paths, step: m.step, resumed: m.resumed}
	if j.mem == nil {
		j.mem = &record.Component{}
	}
	if j.manifest != nil {
		j.c = j.manifest.Component(w.Component)
	}
	switch Restart(w.Asked) {
	case RestartProgram:
		j.booted = m.resumed
	case RestartMachine:
		j.booted = w.AskedIn != m.cfg.Clock.Boot()
	}
	return j
}

// effect does what the state is for. It may take long, be cut anywhere, and be done again.
func (m *machine) effect(ctx context.Context, j *job) outcome {
	state := table.State(j.w.State)
	if j.inst == nil {
		return outcome{on: giveUp(state), reason: why(words.Needs, "this board has no installer for %s", j.w.Component)}
	}
	if j.c == nil && j.w.Act != release.ActUndo && state.Before() {
		return outcome{on: table.GaveUp, reason: why(words.Disk, "its manifest is gone from this board; a new attempt brings it again")}
	}
	switch state {
	case table.Offered:
		return j.offered(ctx)
	case table.Admitted:
		return j.admitted(ctx)
	case table.Scheduled:
		return j.scheduled(ctx)
	case table.Fetching:
		return j.fetching(ctx)
	case table.Staged:
		return j.staged(ctx)
	case table.Ready:
		return j.ready(ctx)
	case table.Switching:
		return j.switching(ctx)
	case table.Trial:
		return j.trial(ctx)
	case table.Confirming:
		return j.confirming(ctx)
	case table.RollingBack:
		return j.rollingBack(ctx)
	}
	return outcome{}
}

func giveUp(s table.State) table.Event {
	if _, ok := table.Next(s, table.Unfit); ok {
		return table.Unfit
	}
	return table.GaveUp
}

// tries does fn until it works, as often as the state lets it, with rising pauses.
func (j *job) tries(ctx context.Context, reason string, fn func() error) (outcome, bool) {
	limit := table.LimitOf(table.State(j.w.State))
	pause := time.Second
	for n := 1; ; n++ {
		err := fn()
		if err == nil {
			return outcome{}, true
		}
		if ctx.Err() != nil {
			return outcome{}, false
		}
		if n >= limit.Tries {
			return outcome{on: table.GaveUp, reason: why(reason, "%v", err)}, false
		}
		j.note(ctx, -1, why(reason, "try %d of %d: %v", n, limit.Tries, err))
		if sleep(ctx, pause) != nil {
			return outcome{}, false
		}
		pause = min(2*pause, 5*time.Minute)
	}
}

func (j *job) note(ctx context.Context, progress int, reason string) {
	select {
	case j.notes <- note{step: j.step, progress: progress, reason: reason}:
	case <-ctx.Done():
	}
}

// offered looks whether the board can have it at all.
func (j *job) offered(ctx context.Context) outcome {
	version, runs := "", j.mem.Runs
	out, ok := j.tries(ctx, words.Disk, func() (err error) {
		if version, err = j.inst.Running(ctx); err != nil || runs == nil || runs.Token == "" {
			return err
		}
		// A package or a person may have put something else in force since.
		if st, _, err := j.inst.Look(ctx, runs.Token); err != nil {
			return err
		} else if st != InForce && st != OnTrial {
			runs = nil
		}
		return nil
	})
	if !ok {
		return out
	}
	out = outcome{on: table.Fits, set: func(w *record.Work) {
		w.Was = clip(version, schema.MaxName)
		if runs != nil {
			w.Was = runs.Release
		}
		if j.manifest != nil {
			w.Epoch = j.manifest.Epoch
		}
	}}
	if runs == nil && j.mem.Runs != nil {
		out.mem = func(mem *record.Component) { mem.Runs, mem.Past = nil, nil }
	}
	switch {
	case j.w.Act == release.ActUndo:
		return j.undoable(out, runs)
	case runs != nil && runs.Hash == j.w.Hash && j.w.Act == release.ActInstall:
		out.on, out.reason = table.Known, "runs already"
	default:
		if reason := j.unfit(); reason != "" {
			out.on, out.reason = table.Unfit, reason
		}
	}
	return out
}

// undoable finds what an order to go back goes back from.
func (j *job) undoable(out outcome, runs *record.Version) outcome {
	token := ""
	switch s := j.mem.Shadow; {
	case s != nil && s.Rollout == j.w.Rollout:
		token = s.Token
	case runs != nil && runs.Rollout == j.w.Rollout:
		token = runs.Token
	}
	if token == "" {
		out.on, out.reason = table.Gone, "nothing of this rollout runs here"
		return out
	}
	set := out.set
	out.set = func(w *record.Work) { set(w); w.Token = token }
	return out
}

// unfit says why the board can never have it, "" where it can.
func (j *job) unfit() string {
	if _, ok := j.inst.(Shadower); j.w.Act == release.ActShadow && !ok {
		return why(words.Needs, "%s cannot run beside what is in use here", j.w.Component)
	}
	floor, err := j.deps.Floor.Floor()
	if err != nil {
		return why(words.Refused, "the floor of epochs cannot be read, so nothing may be installed: %v", err)
	}
	if j.manifest.Epoch < floor {
		return why(words.Refused, "it is of epoch %d, and this board has committed epoch %d", j.manifest.Epoch, floor)
	}
	if unmet := j.deps.Unmet(j.c); len(unmet) > 0 {
		return why(words.Needs, "%s", strings.Join(unmet, "; "))
	}
	return ""
}

// admitted asks once whether it can go on.
func (j *job) admitted(ctx context.Context) outcome {
	reason, passes, err := j.against(ctx, j.moment())
	switch {
	case err != nil:
		return outcome{on: table.Blocked, reason: why(words.Disk, "%v", err)}
	case reason == "":
		return j.clear()
	case passes:
		return outcome{on: table.Blocked, reason: reason}
	}
	return outcome{on: table.Unfit, reason: reason}
}

func (j *job) moment() Moment {
	if j.w.Act == release.ActUndo {
		return ToGoBack
	}
	return ToFetch
}

func (j *job) clear() outcome {
	if j.w.Act == release.ActUndo {
		return outcome{on: table.TakeBack, reason: why(words.Undone, "rollout %s was taken back", j.w.Rollout)}
	}
	return outcome{on: table.Clear}
}

// scheduled waits until nothing speaks against going on.
func (j *job) scheduled(ctx context.Context) outcome {
	return j.wait(ctx, j.moment(), func() outcome {
		out := j.clear()
		out.set = func(w *record.Work) { w.Free, w.There = 0, 0 }
		return out
	})
}

// wait asks again and again.
func (j *job) wait(ctx context.Context, moment Moment, then func() outcome) outcome {
	for {
		reason, passes, err := j.against(ctx, moment)
		switch {
		case err != nil:
			reason = why(words.Disk, "%v", err)
		case reason == "":
			return then()
		case !passes:
			return outcome{on: table.Unfit, reason: reason}
		}
		j.note(ctx, -1, reason)
		if sleep(ctx, j.cfg.Poll) != nil {
			return outcome{}
		}
	}
}

// against says what speaks against going on, "" for nothing. What cannot pass comes first.
func (j *job) against(ctx context.Context, moment Moment) (reason string, passes bool, err error) {
	for _, c := range j.deps.Conditions(j.w.Component, moment) {
		if !c.Passes {
			return why(c.Reason, "%s", c.Text), false, nil
		}
		if reason == "" {
			reason = why(c.Reason, "%s", c.Text)
		}
	}
	if reason != "" || moment != ToFetch {
		return reason, true, nil
	}
	reason, err = j.space(ctx)
	return reason, true, err
}

// space says how much is missing to bring and to stage it, "" for nothing.
func (j *job) space(ctx context.Context) (string, error) {
	free, err := j.deps.Free()
	if err != nil {
		return "", err
	}
	if want := max(j.bring.Need(ctx, j.c, j.w.Patches, j.inst.Base)+reserve, j.w.Free); free < want {
		return noSpace(free, want), nil
	}
	need, there, err := j.inst.Space(ctx, j.c)
	if err != nil {
		return "", err
	}
	if want := max(need+j.c.Needs.Space, j.w.There); there < want {
		return noSpace(there, want), nil
	}
	return "", nil
}

func noSpace(free, want int64) string {
	const mb = 1e6
	return why(words.NoSpace, "%.1f MB free, wants %.1f", float64(free)/mb, float64(want)/mb)
}

func clip(s string, n int) string { return s[:min(len(s), n)] }

// full is for a disk that got full: it goes on when so much more is free as was missing.
func (j *job) full(missing int64, err error) outcome {
	free, ferr := j.deps.Free()
	if ferr != nil {
		free = 0
	}
	want := max(missing+reserve, free+reserve)
	return outcome{on: table.NoRoom, reason: noSpace(free, want) + ": " + clip(err.Error(), 100), set: func(w *record.Work) { w.Free = want }}
}

// fetching brings all files.
func (j *job) fetching(ctx context.Context) outcome {
	var paths map[string]string
	var final outcome
	out, ok := j.tries(ctx, words.Fetch, func() (err error) {
		paths, err = j.files(ctx)
		var e *bring.Error
		switch {
		case !errors.As(err, &e):
		case e.Reason == words.NoSpace:
			final, err = j.full(e.Missing, err), nil
		case e.Final:
			final, err = outcome{on: table.GaveUp, reason: why(e.Reason, "%v", e)}, nil
		}
		return err
	})
	if !ok {
		return out
	}
	if final.on != "" {
		return final
	}
	return outcome{on: table.Brought, paths: paths}
}

func (j *job) files(ctx context.Context) (map[string]string, error) {
	last := -1
	return j.bring.Files(ctx, j.c, j.w.Patches, j.inst.Base, func(have, all int64) {
		if p := int(100 * have / max(all, 1)); p != last {
			last = p
			j.note(ctx, p, "")
		}
	})
}

// staged puts what came beside what runs.
func (j *job) staged(ctx context.Context) outcome {
	token := ""
	var final outcome
	out, ok := j.tries(ctx, words.Stage, func() (err error) {
		if j.paths == nil { // after a start: all of it is here, but what was damaged meanwhile
			if j.paths, err = j.files(ctx); err != nil {
				return err
			}
		}
		need, there, err := j.inst.Space(ctx, j.c)
		if err == nil && there < need {
			final = j.fullThere(need, there, errors.New("not enough to stage it"))
			return nil
		}
		if err == nil {
			token, err = j.inst.Stage(ctx, j.c, j.paths)
		}
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			final, err = j.fullThere(need, there, err), nil
		} else if err == nil && (token == "" || len(token) > MaxToken) {
			err = fmt.Errorf("the installer calls it %.140q", token)
		}
		return err
	})
	switch {
	case !ok:
		out.reason = strings.Replace(out.reason, words.Stage+": file ", words.Fetch+": file ", 1)
		return out
	case final.on != "":
		return final
	}
	return outcome{on: table.Placed, set: func(w *record.Work) { w.Token = token }}
}

func (j *job) fullThere(need, there int64, err error) outcome {
	want := max(need, there+reserve)
	return outcome{on: table.NoRoom, reason: noSpace(there, want) + ": " + clip(err.Error(), 100), set: func(w *record.Work) { w.There = want }}
}

// ready waits for a moment in which it can be put in force.
func (j *job) ready(ctx context.Context) outcome {
	if err := j.bring.Forget(j.c, j.w.Patches); err != nil {
		j.deps.Log.Warn("what was brought for an update could not be removed", "err", err)
	}
	standing := NotYet
	if out, ok := j.tries(ctx, words.Switch, func() (err error) {
		standing, _, err = j.inst.Look(ctx, j.w.Token)
		return err
	}); !ok {
		return out
	}
	if standing == InForce && j.w.Act == release.ActInstall {
		return outcome{on: table.Known, reason: "the same bytes run already"}
	}
	return j.wait(ctx, ToSwitch, func() outcome {
		if j.w.Act == release.ActShadow {
			if out, ok := j.tries(ctx, words.Switch, func() error { return j.inst.(Shadower).Shadow(ctx, j.w.Token) }); !ok {
				return out
			}
			return outcome{on: table.Beside}
		}
		notes := j.deps.Gate.Before(j.w.Component)
		return outcome{on: table.Clear, set: func(w *record.Work) { w.Notes = notes[:min(len(notes), MaxBefore)] }}
	})
}
