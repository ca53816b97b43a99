// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package enrol lets boards into the fleet: it checks what a board claims, makes the
// TPM of that board prove it, and has the registry decide.
//
//	software key:  request -> registry decides -> certificate, or wait for a person
//	TPM:           claim -> challenge that only this TPM opens -> proof -> the same
//
// Nothing of a claim is believed before its proof: a challenge is good once, for five
// minutes, and only with the attestation key of the claim in the TPM whose endorsement
// key the claim names. Challenges are in memory: after a restart boards ask anew.
//
// A [Desk] may be used from several goroutines. Every refusal has a code and a
// sentence, is counted, and is written to the audit log, some a hour one by one.
package enrol
