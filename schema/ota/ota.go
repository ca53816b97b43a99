// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package ota holds the words of updates on the wire: what a board shall run, on
// schema.ChanAssign, what it says of it, on schema.ChanOTAState, and how what it needs
// comes to it, on schema.ChanWant and schema.ChanPiece. They are encoded and bounded as all
// others, by schema.Encode and schema.Decode.
package ota

import (
	"fmt"
	"slices"

	"fulmar/schema"
)

// What an assignment wants. On the wire, append-only.
const (
	Install uint8 = 1
	Shadow  uint8 = 2 // a model: run it beside the one in use
	Undo    uint8 = 3 // go back to what ran before this rollout, or forget it
)

// MaxEnvelope is the largest signed manifest in an assignment, in bytes.
const MaxEnvelope = 32 << 10

// Assignment tells a board what it shall run, on schema.ChanAssign. It is sent again until the
// board has reported a last word on its attempt. A board does what has the highest
// attempt that it has seen for the component, and nothing of a lower one.
type Assignment struct {
	V         uint8  `cbor:"1,keyasint"`
	Rollout   string `cbor:"2,keyasint"`
	Component string `cbor:"3,keyasint"` // agent, worker, config, rootfs, model/NAME
	Release   string `cbor:"4,keyasint"`
	Attempt   uint64 `cbor:"5,keyasint"` // rises over all assignments for a component
	Act       uint8  `cbor:"6,keyasint"` // Install and so on
	// Deadline is when the fleet counts it as overdue, ms since 1970; 0 none.
	Deadline int64  `cbor:"7,keyasint,omitempty"`
	Envelope []byte `cbor:"8,keyasint,omitempty"` // what is signed; the fleet hands it on as it is
	// Before is the release that ran before, as far as the fleet knows: for Undo.
	Before string `cbor:"9,keyasint,omitempty"`
	// Directive is the fleet's signed word on all of this, a release.Directive: what the board
	// goes by. Nil comes from a fleet that signs none; a board refuses that.
	Directive *Proven `cbor:"10,keyasint,omitempty"`
}

// Validate checks the limits.
func (a *Assignment) Validate() error {
	if a.V == 0 || a.V > schema.Version {
		return fmt.Errorf("assignment of wire version %d, this program reads up to %d", a.V, schema.Version)
	}
	for _, s := range []string{a.Rollout, a.Component, a.Release} {
		if s == "" || len(s) > schema.MaxName {
			return fmt.Errorf("assignment of rollout %.40q: %.40q has %d bytes, wants 1 to %d", a.Rollout, s, len(s), schema.MaxName)
		}
	}
	if a.Attempt == 0 || a.Act < Install || a.Act > Undo || a.Deadline < 0 || len(a.Envelope) > MaxEnvelope || len(a.Before) > schema.MaxName {
		return fmt.Errorf("assignment of rollout %s: attempt %d, act %d, an envelope of %d bytes, at most %d", a.Rollout, a.Attempt, a.Act, len(a.Envelope), MaxEnvelope)
	}
	if a.Directive != nil {
		return a.Directive.check()
	}
	return nil
}

// The words of a board's update. Those from Committed on are last words.
const (
	Idle        = "idle" // knows of no such assignment, or has forgotten it as told
	Offered     = "offered"
	Admitted    = "admitted"
	Scheduled   = "scheduled"
	Fetching    = "fetching"
	Staged      = "staged"
	Ready       = "ready"
	Switching   = "switching"
	Trial       = "trial"
	RollingBack = "rolling-back"
	Committed   = "committed"
	RolledBack  = "rolled-back"
	Failed      = "failed"
)

// Words lists the words in the order in which they come.
func Words() []string {
	return []string{Idle, Offered, Admitted, Scheduled, Fetching, Staged, Ready, Switching, Trial, RollingBack, Committed, RolledBack, Failed}
}

