// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"fulmar/fleet/rollout/gate"
	"fulmar/fleet/rollout/plan"
	"fulmar/schema/rest"
)

// namesShown bounds the boards named in a sentence and beside a reason.
const (
	namesShown   = 3
	reasonsShown = 20
)

// Epitaph is the sentence of an end: why, the numbers, what the failed have in common,
// what became of the boards.
func (r *Rollout) Epitaph(into State) string {
	t := r.Total()
	var s []string
	add := func(format string, args ...any) { s = append(s, fmt.Sprintf(format, args...)) }
	ran := t.N[BoardGood]
	if into == Done {
		add("done: %s run %s", boards(ran), r.Spec.Release)
		if n := ran + t.Bad; n > 0 {
			add("%d of %d failed, that shows at least %s", t.Bad, n, gate.Percent(gate.Lower(ran, t.Bad)))
		}
	} else {
		add("%s", cmp.Or(r.Why, string(into)))
		if r.Common != "" {
			add("%s", r.Common)
		}
		if ran > 0 {
			add("%s keep %s", boards(ran), r.Spec.Release)
		}
	}
	for _, x := range []struct {
		state BoardState
		say   string
	}{
		{BoardUndone, "taken back"},
		{BoardFailed, "failed and back on what they ran"},
		{BoardStuck, "for you to look at"},
		{BoardUnreached, "never reached"},
		{BoardWaiting, "untouched"},
		{BoardOut, "left out"},
	} {
		if n := t.N[x.state]; n > 0 {
			say := fmt.Sprintf("%s %s", boards(n), x.say)
			if x.state == BoardStuck || x.state == BoardFailed {
				say += " (" + r.names(x.state) + ")"
			}
			s = append(s, say)
		}
	}
	return strings.Join(s, "; ")
}

func boards(n int) string {
	if n == 1 {
		return "1 board"
	}
	return fmt.Sprintf("%d boards", n)
}

// names lists the first few boards in a state.
func (r *Rollout) names(s BoardState) string {
	var out []string
	n := 0
	for i := range r.Boards {
		if b := &r.Boards[i]; b.State == s {
			if n++; n <= namesShown {
				out = append(out, b.Name)
			}
		}
	}
	if n > namesShown {
		out = append(out, fmt.Sprintf("%d more", n-namesShown))
	}
	return strings.Join(out, ", ")
}

// Shared compares the failed with the good boards of this try.
func (r *Rollout) Shared() string {
	var bad, good []map[string]string
	for i := range r.Boards {
		switch b := &r.Boards[i]; {
		case b.Bad:
			bad = append(bad, b.Facts)
		case b.State == BoardGood && !b.Earlier:
			good = append(good, b.Facts)
		}
	}
	return gate.Common(bad, good)
}

// View puts the rollout into the words of the API.
func (r *Rollout) View() rest.Rollout {
	v := rest.Rollout{
		ID: r.ID, Version: r.Version, Spec: r.Spec, State: string(r.State), Since: r.Since, Over: r.State.Over(), Sentence: r.Sentence,
		Author: r.Author, Starter: r.Starter, Approver: r.Approver, Created: r.Created, Wave: max(r.Wave, 0),
		Counts: r.Counts(-1), Levels: r.levels(), LeftOut: r.LeftOut, Common: r.Common, Actions: r.Can(), Rolls: r.Past, Waves: []rest.Wave{},
	}
	v.Spec.Envelope = nil // large, and nobody reads it
	if !r.State.Over() {
		d := r.Deadline
		v.Deadline, v.Then, v.Sentence = &d, r.then(), r.standing()
	}
	v.Do = r.advice()
	done := 0
	for _, w := range r.Waves {
		x := plan.Show(r.Spec, w.Wave, done)
		if w.N > 0 {
			done += w.Boards
		}
		x.Counts = r.Counts(w.N)
		x.Began, x.Ended, x.Verdict = stamp(w.Began), stamp(w.Ended), w.Verdict
		v.Waves = append(v.Waves, x)
	}
	if w := r.WaveOf(r.Wave); w != nil {
		v.Verdict = w.Verdict
		if v.Verdict == nil && !w.Began.IsZero() && len(r.Boards) > 0 {
			live := gate.Judge(r.Spec.Gate, r.Tried(), false)
			v.Verdict = &live
		}
	}
	r.detail(&v)
	return v
}

// DoneAbout plays what is left through from now on; nil where that cannot be told: where
// somebody or something is waited for, or beyond 90 days.
func (r *Rollout) DoneAbout(now time.Time) *time.Time {
	switch r.State {
	case Before, InWave, Soak, Judging:
	default:
		return nil
	}
	p := &plan.Plan{}
	for i := range r.Boards {
		b := &r.Boards[i]
		if b.State != BoardWaiting && !b.State.Flying() || r.Group(b) < r.Wave {
			continue
		}
		p.Boards = append(p.Boards, plan.Board{Candidate: plan.Candidate{Board: b.Name, Site: b.Site, Zone: b.Zone, Reachable: !b.Silent}, Wave: b.Wave, Shadow: b.Shadow && !r.Shadowed})
	}
	for _, w := range r.Waves {
		if w.N > r.Wave || w.N == r.Wave && (r.State == Before || r.State == InWave) {
			p.Waves = append(p.Waves, w.Wave)
		}
	}
	if r.State == Soak {
		now = r.Deadline
	}
	return plan.Forecast(r.Spec, p, plan.Typical, now).Done
}

