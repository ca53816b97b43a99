// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package onboard holds the words that a board and a person at it say to each other over
// the board's own socket: JSON over HTTP/1.1, see docs/local.md. They are of the program
// fulmard on one side and of the command line on the other, which do not link each other.
package onboard

import (
	"encoding/json"
	"time"
)

// Socket is the name of the socket in a board's data folder.
const Socket = "local.sock"

// Bounds of what is said. A board refuses more.
const (
	// MaxBody is the largest request, in bytes: a signed command with all of its 4 KiB of
	// arguments takes under 8 KiB.
	MaxBody = 24 << 10
	// MaxWait is how long one request waits for a command to end; who wants to wait longer
	// asks again.
	MaxWait = 10 * time.Minute
	// MaxRecent is how many commands or changes are told at once.
	MaxRecent = 256
)

// Role is what a person may do at a board.
type Role string

// The roles. One with a key of role operator needs none of them to give a command.
const (
	RoleNone     Role = "none"
	RoleViewer   Role = "viewer"   // sees all, changes nothing
	RoleOperator Role = "operator" // gives commands, sets keys of the twin
)

// State is how the board is now.
type State struct {
	Board     string    `json:"board"`
	Tenant    string    `json:"tenant"`
	Release   string    `json:"release"`
	At        time.Time `json:"at"` // by the board's clock, which may be wrong
	You       You       `json:"you"`
	Link      Link      `json:"link"`
	Autonomy  *Autonomy `json:"autonomy,omitempty"`
	Safety    *Safety   `json:"safety,omitempty"`
	Outputs   []Output  `json:"outputs"`
	Rules     []Rule    `json:"rules"`
	Causes    []string  `json:"causes"`    // of what is not well
	Conflicts int       `json:"conflicts"` // keys that a person has to decide
	Version   uint64    `json:"version"`   // of the fleet's settings that the board has
}

// You is who asks, as the board's kernel says.
type You struct {
	User  string `json:"user"`
	Role  Role   `json:"role"`
	Actor string `json:"actor"` // what stands in the log for what this person does
}

// Link is the connection with the fleet.
type Link struct {
	State string `json:"state"`         // "up" while records flow
	For   int64  `json:"for,omitempty"` // seconds in this state; 0: not known
	Error string `json:"error,omitempty"`
}

// Up tells whether the fleet can be asked.
func (l *Link) Up() bool { return l.State == "up" }

// Autonomy is whether the board decides alone, and what it does then.
type Autonomy struct {
	State  string  `json:"state"` // "connected", "alone"
	For    int64   `json:"for,omitempty"`
	Leases []Lease `json:"leases,omitempty"`
}

// Lease is what the board may do alone for a while.
type Lease struct {
	Name string `json:"name"`
	Left int64  `json:"left"` // seconds
	Then string `json:"then,omitempty"`
}

// Safety is whether the outputs are held in their safe states.
type Safety struct {
	Active bool   `json:"active"`
	For    int64  `json:"for,omitempty"` // seconds
	By     string `json:"by,omitempty"`
}

// Output is one thing that the board moves. Values that are not known are nil.
type Output struct {
	Name  string   `json:"name"`
	Kind  string   `json:"kind,omitempty"`
	Unit  string   `json:"unit,omitempty"`
	Value *float64 `json:"value,omitempty"`
	Min   *float64 `json:"min,omitempty"`
	Max   *float64 `json:"max,omitempty"`
	Safe  *float64 `json:"safe,omitempty"`
	State string   `json:"state,omitempty"`
	Why   string   `json:"why,omitempty"`
}

// Rule is one rule of the board.
type Rule struct {
	Name  string `json:"name"`
	State string `json:"state"`
	For   int64  `json:"for,omitempty"` // seconds in this state
	Fired uint64 `json:"fired"`         // times since the start
	Why   string `json:"why,omitempty"`
}

// Order asks for a command.
type Order struct {
	Name   string          `json:"name"`
	Args   json.RawMessage `json:"args,omitempty"` // an object
	Reason string          `json:"reason,omitempty"`
	DryRun bool            `json:"check_only,omitempty"`
	Wait   int64           `json:"wait_s,omitempty"` // seconds; 0: the answer is one line
}

// Signed asks for a command that a key of role operator signed.
type Signed struct {
	Envelope json.RawMessage `json:"envelope"`
	Wait     int64           `json:"wait_s,omitempty"`
}

