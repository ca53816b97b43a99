// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package accounts keeps who may come in: people with a password and a second factor,
// where they are logged in, and the tokens of programs. It lies in the registry's
// database, so that each act and its row in the audit log are one transaction.
//
// What lets somebody in is kept as a hash: passwords as Argon2id, the rest, which is
// random and long, as SHA-256. The secret of a second factor has to be read to check a
// code and is kept as it is; the file is readable by the server alone.
//
// A person's name is one for the whole server and says which tenant they are of.
package accounts
