// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package commands is the commands of one board: it takes them from the fleet, from people
// at the board and from rules, has package command/dispatch do each once, and brings the
// results to the fleet. The commands that every board has are here; what they act upon is
// given as small interfaces.
//
// The journal is DATA/commands.journal. What is not told to the fleet waits there, for as
// long as the partition lasts, and in bounds; see docs/commands.md for what is promised.
package commands
