// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package keyring holds what the fleet signs commands and settings with, and the key
// sets by which its boards know that (see trust).
//
// A folder is made at the first start: a root key of this server, a command key, and key
// set 1, which names both. The command key is a file, or where a command.ref stands
// before the first start, what that names (exec:..., tpm:...). Every later set is signed
// by enough root keys of the one before it and by enough of its own, so boards follow
// from any of them. A team that holds its root elsewhere installs a set without the
// server's root; from then on this server, or whoever takes it over, names no keys.
//
// A [Keyring] does not change while it is open: what [Install] and [RotateCommand] do is
// in force from the server's next start on.
package keyring
