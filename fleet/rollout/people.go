// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"fmt"
	"slices"

	"fulmar/fleet/rollout/gate"
	"fulmar/fleet/rollout/plan"
	"fulmar/fleet/rollout/state"
	"fulmar/schema/rest"
)

// may checks that an act is possible and notes who does it.
func (t *turn) may(by Person) bool {
	if !t.r.CanOn(t.on) {
		t.err = fmt.Errorf("%w: rollout %s is %s; now possible: %v", ErrState, t.r.ID, t.r.State, t.r.Can())
		return false
	}
	t.who = by.Who
	return true
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

func (t *turn) start(e Start) {
	if !t.may(e.By) {
		return
	}
	if !slices.ContainsFunc(t.r.Boards, func(b state.Board) bool { return e.Skip[b.Name] == "" }) {
		t.err = fmt.Errorf("%w: all are in other rollouts", plan.ErrNoBoards)
		return
	}
	t.skip(e.Skip)
	t.r.Starter, t.r.Epoch, t.r.Began = e.By.Author, e.Epoch, t.now
	t.begin("started")
}

// skip leaves boards out that another rollout has.
func (t *turn) skip(others map[string]string) {
	for i := range t.r.Boards {
		if id := others[t.r.Boards[i].Name]; id != "" {
			t.set(i, func(b *state.Board) { b.State, b.Reason = state.BoardOut, "in another rollout of this component: "+id })
		}
	}
}

// begin asks for approval, or goes.
func (t *turn) begin(say string) {
	t.r.Approver = ""
	if t.r.Spec.Approval {
		t.move(state.Approval, say+"; a second person has to approve it")
		return
	}
	t.proceed(say)
}

func (t *turn) approve(e Approve) {
	if !t.may(e.By) {
		return
	}
	if t.r.Theirs(e.By.Author) {
		t.err = fmt.Errorf("%w: %s planned or started rollout %s", ErrSamePerson, e.By.Author, t.r.ID)
		return
	}
	t.r.Approver = e.By.Author
	t.proceed("approved")
}

// proceed waits for others or begins with the first wave that has boards.
func (t *turn) proceed(say string) {
	if t.ahead() {
		t.move(state.Waiting, say+"; waits for other rollouts")
		return
	}
	t.nextWave(say)
}

// ahead tells whether a rollout that comes first is not done.
func (t *turn) ahead() bool {
	return slices.ContainsFunc(t.r.Spec.After, func(id string) bool { return t.r.After[id] != state.Done })
}

func (t *turn) dependency(e Dependency) {
	if !slices.Contains(t.r.Spec.After, e.ID) || t.r.After[e.ID] == e.State {
		return
	}
	if t.r.After == nil {
		t.r.After = map[string]state.State{}
	}
	t.r.After[e.ID] = e.State
	t.fx.Head = true
	switch {
	case t.r.State != state.Waiting:
	case !t.ahead():
		t.nextWave("all that come first are done")
	case e.State.Over() && e.State != state.Done:
		t.r.Why = fmt.Sprintf("%s, which comes first, is %s", e.ID, e.State)
		t.end(state.Aborted)
	}
}

func (t *turn) pause(e Pause) {
	if !t.may(e.By) {
		return
	}
	t.r.Resume = t.r.State
	t.move(state.Paused, "paused"+because(e.Why))
}

func (t *turn) resume(e Resume) {
	if !t.may(e.By) {
		return
	}
	if t.r.State == state.Held {
		// Going on where nothing is clear is as much as starting: who began it cannot
		// do it alone where the plan wants two.
		if v := t.r.WaveOf(t.r.Wave).Verdict; t.r.Spec.Approval && v != nil && v.Outcome == gate.Unclear && t.r.Theirs(e.By.Author) {
			t.err = fmt.Errorf("%w: the gate cannot tell, and %s planned or started rollout %s", ErrSamePerson, e.By.Author, t.r.ID)
			return
		}
		t.r.Why = ""
		t.nextWave("goes on" + because(e.Why))
		return
	}
	back := t.r.Resume
	t.r.Resume = ""
	t.move(back, "resumed"+because(e.Why))
	switch back {
	case state.Before:
		t.fx.Hook = t.r.Spec.Before
	case state.Judging:
		t.ask()
	}
}

func (t *turn) abort(e Abort) {
	if !t.may(e.By) {
		return
	}
	t.r.Why = "aborted by " + e.By.Who + because(e.Why)
	if t.r.State == state.Planned || t.r.State == state.Approval || t.r.State == state.Waiting {
		t.end(state.Aborted)
		return
	}
	t.stop(state.Aborted, plan.UndoBad)
}

func (t *turn) rollback(e Rollback) {
	if !t.may(e.By) {
		return
	}
	scope, what := plan.UndoWave, "the wave"
	if e.All || t.r.State.Over() {
		scope, what = plan.UndoAll, "all boards"
	}
	if e.Epoch > t.r.Epoch {
		t.r.Epoch = e.Epoch
	}
	for i := range t.r.Boards {
		if e.Skip[t.r.Boards[i].Name] {
			t.set(i, func(b *state.Board) { b.State, b.Reason = state.BoardOut, "its release is another rollout's by now" })
		}
	}
	t.r.Why = fmt.Sprintf("%s took %s back%s", e.By.Who, what, because(e.Why))
	t.stop(state.RolledBack, scope)
}

func (t *turn) retry(e Retry) {
	if !t.may(e.By) {
		return
	}
	r := t.r
	left := 0
	for i := range r.Boards {
		if b := &r.Boards[i]; b.State != state.BoardGood && !e.Without[b.Name] && e.Skip[b.Name] == "" {
			left++
		}
	}
	if left == 0 {
		t.err = fmt.Errorf("%w: no board is left to try again", plan.ErrNoBoards)
		return
	}
	r.Past = append(r.Past, rest.RolloutAttempt{Began: r.Began, Ended: r.Since, State: string(r.State), Sentence: r.Sentence})
	if len(r.Past) > maxPast {
		r.Past = r.Past[len(r.Past)-maxPast:]
	}
	for i := range r.Boards {
		b := &r.Boards[i]
		if b.State == state.BoardGood {
			b.Earlier, t.fx.Changed[i] = true, true
			continue
		}
		b.State, b.Bad, b.Acked, b.Tries, b.Phase, b.Progress, b.Since = state.BoardWaiting, false, false, 0, "", 0, t.now
		b.Deadline, b.NotBefore, b.Attempt = zero(), zero(), 0 // words on the last try are of no account
		b.Proving, b.Level = false, ""
		if e.Without[b.Name] {
			b.State, b.Reason = state.BoardOut, "left out of the retry"
		}
		t.fx.Changed[i] = true
	}
	for i := range r.Waves {
		r.Waves[i].Verdict, r.Waves[i].Began, r.Waves[i].Ended = nil, zero(), zero()
	}
	r.Wave, r.Why, r.Common, r.Sentence, r.Into, r.Resume = -1, "", "", "", "", ""
	r.Starter, r.Epoch, r.Began, r.Counter = e.By.Author, e.Epoch, t.now, 0
	r.Recount()
	t.skip(e.Skip)
	t.begin(fmt.Sprintf("tried again on %d boards%s", left, because(e.Why)))
}

// maxPast bounds the tries that a rollout remembers in its head; the steps are all in
// its history.
const maxPast = 50
