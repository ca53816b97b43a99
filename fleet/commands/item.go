// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"time"

	"fulmar/command"
	"fulmar/fleet/commands/stage"
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

// next gives what a board that is here shall be sent now, in order.
func (q *queue) next(now time.Time, hello uint64) (out []*item) {
	busy := 0
	cancels := map[command.ID]bool{} // that are not over
	for _, it := range q.items {
		if stage.Heard(it.Board) && !it.cmd.Local {
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
		case it.cmd.Local || stage.Heard(it.Board) || it.State == rest.CommandWaiting:
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
