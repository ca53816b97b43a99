// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"fmt"
	"time"

	"fulmar/fleet/rollout/state"
	"fulmar/schema/rest"
)

// How long states last that the plan says nothing of. All are days in which somebody
// can look; what they end in takes nothing from a board that has it.
const (
	planLife     = 30 * 24 * time.Hour
	approvalLife = 7 * 24 * time.Hour
	waitingLife  = 14 * 24 * time.Hour
	heldLife     = 7 * 24 * time.Hour
	pausedLife   = 30 * 24 * time.Hour
	// judgeLife is how long guards are read at most, beside the hook's own limit.
	judgeLife = 5 * time.Minute
	// hookGrace is what a hook's answer may take to get here, beyond its limit.
	hookGrace = 30 * time.Second
)

// Person is who acts: Who as the audit log has it, Author the person behind.
type Person struct{ Who, Author string }

// Event is something that happened.
type Event interface{ cause() state.Cause }

// The events. Epoch, where there is one, is a number that rose since the last one given
// to any rollout.
type (
	// Start sets a plan going, without the boards of Skip: another rollout of the same
	// component has them, by the name given.
	Start struct {
		By    Person
		Epoch uint64
		Skip  map[string]string
	}
	// Approve is the second person's yes.
	Approve struct{ By Person }
	// Pause stops it for now: what is on its way goes on.
	Pause struct {
		By  Person
		Why string
	}
	// Resume goes on where it was paused or held.
	Resume struct {
		By  Person
		Why string
	}
	// Abort ends it; boards that have it keep it.
	Abort struct {
		By  Person
		Why string
	}
	// Retry tries boards again that are not good, but for those of Without and Skip.
	Retry struct {
		By      Person
		Why     string
		Epoch   uint64
		Without map[string]bool
		Skip    map[string]string
	}
	// Rollback takes it back, from the boards of the wave or from all; not from those
	// of Skip, whose release is another rollout's by now.
	Rollback struct {
		By    Person
		Why   string
		Epoch uint64
		All   bool
		Skip  map[string]bool
	}
	// Dependency tells how a rollout stands that comes first.
	Dependency struct {
		ID    string
		State state.State
	}
	// Hooked is the answer of the hook of the state.
	Hooked struct {
		OK  bool
		Say string
	}
	// Measured holds the values of guards, by guard and board.
	Measured struct {
		Baseline bool // asked for at the beginning of the wave
		Values   map[string]map[string]float64
	}
	// Report is a board's word on an attempt.
	Report struct {
		Board    string
		Attempt  uint64
		Word     string // a state of DESIGN 9
		Progress int
		Reason   string
		Release  string // running now
		// Level is how far Committed can be believed where that is known at once (claimed: the
		// board has no TPM); "" wants a proof, see Effects.Prove.
		Level string
	}
	// Here tells that a board has connected.
	Here struct{ Board string }
	// Tick tells that time has passed.
	Tick struct{}
)

func (Start) cause() state.Cause      { return state.OnStart }
func (Approve) cause() state.Cause    { return state.OnApprove }
func (Pause) cause() state.Cause      { return state.OnPause }
func (Resume) cause() state.Cause     { return state.OnResume }
func (Abort) cause() state.Cause      { return state.OnAbort }
func (Retry) cause() state.Cause      { return state.OnRetry }
func (Rollback) cause() state.Cause   { return state.OnRollback }
func (Dependency) cause() state.Cause { return state.OnDependency }
func (Hooked) cause() state.Cause     { return state.OnHook }
func (Measured) cause() state.Cause   { return state.OnMeasured }
func (Report) cause() state.Cause     { return state.OnReport }
func (Here) cause() state.Cause       { return state.OnReport }
func (Tick) cause() state.Cause       { return state.OnTime }

