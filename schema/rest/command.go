// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"encoding/json"
	"time"
)

// CommandSpec is a command as a person gives it, to one board, to many, or to those that
// a query matches.
type CommandSpec struct {
	Name string `json:"name"` // of the command: set-valve-position
	// Args are the command's arguments, a JSON object.
	Args   json.RawMessage `json:"args,omitempty"`
	Boards []string        `json:"boards,omitempty"` // these
	Query  string          `json:"query,omitempty"`  // or those that it matches now; one of both
	// ValidS is for how many seconds from now a board may begin it; 300.
	ValidS int64  `json:"valid_s,omitempty"`
	DryRun bool   `json:"check_only,omitempty"` // the boards say what they would refuse, and do nothing
	Reason string `json:"reason,omitempty"`
}

// The states of a command for one board, in the order in which they come. Those from
// Done on are final.
const (
	CommandWaiting   = "waiting-approval" // a second person has to agree
	CommandQueued    = "queued"           // kept, the board has not been there since
	CommandSent      = "sent"             // given to the board's connection
	CommandAccepted  = "accepted"         // in the board's journal
	CommandRunning   = "running"
	CommandDone      = "done"
	CommandFailed    = "failed"
	CommandRefused   = "refused" // by the board, or by the second person
	CommandExpired   = "expired" // never begun
	CommandCancelled = "cancelled"
	CommandUnknown   = "unknown" // begun when the board died: a person has to look
)

// CommandFinal tells whether a state is a last word.
func CommandFinal(state string) bool {
	switch state {
	case CommandDone, CommandFailed, CommandRefused, CommandExpired, CommandCancelled, CommandUnknown:
		return true
	}
	return false
}

// Command is one command, to one or many boards.
type Command struct {
	ID      string          `json:"id"`
	Name    string          `json:"name"`
	Args    json.RawMessage `json:"args,omitempty"`
	Actor   string          `json:"actor"` // who gave it: a user, a token, or on the board a person or a rule
	Reason  string          `json:"reason,omitempty"`
	Local   bool            `json:"local,omitempty"` // given on the board
	DryRun  bool            `json:"check_only,omitempty"`
	Query   string          `json:"query,omitempty"`
	Given   time.Time       `json:"given"`
	Expires time.Time       `json:"expires,omitzero"`
	// Approval is who agreed, where the name wants a second person.
	Approval *CommandApproval `json:"approval,omitempty"`
	// Counts is how many boards are in each state.
	Counts map[string]int `json:"counts"`
	// Boards has one row for each board where the command alone is asked for; at most 1,000,
	// those that are not done first.
	Boards []CommandBoard `json:"boards,omitempty"`
	Total  int            `json:"total"` // boards
}

// CommandApproval is the word of the second person.
type CommandApproval struct {
	Wanted  bool      `json:"wanted"`
	By      string    `json:"by,omitempty"`
	Refused bool      `json:"refused,omitempty"`
	At      time.Time `json:"at,omitzero"`
	Reason  string    `json:"reason,omitempty"`
}

// CommandBoard is a command on one board.
type CommandBoard struct {
	ID      string          `json:"id"` // of the command for this board: 32 hex digits
	Board   string          `json:"board"`
	State   string          `json:"state"`
	Code    string          `json:"code,omitempty"` // a word for programs: out-of-range, interlocked, timeout
	Text    string          `json:"text,omitempty"` // a sentence: why not, or how far
	Value   json.RawMessage `json:"value,omitempty"`
	Percent int             `json:"percent,omitempty"`
	// Events is what happened when, the oldest first; at most 16.
	Events []CommandEvent `json:"events,omitempty"`
}

// CommandEvent is one step of a command on one board.
type CommandEvent struct {
	State string    `json:"state"`
	At    time.Time `json:"at"` // by the fleet's clock
	Text  string    `json:"text,omitempty"`
}

// CommandAction is what is done to a command that is not over: "cancel", "approve" or
// "refuse".
type CommandAction struct {
	Action string `json:"action"`
	Reason string `json:"reason,omitempty"`
}

// CommandKind is a command that boards of the fleet have, as they say of themselves.
type CommandKind struct {
	Name     string `json:"name"`
	Boards   int    `json:"boards"`   // that have it
	Approval bool   `json:"approval"` // a second person has to agree
}
