// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"fmt"
	"math"

	"fulmar/fleet/rollout/gate"
	"fulmar/fleet/rollout/plan"
	"fulmar/schema/rest"
)

func (r *Rollout) waveSpec() rest.WaveSpec { return plan.WaveSpec(r.Spec, r.Wave) }

// tried counts the boards of the wave that runs for its gate. Boards that were good in
// an earlier try say nothing about this one, and those that were not reachable from the
// first are not waited for.
func (r *Rollout) tried() gate.Count {
	if r.Wave < 0 {
		return gate.Count{}
	}
	t := r.tallies[r.Wave]
	boards := -t.silent - t.n[BoardOut] - t.earlier
	for _, n := range t.n {
		boards += n
	}
	return gate.Count{Boards: boards, Good: t.n[BoardGood] - t.earlier, Failed: t.bad}
}

// look asks the gate after each failure: what is bad for sure is halted at once.
func (t *turn) look() {
	r := t.r
	switch r.State {
	case InWave, Soak, Judging, Held, Paused:
	default:
		return
	}
	if v := gate.Judge(r.Spec.Gate, r.tried(), false); v.Outcome == gate.Bad {
		t.halt(v)
	}
}

func (t *turn) halt(v rest.Verdict) {
	t.keep(v)
	t.r.Why = fmt.Sprintf("halted in %s: %s", t.r.where(), v.Sentence)
	t.stop(Halted, t.r.Spec.Undo)
}

func (t *turn) keep(v rest.Verdict) {
	v.At = t.now
	if w := t.r.wave(t.r.Wave); w != nil {
		w.Verdict = &v
	}
	t.fx.Head = true
}

// where names the wave that runs.
func (r *Rollout) where() string {
	switch {
	case r.Wave < 0:
		return "no wave"
	case r.Wave == 0:
		return "the shadow phase"
	}
	return fmt.Sprintf("wave %d of %d", r.Wave, len(r.Spec.Waves))
}

// ended sees whether the wave, or the stopping, has come to its end.
func (t *turn) ended() {
	r := t.r
	switch {
	case r.State == Stopping && r.Settled():
		t.end(r.Into)
	case r.State == InWave:
		n := r.tallies[r.Wave].n
		if n[BoardWaiting]+n[BoardAssigned]+n[BoardInstalling]+n[BoardTrial] == 0 {
			t.move(Soak, fmt.Sprintf("%s has ended on all boards; it runs for %s", r.where(), seconds(r.waveSpec().SoakS)))
		}
	}
}

// tick lets time pass.
func (t *turn) tick() {
	r := t.r
	switch {
	case r.State.Over():
		return
	case r.State != Planned && r.State != Approval && r.State != Waiting:
		t.overdue()
	}
	if !r.State.Over() && !r.Deadline.IsZero() && !t.now.Before(r.Deadline) {
		t.deadline()
	}
	if r.State == InWave {
		t.dispatch()
	}
	t.ended()
}

// deadline: the state has lasted as long as it may.
func (t *turn) deadline() {
	r := t.r
	nobody := func(what string) { r.Why = fmt.Sprintf("%s for %s", what, t.now.Sub(r.Since)) }
	switch r.State {
	case Planned:
		nobody("nobody started it")
		t.end(Aborted)
	case Approval:
		nobody("nobody approved it")
		t.end(Aborted)
	case Waiting:
		nobody("the rollouts that come first were not done")
		t.end(Aborted)
	case Held, Paused:
		nobody(string(r.State) + ", and nobody decided")
		t.stop(Aborted, plan.UndoBad)
	case Before:
		t.hooked(Hooked{Say: "no answer in time"})
	case InWave:
		t.giveUp()
	case Soak:
		t.move(Judging, "the soak is over")
		r.Measured, r.Hooked, r.HookOK, r.HookSaid, r.Guards = false, false, true, "", nil
		t.ask()
	case Judging:
		t.judge()
	case Stopping:
		r.Deadline = t.now.Add(r.life(Stopping)) // each board has its own deadline
		t.fx.Head = true
	}
}

