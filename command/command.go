// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"unicode/utf8"

	"fulmar/schema"
)

// Bounds of a command and its result.
const (
	// MaxArgs and MaxValue bound what goes in and comes out, in bytes of CBOR: a batch of
	// readings of all sensors is 5 KiB.
	MaxArgs  = 4 << 10
	MaxValue = 8 << 10
	MaxCode  = 64 // bytes of an error's code
)

// ID names one command; random, so that nobody has to ask for a free one.
type ID [16]byte

// String is the ID in hex.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Command is one command: what is signed, and what the journal holds.
type Command struct {
	V      uint8  `cbor:"1,keyasint"`
	ID     ID     `cbor:"2,keyasint"`
	Tenant string `cbor:"3,keyasint"`
	Board  string `cbor:"4,keyasint"`
	// Name is the handler's: set-valve-position.
	Name string `cbor:"5,keyasint"`
	Args []byte `cbor:"6,keyasint,omitempty"` // CBOR, as the handler says
	// Actor is who gives it; Seq numbers the commands of this actor, from 1.
	Actor string `cbor:"7,keyasint"`
	Seq   uint64 `cbor:"8,keyasint"`
	// Issued and Expires are the fleet's time, in milliseconds since 1970. A command of
	// the board itself has none: it is begun within a lifetime that the board bounds.
	Issued  uint64 `cbor:"9,keyasint,omitempty"`
	Expires uint64 `cbor:"10,keyasint,omitempty"`
	// DryRun asks what would be refused, and changes nothing.
	DryRun bool `cbor:"11,keyasint,omitempty"`
	// Reason is a person's, for those who read the log.
	Reason string `cbor:"12,keyasint,omitempty"`
	// By is who is behind an actor that speaks for many: of the fleet's, user/NAME for a
	// person who was logged in, token/NAME for a program. The fleet signs it with the rest.
	By string `cbor:"13,keyasint,omitempty"`
}

// What By begins with where the fleet signs, a '/' and a name behind it.
const (
	ByUser  = "user"
	ByToken = "token"
)

// Answers names who answers for a command, for what only a person may do: user/NAME of the
// fleet, local/NAME, key/ID; a rule or a token is named too, and is no person.
func (c *Command) Answers() string {
	if c.Actor == ActorFleet {
		return c.By
	}
	return c.Actor
}

// ActorFleet is the actor of all that the fleet signs: one sequence for each board.
const ActorFleet = "fleet"

// What the actors of the board's own begin with, a '/' and a name behind it: a person at
// the board, a rule, an operator's key. Nobody signs for them.
const (
	ActorLocal = "local"
	ActorRule  = "rule"
	ActorKey   = "key"
)

var nameForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z][a-z0-9-]{0,63}$`) })

// Validate checks the bounds.
func (c *Command) Validate() error {
	switch {
	case c.V != schema.Version:
		return fmt.Errorf("command: wire version %d, this program knows %d; update the older side", c.V, schema.Version)
	case c.ID == ID{}:
		return errors.New("command: it has no id")
	case !nameForm().MatchString(c.Name):
		return fmt.Errorf("command: its name %.70q is not of the form %s", c.Name, nameForm())
	case c.Actor == "" || len(c.Actor) > schema.MaxName || c.Seq == 0:
		return fmt.Errorf("command %s: actor %.70q with number %d", c.Name, c.Actor, c.Seq)
	case !utf8.ValidString(c.Actor) || !utf8.ValidString(c.By) || !utf8.ValidString(c.Reason):
		return fmt.Errorf("command %s: its actor, who is behind it, or its reason is no UTF-8: nobody could read it", c.ID)
	case len(c.Args) > MaxArgs || len(c.Reason) > schema.MaxFact || len(c.Tenant) > schema.MaxName || len(c.Board) > schema.MaxName || len(c.By) > schema.MaxName:
		return fmt.Errorf("command %s: arguments of %d bytes, a reason of %d, at most %d and %d", c.Name, len(c.Args), len(c.Reason), MaxArgs, schema.MaxFact)
	}
	return nil
}

// State is how far a command is.
type State uint8

// The states. Their numbers are on the wire. From Done on they are final.
const (
	Accepted  State = 1 // it is in the journal and will be begun
	Running   State = 2
	Done      State = 3
	Failed    State = 4 // begun, and its handler says why it did not
	Refused   State = 5 // never begun
	Expired   State = 6 // never begun: too old
	Cancelled State = 7 // by a person, or for a safety shutdown
	Unknown   State = 8 // begun when the board died; whether it had its effect is not known
)

// String is the state's word.
func (s State) String() string {
	words := [...]string{"", "accepted", "running", "done", "failed", "refused", "expired", "cancelled", "unknown"}
	if s == 0 || int(s) >= len(words) {
		return fmt.Sprintf("state %d", uint8(s))
	}
	return words[s]
}

// Final tells whether nothing follows.
func (s State) Final() bool { return s >= Done }

// Result is what the board tells of a command.
type Result struct {
	V     uint8       `cbor:"1,keyasint"`
	ID    ID          `cbor:"2,keyasint"`
	State State       `cbor:"3,keyasint"`
	Time  schema.Time `cbor:"4,keyasint"`
	// Code is a word for programs, Text a sentence for people: why not, or how far.
	Code string `cbor:"5,keyasint,omitempty"`
	Text string `cbor:"6,keyasint,omitempty"`
	// Value is what the handler answers, in CBOR.
	Value []byte `cbor:"7,keyasint,omitempty"`
	// Percent is how far a long one is.
	Percent uint8 `cbor:"8,keyasint,omitempty"`
}

// Validate checks the bounds.
func (r *Result) Validate() error {
	switch {
	case r.V != schema.Version:
		return fmt.Errorf("command result: wire version %d, this program knows %d; update the older side", r.V, schema.Version)
	case r.ID == ID{} || r.State == 0 || r.State > Unknown || r.Percent > 100:
		return fmt.Errorf("command result %s with %v, %d percent", r.ID, r.State, r.Percent)
	case len(r.Code) > MaxCode || len(r.Text) > schema.MaxText || len(r.Value) > MaxValue:
		return fmt.Errorf("command result %s with a code of %d bytes, a text of %d and a value of %d", r.ID, len(r.Code), len(r.Text), len(r.Value))
	}
	return nil
}

// Report is a result on its way to the fleet, on schema.ChanResult.
type Report struct {
	V      uint8  `cbor:"1,keyasint"`
	Result Result `cbor:"2,keyasint"`
	// Command is what was given where the fleet cannot know it: by a person or a rule on
	// the board. Its Args and Reason say what was wanted.
	Command *Command `cbor:"3,keyasint,omitempty"`
	// Times of the board: when it was given and when it was begun; zero where it was not.
	Given schema.Time `cbor:"4,keyasint,omitempty"`
	Begun schema.Time `cbor:"5,keyasint,omitempty"`
}

// NameGap is the name of the command that stands, in a report, for results that were
// dropped before they could be told: nobody gave it, and no handler may have its name.
// Its actor is ActorBoard and its value a GapValue.
const (
	NameGap    = "results-dropped"
	ActorBoard = "board"
)

// GapValue is the value of a report of NameGap.
type GapValue struct {
	Count  uint64            `cbor:"count"`
	States map[string]uint64 `cbor:"states"` // how they ended
	Actors map[string]uint64 `cbor:"actors"` // whose they were; "others" for the rest
}

// Validate checks the bounds of both.
func (r *Report) Validate() error {
	if r.V == 0 || r.V > schema.Version {
		return fmt.Errorf("command report: wire version %d, this program knows %d; update the older side", r.V, schema.Version)
	}
	if r.Command != nil {
		if err := r.Command.Validate(); err != nil {
			return err
		}
		if r.Command.ID != r.Result.ID {
			return fmt.Errorf("command report: the result is of %s, the command is %s", r.Result.ID, r.Command.ID)
		}
	}
	return r.Result.Validate()
}

// ParseID is the inverse of [ID.String].
func ParseID(s string) (ID, error) {
	var id ID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("%.40q is no id of a command: it has 32 hex digits", s)
	}
	copy(id[:], b)
	return id, nil
}

// Error is a refusal or failure with a code: a handler returns it to say more than text.
type Error struct {
	Code string
	Text string
}

func (e *Error) Error() string { return e.Text }

// The codes of this package; handlers have their own beside them.
const (
	CodeUnknown   = "unknown-command"
	CodeArgs      = "bad-arguments"
	CodeReplayed  = "replayed"   // its actor's number is not above what came already
	CodeQueueFull = "queue-full" // too many wait
	CodeActors    = "too-many-actors"
	CodeActor     = "wrong-actor"    // signed for an actor of the board's own
	CodeNoTime    = "time-not-known" // the board cannot tell whether it is too old
	CodeLate      = "too-old"
	CodeAddress   = "not-for-this-board"
	CodeUnsigned  = "not-signed"
	CodeTimeout   = "timeout"
	CodePreempted = "preempted"   // by a safety command
	CodeCancelled = "cancelled"   // by a person
	CodeCrashed   = "interrupted" // the board died while it ran
	CodePanic     = "handler-failed"
	CodeFailed    = "failed"
	CodeSafety    = "safety-command" // it cannot be cancelled
)
