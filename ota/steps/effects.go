// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package steps

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"syscall"
	"time"

	"fulmar/ota/bring"
	"fulmar/ota/record"
	"fulmar/ota/release"
	"fulmar/ota/seam"
	"fulmar/ota/table"
	"fulmar/schema"
	words "fulmar/schema/ota"
)

// World is what steps work with, beside what one is about.
type World struct {
	Installer  func(component string) seam.Installer
	Bring      *bring.Bringer
	Gate       seam.Gate
	Floor      seam.Floor
	Unmet      func(c *release.Component) []string
	Conditions func(component string, m seam.Moment) []seam.Refusal
	Free       func() (int64, error)
	Log        *slog.Logger

	Poll, Look time.Duration
}

// Job is one step: a picture of the moment in which its state began. Nothing in it is
// shared with what goes on meanwhile, and a step changes nothing of it.
type Job struct {
	World

	Work     *record.Work
	Mem      *record.Component // of the component; not nil
	Manifest *release.Manifest // nil for undo, and where it is gone
	Paths    map[string]string // of the files that were brought, nil after a start
	Resumed  bool              // found by a start of the program
	Booted   bool              // what it asked to start again has
	// Note takes how it goes on: per cent (-1: none) and what it waits for.
	Note func(ctx context.Context, progress int, reason string)

	c    *release.Component
	inst seam.Installer
}

// Outcome is how a step ended.
type Outcome struct {
	On     table.Event // "" stays in the state
	Reason string
	Set    func(*record.Work)      // changes what is noted of the update with it
	Mem    func(*record.Component) // and of the component
	Ask    seam.Restart
	Owed   uint64 // an epoch to which the floor could not be raised
	Paths  map[string]string
}

const reserve = 8 << 20 // bytes that stay free beside what an update needs

// Why makes a reason: its word, a colon and a sentence.
func Why(word, format string, args ...any) string {
	return record.Clip(word + ": " + fmt.Sprintf(format, args...))
}

