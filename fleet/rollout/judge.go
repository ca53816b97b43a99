// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"fmt"
	"math"

	"fulmar/fleet/rollout/gate"
	"fulmar/fleet/rollout/plan"
	"fulmar/fleet/rollout/state"
	"fulmar/schema/rest"
)

// look asks the gate after each failure: what is bad for sure is halted at once.
func (t *turn) look() {
	r := t.r
	switch r.State {
	case state.InWave, state.Soak, state.Judging, state.Held, state.Paused:
	default:
		return
	}
	if v := gate.Judge(r.Spec.Gate, r.Tried(), false); v.Outcome == gate.Bad {
		t.halt(v)
	}
}

func (t *turn) halt(v rest.Verdict) {
	t.keep(v)
	t.r.Why = fmt.Sprintf("halted in %s: %s", t.r.Where(), v.Sentence)
	t.stop(state.Halted, t.r.Spec.Undo)
}

func (t *turn) keep(v rest.Verdict) {
	v.At = t.now
	if w := t.r.WaveOf(t.r.Wave); w != nil {
		w.Verdict = &v
	}
	t.fx.Head = true
}

// ended sees whether the wave, or the stopping, has come to its end.
func (t *turn) ended() {
	r := t.r
	switch {
	case r.State == state.Stopping && r.Settled():
		t.end(r.Into)
	case r.State == state.InWave:
		n := r.Tally(r.Wave).N
		if n[state.BoardWaiting]+n[state.BoardAssigned]+n[state.BoardInstalling]+n[state.BoardTrial] == 0 {
			t.move(state.Soak, fmt.Sprintf("%s has ended on all boards; it runs for %s", r.Where(), seconds(r.WaveSpec().SoakS)))
		}
	}
}

// tick lets time pass.
func (t *turn) tick() {
	r := t.r
	switch {
	case r.State.Over():
		return
	case r.State != state.Planned && r.State != state.Approval && r.State != state.Waiting:
		t.overdue()
	}
	if !r.State.Over() && !r.Deadline.IsZero() && !t.now.Before(r.Deadline) {
		t.deadline()
	}
	if r.State == state.InWave {
		t.dispatch()
	}
	t.ended()
}

// deadline: the state has lasted as long as it may.
func (t *turn) deadline() {
	r := t.r
	nobody := func(what string) { r.Why = fmt.Sprintf("%s for %s", what, t.now.Sub(r.Since)) }
	switch r.State {
	case state.Planned:
		nobody("nobody started it")
		t.end(state.Aborted)
	case state.Approval:
		nobody("nobody approved it")
		t.end(state.Aborted)
	case state.Waiting:
		nobody("the rollouts that come first were not done")
		t.end(state.Aborted)
	case state.Held, state.Paused:
		nobody(string(r.State) + ", and nobody decided")
		t.stop(state.Aborted, plan.UndoBad)
	case state.Before:
		t.hooked(Hooked{Say: "no answer in time"})
	case state.InWave:
		t.giveUp()
	case state.Soak:
		t.move(state.Judging, "the soak is over")
		r.Measured, r.Hooked, r.HookOK, r.HookSaid, r.Guards = false, false, true, "", nil
		t.ask()
	case state.Judging:
		t.judge()
	case state.Stopping:
		r.Deadline = t.now.Add(life(r, state.Stopping)) // each board has its own deadline
		t.fx.Head = true
	}
}

// giveUp sets boards apart that do not answer. Those never tried yet wait for a window,
// a slot or the rate; those on their way have deadlines of their own.
func (t *turn) giveUp() {
	r := t.r
	r.Deadline = t.now.Add(life(r, state.InWave))
	t.fx.Head = true
	for i := range r.Boards {
		if b := &r.Boards[i]; b.State == state.BoardWaiting && b.Tries == 0 && r.Group(b) == r.Wave {
			return
		}
	}
	for i := range r.Boards {
		if b := &r.Boards[i]; r.Group(b) == r.Wave && (b.State == state.BoardWaiting || b.State == state.BoardAssigned) {
			t.set(i, func(b *state.Board) {
				b.State, b.Deadline, b.Reason = state.BoardUnreached, zero(), fmt.Sprintf("never answered, %d tries", b.Tries)
			})
		}
	}
}

