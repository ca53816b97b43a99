// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"encoding/json"
	"time"
)

// Twin is what a board shall be, what it is, and what was set on it.
type Twin struct {
	Board string `json:"board"`
	// Version is that of desired; Applied the one that the board said it has.
	Version uint64 `json:"version"`
	Applied uint64 `json:"applied"`
	// InSync: the board has this version, and both sides know the same.
	InSync bool `json:"in_sync"`
	// Seen is when the board last spoke of its twin; zero: never.
	Seen      time.Time                  `json:"seen,omitzero"`
	Keys      []TwinKey                  `json:"keys"`     // that somebody set, by name
	Reported  map[string]json.RawMessage `json:"reported"` // what the board says it is
	Conflicts int                        `json:"conflicts"`
}

// TwinKey is one key that the fleet or somebody on the board has set.
type TwinKey struct {
	Key     string          `json:"key"`
	Value   json.RawMessage `json:"value,omitempty"` // that holds; none: not set any more
	From    string          `json:"from"`            // "fleet" or "board"
	Policy  string          `json:"policy,omitempty"`
	Fleet   *TwinEdit       `json:"fleet,omitempty"`
	Board   []TwinEdit      `json:"board,omitempty"`
	State   string          `json:"state"` // "applied", "pending", "refused", "undone", "conflict"
	Refused string          `json:"refused,omitempty"`
}

// TwinEdit is what somebody set a key to.
type TwinEdit struct {
	Value  json.RawMessage `json:"value,omitempty"` // none: deleted
	Author string          `json:"author,omitempty"`
	Reason string          `json:"reason,omitempty"`
	LeaseS int64           `json:"lease_s,omitempty"`
}

// TwinPatch changes keys of one board, or of those that a query matches. A null deletes.
type TwinPatch struct {
	Set    map[string]json.RawMessage `json:"set"`
	Reason string                     `json:"reason,omitempty"`
}

// TwinBulk is a patch for many boards.
type TwinBulk struct {
	Boards []string `json:"boards,omitempty"`
	Query  string   `json:"query,omitempty"`
	TwinPatch
}

// TwinChanged is what a patch did for one board.
type TwinChanged struct {
	Board   string `json:"board"`
	Version uint64 `json:"version,omitempty"`
	Error   string `json:"error,omitempty"`
}

// TwinEvent is one change in a twin's history.
type TwinEvent struct {
	Seq   int64     `json:"seq"`
	At    time.Time `json:"at"`
	Board string    `json:"board"`
	// Kind is "set", "deleted" (by the fleet), "overridden", "cleared" (on the board),
	// "decided", "held", "replaced", "expired", "refused", "undone" (told by the board) or
	// "applied".
	Kind    string          `json:"kind"`
	Key     string          `json:"key,omitempty"`
	Version uint64          `json:"version,omitempty"`
	Author  string          `json:"author,omitempty"`
	Reason  string          `json:"reason,omitempty"`
	Value   json.RawMessage `json:"value,omitempty"`
	Lost    []TwinEdit      `json:"lost,omitempty"`
}

// TwinConflict is a key that a person has to decide: PATCH of the key does.
type TwinConflict struct {
	Board string          `json:"board"`
	Key   string          `json:"key"`
	Fleet *TwinEdit       `json:"fleet,omitempty"`
	Edits []TwinEdit      `json:"edits"` // of the board, the newest first
	Holds json.RawMessage `json:"holds,omitempty"`
	Since time.Time       `json:"since"`
}

// TwinDecision settles a conflict.
type TwinDecision struct {
	Board string `json:"board"`
	Key   string `json:"key"`
	// Choose is which of the two holds from now on, or another value.
	Choose string          `json:"choose" enum:"fleet,board,value"`
	Value  json.RawMessage `json:"value,omitempty"` // of ChooseValue; null deletes
	Reason string          `json:"reason,omitempty"`
}

// What a decision may choose.
const (
	ChooseFleet = "fleet" // what the fleet set
	ChooseBoard = "board" // what was set on the board last
	ChooseValue = "value"
)

// TwinCheck is what a patch would do to one key, as far as the fleet can know: the board
// has the last word, and the reason by key when it refuses.
type TwinCheck struct {
	Board string `json:"board"`
	Key   string `json:"key"`
	// Does is "set", "delete", "nothing" (it is so already), "doubtful" or "refused".
	Does string `json:"does"`
	Why  string `json:"why,omitempty"`
}