// Effects is what is to be done after an event, once its outcome is stored.
type Effects struct {
	Changed  map[int]bool       // boards to store
	Send     []int              // boards to tell what holds for them now
	Prove    []int              // boards whose word wants a proof: [Proven] tells what became of it
	Good     []int              // boards that run the release by now, as far as their level says
	Hook     *rest.Hook         // to be called, for wave Rollout.Wave
	Guards   []rest.Guard       // to be read
	Baseline bool               // they are read for the cohort before the wave
	Steps    []rest.RolloutStep // for the history and the audit log
	Head     bool               // more than boards changed
}

// turn is one event at work.
type turn struct {
	r   *state.Rollout
	now time.Time
	on  state.Cause
	who string
	fx  Effects
	err error
}

// Apply lets the rollout take an event. An error means that nothing has changed, unless
// it is one of this package's own (no arrow in the table): then what is in memory is
// not to be used any more.
func Apply(r *state.Rollout, ev Event, now time.Time) (Effects, error) {
	t := &turn{r: r, now: now, on: ev.cause(), who: "fleet", fx: Effects{Changed: map[int]bool{}}}
	switch e := ev.(type) {
	case Start:
		t.start(e)
	case Approve:
		t.approve(e)
	case Pause:
		t.pause(e)
	case Resume:
		t.resume(e)
	case Abort:
		t.abort(e)
	case Retry:
		t.retry(e)
	case Rollback:
		t.rollback(e)
	case Dependency:
		t.dependency(e)
	case Hooked:
		t.hooked(e)
	case Measured:
		t.measured(e)
	case Report:
		t.report(e)
	case Proven:
		t.proven(e)
	case Here:
		t.here(e)
	case Tick:
		t.tick()
	}
	return t.fx, t.err
}

// move goes along an arrow of the table.
func (t *turn) move(to state.State, say string) {
	r := t.r
	if !state.Allowed(r.State, t.on, to) {
		t.err = fmt.Errorf("rollout %s: no way from %s to %s on %s", r.ID, r.State, to, t.on)
		return
	}
	t.fx.Steps = append(t.fx.Steps, rest.RolloutStep{At: t.now, Who: t.who, From: string(r.State), To: string(to), Say: say})
	r.State, r.Since, r.Deadline, t.fx.Head = to, t.now, time.Time{}, true
	if life := life(r, to); life > 0 {
		r.Deadline = t.now.Add(life)
	}
}

// life is how long a state may last; 0 for the ends.
func life(r *state.Rollout, s state.State) time.Duration {
	hook := func(h *rest.Hook) time.Duration {
		if h == nil {
			return 0
		}
		return time.Duration(h.LimitS)*time.Second + hookGrace
	}
	switch s {
	case state.Planned:
		return planLife
	case state.Approval:
		return approvalLife
	case state.Waiting:
		return waitingLife
	case state.Before:
		return hook(r.Spec.Before) + hookGrace
	case state.InWave:
		return time.Duration(r.Spec.Limits.WaveS) * time.Second
	case state.Soak:
		return max(time.Duration(r.WaveSpec().SoakS)*time.Second, time.Nanosecond)
	case state.Judging:
		return judgeLife + hook(r.Spec.Behind)
	case state.Held:
		return heldLife
	case state.Paused:
		return pausedLife
	case state.Stopping:
		return time.Duration(r.Spec.Limits.UndoS) * time.Second
	}
	return 0
}

// set changes a board and keeps the tallies right.
func (t *turn) set(i int, change func(b *state.Board)) {
	b := &t.r.Boards[i]
	was := b.State
	t.r.Count(b, -1)
	change(b)
	if b.State != was {
		b.Since = t.now
	}
	t.r.Count(b, 1)
	t.fx.Changed[i] = true
}

// attempt numbers an assignment. Counter is not reset within an epoch.
func (t *turn) attempt() uint64 {
	t.r.Counter++
	t.fx.Head = true
	return t.r.Epoch<<24 | t.r.Counter&(1<<24-1)
}
