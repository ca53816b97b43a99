// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"fmt"
	"time"

	"fulmar/fleet/rollout/plan"
	"fulmar/fleet/rollout/state"
	"fulmar/schema/ota"
)

const (
	// maxBurst bounds the boards that one tick sets going, so that its transaction
	// stays short; ticks come each second.
	maxBurst = 500
	// maxBackoff bounds the wait between tries of a board that does not answer, in
	// units of the first one.
	maxBackoff = 12
	// maxReason bounds a board's reason that is kept, in bytes.
	maxReason = 256
)

func (t *turn) send(i int) { t.fx.Send = append(t.fx.Send, i) }

// here: a board has connected. Whatever holds for it is said again.
func (t *turn) here(e Here) {
	i, ok := t.r.Has(e.Board)
	if !ok {
		return
	}
	if _, _, _, told := t.r.Order(i); told {
		t.send(i)
		return
	}
	if b := &t.r.Boards[i]; b.State == state.BoardWaiting && b.NotBefore.After(t.now) {
		t.set(i, func(b *state.Board) { b.NotBefore = t.now })
	}
}

func clip(s string) string {
	if len(s) > maxReason {
		return s[:maxReason]
	}
	return s
}

// report takes a board's word.
func (t *turn) report(e Report) {
	i, ok := t.r.Has(e.Board)
	if !ok {
		return
	}
	if b := &t.r.Boards[i]; e.Attempt != b.Attempt || b.Attempt == 0 {
		if _, _, _, told := t.r.Order(i); told {
			t.send(i) // it has not heard of the newest one
		}
		return
	}
	t.set(i, func(b *state.Board) {
		b.Acked, b.Phase, b.Progress = true, e.Word, e.Progress
		if e.Release != "" {
			b.Release = e.Release
		}
	})
	switch b := &t.r.Boards[i]; {
	case b.State == state.BoardUndoing || b.State == state.BoardStuck:
		t.undone(i, e)
	case b.State == state.BoardWaiting || b.State == state.BoardUnreached:
		t.late(i, e)
	case b.State.Flying():
		t.progress(i, e)
	case b.State == state.BoardGood && (e.Word == ota.Failed || e.Word == ota.RolledBack):
		t.fail(i, "failed after it was good: "+e.Reason, e.Word == ota.RolledBack)
	}
	t.ended()
}

// late: the board answers after it was given up.
func (t *turn) late(i int, e Report) {
	r := t.r
	switch {
	case r.State == state.Done:
		switch e.Word {
		case ota.Committed:
			t.set(i, func(b *state.Board) { b.Proving = true })
			if e.Level == "" {
				t.prove(i)
				return
			}
			t.proven(Proven{Board: e.Board, Attempt: e.Attempt, Level: e.Level})
		case ota.Failed, ota.RolledBack:
			t.set(i, func(b *state.Board) { b.State, b.Bad, b.Reason = state.BoardFailed, true, clip("came late: "+e.Reason) })
		}
	case r.State.Over() || r.State == state.Stopping:
		if e.Word == ota.RolledBack || e.Word == ota.Idle {
			t.set(i, func(b *state.Board) { b.State = state.BoardUndone })
			return
		}
		t.set(i, func(b *state.Board) { b.Attempt = t.attempt() })
		t.send(i)
	default:
		t.set(i, func(b *state.Board) {
			if b.Wave < r.Wave {
				b.Wave = r.Wave // it joins the wave that runs
			}
			b.State, b.Deadline = state.BoardInstalling, t.now.Add(seconds(r.Spec.Limits.InstallS))
		})
		t.progress(i, e)
	}
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }

// progress: the board is on its way.
func (t *turn) progress(i int, e Report) {
	r := t.r
	b := &r.Boards[i]
	switch e.Word {
	case ota.Committed:
		if r.Group(b) != 0 && e.Release != r.Spec.Release {
			t.fail(i, fmt.Sprintf("says committed, but runs %.64q", e.Release), false)
			return
		}
		if r.Group(b) != 0 && e.Level == "" {
			t.prove(i)
			return
		}
		t.good(i, e.Level)
	case ota.Failed, ota.RolledBack:
		t.fail(i, e.Reason, e.Word == ota.RolledBack)
	case ota.Trial:
		if b.State != state.BoardTrial {
			t.set(i, func(b *state.Board) { b.State, b.Deadline = state.BoardTrial, t.now.Add(seconds(r.Spec.Limits.TrialS)) })
		}
	case ota.Idle: // it has lost what it was told
		t.send(i)
	default:
		if b.State == state.BoardAssigned {
			t.set(i, func(b *state.Board) {
				b.State, b.Deadline = state.BoardInstalling, t.now.Add(seconds(r.Spec.Limits.InstallS))
			})
		}
	}
}

