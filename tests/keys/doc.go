// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package keys is the drills of docs/keys.md with the real programs on loopback: its
// commands are run as they are written, an authority is followed by another, and a
// server is lost and restored on another machine.
package keys
