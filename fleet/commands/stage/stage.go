// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package stage knows the states of a command on one board: their order, when time ends
// one, and what is kept of the steps between them.
package stage

import (
	"time"

	"fulmar/fleet/registry/commandrows"
	"fulmar/schema/rest"
)

const (
	// wordGrace is how long after its end a command that was sent waits for a word on its
	// way: a board's flush and its way through a gateway that is busy.
	wordGrace = time.Minute
	// LostAfter is when a board that has a command and is silent is given up.
	LostAfter = 7 * 24 * time.Hour
	// maxEvents bounds the steps that are kept of a command on one board: the first few
	// and the newest.
	maxEvents, firstEvents = 16, 4
)

// Rank orders states: a command on a board never goes to a lower one.
func Rank(state string) int {
	switch state {
	case rest.CommandWaiting:
		return 0
	case rest.CommandQueued:
		return 1
	case rest.CommandSent:
		return 2
	case rest.CommandAccepted:
		return 3
	case rest.CommandRunning:
		return 4
	}
	return 5
}

// Heard tells whether the board has said a word on it.
func Heard(b *commandrows.Board) bool { return Rank(b.State) >= Rank(rest.CommandAccepted) }

// Overdue gives the fleet's own last word on a command on a board where the board's does
// not come, "" where it still may.
func Overdue(c *commandrows.Command, b *commandrows.Board, now time.Time) (state, text string) {
	ends := c.Expires
	switch {
	case b.Probe || Heard(b):
		since := b.Heard
		if ends.After(since) {
			since = ends
		}
		if now.Sub(since) >= LostAfter {
			return rest.CommandUnknown, "the board has not said for 7 days what became of it"
		}
	case ends.IsZero() || now.Before(ends):
	case b.State == rest.CommandWaiting:
		return rest.CommandExpired, "no second person agreed in time"
	case b.State == rest.CommandQueued:
		return rest.CommandExpired, "the board was not there in time"
	case now.Sub(ends) >= wordGrace:
		return rest.CommandExpired, "its time is over and the board did not say that it has it; its word may still come"
	}
	return "", ""
}

// Note adds a step, and keeps the first few and the newest ones.
func Note(b *commandrows.Board, state, text string, now time.Time) {
	b.Events = append(b.Events, commandrows.Event{State: state, At: now.UnixMilli(), Text: text})
	if over := len(b.Events) - maxEvents; over > 0 {
		b.Events = append(b.Events[:firstEvents:firstEvents], b.Events[firstEvents+over:]...)
	}
}
