// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rest

import "time"

// AuditEntry is one row of the audit log.
type AuditEntry struct {
	Seq    int64     `json:"seq"` // 1 is the first ever; no holes over all tenants
	At     time.Time `json:"at"`  // of the server's clock
	Who    string    `json:"who"` // a person, "token NAME", "board NAME" or the server
	Tenant string    `json:"tenant,omitempty"`
	Board  string    `json:"board,omitempty"`
	What   string    `json:"what"`          // a word: revoke, approve, log-in
	Why    string    `json:"why,omitempty"` // a sentence
	Hash   string    `json:"hash"`          // SHA-256 in hex, of this row and the hash before it
}

// AuditFilter says which rows are wanted; what is empty leaves them all.
type AuditFilter struct {
	Who    string    `json:"who,omitempty"`
	What   string    `json:"what,omitempty"`
	Board  string    `json:"board,omitempty"`
	From   time.Time `json:"from,omitzero"`
	To     time.Time `json:"to,omitzero"`
	Newest bool      `json:"newest,omitempty"` // newest first; seq then goes down
}

// AuditHead is the newest row, signed by the server.
type AuditHead struct {
	Seq  int64     `json:"seq"`
	Hash string    `json:"hash"` // of that row, hex
	At   time.Time `json:"at"`   // when it was signed
	// Signature is the DSSE envelope over seq, hash and time, as JSON.
	Signature string `json:"signature"`
	Key       string `json:"key"`    // the public key, PEM
	KeyID     string `json:"key_id"` // SHA-256 of its SubjectPublicKeyInfo, hex
	// Rows and Since tell how much of the log is kept: the oldest row's time.
	Rows  int64     `json:"rows"`
	Since time.Time `json:"since,omitzero"`
	// Broken says where the chain does not hold, "" where it does; Checked is when it
	// was last gone through.
	Broken  string    `json:"broken,omitempty"`
	Checked time.Time `json:"checked,omitzero"`
}
