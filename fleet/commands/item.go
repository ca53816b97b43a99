// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"time"

	"fulmar/command"
	"fulmar/fleet/registry/commandrows"
	"fulmar/schema/rest"
)

// item is a command on one board that has no last word. The row in it is replaced as a
// whole when a change of it is stored.
type item struct {
	*commandrows.Board
	cmd   *commandrows.Command
	hello uint64    // in which connection it was sent last
	again time.Time // not before, in this connection
}

// queue is what is open for one board, oldest command first.
type queue struct{ items []*item }

// urgent are the commands that wait for no other: what must be safe must be so now.
func urgent(name string) bool { return name == "trigger-safety-shutdown" }

// nameCancel is the command with which a board is asked to cancel another.
const nameCancel = "cancel"

// rank orders states: a command on a board never goes to a lower one.
func rank(state string) int {
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

// heard tells whether the board has said a word on it.
func (it *item) heard() bool { return rank(it.State) >= rank(rest.CommandAccepted) }

// next gives what a board that is here shall be sent now, in order.
func (q *queue) next(now time.Time, hello uint64) (out []*item) {
	busy := 0
	cancels := map[command.ID]bool{} // that are not over
	for _, it := range q.items {
		if it.heard() && !it.cmd.Local {
			busy++
		}
		if command.ID(it.Target) != (command.ID{}) {
			cancels[it.Target] = true
		}
	}
	blocked := false // by one that was sent, or may not be yet
	for _, it := range q.items {
		switch {
		case it.Probe: // asked, whatever it is
		case it.cmd.Local || it.heard() || it.State == rest.CommandWaiting:
			continue
		case it.Cancel && cancels[it.ID]: // it may have the effect that nobody wants any more
			continue
		case it.Cancel: // its cancel is over: what became of it?
		case !now.Before(it.cmd.Expires):
			continue
		case urgent(it.cmd.Name) || command.ID(it.Target) != (command.ID{}): // jumps the queue
		case blocked || it.State == rest.CommandQueued && busy >= window:
			blocked = true
			continue
		default:
			blocked = true
		}
		if it.hello != hello || !now.Before(it.again) {
			out = append(out, it)
		}
	}
	return out
}

// overdue gives the fleet's own last word where the board's does not come, "" where it
// still may.
func (it *item) overdue(now time.Time) (state, text string) {
	ends := it.cmd.Expires
	switch {
	case it.Probe || it.heard():
		since := it.Heard
		if ends.After(since) {
			since = ends
		}
		if now.Sub(since) >= lostAfter {
			return rest.CommandUnknown, "the board has not said for 7 days what became of it"
		}
	case ends.IsZero() || now.Before(ends):
	case it.State == rest.CommandWaiting:
		return rest.CommandExpired, "no second person agreed in time"
	case it.State == rest.CommandQueued:
		return rest.CommandExpired, "the board was not there in time"
	case now.Sub(ends) >= wordGrace:
		return rest.CommandExpired, "its time is over and the board did not say that it has it; its word may still come"
	}
	return "", ""
}

// note adds a step, and keeps the first few and the newest ones.
func note(b *commandrows.Board, state, text string, now time.Time) {
	b.Events = append(b.Events, commandrows.Event{State: state, At: now.UnixMilli(), Text: text})
	if over := len(b.Events) - maxEvents; over > 0 {
		b.Events = append(b.Events[:firstEvents:firstEvents], b.Events[firstEvents+over:]...)
	}
}