// giveUp sets boards apart that do not answer. Those never tried yet wait for a window,
// a slot or the rate; those on their way have deadlines of their own.
func (t *turn) giveUp() {
	r := t.r
	r.Deadline = t.now.Add(r.life(InWave))
	t.fx.Head = true
	for i := range r.Boards {
		if b := &r.Boards[i]; b.State == BoardWaiting && b.Tries == 0 && r.group(b) == r.Wave {
			return
		}
	}
	for i := range r.Boards {
		if b := &r.Boards[i]; r.group(b) == r.Wave && (b.State == BoardWaiting || b.State == BoardAssigned) {
			t.set(i, func(b *Board) {
				b.State, b.Deadline, b.Reason = BoardUnreached, zero(), fmt.Sprintf("never answered, %d tries", b.Tries)
			})
		}
	}
}

// ask wants what a gate needs beside the boards' words.
func (t *turn) ask() {
	t.fx.Guards, t.fx.Hook = t.r.guards(), t.r.Spec.Behind
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
func (r *Rollout) Asks() (fx Effects) {
	switch r.State {
	case Before:
		fx.Hook = r.Spec.Before
	case Judging:
		if !r.Measured {
			fx.Guards = r.guards()
		}
		if !r.Hooked {
			fx.Hook = r.Spec.Behind
		}
	}
	return fx
}

// guards gives the guards of the wave that runs.
func (r *Rollout) guards() []rest.Guard {
	if r.Wave == 0 {
		if r.Spec.Shadow != nil && r.Spec.Shadow.Agreement != nil {
			return []rest.Guard{*r.Spec.Shadow.Agreement}
		}
		return nil
	}
	return r.Spec.Guards
}

func (t *turn) hooked(e Hooked) {
	r := t.r
	switch {
	case r.State == Before && e.OK:
		t.move(InWave, "the hook before "+r.where()+" said yes")
		t.baseline()
	case r.State == Before:
		r.Why = "halted: the hook before " + r.where() + " said no: " + clip(e.Say)
		t.stop(Halted, plan.UndoBad)
	case r.State == Judging:
		r.Hooked, r.HookOK, r.HookSaid, t.fx.Head = true, e.OK, clip(e.Say), true
		if r.Measured || r.guards() == nil {
			t.judge()
		}
	}
}

// baseline asks for the guards' values before the wave has it.
func (t *turn) baseline() {
	if g := t.r.guards(); g != nil && t.r.Wave > 0 {
		t.fx.Guards, t.fx.Baseline = g, true
	}
}

// measured takes the guards' values.
func (t *turn) measured(e Measured) {
	r := t.r
	if e.Baseline {
		for _, g := range r.guards() {
			if _, others := r.split(e.Values[g.Name]); len(others) >= gate.MinCohort {
				r.Baselines[g.Name], t.fx.Head = gate.Median(others), true
			}
		}
		return
	}
	if r.State != Judging || r.Measured {
		return
	}
	for _, g := range r.guards() {
		have, others := r.split(e.Values[g.Name])
		then, ok := r.Baselines[g.Name]
		if !ok {
			then = math.NaN()
		}
		r.Guards = append(r.Guards, gate.Guard(g, have, others, r.tried().Good, then))
	}
	r.Measured, t.fx.Head = true, true
	if r.Hooked || r.Spec.Behind == nil {
		t.judge()
	}
}

// split sorts values into those of boards of this wave that have the release, and those
// of boards that have not got it yet.
func (r *Rollout) split(values map[string]float64) (have, others []float64) {
	for name, v := range values {
		i, ok := r.index[name]
		if !ok || math.IsNaN(v) || math.IsInf(v, 0) {
			continue
		}
		switch b := &r.Boards[i]; {
		case b.State == BoardGood && r.group(b) == r.Wave:
			have = append(have, v)
		case b.State == BoardWaiting && b.Tries == 0 && !b.Shadowing || b.State == BoardUnreached && !b.Acked:
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
		for _, g := range r.guards() {
			guards = append(guards, rest.GuardVerdict{Name: g.Name, Outcome: gate.Unclear, Sentence: g.Name + ": could not be read"})
		}
	}
	if !r.Hooked && r.Spec.Behind != nil {
		hookOK, said = false, "no answer in time"
	}
	c := r.tried()
	v := gate.With(gate.Judge(r.Spec.Gate, c, true), guards, said, hookOK)
	if c.Boards <= 0 { // all of it are boards that were not there from the first
		v = gate.With(rest.Verdict{Outcome: gate.Good, Policy: r.Spec.Gate.Policy, Gate: r.Spec.Gate.Gate, Upper: 1, Sentence: "no board of it was reachable: nothing is known"}, nil, said, hookOK)
	}
	if v.Outcome == gate.Bad {
		t.halt(v)
		return
	}
	t.keep(v)
	spec := r.waveSpec()
	switch {
	case v.Outcome == gate.Unclear && spec.Unclear != plan.Continue:
		t.hold("not enough to tell: " + v.Sentence)
	case spec.Pause && r.following() > 0:
		t.hold("the plan wants a pause here; " + v.Sentence)
	default:
		t.nextWave(r.where() + ": " + v.Sentence)
	}
}

func (t *turn) hold(why string) {
	t.r.Why = fmt.Sprintf("held after %s: %s", t.r.where(), why)
	t.move(Held, t.r.Why)
}

// following gives the next wave with boards that wait; 0 where there is none.
func (r *Rollout) following() int {
	for _, w := range r.Waves {
		if w.N > r.Wave && (w.N > 0 || !r.Shadowed) && r.tallies[w.N].n[BoardWaiting]+r.afterShadow(w.N) > 0 {
			return w.N
		}
	}
	return 0
}

// afterShadow counts the boards of a wave that are still in the shadow phase.
func (r *Rollout) afterShadow(n int) (sum int) {
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
	if w := r.wave(r.Wave); w != nil {
		w.Ended = t.now
	}
	if r.Wave == 0 {
		t.endShadow()
	}
	for _, w := range r.Waves {
		if w.N <= r.Wave || r.tallies[w.N].n[BoardWaiting] == 0 {
			continue
		}
		r.Wave = w.N
		r.wave(w.N).Began = t.now
		if r.Spec.Before != nil {
			t.move(Before, say+"; the hook before "+r.where()+" runs")
			t.fx.Hook = r.Spec.Before
			return
		}
		t.move(InWave, say+"; "+r.where()+" begins")
		t.baseline()
		return
	}
	r.Why = ""
	if !r.Settled() {
		r.Into = Done
		t.move(Stopping, say+"; the last boards settle")
		return
	}
	t.end(Done)
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
		case BoardGood, BoardUnreached, BoardWaiting:
			b.State, b.Tries, b.Acked, b.Phase, b.Since = BoardWaiting, 0, false, "", t.now
		default:
			b.Bad, b.Reason = false, clip("in the shadow phase: "+b.Reason)
		}
		t.fx.Changed[i] = true
	}
	r.recount()
}

