// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package table is the one table of an update's states on a board: every way from one to
// another, how long each may last, how often it may be passed and its effect tried.
// What the effects are is for package ota.
package table

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"fulmar/schema/ota"
)

// State is where an update stands. It is kept as a word; words are only added.
type State string

// The states; the last three are ends. All but Confirming are words on the wire too.
const (
	Offered     State = ota.Offered     // taken down, and looked at
	Admitted    State = ota.Admitted    // the board has what it needs
	Scheduled   State = ota.Scheduled   // waits for space, hours, power, rest
	Fetching    State = ota.Fetching    // its files are brought and rebuilt
	Staged      State = ota.Staged      // all files are here, and are put beside what runs
	Ready       State = ota.Ready       // lies beside what runs, and waits for a moment to switch
	Switching   State = ota.Switching   // is being put in force
	Trial       State = ota.Trial       // in force, and has to prove itself
	Confirming  State = "confirming"    // has proven itself, which is being made so for good
	RollingBack State = ota.RollingBack // what ran before is being put in force again
	Committed   State = ota.Committed
	RolledBack  State = ota.RolledBack
	Failed      State = ota.Failed
)

// States lists all states in the order in which they come.
func States() []State {
	return []State{Offered, Admitted, Scheduled, Fetching, Staged, Ready, Switching, Trial, Confirming, RollingBack, Committed, RolledBack, Failed}
}

// Over tells whether the state is an end.
func (s State) Over() bool { return s == Committed || s == RolledBack || s == Failed }

// Known tells whether this program knows the state: a record may be of a newer one.
func (s State) Known() bool { return slices.Contains(States(), s) }

// Before tells whether nothing has been put in force yet, so that an end needs no way back.
func (s State) Before() bool {
	return slices.Contains([]State{Offered, Admitted, Scheduled, Fetching, Staged, Ready}, s)
}

// Word is the state's word on the wire.
func (s State) Word() string {
	if s == Confirming {
		return ota.Trial
	}
	return string(s)
}

// Event is what makes an update move.
type Event string

// The events: what effects tell, then what people, the fleet and time do.
const (
	Fits      Event = "fits"         // the board has what it needs
	Unfit     Event = "unfit"        // it has not, and waiting does not help
	Known     Event = "runs already" // in force for good as it is
	TakeBack  Event = "take back"    // the order is to go back to what ran before
	Clear     Event = "clear"        // nothing speaks against going on
	Blocked   Event = "blocked"      // something does, for now
	NoRoom    Event = "no room"      // the disk got full
	Brought   Event = "brought"      // all files are here and verified
	Placed    Event = "placed"       // beside what runs, durably
	Beside    Event = "beside"       // a shadow runs
	Taken     Event = "in force"     // on trial
	Fell      Event = "fell"         // the launcher, or whoever starts it, went back
	Healthy   Event = "healthy"      // all checks held long enough
	Sick      Event = "sick"         // a check says no for sure
	Confirmed Event = "confirmed"    // in force for good
	Gone      Event = "gone back"    // what ran before is in force
	GaveUp    Event = "gave up"      // the effect failed as often as it may be tried
	Late      Event = "deadline"
	Looped    Event = "loop"          // the state was passed as often as it may be
	Abort     Event = "abort"         // a person at the board
	Newer     Event = "newer order"   // for the same component
	Withdrawn Event = "withdrawn"     // the fleet takes it back while it is under way
	Strange   Event = "strange state" // the record is of a newer program, whose state is not known
)

// Events lists all events.
func Events() []Event {
	return []Event{
		Fits, Unfit, Known, TakeBack, Clear, Blocked, NoRoom, Brought, Placed, Beside, Taken, Fell, Healthy, Sick, Confirmed,
		Gone, GaveUp, Late, Looped, Abort, Newer, Withdrawn, Strange,
	}
}

// Transition is one arrow.
type Transition struct {
	From State
	On   Event
	To   State
}

// Table holds every way from one state to another. It is shared: only read it.
func Table() []Transition { return table() }

var table = sync.OnceValue(makeTable) // never changed

