// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package keyring holds what the fleet signs with, and the key sets by which its boards
// know that (see trust): commands and settings with the command key, which board runs
// what with the director's, and what is newest with the freshness key.
//
// A folder is made at the first start: a root key of this server, a key for each of these
// roles, and key set 1, which names them. A key is a file, or where a ROLE.ref stands
// before it is made, what that names (exec:..., tpm:...). Every later set is signed
// by enough root keys of the one before it and by enough of its own, so boards follow
// from any of them. A team that holds its root elsewhere installs a set without the
// server's root; from then on this server, or whoever takes it over, names no keys.
//
// A [Keyring] does not change while it is open: what [Install], [Rotate], [Complete] and
// [AddRelease] do is in force from the server's next start on.
package keyring
