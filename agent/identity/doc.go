// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package identity is who a board is to its fleet: a private key made on first
// start, a certificate from the fleet's authority, and how both are got, checked
// and renewed. The key sits behind [Key]: in the board's TPM ([TPMKey]), or in a file
// where there is none; see [Where] for how that is decided, once.
//
// # Enrolment
//
// A board asks with a join token, with what its TPM proves, or for a person's approval:
//
//	POST enrol   request, with a claim of the TPM     -> certificate, or a challenge, or wait
//	POST prove   the challenge opened, and a quote    -> certificate, or wait
//
// and asks again until it is in ([Enroller.Enrol]). First contact is pinned: the join
// token or the config carries the hash of the fleet's authority, so a board never gives
// its token to anybody else. From then on all is mutual TLS 1.3, and the certificate is
// renewed in time ([Enroller.Keep]), after its end too.
package identity