// stop lets boards in between settle or go back, then ends in into.
func (t *turn) stop(into State, scope string) {
	r := t.r
	r.Into, r.Common = into, r.common()
	t.move(Stopping, r.Why)
	if t.err != nil {
		return
	}
	for i := range r.Boards {
		b := &r.Boards[i]
		mine := scope == plan.UndoAll || scope == plan.UndoWave && r.group(b) == r.Wave || r.Wave == 0
		switch {
		case b.State.flying(), b.State == BoardGood && mine, b.State == BoardWaiting && b.Shadowing:
			t.set(i, t.undo)
			t.send(i)
		case b.State == BoardWaiting && b.Tries > 0:
			t.set(i, func(b *Board) {
				b.State, b.Deadline, b.Reason = BoardUnreached, zero(), fmt.Sprintf("never answered, %d tries", b.Tries)
			})
		}
	}
	t.ended()
}

// end writes the sentence that stays.
func (t *turn) end(into State) {
	if t.err != nil {
		return
	}
	r := t.r
	r.Into = ""
	r.Sentence, r.Final = r.epitaph(into), nil
	for i := range r.tallies {
		r.Final = append(r.Final, r.counts(i))
	}
	if w := r.wave(r.Wave); w != nil && w.Ended.IsZero() {
		w.Ended = t.now
	}
	t.move(into, r.Sentence)
}
