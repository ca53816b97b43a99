// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package attacks holds updates to the attacks that Uptane and TUF name, one test each, and
// to the loss of each role's key alone. Keys are real, the board is what it knows: its
// key set, its floor, the attempts that it has seen.
//
// What needs a network, a disk or a chip to be attacked is in the packages that own those.
package attacks
