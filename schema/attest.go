// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"fmt"
	"slices"
)

// Attestation is a board's proof on ChanAttest, made when a [HelloAck] brings a
// nonce: a TPM's quote over what the board says is running.
type Attestation struct {
	V     uint8  `cbor:"1,keyasint"`
	Nonce []byte `cbor:"2,keyasint"` // of the HelloAck
	// Report is an encoded [AttestReport]; the quote is over its SHA-256.
	Report    []byte   `cbor:"3,keyasint"`
	Attested  []byte   `cbor:"4,keyasint"` // TPMS_ATTEST, signed by the board's AK over AttestPCRs
	Signature []byte   `cbor:"5,keyasint"` // TPMT_SIGNATURE
	PCRs      [][]byte `cbor:"6,keyasint"` // values in rising order, 32 bytes each
}

// Bounds of an attestation, in bytes.
const (
	MaxAttestNonce  = 32
	MaxAttestReport = 8 << 10
	MaxTPMStatement = 1024 // of Attested and of Signature; 145 and 72 on a TPM with P-256
	MaxReportModels = 32
	MaxReportFiles  = 32
)

// Validate checks the bounds; what is proven is for tpm/attest.
func (a *Attestation) Validate() error {
	if err := checkVersion("attestation", a.V); err != nil {
		return err
	}
	if len(a.Nonce) == 0 || len(a.Nonce) > MaxAttestNonce || len(a.Report) == 0 || len(a.Report) > MaxAttestReport ||
		len(a.Attested) == 0 || len(a.Attested) > MaxTPMStatement || len(a.Signature) == 0 || len(a.Signature) > MaxTPMStatement {
		return fmt.Errorf("attestation with a nonce of %d bytes, a report of %d and a statement of %d and %d", len(a.Nonce), len(a.Report), len(a.Attested), len(a.Signature))
	}
	if len(a.PCRs) != len(AttestPCRs()) || slices.ContainsFunc(a.PCRs, func(v []byte) bool { return len(v) != 32 }) {
		return fmt.Errorf("attestation with %d PCR values, wants %d of 32 bytes", len(a.PCRs), len(AttestPCRs()))
	}
	return nil
}

// AttestReport is what a board says is running. The quote makes it this board's
// word; it is not more than a word unless the boot chain is measured.
type AttestReport struct {
	V       uint8  `cbor:"1,keyasint"`
	Release string `cbor:"2,keyasint"` // version of fulmard
	Program []byte `cbor:"3,keyasint"` // SHA-256 of the running fulmard
	// Models maps the name of each model that is loaded to the SHA-256 of its package.
	Models   map[string][]byte `cbor:"4,keyasint,omitempty"`
	Boot     uint64            `cbor:"5,keyasint"` // as in Time
	Kind     string            `cbor:"6,keyasint"` // of the TPM: discrete, firmware, virtual, unknown
	Maker    string            `cbor:"7,keyasint,omitempty"`
	Firmware string            `cbor:"8,keyasint,omitempty"`
	// Rollback: whether the TPM's counters resist the putting back of old state: yes, no, unknown.
	Rollback   string            `cbor:"9,keyasint"`
	Slot       string            `cbor:"10,keyasint,omitempty"` // fulmard runs from it
	Components map[string]string `cbor:"11,keyasint,omitempty"` // their versions
	Floor      uint64            `cbor:"12,keyasint,omitempty"`
	// Files are SHA-256 of files of other components, by component/name: "worker/fulmar-infer".
	Files map[string][]byte `cbor:"13,keyasint,omitempty"`
}

// Validate checks the bounds.
func (r *AttestReport) Validate() error {
	if err := checkVersion("attestation report", r.V); err != nil {
		return err
	}
	texts, bad := []string{r.Release, r.Kind, r.Maker, r.Firmware, r.Rollback}, len(r.Program) != 32 || len(r.Slot) > 2*MaxName
	for _, m := range []map[string][]byte{r.Models, r.Files} {
		for n, h := range m {
			texts, bad = append(texts, n), bad || n == "" || len(h) != 32
		}
	}
	for n, version := range r.Components {
		texts = append(texts, n, version)
	}
	if bad || len(r.Files) > MaxReportFiles || max(len(r.Models), len(r.Components)) > MaxReportModels || slices.ContainsFunc(texts, func(s string) bool { return len(s) > MaxName }) {
		return fmt.Errorf("attestation report of %q: a program's hash of %d bytes, %d models, %d components, or a text or hash is out of bounds", clip(r.Release), len(r.Program), len(r.Models), len(r.Components))
	}
	return nil
}
