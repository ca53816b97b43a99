// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Lane says beside what a command may run.
type Lane uint8

// The lanes.
const (
	Normal Lane = iota // one after the other, in order of acceptance
	Long               // beside the others, MaxLong at a time
	Safety             // at once: what else runs is cancelled
	Quick              // beside the others: it asks or ends something, and is over in a moment
)

// String is the lane's word.
func (l Lane) String() string {
	words := [...]string{"normal", "long", "safety", "quick"}
	if int(l) >= len(words) {
		return fmt.Sprintf("lane %d", uint8(l))
	}
	return words[l]
}

// Handler does one command.
type Handler struct {
	Name string
	Lane Lane
	// Timeout bounds Do and Happened; 0 is DefaultTimeout. The handler's context ends then.
	Timeout time.Duration
	// Check refuses arguments before anything is done; nil takes all. It has no effect,
	// is quick, and is all that a dry run does. State that changes belongs into Do.
	Check func(args []byte) error
	// Do has the effect, and gives the answer in CBOR. An *Error tells a code.
	Do func(ctx context.Context, call Call) (value []byte, err error)
	// Repeat says that Do may be done twice with the effect of once.
	Repeat bool
	// Happened tells, after a crash, whether the effect of a call that was begun is there;
	// if it is not, Do is done. nil where Repeat is set, or where nobody can know.
	Happened func(ctx context.Context, call Call) (bool, []byte, error)
}

// ErrNextStart is what Do returns when its effect ends the program, after its context
// ended for the stop: the command stays begun, and Happened judges it at the next start.
var ErrNextStart = errors.New("the next start tells how it ended")

// Offer is a command that a board has: its description and who does it. The handler's
// Name, Lane and check of arguments are taken from the kind.
type Offer struct {
	Kind    Kind
	Handler Handler
}

// Validate says what a handler lacks.
func (h *Handler) Validate() error {
	if !nameForm().MatchString(h.Name) || h.Do == nil || h.Repeat && h.Happened != nil || h.Lane > Quick {
		return fmt.Errorf("commands: handler %q is not whole: it wants a name like %s, Do, and at most one of Repeat and Happened", h.Name, nameForm())
	}
	return nil
}

// Call is one command as its handler sees it.
type Call struct {
	Command
	// Again is set when the board died while it ran.
	Again bool
	// Progress tells how far it is; it does not wait, and may be dropped.
	Progress func(percent int, text string)
}

// DefaultTimeout is for a command that says nothing: valves and relays move in seconds.
const DefaultTimeout = 30 * time.Second
