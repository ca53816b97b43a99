// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package onboard

import "time"

// Bounds of what is said of updates.
const (
	// MaxHold is how long a person may keep updates away with one word, in seconds: over a
	// long holiday.
	MaxHold = 31 * 24 * 3600
	// MaxBundle is the largest bundle that a board takes, in bytes: a root file system with all
	// else.
	MaxBundle = 20 << 30
	// BundlePath takes a bundle as the body of a request.
	BundlePath = "/v1/updates/bundle"
)

// Updates is how updates stand on a board.
type Updates struct {
	// Off is why the board takes none, "" where it does.
	Off        string      `json:"off,omitempty"`
	Components []Component `json:"components"`
	Work       *Update     `json:"work,omitempty"`    // in work now
	Waiting    []Update    `json:"waiting,omitempty"` // behind it
	// Floor is the lowest epoch that may be installed; FloorError why that is not known.
	Floor      uint64 `json:"floor"`
	FloorError string `json:"floor_error,omitempty"`
	Hold       int64  `json:"hold_s,omitempty"` // seconds that a person still wants none
	HoldBy     string `json:"hold_by,omitempty"`
	// Blocked is what speaks against putting something in force now, a sentence each.
	Blocked []string `json:"blocked,omitempty"`
	Slot    string   `json:"slot,omitempty"` // that fulmard runs from
	Unsure  bool     `json:"unsure,omitempty"`
}

// Component is what a board can update.
type Component struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"` // that runs
	Release string `json:"release,omitempty"` // that brought it, as far as it came so
	Word    string `json:"word,omitempty"`    // last word on its newest update
	Reason  string `json:"reason,omitempty"`
}

// Update is one in work, or one that waits.
type Update struct {
	Rollout   string `json:"rollout"`
	Component string `json:"component"`
	Release   string `json:"release"`
	Act       string `json:"act"`
	Attempt   uint64 `json:"attempt,omitempty"`
	State     string `json:"state"`
	Reason    string `json:"reason,omitempty"`
	Progress  int    `json:"progress,omitempty"` // per cent of what has to be fetched
	Since     int64  `json:"since_s,omitempty"`  // seconds in the state
	Ends      int64  `json:"ends_s,omitempty"`   // seconds until the state is over at the latest
}

// PastUpdate is one that is over.
type PastUpdate struct {
	Rollout   string    `json:"rollout"`
	Component string    `json:"component"`
	Release   string    `json:"release"`
	Before    string    `json:"before,omitempty"`
	Attempt   uint64    `json:"attempt,omitempty"`
	Act       string    `json:"act"`
	Word      string    `json:"word"`
	Reason    string    `json:"reason,omitempty"`
	Path      string    `json:"path,omitempty"` // words of the states that it came by
	Took      int64     `json:"took_s"`
	Boots     int       `json:"boots,omitempty"` // of the machine meanwhile
	At        time.Time `json:"at,omitzero"`     // when it ended, by the board's clock
}

// Abort ends an update.
type Abort struct {
	Component string `json:"component,omitempty"` // "": whichever is in work
	Reason    string `json:"reason,omitempty"`
}

// HoldUpdates keeps updates away for a while; 0 ends that.
type HoldUpdates struct {
	For    int64  `json:"for_s"`
	Reason string `json:"reason,omitempty"`
}

// Taken is what came of a bundle.
type Taken struct {
	Release    string   `json:"release"`
	Components []string `json:"components"`        // that were taken in
	Skipped    []string `json:"skipped,omitempty"` // and why, a sentence each
	Signers    []string `json:"signers,omitempty"` // ids of the release keys
}

// RepairedFloor is what came of a repair.
type RepairedFloor struct {
	Floor uint64 `json:"floor"`
}
