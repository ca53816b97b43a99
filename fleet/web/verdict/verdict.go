// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package verdict says how a fleet is: one state a board, one sentence for all, and what
// needs somebody gathered by cause.
package verdict

import (
	"slices"
	"strings"
	"time"

	"fulmar/fleet/web/words"
)

// State is a board's one state word.
type State string

// The states, worst first.
const (
	Failing     State = "failing"
	Unreachable State = "unreachable"
	Degraded    State = "degraded"
	NeverHeard  State = "never heard"
	Healthy     State = "healthy"
)

// States are all states, worst first.
func States() []State { return []State{Failing, Unreachable, Degraded, NeverHeard, Healthy} }

// Board is what a verdict needs to know of a board.
type Board struct {
	Name  string
	State State
	Cause string // "" leaves the state's word
	Site  string // "" where nobody has said
	Since time.Time
	Out   bool // shut out: revoked
}

// Word is the state as queries write it: never-heard, without a blank.
func (s State) Word() string { return strings.ReplaceAll(string(s), " ", "-") }

// Rank orders states, worst first; an unknown one is the worst.
func Rank(s State) int { return slices.Index(States(), s) }

// Class is the state as a CSS class and an icon's name.
func (s State) Class() string {
	switch s {
	case Failing, Unreachable, Degraded, Healthy:
		return string(s)
	case NeverHeard:
		return "never"
	}
	return string(Failing)
}

// NeedsYou tells whether somebody has to act. A board that was never heard from is
// waited for; it is counted apart.
func (s State) NeedsYou() bool { return s != Healthy && s != NeverHeard }

// Ill tells a template whether the cause is to be shown.
func (s State) Ill() bool { return s != Healthy }

// Tally counts boards by state.
func Tally(bs []Board) map[State]int {
	n := map[State]int{}
	for i := range bs {
		n[bs[i].State]++
	}
	return n
}

// Headline says in one sentence how the fleet is.
func Headline(bs []Board) string {
	n := Tally(bs)
	never, well := n[NeverHeard], n[Healthy]
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
		i := slices.IndexFunc(bs, func(b Board) bool { return b.State.NeedsYou() })
		return "1 board needs you: " + causeOf(&bs[i]) + " on " + bs[i].Name
	}
	s := words.Plural(need, "board needs", "boards need") + " you"
	if need == len(bs) {
		s = "All " + s
	}
	if g := Grouped(bs); len(g) == 1 {
		return s + ": " + g[0].Text
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