// ask wants what a gate needs beside the boards' words.
func (t *turn) ask() {
	t.fx.Guards, t.fx.Hook = t.r.GuardsNow(), t.r.Spec.Behind
	if t.r.Measured {
		t.fx.Guards = nil
	}
	if t.r.Hooked {
		t.fx.Hook = nil
	}
	if t.fx.Guards == nil && t.fx.Hook == nil {
		t.judge()
	}
}

// Asks gives again what was asked for in this state, after a restart.
func Asks(r *state.Rollout) (fx Effects) {
	for i := range r.Boards {
		if r.Boards[i].Proving {
			fx.Prove = append(fx.Prove, i)
		}
	}
	switch r.State {
	case state.Before:
		fx.Hook = r.Spec.Before
	case state.Judging:
		if !r.Measured {
			fx.Guards = r.GuardsNow()
		}
		if !r.Hooked {
			fx.Hook = r.Spec.Behind
		}
	}
	return fx
}

func (t *turn) hooked(e Hooked) {
	r := t.r
	switch {
	case r.State == state.Before && e.OK:
		t.move(state.InWave, "the hook before "+r.Where()+" said yes")
		t.baseline()
	case r.State == state.Before:
		r.Why = "halted: the hook before " + r.Where() + " said no: " + clip(e.Say)
		t.stop(state.Halted, plan.UndoBad)
	case r.State == state.Judging:
		r.Hooked, r.HookOK, r.HookSaid, t.fx.Head = true, e.OK, clip(e.Say), true
		if r.Measured || r.GuardsNow() == nil {
			t.judge()
		}
	}
}

// baseline asks for the guards' values before the wave has it.
func (t *turn) baseline() {
	if g := t.r.GuardsNow(); g != nil && t.r.Wave > 0 {
		t.fx.Guards, t.fx.Baseline = g, true
	}
}

// measured takes the guards' values.
func (t *turn) measured(e Measured) {
	r := t.r
	if e.Baseline {
		for _, g := range r.GuardsNow() {
			if _, others := split(r, e.Values[g.Name]); len(others) >= gate.MinCohort {
				r.Baselines[g.Name], t.fx.Head = gate.Median(others), true
			}
		}
		return
	}
	if r.State != state.Judging || r.Measured {
		return
	}
	for _, g := range r.GuardsNow() {
		have, others := split(r, e.Values[g.Name])
		then, ok := r.Baselines[g.Name]
		if !ok {
			then = math.NaN()
		}
		r.Guards = append(r.Guards, gate.Guard(g, have, others, r.Tried().Good, then))
	}
	r.Measured, t.fx.Head = true, true
	if r.Hooked || r.Spec.Behind == nil {
		t.judge()
	}
}

// split sorts values into those of boards of this wave that have the release, and those
// of boards that have not got it yet.
func split(r *state.Rollout, values map[string]float64) (have, others []float64) {
	for name, v := range values {
		i, ok := r.Has(name)
		if !ok || math.IsNaN(v) || math.IsInf(v, 0) {
			continue
		}
		switch b := &r.Boards[i]; {
		case b.State == state.BoardGood && r.Group(b) == r.Wave:
			have = append(have, v)
		case b.State == state.BoardWaiting && b.Tries == 0 && !b.Shadowing || b.State == state.BoardUnreached && !b.Acked:
			others = append(others, v)
		}
	}
	return have, others
}

// judge closes a wave.
func (t *turn) judge() {
	r := t.r
	guards, hookOK, said := r.Guards, r.HookOK, r.HookSaid
	if !r.Measured {
		for _, g := range r.GuardsNow() {
			guards = append(guards, rest.GuardVerdict{Name: g.Name, Outcome: gate.Unclear, Sentence: g.Name + ": could not be read"})
		}
	}
	if !r.Hooked && r.Spec.Behind != nil {
		hookOK, said = false, "no answer in time"
	}
	c := r.Tried()
	v := gate.With(gate.Judge(r.Spec.Gate, c, true), guards, said, hookOK)
	if c.Boards <= 0 { // all of it are boards that were not there from the first
		v = gate.With(rest.Verdict{Outcome: gate.Good, Policy: r.Spec.Gate.Policy, Gate: r.Spec.Gate.Gate, Upper: 1, Sentence: "no board of it was reachable: nothing is known"}, nil, said, hookOK)
	}
	if v.Outcome == gate.Bad {
		t.halt(v)
		return
	}
	t.keep(v)
	spec := r.WaveSpec()
	switch {
	case v.Outcome == gate.Unclear && spec.Unclear != plan.Continue:
		t.hold("not enough to tell: " + v.Sentence)
	case spec.Pause && following(r) > 0:
		t.hold("the plan wants a pause here; " + v.Sentence)
	default:
		t.nextWave(r.Where() + ": " + v.Sentence)
	}
}