func makeTable() []Transition {
	out := []Transition{
		{Offered, Fits, Admitted},
		{Offered, Unfit, Failed},
		{Offered, Known, Committed},
		{Offered, Gone, RolledBack},
		{Admitted, Clear, Fetching},
		{Admitted, TakeBack, RollingBack},
		{Admitted, Blocked, Scheduled},
		{Admitted, Unfit, Failed},
		{Scheduled, Clear, Fetching},
		{Scheduled, TakeBack, RollingBack},
		{Scheduled, Unfit, Failed},
		{Fetching, Brought, Staged},
		{Fetching, NoRoom, Scheduled},
		{Staged, Placed, Ready},
		{Staged, NoRoom, Scheduled},
		{Ready, Clear, Switching},
		{Ready, Unfit, Failed},
		{Ready, Known, Committed},
		{Ready, Beside, Committed},
		{Switching, Taken, Trial},
		{Switching, Fell, RolledBack},
		{Trial, Healthy, Confirming},
		{Trial, Sick, RollingBack},
		{Trial, Fell, RolledBack},
		{Confirming, Confirmed, Committed},
		{Confirming, Fell, RolledBack},
		{RollingBack, Gone, RolledBack},
	}
	for _, s := range States() {
		if s.Over() {
			continue
		}
		ends, to := []Event{GaveUp, Late, Looped, Abort, Newer, Withdrawn, Strange}, Failed
		switch s {
		case Switching, Trial:
			// What is in force, or may be, is led to its end: a newer order waits for it.
			ends, to = []Event{GaveUp, Late, Looped, Abort, Withdrawn, Strange}, RollingBack
		case Confirming:
			// It may be confirmed already, and the floor raised: words of people and of the fleet
			// come too late, and an order to go back is judged by the floor when its turn comes.
			ends, to = []Event{GaveUp, Late, Looped}, RollingBack
		case RollingBack:
			ends = []Event{GaveUp, Late, Looped}
		}
		for _, on := range ends {
			out = append(out, Transition{s, on, to})
		}
	}
	return out
}

// Next gives where an event leads, false where the state has no such arrow.
func Next(from State, on Event) (State, bool) {
	for _, t := range Table() {
		if t.From == from && t.On == on {
			return t.To, true
		}
	}
	return from, false
}

// Limit bounds a state.
type Limit struct {
	// Deadline is how long it may last; 0: as long as the order's own deadline lets it.
	Deadline time.Duration
	// Passes is how often an update may come by it, with every start of the program that
	// finds it there.
	Passes int
	// Tries is how often its effect may fail in a pass.
	Tries int
	Why   string // for docs/updates.md
}

// LimitOf gives the bounds of a state. The deadline of [Trial] is the health contract's.
func LimitOf(s State) Limit {
	switch s {
	case Offered:
		return Limit{10 * time.Minute, 16, 5, "what it needs is compared with facts that are there"}
	case Admitted:
		return Limit{10 * time.Minute, 16, 5, "space and conditions are asked once"}
	case Scheduled:
		return Limit{0, 64, 1, "hours of maintenance may be a week away"}
	case Fetching:
		return Limit{0, 64, 12, "a site may have its network for an hour a day; a resume costs nothing"}
	case Staged:
		return Limit{time.Hour, 16, 5, "a root file system is written at 10 MB/s"}
	case Ready:
		return Limit{0, 64, 5, "work that must not be cut may last"}
	case Switching:
		return Limit{30 * time.Minute, 8, 5, "a machine starts anew in minutes, one that writes its firmware in ten"}
	case Trial:
		return Limit{10 * time.Minute, 8, 1, "within_s of the health contract, from each start again"}
	case Confirming:
		return Limit{10 * time.Minute, 16, 10, "it writes some bytes"}
	case RollingBack:
		return Limit{30 * time.Minute, 16, 10, "as switching"}
	}
	return Limit{}
}

// Diagram draws the table as Mermaid, for docs/updates.md. What leads to an end from each
// state alike is drawn once.
func Diagram() string {
	var b strings.Builder
	id := func(s State) string { return strings.ReplaceAll(string(s), "-", "_") }
	b.WriteString("stateDiagram-v2\n  [*] --> offered\n")
	for _, from := range States() {
		var order []State
		words := map[State][]string{}
		for _, t := range Table() {
			if t.From == from {
				if words[t.To] == nil {
					order = append(order, t.To)
				}
				words[t.To] = append(words[t.To], string(t.On))
			}
		}
		for _, to := range order {
			fmt.Fprintf(&b, "  %s --> %s: %s\n", id(from), id(to), strings.Join(words[to], ", "))
		}
	}
	for _, s := range States() {
		if s.Over() {
			fmt.Fprintf(&b, "  %s --> [*]\n", id(s))
		}
	}
	return b.String()
}

// Bounds is the table of limits, in Markdown, for docs/updates.md.
func Bounds() string {
	var b strings.Builder
	b.WriteString("| state | lasts at most | passes | tries | because |\n|---|---|---|---|---|")
	for _, s := range States() {
		if s.Over() {
			continue
		}
		l := LimitOf(s)
		lasts := "the order's deadline"
		switch {
		case s == Trial:
			lasts = "`within_s`: 10 min"
		case l.Deadline >= time.Hour:
			lasts = fmt.Sprintf("%d h", l.Deadline/time.Hour)
		case l.Deadline > 0:
			lasts = fmt.Sprintf("%d min", l.Deadline/time.Minute)
		}
		fmt.Fprintf(&b, "\n| %s | %s | %d | %d | %s |", s, lasts, l.Passes, l.Tries, l.Why)
	}
	return b.String()
}