// fail counts a board as a failure. back tells that it runs again what it ran before;
// otherwise it is told to.
func (t *turn) fail(i int, reason string, back bool) {
	r := t.r
	t.set(i, func(b *state.Board) {
		if b.Wave < r.Wave && r.Group(b) != 0 {
			b.Wave = r.Wave // a failure counts when it is seen
		}
		b.Bad, b.Reason, b.State, b.Deadline, b.Proving = true, clip(reason), state.BoardFailed, zero(), false
		if !back {
			t.undo(b)
		}
	})
	if !back {
		t.send(i)
	}
	t.look()
}

// undo turns a board's order round, within set.
func (t *turn) undo(b *state.Board) {
	b.State, b.Attempt, b.Deadline = state.BoardUndoing, t.attempt(), t.now.Add(seconds(t.r.Spec.Limits.UndoS))
	b.Proving, b.Level = false, ""
}

// undone: a board that was told to go back says something.
func (t *turn) undone(i int, e Report) {
	b := &t.r.Boards[i]
	back := e.Word == ota.RolledBack || e.Word == ota.Idle || e.Word == ota.Committed && b.Was != "" && e.Release == b.Was
	switch {
	case back:
		t.set(i, func(b *state.Board) {
			b.State, b.Deadline, b.Shadowing = state.BoardUndone, zero(), false
			if b.Bad {
				b.State = state.BoardFailed
			}
		})
	case e.Word == ota.Failed:
		t.set(i, func(b *state.Board) {
			b.State, b.Deadline, b.Reason = state.BoardStuck, zero(), clip("could not go back: "+e.Reason)
		})
	}
}

// overdue deals with boards whose time is up.
func (t *turn) overdue() {
	r := t.r
	for i := range r.Boards {
		b := &r.Boards[i]
		if b.Deadline.IsZero() || t.now.Before(b.Deadline) {
			continue
		}
		switch b.State {
		case state.BoardAssigned:
			t.again(i)
		case state.BoardInstalling, state.BoardTrial:
			t.fail(i, overdueFor(t.now, b), false)
		case state.BoardUndoing:
			t.set(i, func(b *state.Board) {
				b.Deadline = zero()
				if b.State = state.BoardStuck; !b.Acked && !b.Bad {
					b.State = state.BoardUnreached
					return
				}
				if b.Reason != "" {
					b.Reason += "; "
				}
				b.Reason = clip(b.Reason + "did not say that it went back")
			})
		}
	}
}

func phase(s string) string {
	if s == "" {
		return "silent"
	}
	return s
}

// again puts a board that does not answer back into the queue: it waits longer with
// each try, until it connects.
func (t *turn) again(i int) {
	t.set(i, func(b *state.Board) {
		wait := min(1<<min(b.Tries, 10), maxBackoff)
		b.State, b.Deadline = state.BoardWaiting, zero()
		b.NotBefore = t.now.Add(time.Duration(wait) * seconds(t.r.Spec.Limits.AckS))
		if t.r.State != state.InWave && t.r.State != state.Paused || t.r.Group(b) != t.r.Wave {
			b.State = state.BoardUnreached
		}
	})
}

// dispatch sets boards of the wave going, as far as windows, slots and rates allow.
func (t *turn) dispatch() {
	r := t.r
	used, open := map[string]int{}, map[string]bool{}
	if r.Spec.PerSite > 0 {
		for i := range r.Boards {
			if b := &r.Boards[i]; b.State.Flying() {
				used[b.Site]++
			}
		}
	}
	n := 0
	for i := range r.Boards {
		b := &r.Boards[i]
		if b.State != state.BoardWaiting || r.Group(b) != r.Wave || b.NotBefore.After(t.now) {
			continue
		}
		is, known := open[b.Zone]
		if !known {
			is = r.Open(b.Zone, t.now)
			open[b.Zone] = is
		}
		if !is || r.Spec.PerSite > 0 && used[b.Site] >= r.Spec.PerSite || r.NextSite[b.Site].After(t.now) {
			continue
		}
		if n >= maxBurst || r.NextFleet.After(t.now) {
			return
		}
		n++
		used[b.Site]++
		t.assign(i)
	}
}

// assign gives a board its order. The rates count its first try alone: a board that
// did not answer has downloaded nothing.
func (t *turn) assign(i int) {
	r := t.r
	if b := &r.Boards[i]; b.Tries == 0 {
		r.Deadline = t.now.Add(life(r, state.InWave))
		if r.Spec.FleetRate > 0 {
			r.NextFleet = after(r.NextFleet, t.now.Add(-time.Second)).Add(plan.Cost(r.Spec.Bytes, r.Spec.FleetRate))
		}
		if r.Spec.SiteRate > 0 {
			r.NextSite[b.Site] = after(r.NextSite[b.Site], t.now.Add(-time.Second)).Add(plan.Cost(r.Spec.Bytes, r.Spec.SiteRate))
		}
	}
	t.set(i, func(b *state.Board) {
		b.State, b.Attempt, b.Tries, b.Acked, b.Phase, b.Progress = state.BoardAssigned, t.attempt(), b.Tries+1, false, "", 0
		b.Proving, b.Level = false, ""
		b.Deadline = t.now.Add(seconds(r.Spec.Limits.AckS))
	})
	t.send(i)
}

func after(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func zero() time.Time { return time.Time{} }
