// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"slices"
	"time"

	"fulmar/fleet/web/words"
)

// states are all states, worst first.
func states() []State {
	return []State{StateFailing, StateUnreachable, StateDegraded, StateNeverHeard, StateHealthy}
}

// rank orders states, worst first; an unknown one is the worst.
func rank(s State) int { return slices.Index(states(), s) }

// class is the state as a CSS class and an icon's name.
func (s State) class() string {
	switch s {
	case StateFailing, StateUnreachable, StateDegraded, StateHealthy:
		return string(s)
	case StateNeverHeard:
		return "never"
	}
	return string(StateFailing)
}

// needsYou tells whether somebody has to act. A board that was never heard from is
// waited for; it is counted apart.
func (s State) needsYou() bool { return s != StateHealthy && s != StateNeverHeard }

// Ill tells a template whether the cause is to be shown.
func (s State) Ill() bool { return s != StateHealthy }

// tally counts boards by state.
func tally(bs []Board) map[State]int {
	n := map[State]int{}
	for i := range bs {
		n[bs[i].State]++
	}
	return n
}

// headline says in one sentence how the fleet is.
func headline(bs []Board) string {
	n := tally(bs)
	never, well := n[StateNeverHeard], n[StateHealthy]
	need := len(bs) - never - well
	switch {
	case len(bs) == 0:
		return "No boards yet"
	case need == 0 && never == len(bs):
		return words.Plural(never, "board is", "boards are") + " enrolled and not heard from yet"
	case need == 0 && never > 0:
		return words.Plural(well, "board is", "boards are") + " healthy; " + words.Plural(never, "has", "have") + " not been heard from yet"
	case need == 0 && well == 1:
		return "Your 1 board is healthy"
	case need == 0:
		return "All " + words.Count(uint64(well)) + " boards are healthy"
	case need == 1:
		i := slices.IndexFunc(bs, func(b Board) bool { return b.State.needsYou() })
		return "1 board needs you: " + causeOf(&bs[i]) + " on " + bs[i].Name
	}
	s := words.Plural(need, "board needs", "boards need") + " you"
	if need == len(bs) {
		s = "All " + s
	}
	if g := grouped(bs); len(g) == 1 {
		return s + ": " + g[0].Cause
	}
	if well > 0 {
		s += "; " + words.Plural(well, "other is", "others are") + " healthy"
	}
	return s
}

// causeOf gives the cause in words; a store that has none leaves the state word.
func causeOf(b *Board) string {
	if b.Cause != "" {
		return b.Cause
	}
	return string(b.State)
}

// cause is one line of what needs attention: boards that share state and cause.
type cause struct {
	State  State
	Cause  string
	Boards []string
	More   int // boards not named
	Since  time.Time
}

// namedInCause is how many boards a cause names; the rest is a number.
const namedInCause = 6

// grouped gathers the boards that need somebody by state and cause, worst first,
// then most boards first.
func grouped(bs []Board) []cause {
	var out []cause
	for i := range bs {
		b := &bs[i]
		if !b.State.needsYou() {
			continue
		}
		j := slices.IndexFunc(out, func(c cause) bool { return c.State == b.State && c.Cause == causeOf(b) })
		if j < 0 {
			out = append(out, cause{State: b.State, Cause: causeOf(b), Since: b.Since})
			j = len(out) - 1
		}
		c := &out[j]
		if b.Since.Before(c.Since) {
			c.Since = b.Since
		}
		if len(c.Boards) < namedInCause {
			c.Boards = append(c.Boards, b.Name)
		} else {
			c.More++
		}
	}
	slices.SortStableFunc(out, func(a, b cause) int {
		if d := rank(a.State) - rank(b.State); d != 0 {
			return d
		}
		return len(b.Boards) + b.More - len(a.Boards) - a.More
	})
	return out
}
