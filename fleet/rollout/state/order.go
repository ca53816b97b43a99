// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"time"

	"fulmar/schema/ota"
)

// Act is what a board is told to do.
type Act uint8

// The acts, as the wire has them.
const (
	ActInstall = Act(ota.Install)
	ActShadow  = Act(ota.Shadow)
	ActUndo    = Act(ota.Undo)
)

// Order gives what holds for a board now, false where there is nothing to tell it. The
// same order may be given any number of times.
func (r *Rollout) Order(i int) (act Act, attempt uint64, deadline time.Time, ok bool) {
	b := &r.Boards[i]
	gone := r.State == Stopping && r.Into != Done || r.State.Over() && r.State != Done
	switch {
	case b.State.Flying() && r.Group(b) == 0:
		return ActShadow, b.Attempt, b.Deadline, true
	case b.State.Flying():
		return ActInstall, b.Attempt, b.Deadline, true
	case b.State == BoardUndoing || b.State == BoardStuck || b.State == BoardUnreached && gone && b.Attempt > 0:
		return ActUndo, b.Attempt, b.Deadline, true
	}
	return 0, 0, time.Time{}, false
}

// Unsettled tells whether a board owes an answer, so that its order is given again.
func (r *Rollout) Unsettled(i int) bool {
	return r.Boards[i].State.Flying() || r.Boards[i].State == BoardUndoing
}
