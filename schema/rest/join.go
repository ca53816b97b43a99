// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rest

import "time"

// JoinToken lets boards enrol. The text that a board is given is in no answer but
// [MadeJoinToken].
type JoinToken struct {
	ID string `json:"id"` // names it; lets nobody in
	// Board is the only one it is for, whose key it may replace; "" is any new one.
	Board   string    `json:"board,omitempty"`
	Boards  int       `json:"boards"` // how many may still enrol with it
	Expires time.Time `json:"expires"`
}

// JoinTokenSpec is a join token to be made.
type JoinTokenSpec struct {
	Boards  int    `json:"boards,omitempty"`  // 1 to 10,000; 0 is 1
	Board   string `json:"board,omitempty"`   // for this one alone, once
	Seconds int    `json:"seconds,omitempty"` // how long it is good for, at most 30 days; 0 is an hour
}

// MadeJoinToken is a new join token with what a board is given, which is shown this once.
type MadeJoinToken struct {
	JoinToken
	// Token holds a secret, the fleet's address and the fingerprint of its authority.
	Token string `json:"token"`
}
