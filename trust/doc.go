// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package trust says who may decide what: signed envelopes, sets of keys with roles
// and their rotation, signers wherever their key is held, and a floor that only rises.
//
// What is signed is an [Envelope]: raw bytes, their type and signatures over both
// (DSSE, https://github.com/secure-systems-lab/dsse). A [KeySet] says which keys
// have which [Role] and how many of them must sign; [KeySet.Verify] gives the bytes
// only after that, so nothing is parsed that nobody vouched for. Only Ed25519 and
// ECDSA P-256 with SHA-256 are known.
//
// Nothing here asks a clock. A key is good for a range of epochs; the epoch is the
// [Floor] of whoever verifies, a number that only rises.
package trust
