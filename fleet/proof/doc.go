// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package proof asks boards with a TPM what they run, and checks what they answer.
//
// The gateway tells of each hello and is given a nonce to ask with where an
// attestation is due; what the board answers is checked with the attestation key
// that the registry holds, and kept there. Nothing of it may harm the link: what is
// not believed is counted, written down and shown, and the board goes on publishing.
//
// # What a level means
//
// [Claimed]: the board says so. [Bound]: the TPM that the board enrolled with signed
// what the board says, now. It is this board's word; its programs may lie to their
// TPM. [Measured]: besides, the boot wrote into the TPM what it started, so what the
// TPM signed of the boot is not the board's word.
//
// # What is held against a board
//
// A question is of one connection and good for one answer. An answer must be for it,
// over the report that comes with it, by the key on record, over the values that come
// with it, of the boot and release that the hello told, and of a TPM whose clock did
// not go back: a TPM that is copied or put back to an earlier state shows by that.
package proof
