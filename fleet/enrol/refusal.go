// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"fulmar/fleet/audit"
	"fulmar/fleet/ca"
	"fulmar/fleet/registry"
)

// Code names why a request was refused; it never changes its meaning.
type Code string

// The codes.
const (
	CodeRequest   Code = "bad-request"       // not of the form asked for
	CodeCSR       Code = "csr"               // the certificate request
	CodeName      Code = "csr-name"          // the certificate request names another board
	CodeClaim     Code = "tpm-claim"         // a key or statement of the claim is not what it has to be
	CodeMaker     Code = "ek-certificate"    // an endorsement certificate of another key, or forged
	CodeProof     Code = "tpm-proof"         // the challenge was not answered by the TPM of the claim
	CodeChallenge Code = "challenge"         // unknown, used or too late
	CodeToken     Code = "token"             // unknown, used up, expired, for another board
	CodeCert      Code = "certificate"       // at renewal: unknown or replaced
	CodeOtherKey  Code = "other-key"         // at renewal: not the key that was proven
	CodeNameTaken Code = "name-taken"        // enrolled with another key, and no person may be asked
	CodeElsewhere Code = "elsewhere"         // TPM or key of another board, and no person may be asked
	CodeRevoked   Code = "revoked"           //
	CodeByPerson  Code = "refused"           // by a person
	CodeLeast     Code = "needs-tpm"         // the fleet takes no software keys
	CodeFull      Code = "full"              // a bound is reached
	CodeTooMany   Code = "too-many-requests" // of one address
)

// Codes lists them all, for the metrics.
func Codes() []Code {
	return []Code{
		CodeRequest, CodeCSR, CodeName, CodeClaim, CodeMaker, CodeProof, CodeChallenge, CodeToken, CodeCert, CodeOtherKey,
		CodeNameTaken, CodeElsewhere, CodeRevoked, CodeByPerson, CodeLeast, CodeFull, CodeTooMany,
	}
}

// Refusal is the error of a request that was refused. Its text is ours and repeats
// nothing of the request.
type Refusal struct {
	Code Code
	Say  string // for the board and the person who reads its log
	Why  error  // more, for our log; may be nil
}

func (r *Refusal) Error() string { return string(r.Code) + ": " + r.Say }

// Unwrap gives Why.
func (r *Refusal) Unwrap() error { return r.Why }

func refuse(code Code, why error, format string, args ...any) error {
	return &Refusal{code, fmt.Sprintf(format, args...), why}
}

// refusal puts the errors of the authority and the registry into words; others stay.
func refusal(err error) error {
	var r *Refusal
	switch {
	case err == nil || errors.As(err, &r):
		return err
	case errors.Is(err, ca.ErrBadRequest):
		return refuse(CodeCSR, err, "The certificate request is not acceptable: wants PEM PKCS #10 with an ECDSA P-256, P-384 or Ed25519 key")
	case errors.Is(err, registry.ErrRevoked):
		return refuse(CodeRevoked, nil, "This board was revoked; only a person can let it in again: with a token for this board, or by wiping it")
	case errors.Is(err, registry.ErrRefused):
		return refuse(CodeByPerson, nil, "A person refused this board; ask at the fleet if that was a mistake")
	case errors.Is(err, registry.ErrElsewhere):
		return refuse(CodeElsewhere, nil, "The board's TPM or key is that of a board with another name; wipe that one at the fleet first, or give this one a key of its own")
	case errors.Is(err, registry.ErrNameTaken):
		return refuse(CodeNameTaken, nil, "A board of this name is enrolled with another key; choose another name, or ask for a token for this board")
	case errors.Is(err, registry.ErrOtherKey):
		return refuse(CodeOtherKey, nil, "A board with a TPM renews with the key that was proven to be in it; enrol again to bring a new one")
	case errors.Is(err, registry.ErrUnknown):
		return refuse(CodeToken, nil, "The join token is none, unknown, used up, expired or for another board; ask the fleet for a new one")
	case errors.Is(err, registry.ErrTooMany):
		return refuse(CodeFull, err, "The fleet takes no more boards or requests at the moment; a person has to decide on those that wait")
	}
	return err
}

// Refusals from strangers are bounded in the audit log, which keeps 100,000 rows: at
// this pace, day and night, a stranger needs two months to push a row out.
const (
	auditRefusals = 60
	auditWindow   = time.Hour
)

// book counts refusals and writes some down.
type book struct {
	counts map[Code]*atomic.Uint64 // all codes; never written after its making

	mu      sync.Mutex
	began   time.Time
	written int
	omitted int
}

func newBook() *book {
	b := &book{counts: map[Code]*atomic.Uint64{}}
	for _, c := range Codes() {
		b.counts[c] = new(atomic.Uint64)
	}
	return b
}

// due tells whether a refusal at now is written down, and how many before it were not.
func (b *book) due(now time.Time) (bool, int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	omitted := 0
	if now.Sub(b.began) >= auditWindow || now.Before(b.began) {
		omitted, b.began, b.written, b.omitted = b.omitted, now, 0, 0
	}
	if b.written >= auditRefusals {
		b.omitted++
		return false, 0
	}
	b.written++
	return true, omitted
}

// note counts a refusal, logs it and writes it to the audit log where that is due.
func (d *Desk) note(ctx context.Context, from netip.Addr, board string, r *Refusal) {
	d.book.counts[r.Code].Add(1)
	due, omitted := d.book.due(d.now())
	args := []any{"board", board, "remote", from, "code", string(r.Code), "reason", r.Say}
	if r.Why != nil {
		args = append(args, "detail", r.Why.Error())
	}
	if !due {
		d.log.Debug("enrolment refused", args...)
		return
	}
	d.log.Warn("enrolment refused", args...)
	why := fmt.Sprintf("%s: %s", r.Code, r.Say)
	if omitted > 0 {
		why = fmt.Sprintf("%s (%d refusals before it are not listed)", why, omitted)
	}
	if err := d.reg.Note(ctx, audit.Entry{Who: "address " + from.String(), Tenant: registry.DefaultTenant, Board: board, What: "refuse-enrol", Why: why}); err != nil {
		d.log.Error("audit log not written", "error", err.Error())
	}
}
