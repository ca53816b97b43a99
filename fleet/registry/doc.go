// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package registry knows who belongs to the fleet: boards and their certificates,
// join tokens, users with their sessions, and API tokens.
//
// Secrets are kept as hashes only: passwords with Argon2id, random tokens with
// SHA-256. A [Registry] may be used from several goroutines and from several
// processes at once: the command line works on the same file while the server
// runs, and the rights of that file are its authority.
package registry