// Challenge is what a signed command has to be made over: its id. It is good once.
type Challenge struct {
	ID     string `json:"id"` // 32 hex digits
	Tenant string `json:"tenant"`
	Board  string `json:"board"`
	Left   int64  `json:"left"` // seconds that it is good
}

// Step is how far a command is: each line of an answer that waits, and the only one of an
// answer that does not.
type Step struct {
	ID      string          `json:"id"`
	Name    string          `json:"name,omitempty"`
	State   string          `json:"state"` // accepted, running, done, failed, refused, expired, cancelled, unknown
	Code    string          `json:"code,omitempty"`
	Text    string          `json:"text,omitempty"`
	Percent int             `json:"percent,omitempty"`
	Value   json.RawMessage `json:"value,omitempty"`
	At      time.Time       `json:"at,omitzero"`
	Final   bool            `json:"final"` // nothing follows
}

// Entry is one command in the board's log.
type Entry struct {
	Step
	Args   json.RawMessage `json:"args,omitempty"`
	Actor  string          `json:"actor"`
	By     string          `json:"by,omitempty"` // the person, where the actor speaks for many
	Reason string          `json:"reason,omitempty"`
	DryRun bool            `json:"check_only,omitempty"`
	Given  time.Time       `json:"given,omitzero"`
	Begun  time.Time       `json:"begun,omitzero"`
}

// Cancel ends a command.
type Cancel struct {
	Reason string `json:"reason,omitempty"`
}

// Key is one key of the twin.
type Key struct {
	Key      string          `json:"key"`
	Value    json.RawMessage `json:"value,omitempty"` // that holds
	From     string          `json:"from"`            // "fleet", "board", or "" where nobody set it
	Author   string          `json:"author,omitempty"`
	Reason   string          `json:"reason,omitempty"`
	Left     int64           `json:"left,omitempty"`    // seconds of its lease; 0: until it is cleared
	Refused  string          `json:"refused,omitempty"` // why the fleet's value does not hold
	Conflict bool            `json:"conflict,omitempty"`
	OnTrial  bool            `json:"on_trial,omitempty"` // gone back from if the board falls ill
}

// Set changes a key on the board.
type Set struct {
	Value  json.RawMessage `json:"value"`
	For    int64           `json:"for_s,omitempty"` // seconds; 0: until it is cleared
	Reason string          `json:"reason,omitempty"`
}

// Cleared tells whether there was anything.
type Cleared struct {
	Was bool `json:"was"`
	Key Key  `json:"key"` // as it is now
}

// Conflict is a key that the fleet and the board set without knowing of each other.
type Conflict struct {
	Key    string          `json:"key"`
	Policy string          `json:"policy"`
	Holds  json.RawMessage `json:"holds,omitempty"`
	Fleet  *Edit           `json:"fleet,omitempty"`
	Board  []Edit          `json:"board"`
}

// Edit is what somebody set a key to.
type Edit struct {
	Value  json.RawMessage `json:"value,omitempty"` // none: deleted
	Author string          `json:"author,omitempty"`
	Reason string          `json:"reason,omitempty"`
	For    int64           `json:"for_s,omitempty"`
}

// Change is one line of the twin's history.
type Change struct {
	At      time.Time       `json:"at,omitzero"`
	Kind    string          `json:"kind"` // set, cleared, decided, held, replaced, expired, refused, undone, applied
	Key     string          `json:"key,omitempty"`
	Version uint64          `json:"version,omitempty"` // of the fleet's settings, then
	Value   json.RawMessage `json:"value,omitempty"`
	Author  string          `json:"author,omitempty"`
	Reason  string          `json:"reason,omitempty"`
}

// Problem is the body of an answer that is no success.
type Problem struct {
	Code string `json:"code"` // a word for programs
	Text string `json:"text"`
	Do   string `json:"do,omitempty"`
}

// The codes of problems. A command's own codes stand beside them.
const (
	NotAllowed = "not-allowed"
	BadRequest = "bad-request"
	TooLarge   = "too-large"
	TooMany    = "too-many"
	NotKnown   = "not-known"
	NotReady   = "not-ready" // the board has no name yet, or the part does not run
	NotSigned  = "not-signed"
	Challenged = "challenge" // not given, used, or too old
	NotDone    = "not-done"  // the board could not, or would not; the text says why
	Internal   = "failed"
)