// detail adds the names of the waves and the reasons of the failures: one walk.
func (r *Rollout) detail(v *rest.Rollout) {
	reasons := map[string]*rest.FailureReason{}
	for i := range r.Boards {
		b := &r.Boards[i]
		for j := range v.Waves {
			if w := &v.Waves[j]; (w.N == b.Wave || w.N == 0 && b.Shadow) && len(w.Names) < plan.NamesShown {
				w.Names = append(w.Names, b.Name)
			}
		}
		if b.Bad || b.State == BoardStuck {
			f := reasons[b.Reason]
			if f == nil {
				f = &rest.FailureReason{Reason: b.Reason}
				reasons[b.Reason] = f
			}
			if f.Boards++; len(f.Names) < reasonsShown {
				f.Names = append(f.Names, b.Name)
			}
		}
	}
	for _, f := range reasons {
		v.Reasons = append(v.Reasons, *f)
	}
	slices.SortFunc(v.Reasons, func(a, b rest.FailureReason) int {
		return cmp.Or(cmp.Compare(b.Boards, a.Boards), cmp.Compare(a.Reason, b.Reason))
	})
	v.Reasons = v.Reasons[:min(len(v.Reasons), reasonsShown)]
}

func stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// standing says where a rollout stands that is not over.
func (r *Rollout) standing() string {
	c := r.Tried()
	switch r.State {
	case Planned:
		return fmt.Sprintf("planned for %s; nothing has been changed", boards(len(r.Boards)))
	case Approval:
		return "waits for a second person; neither " + r.Author + " nor " + r.Starter + " can approve it"
	case Waiting:
		var open []string
		for _, id := range r.Spec.After {
			if s := r.After[id]; s != Done {
				open = append(open, id)
			}
		}
		return "waits for " + strings.Join(open, ", ")
	case Held:
		return r.Why
	case Paused:
		return "paused in " + r.Where() + "; boards on their way go on"
	case Stopping:
		return cmp.Or(r.Why, "the last boards settle") + fmt.Sprintf("; %s still in between", boards(r.Between()))
	}
	t := r.tallies[r.Wave]
	flying := t.N[BoardAssigned] + t.N[BoardInstalling] + t.N[BoardTrial]
	return fmt.Sprintf("%s, %s: %d of %d good, %d failed, %d on their way", r.Where(), r.State, c.Good, c.Boards, c.Failed, flying)
}

func (r *Rollout) Between() int {
	n := r.Total().N
	return n[BoardAssigned] + n[BoardInstalling] + n[BoardTrial] + n[BoardUndoing]
}

// then says what happens at the deadline.
func (r *Rollout) then() string {
	switch r.State {
	case Planned, Approval, Waiting:
		return "it is aborted; nothing has been changed"
	case Held, Paused:
		return "it is aborted; boards that have the release keep it"
	case Before:
		return "the hook counts as a no, and it is halted"
	case InWave:
		return "boards that never answered are set apart"
	case Soak:
		return "the wave is judged"
	case Judging:
		return "what was not read cannot be told"
	}
	return "boards that have not confirmed are listed for you"
}

// advice names the next command, "" where there is nothing to do.
func (r *Rollout) advice() string {
	cmd := "fulmar rollout "
	switch r.State {
	case Planned:
		return cmd + "start " + r.ID
	case Approval:
		return cmd + "approve " + r.ID
	case Held, Paused:
		return cmd + "resume " + r.ID
	case Halted, RolledBack, Aborted:
		if r.Total().N[BoardStuck] > 0 { // names are known where the boards are
			return "fulmar board why " + strings.SplitN(r.names(BoardStuck), ",", 2)[0]
		}
		return cmd + "retry " + r.ID
	}
	return ""
}

// levels counts the good boards by how far their words are believed; nil where their names
// are not known.
func (r *Rollout) levels() map[string]int {
	var out map[string]int
	for i := range r.Boards {
		if b := &r.Boards[i]; b.State == BoardGood && b.Level != "" {
			if out == nil {
				out = map[string]int{}
			}
			out[b.Level]++
		}
	}
	return out
}

// ViewBoard puts a board into the words of the API.
func (r *Rollout) ViewBoard(i int) rest.RolloutBoard {
	b := &r.Boards[i]
	return rest.RolloutBoard{
		Board: b.Name, Site: b.Site, Wave: b.Wave, State: b.State.String(), Phase: b.Phase, Progress: b.Progress, Since: b.Since,
		Deadline: stamp(b.Deadline), Attempt: b.Attempt, Tries: b.Tries, Release: b.Release, Reason: b.Reason,
		Level: b.Level, Proving: b.Proving,
	}
}
