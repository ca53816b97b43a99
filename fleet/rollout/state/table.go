// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// State is where a rollout stands.
type State string

// The states. The last four are ends, from which only a person leads on.
const (
	Planned    State = "planned"  // nothing has been changed
	Approval   State = "approval" // waits for a second person
	Waiting    State = "waiting"  // waits for rollouts that come first
	Before     State = "before"   // the hook before the wave runs
	InWave     State = "wave"     // boards get it
	Soak       State = "soak"     // all have ended; it runs for a while
	Judging    State = "judging"  // guards are read, the hook behind the wave runs
	Held       State = "held"     // waits for a person: a pause of the plan, or not enough boards to tell
	Paused     State = "paused"   // a person stopped it for now
	Stopping   State = "stopping" // boards in between settle or go back
	Done       State = "done"
	Halted     State = "halted" // by its gate
	RolledBack State = "rolled-back"
	Aborted    State = "aborted"
)

// States lists all states.
func States() []State {
	return []State{Planned, Approval, Waiting, Before, InWave, Soak, Judging, Held, Paused, Stopping, Done, Halted, RolledBack, Aborted}
}

// Over tells whether the state is an end.
func (s State) Over() bool {
	return s == Done || s == Halted || s == RolledBack || s == Aborted
}

// Cause is what makes a rollout move.
type Cause string

// The causes: what people do, what the world tells, and time.
const (
	OnStart      Cause = "start"
	OnApprove    Cause = "approve"
	OnPause      Cause = "pause"
	OnResume     Cause = "resume"
	OnAbort      Cause = "abort"
	OnRetry      Cause = "retry"
	OnRollback   Cause = "rollback"
	OnDependency Cause = "other rollout"
	OnHook       Cause = "hook"
	OnReport     Cause = "board"
	OnMeasured   Cause = "guards"
	OnTime       Cause = "time"
)

// Transition is one arrow.
type Transition struct {
	From State
	On   []Cause
	To   State
	When string
}

// Table holds every way from one state to another. It is shared: only read it.
func Table() []Transition { return table() }

var table = sync.OnceValue(makeTable) // never changed

func makeTable() []Transition {
	on := func(c ...Cause) []Cause { return c }
	out := []Transition{
		{Planned, on(OnStart), Approval, "a second person has to agree"},
		{Planned, on(OnAbort, OnTime), Aborted, "dropped, or not started for 30 days"},
		{Approval, on(OnAbort, OnTime), Aborted, "refused, or nobody agreed for 7 days"},
		{Waiting, on(OnAbort, OnTime, OnDependency), Aborted, "dropped, or the other rollout did not get done"},
		{Before, on(OnHook), InWave, "it said yes"},
		{Before, on(OnHook, OnTime), Stopping, "it said no, or nothing"},
		{InWave, on(OnReport, OnTime), Soak, "all boards have ended or were given up"},
		{Soak, on(OnTime), Judging, "the soak is over"},
		{Judging, on(OnTime, OnHook, OnMeasured), Held, "not enough to tell, or a pause of the plan"},
		{Held, on(OnResume), Done, "a person says it is enough, and no wave is left"},
		{Judging, on(OnTime, OnHook, OnMeasured), Done, "good, and no wave is left"},
		{Stopping, on(OnReport, OnTime, OnHook, OnMeasured), Halted, "its gate was not met"},
		{Stopping, on(OnReport, OnTime, OnRollback), RolledBack, "a person took it back"},
		{Stopping, on(OnReport, OnTime, OnAbort), Aborted, "a person or a deadline ended it"},
		{Stopping, on(OnReport, OnTime), Done, "the last boards have settled"},
		{Done, on(OnRollback), Stopping, ""},
		{Halted, on(OnRollback), Stopping, ""},
		{Aborted, on(OnRollback), Stopping, ""},
	}
	for _, s := range []State{Waiting, Before, InWave} { // where a rollout gets going
		for _, from := range []State{Planned, Approval, Done, Halted, RolledBack, Aborted} {
			cause := OnRetry
			switch from {
			case Planned:
				cause = OnStart
			case Approval:
				cause = OnApprove
			}
			out = append(out, Transition{from, on(cause), s, ""})
		}
	}
	for _, s := range []State{Done, Halted, RolledBack, Aborted} {
		out = append(out, Transition{s, on(OnRetry), Approval, "a second person has to agree"})
	}
	for _, to := range []State{Before, InWave} { // the next wave, or the first
		out = append(out,
			Transition{Waiting, on(OnDependency), to, "all that come first are done"},
			Transition{Judging, on(OnTime, OnHook, OnMeasured), to, "good enough: the next wave"},
			Transition{Held, on(OnResume), to, "a person lets the next wave begin"})
	}
	for _, s := range []State{Waiting, Before, InWave, Soak, Judging} {
		out = append(out, Transition{s, on(OnPause), Paused, ""}, Transition{Paused, on(OnResume), s, "where it was"})
	}
	for _, s := range []State{InWave, Soak, Judging, Held, Paused} {
		out = append(out, Transition{s, on(OnReport, OnTime), Stopping, "bad for sure"})
	}
	for _, s := range []State{Before, InWave, Soak, Judging, Held, Paused} {
		out = append(out, Transition{s, on(OnAbort, OnRollback), Stopping, ""})
	}
	for _, s := range []State{Held, Paused} {
		out = append(out, Transition{s, on(OnTime), Stopping, "nobody decided"})
	}
	out = append(out,
		Transition{Judging, on(OnTime, OnHook, OnMeasured), Stopping, "bad for sure; or good, but boards of it still settle"},
		Transition{Held, on(OnResume), Stopping, "no wave is left, but boards still settle"})
	return out
}

// Allowed tells whether there is such an arrow.
func Allowed(from State, on Cause, to State) bool {
	return slices.ContainsFunc(Table(), func(t Transition) bool {
		return t.From == from && t.To == to && slices.Contains(t.On, on)
	})
}

// Diagram draws the table as Mermaid, for docs/rollouts.md.
func Diagram() string {
	var b strings.Builder
	id := func(s State) string { return strings.ReplaceAll(string(s), "-", "_") }
	b.WriteString("stateDiagram-v2\n  [*] --> planned\n")
	type edge struct{ from, to State }
	words := map[edge][]string{}
	var order []edge
	for _, t := range Table() {
		e := edge{t.From, t.To}
		if words[e] == nil {
			order = append(order, e)
		}
		for _, c := range t.On {
			if !slices.Contains(words[e], string(c)) {
				words[e] = append(words[e], string(c))
			}
		}
	}
	for _, from := range States() {
		for _, e := range order {
			if e.from == from {
				fmt.Fprintf(&b, "  %s --> %s: %s\n", id(e.from), id(e.to), strings.Join(words[e], ", "))
			}
		}
	}
	for _, s := range States() {
		if s.Over() {
			fmt.Fprintf(&b, "  %s --> [*]\n", id(s))
		}
	}
	return b.String()
}
