// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rest

import "time"

// BoardSummary is a board in a list.
type BoardSummary struct {
	Board    string    `json:"board"`
	State    string    `json:"state"`           // healthy, degraded, failing, unreachable or never-heard
	Cause    string    `json:"cause,omitempty"` // of the state, in words
	Since    time.Time `json:"since,omitzero"`  // of the state
	LastSeen time.Time `json:"last_seen,omitzero"`
	Online   bool      `json:"online"`
	Release  string    `json:"release,omitempty"`
	// Site and Labels are what people wrote of it.
	Site        string            `json:"site,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Facts       map[string]string `json:"facts,omitempty"` // what it told of itself
	Trust       string            `json:"trust,omitempty"` // ek-chain, ek-listed, ek-first-use or software
	Fingerprint string            `json:"fingerprint,omitempty"`
	Until       time.Time         `json:"certificate_until,omitzero"`
	Revoked     time.Time         `json:"revoked,omitzero"`
}

// Me is who the caller is, and what they may do.
type Me struct {
	Tenant string `json:"tenant"`
	Who    string `json:"who"`
	Author string `json:"author,omitempty"` // the person behind a token
	Rights Rights `json:"rights"`
	Boards string `json:"boards,omitempty"` // the query that limits which boards are seen
}

// QueryCheck is what a query means.
type QueryCheck struct {
	Query string `json:"query,omitempty"` // in its canonical form
	Count int    `json:"count"`           // boards that match now
	// Column is where the query stops being understood, from 1; 0 where it is.
	Column int    `json:"column,omitempty"`
	What   string `json:"what,omitempty"` // is wrong there
	Do     string `json:"do,omitempty"`   // what could have been meant
}

// Operation is a long change that was begun.
type Operation struct {
	ID    string    `json:"id"`
	What  string    `json:"what"`  // "wipe"
	Board string    `json:"board"` // of which
	State string    `json:"state"` // running, done or failed
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended,omitzero"`
	// Problem is why it failed.
	Problem *Problem `json:"problem,omitempty"`
}

// DryRun is the answer to a change that was only tried: every check was made, nothing
// was changed.
type DryRun struct {
	Would string `json:"would"` // what would have been done, a sentence
}