// Do does what the state is for. It may take long, be cut anywhere, and be done again.
func (j *Job) Do(ctx context.Context) Outcome {
	state := table.State(j.Work.State)
	j.inst = j.Installer(j.Work.Component)
	if j.Manifest != nil {
		j.c = j.Manifest.Component(j.Work.Component)
	}
	if j.inst == nil {
		return Outcome{On: giveUp(state), Reason: Why(words.Needs, "this board has no installer for %s", j.Work.Component)}
	}
	if j.c == nil && j.Work.Act != release.ActUndo && state.Before() {
		return Outcome{On: table.GaveUp, Reason: Why(words.Disk, "its manifest is gone from this board; a new attempt brings it again")}
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
	return Outcome{}
}

func giveUp(s table.State) table.Event {
	if _, ok := table.Next(s, table.Unfit); ok {
		return table.Unfit
	}
	return table.GaveUp
}

// tries does fn until it works, as often as the state lets it, with rising pauses.
func (j *Job) tries(ctx context.Context, reason string, fn func() error) (Outcome, bool) {
	limit := table.LimitOf(table.State(j.Work.State))
	pause := time.Second
	for n := 1; ; n++ {
		err := fn()
		if err == nil {
			return Outcome{}, true
		}
		if ctx.Err() != nil {
			return Outcome{}, false
		}
		if n >= limit.Tries {
			return Outcome{On: table.GaveUp, Reason: Why(reason, "%v", err)}, false
		}
		j.Note(ctx, -1, Why(reason, "try %d of %d: %v", n, limit.Tries, err))
		if Sleep(ctx, pause) != nil {
			return Outcome{}, false
		}
		pause = min(2*pause, 5*time.Minute)
	}
}

// offered looks whether the board can have it at all.
func (j *Job) offered(ctx context.Context) Outcome {
	version, runs := "", j.Mem.Runs
	out, ok := j.tries(ctx, words.Disk, func() (err error) {
		if version, err = j.inst.Running(ctx); err != nil || runs == nil || runs.Token == "" {
			return err
		}
		// A package or a person may have put something else in force since.
		if st, _, err := j.inst.Look(ctx, runs.Token); err != nil {
			return err
		} else if st != seam.InForce && st != seam.OnTrial {
			runs = nil
		}
		return nil
	})
	if !ok {
		return out
	}
	floor, err := j.Floor.Floor()
	if err != nil {
		return Outcome{On: table.Unfit, Reason: Why(words.Refused, "the floor of epochs cannot be read, so nothing may be installed: %v", err)}
	}
	out = Outcome{On: table.Fits, Set: func(w *record.Work) {
		w.Was = clip(version, schema.MaxName)
		if runs != nil {
			w.Was = runs.Release
		}
		w.Under = floor
		if j.Manifest != nil {
			w.Epoch = j.Manifest.Epoch
		}
	}}
	if runs == nil && j.Mem.Runs != nil {
		out.Mem = func(mem *record.Component) { mem.Runs, mem.Past = nil, nil }
	}
	switch {
	case j.Work.Act == release.ActUndo:
		return j.undoable(out, runs, floor)
	case runs != nil && runs.Hash == j.Work.Hash && j.Work.Act == release.ActInstall:
		out.On, out.Reason = table.Known, "runs already"
	default:
		if reason := j.unfit(floor); reason != "" {
			out.On, out.Reason = table.Unfit, reason
		}
	}
	return out
}

// undoable finds what an order to go back goes back from.
func (j *Job) undoable(out Outcome, runs *record.Version, floor uint64) Outcome {
	token := ""
	switch s := j.Mem.Shadow; {
	case s != nil && s.Rollout == j.Work.Rollout:
		token = s.Token
	case runs != nil && runs.Rollout == j.Work.Rollout:
		if past := j.Mem.Past; past != nil && past.Epoch < floor {
			out.On, out.Reason = table.Unfit, Why(words.Refused, "what ran before, %s, is of epoch %d, and this board has committed epoch %d", past.Release, past.Epoch, floor)
			return out
		}
		token = runs.Token
	}
	if token == "" {
		out.On, out.Reason = table.Gone, "nothing of this rollout runs here"
		return out
	}
	set := out.Set
	out.Set = func(w *record.Work) { set(w); w.Token = token }
	return out
}

// unfit says why the board can never have it, "" where it can.
func (j *Job) unfit(floor uint64) string {
	if _, ok := j.inst.(seam.Shadower); j.Work.Act == release.ActShadow && !ok {
		return Why(words.Needs, "%s cannot run beside what is in use here", j.Work.Component)
	}
	if j.Manifest.Epoch < floor {
		return Why(words.Refused, "it is of epoch %d, and this board has committed epoch %d", j.Manifest.Epoch, floor)
	}
	if unmet := j.Unmet(j.c); len(unmet) > 0 {
		return Why(words.Needs, "%s", strings.Join(unmet, "; "))
	}
	return ""
}

// admitted asks once whether it can go on.
func (j *Job) admitted(ctx context.Context) Outcome {
	reason, passes, err := j.against(ctx, j.moment())
	switch {
	case err != nil:
		return Outcome{On: table.Blocked, Reason: Why(words.Disk, "%v", err)}
	case reason == "":
		return j.clear()
	case passes:
		return Outcome{On: table.Blocked, Reason: reason}
	}
	return Outcome{On: table.Unfit, Reason: reason}
}

func (j *Job) moment() seam.Moment {
	if j.Work.Act == release.ActUndo {
		return seam.ToGoBack
	}
	return seam.ToFetch
}

func (j *Job) clear() Outcome {
	if j.Work.Act == release.ActUndo {
		return Outcome{On: table.TakeBack, Reason: Why(words.Undone, "rollout %s was taken back", j.Work.Rollout)}
	}
	return Outcome{On: table.Clear}
}

// scheduled waits until nothing speaks against going on.
func (j *Job) scheduled(ctx context.Context) Outcome {
	return j.wait(ctx, j.moment(), func() Outcome {
		out := j.clear()
		out.Set = func(w *record.Work) { w.Free, w.There = 0, 0 }
		return out
	})
}

// wait asks again and again.
func (j *Job) wait(ctx context.Context, moment seam.Moment, then func() Outcome) Outcome {
	for {
		reason, passes, err := j.against(ctx, moment)
		switch {
		case err != nil:
			reason = Why(words.Disk, "%v", err)
		case reason == "":
			return then()
		case !passes:
			return Outcome{On: table.Unfit, Reason: reason}
		}
		j.Note(ctx, -1, reason)
		if Sleep(ctx, j.Poll) != nil {
			return Outcome{}
		}
	}
}

// against says what speaks against going on, "" for nothing. What cannot pass comes first.
func (j *Job) against(ctx context.Context, moment seam.Moment) (reason string, passes bool, err error) {
	for _, c := range j.Conditions(j.Work.Component, moment) {
		if !c.Passes {
			return Why(c.Reason, "%s", c.Text), false, nil
		}
		if reason == "" {
			reason = Why(c.Reason, "%s", c.Text)
		}
	}
	if reason != "" || moment != seam.ToFetch {
		return reason, true, nil
	}
	reason, err = j.space(ctx)
	return reason, true, err
}

// space says how much is missing to bring and to stage it, "" for nothing.
func (j *Job) space(ctx context.Context) (string, error) {
	free, err := j.Free()
	if err != nil {
		return "", err
	}
	if want := max(j.Bring.Need(ctx, j.c, j.Work.Patches, j.inst.Base)+reserve, j.Work.Free); free < want {
		return noSpace(free, want), nil
	}
	need, there, err := j.inst.Space(ctx, j.c)
	if err != nil {
		return "", err
	}
	if want := max(need+j.c.Needs.Space, j.Work.There); there < want {
		return noSpace(there, want), nil
	}
	return "", nil
}

func noSpace(free, want int64) string {
	const mb = 1e6
	return Why(words.NoSpace, "%.1f MB free, wants %.1f", float64(free)/mb, float64(want)/mb)
}

func clip(s string, n int) string { return s[:min(len(s), n)] }

// full is for a disk that got full: it goes on when so much more is free as was missing.
func (j *Job) full(missing int64, err error) Outcome {
	free, ferr := j.Free()
	if ferr != nil {
		free = 0
	}
	want := max(missing+reserve, free+reserve)
	return Outcome{On: table.NoRoom, Reason: noSpace(free, want) + ": " + clip(err.Error(), 100), Set: func(w *record.Work) { w.Free = want }}
}

// fetching brings all files.
func (j *Job) fetching(ctx context.Context) Outcome {
	var paths map[string]string
	var final Outcome
	out, ok := j.tries(ctx, words.Fetch, func() (err error) {
		paths, err = j.files(ctx)
		var e *bring.Error
		switch {
		case !errors.As(err, &e):
		case e.Reason == words.NoSpace:
			final, err = j.full(e.Missing, err), nil
		case e.Final:
			final, err = Outcome{On: table.GaveUp, Reason: Why(e.Reason, "%v", e)}, nil
		}
		return err
	})
	if !ok {
		return out
	}
	if final.On != "" {
		return final
	}
	return Outcome{On: table.Brought, Paths: paths}
}

func (j *Job) files(ctx context.Context) (map[string]string, error) {
	last := -1
	return j.Bring.Files(ctx, j.c, j.Work.Patches, j.inst.Base, func(have, all int64) {
		if p := int(100 * have / max(all, 1)); p != last {
			last = p
			j.Note(ctx, p, "")
		}
	})
}

// staged puts what came beside what runs.
func (j *Job) staged(ctx context.Context) Outcome {
	token := ""
	var final Outcome
	out, ok := j.tries(ctx, words.Stage, func() (err error) {
		if j.Paths == nil { // after a start: all of it is here, but what was damaged meanwhile
			if j.Paths, err = j.files(ctx); err != nil {
				return err
			}
		}
		need, there, err := j.inst.Space(ctx, j.c)
		if err == nil && there < need {
			final = j.fullThere(need, there, errors.New("not enough to stage it"))
			return nil
		}
		if err == nil {
			token, err = j.inst.Stage(ctx, j.c, j.Paths)
		}
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			final, err = j.fullThere(need, there, err), nil
		} else if err == nil && (token == "" || len(token) > seam.MaxToken) {
			err = fmt.Errorf("the installer calls it %.140q", token)
		}
		return err
	})
	switch {
	case !ok:
		out.Reason = strings.Replace(out.Reason, words.Stage+": file ", words.Fetch+": file ", 1)
		return out
	case final.On != "":
		return final
	}
	return Outcome{On: table.Placed, Set: func(w *record.Work) { w.Token = token }}
}

