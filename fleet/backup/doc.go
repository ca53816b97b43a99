// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package backup writes all that a fleet's server needs into one file, while the server
// runs, and makes a data folder of it again on another machine.
//
// A backup is a line of text, a line of JSON ([Head]) and a tar, which ends with the
// SHA-256 of every file in it. With a recovery key (fulmar recovery new) the tar is
// sealed to it by HPKE (RFC 9180: X25519, HKDF-SHA256, AES-256-GCM) in pieces, so that
// only the private half reads it and nobody can change or shorten it unseen.
//
// Databases are copied as of one moment each, the ledger first: what it knows of a board
// the registry, copied later, knows too. Objects of releases are
// copied after the registry, pictures last. The time series (telemetry/) are left out: they are
// a projection of the ledger, and their database writes while it is copied.
package backup
