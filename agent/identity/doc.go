// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package identity is who a board is to its fleet: a private key made on first
// start, a certificate from the fleet's authority, and how both are got, checked
// and renewed. The key sits behind [Key]; today it is a file, later a TPM.
//
// First contact is pinned: the join token carries the hash of the fleet's
// authority, so a board never gives its token to anybody else. From then on all
// is mutual TLS 1.3.
package identity
