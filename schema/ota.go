// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"fmt"
	"slices"
	"strings"
)

// CanUpdate is the word in a board's fact [FactCan] that says that it takes assignments.
// A board that does not say so is told nothing.
const (
	FactCan   = "can" // a fact of Hello: words with spaces between them
	CanUpdate = "updates"
)

// Can tells whether a board's facts say that it can do something.
func Can(facts map[string]string, word string) bool {
	return slices.Contains(strings.Fields(facts[FactCan]), word)
}

// What an assignment wants. On the wire, append-only.
const (
	AssignInstall uint8 = 1
	AssignShadow  uint8 = 2 // a model: run it beside the one in use
	AssignUndo    uint8 = 3 // go back to what ran before this rollout, or forget it
)

// MaxEnvelope is the largest signed manifest in an assignment, in bytes.
const MaxEnvelope = 32 << 10

// Assignment tells a board what it shall run, on ChanAssign. It is sent again until the
// board has reported a last word on its attempt. A board does what has the highest
// attempt that it has seen for the component, and nothing of a lower one.
type Assignment struct {
	V         uint8  `cbor:"1,keyasint"`
	Rollout   string `cbor:"2,keyasint"`
	Component string `cbor:"3,keyasint"` // agent, worker, config, rootfs, model/NAME
	Release   string `cbor:"4,keyasint"`
	Attempt   uint64 `cbor:"5,keyasint"` // rises over all assignments for a component
	Act       uint8  `cbor:"6,keyasint"` // AssignInstall and so on
	// Deadline is when the fleet counts it as overdue, ms since 1970; 0 none.
	Deadline int64  `cbor:"7,keyasint,omitempty"`
	Envelope []byte `cbor:"8,keyasint,omitempty"` // what is signed; the fleet hands it on as it is
	// Before is the release that ran before, as far as the fleet knows: for AssignUndo.
	Before string `cbor:"9,keyasint,omitempty"`
}

// Validate checks the limits.
func (a *Assignment) Validate() error {
	if err := checkVersion("assignment", a.V); err != nil {
		return err
	}
	for _, s := range []string{a.Rollout, a.Component, a.Release} {
		if s == "" || len(s) > MaxName {
			return fmt.Errorf("assignment of rollout %q: %q has %d bytes, wants 1 to %d", clip(a.Rollout), clip(s), len(s), MaxName)
		}
	}
	if a.Attempt == 0 || a.Act < AssignInstall || a.Act > AssignUndo || a.Deadline < 0 || len(a.Envelope) > MaxEnvelope || len(a.Before) > MaxName {
		return fmt.Errorf("assignment of rollout %s: attempt %d, act %d, an envelope of %d bytes, at most %d", a.Rollout, a.Attempt, a.Act, len(a.Envelope), MaxEnvelope)
	}
	return nil
}

// The words of a board's update. Those from OTACommitted on are last words.
const (
	OTAIdle        = "idle" // knows of no such assignment, or has forgotten it as told
	OTAOffered     = "offered"
	OTAAdmitted    = "admitted"
	OTAScheduled   = "scheduled"
	OTAFetching    = "fetching"
	OTAStaged      = "staged"
	OTAReady       = "ready"
	OTASwitching   = "switching"
	OTATrial       = "trial"
	OTARollingBack = "rolling-back"
	OTACommitted   = "committed"
	OTARolledBack  = "rolled-back"
	OTAFailed      = "failed"
)

// OTAWords lists the words in the order in which they come.
func OTAWords() []string {
	return []string{OTAIdle, OTAOffered, OTAAdmitted, OTAScheduled, OTAFetching, OTAStaged, OTAReady, OTASwitching, OTATrial, OTARollingBack, OTACommitted, OTARolledBack, OTAFailed}
}

// OTAState is a board's word on an assignment, on ChanOTAState: on each change, and on
// each assignment that it knows already.
type OTAState struct {
	V        uint8  `cbor:"1,keyasint"`
	Rollout  string `cbor:"2,keyasint"`
	Attempt  uint64 `cbor:"3,keyasint"`
	State    string `cbor:"4,keyasint"`           // one of OTAWords
	Progress uint8  `cbor:"5,keyasint,omitempty"` // per cent of the state
	Reason   string `cbor:"6,keyasint,omitempty"` // at most MaxText bytes
	Release  string `cbor:"7,keyasint,omitempty"` // of the component, running now
}

// Validate checks the limits and the word.
func (s *OTAState) Validate() error {
	if err := checkVersion("update state", s.V); err != nil {
		return err
	}
	if s.Rollout == "" || len(s.Rollout) > MaxName || len(s.Release) > MaxName || len(s.Reason) > MaxText || s.Progress > 100 || s.Attempt == 0 {
		return fmt.Errorf("update state of rollout %q: attempt %d, %d %%, a reason of %d bytes, at most %d", clip(s.Rollout), s.Attempt, s.Progress, len(s.Reason), MaxText)
	}
	if !slices.Contains(OTAWords(), s.State) {
		return fmt.Errorf("update state of rollout %s: unknown word %q", s.Rollout, clip(s.State))
	}
	return nil
}
