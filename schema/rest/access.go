// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rest

import "time"

// User is a person of a tenant, as those who keep users see them.
type User struct {
	Name string `json:"name"`
	Role Role   `json:"role"`
	// Disabled users cannot log in; what they did stays theirs.
	Disabled bool `json:"disabled,omitempty"`
	// MustChange is set while they have a one-time password.
	MustChange bool `json:"must_change,omitempty"`
	// SecondFactor tells whether the log-in asks for a code; MustEnrol that their role
	// wants one and they have none: they see nothing before they do.
	SecondFactor bool      `json:"second_factor"`
	MustEnrol    bool      `json:"must_enrol,omitempty"`
	Made         time.Time `json:"made,omitzero"`
	LastLogin    time.Time `json:"last_login,omitzero"`
	Sessions     int       `json:"sessions"` // open now
	Tokens       int       `json:"tokens"`   // that they made and that are good
}

// UserSpec is a user to be made, or what is changed of one: what is left out stays.
type UserSpec struct {
	Name     string `json:"name,omitempty"`
	Role     Role   `json:"role,omitempty"`
	Disabled *bool  `json:"disabled,omitempty"`
}

// OneTime is a password that is shown this once and has to be changed at the log-in.
type OneTime struct {
	Name     string `json:"name"`
	Password string `json:"password"`
}

// Login is one place where a person is logged in.
type Login struct {
	ID   string    `json:"id"` // names it; lets nobody in
	From string    `json:"from,omitempty"`
	With string    `json:"with,omitempty"` // the browser, in its own words
	Made time.Time `json:"made"`
	Used time.Time `json:"used"` // to the minute
	Here bool      `json:"here,omitempty"`
}

// Token lets a program in. The secret itself is in no answer but [MadeToken].
type Token struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	By     string `json:"by"` // who made it
	Rights Rights `json:"rights"`
	// Boards limits which boards it sees, as a query; "" is all.
	Boards  string    `json:"boards,omitempty"`
	Made    time.Time `json:"made,omitzero"`
	Expires time.Time `json:"expires"`
	Used    time.Time `json:"used,omitzero"` // last, to the minute
	// Lost are rights that it was made with and that its maker no longer has.
	Lost Rights `json:"lost,omitzero"`
}

// TokenSpec is a token to be made.
type TokenSpec struct {
	Name   string `json:"name"`
	Rights Rights `json:"rights"` // within those of whoever makes it
	Boards string `json:"boards,omitempty"`
	Days   int    `json:"days,omitempty"` // how long it is good for, at most 366; 0 is 90
}

// MadeToken is a new token with its secret, which is shown this once.
type MadeToken struct {
	Token
	Secret string `json:"secret"`
}