// State is a board's word on an assignment, on schema.ChanOTAState: on each change, and on
// each assignment that it knows already.
type State struct {
	V        uint8  `cbor:"1,keyasint"`
	Rollout  string `cbor:"2,keyasint"`
	Attempt  uint64 `cbor:"3,keyasint"`
	State    string `cbor:"4,keyasint"`           // one of Words
	Progress uint8  `cbor:"5,keyasint,omitempty"` // per cent of the state
	Reason   string `cbor:"6,keyasint,omitempty"` // at most schema.MaxText bytes
	Release  string `cbor:"7,keyasint,omitempty"` // of the component, running now

	Component string `cbor:"8,keyasint,omitempty"`
	// Floor is the board's epoch floor now: the fleet keeps the highest one, since a TPM whose
	// state was put back does not know it any more.
	Floor uint64 `cbor:"9,keyasint,omitempty"`
	// Runs is the SHA-256 of what runs now, as the board found it, and Level how far that can
	// be believed. Nil where it was not looked at.
	Runs  []byte `cbor:"10,keyasint,omitempty"`
	Level uint8  `cbor:"11,keyasint,omitempty"` // Claimed and so on
}

// How far a board's word on what runs can be believed. On the wire, append-only.
const (
	Claimed  uint8 = 1 // the program says so
	Bound    uint8 = 2 // the board's TPM signed it over the fleet's nonce
	Measured uint8 = 3 // and its registers hold what was started
)

// The words at the front of a reason, before a colon and a sentence. Stable: people and
// programs go by them.
const (
	NoSpace     = "no-space"
	Needs       = "needs"       // the board lacks what the manifest needs
	Window      = "window"      // outside the board's hours of maintenance
	Power       = "power"       // battery or power mode
	Temperature = "temperature" // too hot, or throttled
	Busy        = "busy"        // work that must not be cut
	Refused     = "refused"     // by trust: a signature, the address, the epoch
	Stale       = "stale"       // it could not be proven to be the newest
	Fetch       = "fetch"       // objects did not come
	Base        = "base"        // what runs here is not what the patches want, and all else failed
	Patch       = "patch"       // no encoding gave the file
	HashWrong   = "hash"        // what came is not what was signed
	Stage       = "stage"       // it could not be put beside what runs
	Switch      = "switch"      // it could not be put in force
	Unhealthy   = "health"      // it was on trial and did not prove itself
	Deadline    = "deadline"    // it did not get on in time
	Loop        = "loop"        // it came by the same state too often
	Aborted     = "aborted"     // by a person at the board
	Superseded  = "superseded"  // a newer order for the component came
	Undone      = "undone"      // the fleet took it back
	Disk        = "disk"        // the board's disk fails, or its record was lost
	Launcher    = "launcher"    // what starts it went back from it
)

// Reasons lists the words.
func Reasons() []string {
	return []string{
		NoSpace, Needs, Window, Power, Temperature, Busy, Refused, Stale, Fetch, Base, Patch, HashWrong, Stage, Switch, Unhealthy,
		Deadline, Loop, Aborted, Superseded, Undone, Disk, Launcher,
	}
}

// Validate checks the limits and the word.
func (s *State) Validate() error {
	if s.V == 0 || s.V > schema.Version {
		return fmt.Errorf("update state of wire version %d, this program reads up to %d", s.V, schema.Version)
	}
	if s.Rollout == "" || len(s.Rollout) > schema.MaxName || len(s.Release) > schema.MaxName || len(s.Reason) > schema.MaxText || s.Progress > 100 || s.Attempt == 0 {
		return fmt.Errorf("update state of rollout %.40q: attempt %d, %d %%, a reason of %d bytes, at most %d", s.Rollout, s.Attempt, s.Progress, len(s.Reason), schema.MaxText)
	}
	if !slices.Contains(Words(), s.State) {
		return fmt.Errorf("update state of rollout %s: unknown word %.40q", s.Rollout, s.State)
	}
	if len(s.Component) > schema.MaxName || len(s.Runs) != 0 && len(s.Runs) != HashSize || s.Level > Measured {
		return fmt.Errorf("update state of rollout %s: component %.40q, a hash of %d bytes, level %d", s.Rollout, s.Component, len(s.Runs), s.Level)
	}
	return nil
}
