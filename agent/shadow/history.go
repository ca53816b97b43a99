// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package shadow

import (
	"fulmar/agent/shadow/words"
	"fulmar/schema"
	"fulmar/twin"
)

const (
	// MaxHistory is how many changes a board remembers: some weeks of a board that is set
	// by hand, and 50 KiB on its disk at the most.
	MaxHistory = 64
	// maxShown is the longest value in the history, in bytes of CBOR; a longer one is left
	// out: the twin has it while it holds.
	maxShown = 128
	// maxAlarms bounds the subjects that stand as alarms at the fleet: a key is one at most.
	maxAlarms = 256
	// maxOutbox bounds the reports that wait to be told: they go within a moment.
	maxOutbox = 64
)

// Kinds of a [Change] beside those of package twin's events.
const (
	KindSet     = "set"     // on the board
	KindCleared = "cleared" // on the board
	KindApplied = "applied" // a desired version came and is in force
	KindUndone  = words.Undone
)

// Change is one entry of a board's history.
type Change struct {
	At      schema.Time `cbor:"1,keyasint"`
	Kind    string      `cbor:"2,keyasint"` // "set", "cleared", "applied", "decided", "held", "replaced", "expired", "refused", "undone"
	Key     string      `cbor:"3,keyasint,omitempty"`
	Version uint64      `cbor:"4,keyasint,omitempty"` // of desired, then
	Author  string      `cbor:"5,keyasint,omitempty"`
	Reason  string      `cbor:"6,keyasint,omitempty"`
	Value   twin.Value  `cbor:"7,keyasint,omitempty"` // that holds after it; nil: none, or over 128 bytes
}

// subject is a report that stands at the fleet as more than information.
type subject struct {
	Subject string `cbor:"1,keyasint"`
	Key     string `cbor:"2,keyasint,omitempty"` // "": a version
	State   string `cbor:"3,keyasint"`
}