func (t *turn) hold(why string) {
	t.r.Why = fmt.Sprintf("held after %s: %s", t.r.Where(), why)
	t.move(state.Held, t.r.Why)
}

// following gives the next wave with boards that wait; 0 where there is none.
func following(r *state.Rollout) int {
	for _, w := range r.Waves {
		if w.N > r.Wave && (w.N > 0 || !r.Shadowed) && r.Tally(w.N).N[state.BoardWaiting]+afterShadow(r, w.N) > 0 {
			return w.N
		}
	}
	return 0
}

// afterShadow counts the boards of a wave that are still in the shadow phase.
func afterShadow(r *state.Rollout, n int) (sum int) {
	if r.Wave != 0 || n == 0 {
		return 0
	}
	for i := range r.Boards {
		if r.Boards[i].Shadow && r.Boards[i].Wave == n {
			sum++
		}
	}
	return sum
}

// nextWave begins the next wave that has boards, or ends the rollout.
func (t *turn) nextWave(say string) {
	r := t.r
	if w := r.WaveOf(r.Wave); w != nil {
		w.Ended = t.now
	}
	if r.Wave == 0 {
		t.endShadow()
	}
	for _, w := range r.Waves {
		if w.N <= r.Wave || r.Tally(w.N).N[state.BoardWaiting] == 0 {
			continue
		}
		r.Wave = w.N
		r.WaveOf(w.N).Began = t.now
		if r.Spec.Before != nil {
			t.move(state.Before, say+"; the hook before "+r.Where()+" runs")
			t.fx.Hook = r.Spec.Before
			return
		}
		t.move(state.InWave, say+"; "+r.Where()+" begins")
		t.baseline()
		return
	}
	r.Why = ""
	if !r.Settled() {
		r.Into = state.Done
		t.move(state.Stopping, say+"; the last boards settle")
		return
	}
	t.end(state.Done)
}

// endShadow lets the boards of the shadow phase wait for their wave. Those that failed
// in it do not get the model.
func (t *turn) endShadow() {
	r := t.r
	r.Shadowed, t.fx.Head = true, true
	for i := range r.Boards {
		b := &r.Boards[i]
		if !b.Shadow {
			continue
		}
		switch b.State {
		case state.BoardGood, state.BoardUnreached, state.BoardWaiting:
			b.State, b.Tries, b.Acked, b.Phase, b.Since = state.BoardWaiting, 0, false, "", t.now
		default:
			b.Bad, b.Reason = false, clip("in the shadow phase: "+b.Reason)
		}
		t.fx.Changed[i] = true
	}
	r.Recount()
}

// stop lets boards in between settle or go back, then ends in into.
func (t *turn) stop(into state.State, scope string) {
	r := t.r
	r.Into, r.Common = into, r.Shared()
	t.move(state.Stopping, r.Why)
	if t.err != nil {
		return
	}
	for i := range r.Boards {
		b := &r.Boards[i]
		mine := scope == plan.UndoAll || scope == plan.UndoWave && r.Group(b) == r.Wave || r.Wave == 0
		switch {
		case b.State.Flying(), b.State == state.BoardGood && mine, b.State == state.BoardWaiting && b.Shadowing:
			t.set(i, t.undo)
			t.send(i)
		case b.State == state.BoardWaiting && b.Tries > 0:
			t.set(i, func(b *state.Board) {
				b.State, b.Deadline, b.Reason = state.BoardUnreached, zero(), fmt.Sprintf("never answered, %d tries", b.Tries)
			})
		}
	}
	t.ended()
}

// end writes the sentence that stays.
func (t *turn) end(into state.State) {
	if t.err != nil {
		return
	}
	r := t.r
	r.Into = ""
	r.Sentence, r.Final = r.Epitaph(into), nil
	for i := range len(r.Spec.Waves) + 1 {
		r.Final = append(r.Final, r.Counts(i))
	}
	if w := r.WaveOf(r.Wave); w != nil && w.Ended.IsZero() {
		w.Ended = t.now
	}
	t.move(into, r.Sentence)
}