func (j *Job) fullThere(need, there int64, err error) Outcome {
	want := max(need, there+reserve)
	return Outcome{On: table.NoRoom, Reason: noSpace(there, want) + ": " + clip(err.Error(), 100), Set: func(w *record.Work) { w.There = want }}
}

// ready waits for a moment in which it can be put in force.
func (j *Job) ready(ctx context.Context) Outcome {
	if err := j.Bring.Forget(j.c, j.Work.Patches); err != nil {
		j.Log.Warn("what was brought for an update could not be removed", "err", err)
	}
	standing := seam.NotYet
	if out, ok := j.tries(ctx, words.Switch, func() (err error) {
		standing, _, err = j.inst.Look(ctx, j.Work.Token)
		return err
	}); !ok {
		return out
	}
	if standing == seam.InForce && j.Work.Act == release.ActInstall {
		return Outcome{On: table.Known, Reason: "the same bytes run already"}
	}
	return j.wait(ctx, seam.ToSwitch, func() Outcome {
		if j.Work.Act == release.ActShadow {
			if out, ok := j.tries(ctx, words.Switch, func() error { return j.inst.(seam.Shadower).Shadow(ctx, j.Work.Token) }); !ok {
				return out
			}
			return Outcome{On: table.Beside}
		}
		notes := j.Gate.Before(j.Work.Component)
		return Outcome{On: table.Clear, Set: func(w *record.Work) { w.Notes = notes[:min(len(notes), seam.MaxBefore)] }}
	})
}
