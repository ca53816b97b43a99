// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package local lets people at the board see it and change it, with or without a fleet:
// HTTP/1.1 with JSON on a unix socket in the board's data folder. docs/local.md is for
// those who use it.
//
// Who asks is what the kernel says of the other end of the connection (package peercred),
// never what a request says. Roles come from the config by user and group. A person whose
// user may not change anything can still give a command with a key of role operator, over
// a challenge that is good once.
//
// # Bounds
//
// Connections, in all and for each user; bytes of a request; the time that a request, one
// write and a wait may take; challenges. What is refused is told in words, and written
// into the log, with a bound on that too.
package local
