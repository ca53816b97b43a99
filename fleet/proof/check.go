// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"fulmar/fleet/registry/proofs"
	"fulmar/schema"
	"fulmar/tpm/attest"
)

// How much is proven of what a board says it runs.
const (
	Claimed  = "claimed"  // nothing: it says so
	Bound    = "bound"    // its TPM signed that it says so
	Measured = "measured" // and its boot is measured into the TPM
)

// Why an attestation was not believed.
const (
	WhyMalformed = "malformed" // it cannot be read
	WhyNonce     = "nonce"     // it answers another question
	WhyKey       = "key"       // it is signed with another key
	WhyReplayed  = "replayed"  // what was signed is another question or another report
	WhyPCRs      = "pcrs"      // what was signed is other PCRs or other values
	WhyHello     = "hello"     // its report is of another boot or release than the hello
	WhyRewound   = "rewound"   // the TPM's clock went back
)

// Say is a reason as a sentence for people.
func Say(why string) string {
	switch why {
	case "":
		return ""
	case WhyNonce:
		return "It answered another question than the one that was asked: an old proof was sent again."
	case WhyKey:
		return "It was not signed by the TPM that this board enrolled with."
	case WhyReplayed:
		return "The TPM signed another question or another report: an old proof was sent again, or the report was changed."
	case WhyPCRs:
		return "The values sent are not the ones that the TPM signed."
	case WhyHello:
		return "Its report is of another boot or release than the board told when it connected."
	case WhyRewound:
		return "The clock of its TPM went back: an old state of the TPM was put back, or the TPM was copied."
	}
	return "It cannot be read."
}

// bootPCRs is how many of schema.AttestPCRs, the first ones, are the boot's.
const bootPCRs = 8

func hash(b []byte) [32]byte { return sha256.Sum256(b) }

// Report reads the report of a proof; an empty one where there was no good
// attestation.
func Report(p proofs.Proof) (*schema.AttestReport, error) {
	r := new(schema.AttestReport)
	if len(p.Report) == 0 {
		return r, nil
	}
	return r, schema.Decode(p.Report, r)
}

// check holds an attestation with the right nonce against the key and against what
// was known; why is "" where it is good.
func check(old proofs.Proof, ak []byte, told said, a *schema.Attestation, now time.Time) (_ proofs.Proof, why string, _ error) {
	sum := hash(a.Report)
	clock, err := attest.VerifyQuote(ak, attest.Statement{Attested: a.Attested, Signature: a.Signature}, a.Nonce, sum[:],
		attest.NewPCRs(schema.AttestPCRs()...), a.PCRs)
	if err != nil {
		return old, whyOf(err), err
	}
	r := new(schema.AttestReport)
	if err := schema.Decode(a.Report, r); err != nil {
		return old, WhyMalformed, err
	}
	if r.Boot != told.boot || r.Release != told.release {
		return old, WhyHello, fmt.Errorf("report of boot %x and release %q, hello of boot %x and release %q", r.Boot, r.Release, told.boot, told.release)
	}
	p := proofs.Proof{
		AK: hash(ak), Good: now, Since: now, Boot: r.Boot, First: clock.Resets, Resets: clock.Resets, Restarts: clock.Restarts, Millis: clock.Millis,
		Level: level(a.PCRs), Chain: [32]byte(attest.Digest(a.PCRs[:bootPCRs])), Report: a.Report,
		Refused: old.Refused, RefusedAt: old.RefusedAt,
	}
	if old.AK != p.AK {
		return p, "", nil // another TPM, or this one cleared: nothing to compare with
	}
	if rewound(old, p) {
		return old, WhyRewound, fmt.Errorf("TPM's clock at boot %d, start %d, %d ms, was at %d, %d, %d", p.Resets, p.Restarts, p.Millis, old.Resets, old.Restarts, old.Millis)
	}
	p.First = old.First
	if was, err := Report(old); err == nil && old.Level == p.Level && old.Chain == p.Chain && was.Release == r.Release && bytes.Equal(was.Program, r.Program) {
		p.Since = old.Since
	}
	return p, "", nil
}

// rewound tells whether a TPM is at an earlier moment than it was: it counts its
// resets, the restarts since, and the milliseconds, and none of them ever falls
// before the one ahead of it rises. To both counters it adds a number that is secret
// and the same for one key (TPM 2.0 part 3, attestation commands), so they are
// compared around the end of their range.
func rewound(was, is proofs.Proof) bool {
	if d := int32(is.Resets - was.Resets); d != 0 {
		return d < 0
	}
	if d := int32(is.Restarts - was.Restarts); d != 0 {
		return d < 0
	}
	return is.Millis < was.Millis
}

// level tells by the boot's PCRs whether anything measured the boot: without, all of
// them keep the value of the reset.
func level(values [][]byte) string {
	for _, v := range values[1:bootPCRs] {
		if !bytes.Equal(v, values[0]) {
			return Measured
		}
	}
	return Bound
}

func whyOf(err error) string {
	switch {
	case errors.Is(err, attest.ErrSignature), errors.Is(err, attest.ErrKey):
		return WhyKey
	case errors.Is(err, attest.ErrNonce):
		return WhyReplayed
	case errors.Is(err, attest.ErrPCRs):
		return WhyPCRs
	}
	return WhyMalformed
}
