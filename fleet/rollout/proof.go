// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"fmt"
	"time"

	"fulmar/fleet/rollout/state"
)

// Words at the front of a failure's reason.
const (
	// NotProven: the board said committed, and what it attests to run says otherwise.
	NotProven = "not-proven"
	// Silent: it said committed, has a TPM, and did not attest in time.
	Silent = "silent"
)

// Proven is what became of a board's word that it has committed an attempt: Level where it
// counts (claimed, bound, measured), or Why where it does not.
type Proven struct {
	Board   string
	Attempt uint64
	Level   string
	Why     string
}

func (Proven) cause() state.Cause { return state.OnReport }

// prove holds a board's word back until its proof has come. The board is on trial until
// then, for as long as a trial may last: it may lose the link at that moment. Its word is
// asked for again with its order, and the proof with its word.
func (t *turn) prove(i int) {
	t.fx.Prove = append(t.fx.Prove, i)
	b := &t.r.Boards[i]
	if b.Proving {
		return
	}
	t.set(i, func(b *state.Board) {
		b.Proving = true
		if b.State.Flying() {
			b.State, b.Deadline = state.BoardTrial, t.now.Add(seconds(t.r.Spec.Limits.TrialS))
		}
	})
}

// proven takes the word that the proof was asked for, or fails the board.
func (t *turn) proven(e Proven) {
	i, ok := t.r.Has(e.Board)
	if !ok {
		return
	}
	b := &t.r.Boards[i]
	if !b.Proving || b.Attempt != e.Attempt {
		return // the rollout has gone on without it
	}
	why := ""
	if e.Why != "" {
		why = NotProven + ": " + e.Why
	}
	switch {
	case b.State.Flying() && why == "":
		t.good(i, e.Level)
	case b.State.Flying():
		t.fail(i, why, false)
	case why == "":
		t.set(i, func(b *state.Board) {
			b.State, b.Reason, b.Level, b.Proving = state.BoardGood, "came late", e.Level, false
		})
		t.fx.Good = append(t.fx.Good, i)
	default:
		t.set(i, func(b *state.Board) {
			b.State, b.Bad, b.Reason, b.Proving = state.BoardFailed, true, clip("came late: "+why), false
		})
	}
	t.ended()
}

// good counts a board: it runs the release, as far as level says.
func (t *turn) good(i int, level string) {
	t.set(i, func(b *state.Board) {
		b.State, b.Deadline, b.Reason, b.Shadowing = state.BoardGood, zero(), "", t.r.Group(b) == 0
		b.Level, b.Proving = level, false
	})
	if !t.r.Boards[i].Shadowing {
		t.fx.Good = append(t.fx.Good, i)
	}
}

// overdueFor says how long a board had that is overdue.
func overdueFor(now time.Time, b *state.Board) string {
	took := now.Sub(b.Since).Round(time.Second)
	if b.Proving {
		return fmt.Sprintf("%s: it said committed, and its TPM attested nothing within %s", Silent, took)
	}
	return fmt.Sprintf("overdue: no verdict within %s of the %s (it was %s)", took, b.State, phase(b.Phase))
}
