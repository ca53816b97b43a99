// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package trust puts into plain words how the fleet knows a board and what is proven
// of it: the panel on a board's page, the boards that ask to join, and the causes that
// come of either.
//
// Nothing is said that is not so: what the board alone says is called its word, what a
// level does not prove stands beside what it does.
package trust

import (
	"context"
	"errors"
	"time"

	"fulmar/fleet/web/verdict"
	"fulmar/schema"
)

// Levels of proof, as fleet/proof decides them.
const (
	Claimed  = "claimed"
	Bound    = "bound"
	Measured = "measured"
)

// staleAfter is when a proof is called old: boards are asked anew after a day.
const staleAfter = 48 * time.Hour

// Trust is what is known of how a board proves who it is and what it runs.
type Trust struct {
	How         string    `json:"how"` // a schema.Trust constant
	Fingerprint string    `json:"fingerprint"`
	Enrolled    time.Time `json:"enrolled"`
	Until       time.Time `json:"certificate_until"`
	Revoked     time.Time `json:"revoked,omitzero"`
	// The board's own words of its TPM; "" where it has none.
	Kind     string `json:"kind,omitempty"`
	Maker    string `json:"maker,omitempty"`
	Firmware string `json:"firmware,omitempty"`
	// Note is what the fleet found of its maker's certificate, a sentence.
	Note string `json:"note,omitempty"`

	// Level is Claimed, Bound or Measured; the rest is of the newest attestation that
	// was believed, at Good. Since is the first that told the same.
	Level  string    `json:"level"`
	Good   time.Time `json:"good,omitzero"`
	Since  time.Time `json:"since,omitzero"`
	Boots  uint32    `json:"boots,omitempty"` // of its TPM since its first proof
	Report []byte    `json:"-"`               // CBOR schema.AttestReport

	// Refused counts attestations not believed, the newest at RefusedAt. Why is a
	// sentence, "" where a good one came since.
	Refused   uint64    `json:"refused,omitempty"`
	RefusedAt time.Time `json:"refused_at,omitzero"`
	Why       string    `json:"why,omitempty"`
	// Silent is since when it owes an answer that is overdue; zero: it does not.
	Silent time.Time `json:"silent,omitzero"`
	// Clones is since when two boards take turns with this identity; zero: they do not.
	Clones time.Time `json:"clones,omitzero"`
	// Asks is why a board of this name waits for a person, as in Request; "" where none does.
	Asks   string    `json:"asks,omitempty"`
	AsksAt time.Time `json:"asks_at,omitzero"`
}

// InTPM tells whether the board's key is in a TPM.
func (t *Trust) InTPM() bool { return t.How != schema.TrustSoftware && t.How != "" }

// Twins is the cause of a board that is two; "" where it is one. It comes before what
// its connection tells, for they take that from each other.
func (t *Trust) Twins() (cause string, since time.Time) {
	if t == nil || t.Clones.IsZero() {
		return "", time.Time{}
	}
	return "two boards use this identity: a disk was copied; revoke it and enrol each anew", t.Clones
}

// Away is the cause of a board that is not connected; "" where trust tells none.
func (t *Trust) Away(now time.Time) (cause string, since time.Time) {
	if t == nil {
		return "", time.Time{}
	}
	switch t.Asks {
	case whyAK:
		return "it waits for your decision: its TPM was cleared or its disk is new", t.AsksAt
	case whyEK:
		return "it waits for your decision: another TPM asks under its name", t.AsksAt
	case whyKey:
		return "it waits for your decision: another key asks under its name", t.AsksAt
	case whyToSoftware:
		return "its TPM is missing: a board of its name asks to join with a key in a file", t.AsksAt
	case whyToTPM:
		return "it waits for your decision: it asks with a TPM and had none", t.AsksAt
	}
	if !t.Until.IsZero() && now.After(t.Until) {
		return "its certificate has ended and it has not asked for the next", t.Until
	}
	return "", time.Time{}
}

// Here is the state and cause of a connected board; "" where trust tells none.
func (t *Trust) Here() (verdict.State, string, time.Time) {
	switch {
	case t == nil:
	case t.Why != "":
		return verdict.Failing, "the proof of its TPM was not believed", t.RefusedAt
	case !t.Silent.IsZero():
		return verdict.Degraded, "it was asked to prove what it runs and has not answered", t.Silent
	}
	return "", "", time.Time{}
}

// Why a board waits for a person, as fleet/registry has it.
const (
	whyNew        = "new"
	whyAK         = "ak"
	whyEK         = "ek"
	whyKey        = "key"
	whyToSoftware = "to-software"
	whyToTPM      = "to-tpm"
	whyElsewhere  = "elsewhere"
)

// Request is a board that asks to join and waits for a person.
type Request struct {
	ID          int64
	Board       string // the name it wants
	Why         string // new, ak, ek, key, to-software, to-tpm, elsewhere
	Say         string // why it waits, a sentence
	Other       string // the board that has its TPM or key already
	How         string // what its trust would be
	Fingerprint string
	// As in Trust.
	Kind, Maker, Firmware, Note string
	Facts                       map[string]string
	From                        string // address
	First, Last                 time.Time
	Decision                    string // "", approved or refused
	By                          string // who decided
	DecidedAt                   time.Time
}

// Errors of a [Keeper] that the page has words for.
var (
	// ErrGone: the request or board is not there any more.
	ErrGone = errors.New("not there any more")
	// ErrElsewhere: the TPM or key is that of a board with another name.
	ErrElsewhere = errors.New("enrolled under another name")
)

// Keeper decides which boards belong to the fleet. who and why go into the audit log.
type Keeper interface {
	Pending(ctx context.Context, tenant string) ([]Request, error)
	Approve(ctx context.Context, tenant string, id int64, who string) error
	Refuse(ctx context.Context, tenant string, id int64, who string) error
	Revoke(ctx context.Context, tenant, board, who, why string) error
	// Forget takes the board and its ban out of the registry; what it sent stays.
	Forget(ctx context.Context, tenant, board, who, why string) error
}
