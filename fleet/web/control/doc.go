// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package control is the part of the page where people tell boards what to do: commands,
// what a board shall be, and where a board and the fleet want different things.
//
// What only looks is the list of commands, one command with its boards, one board's twin
// with its outputs and history, and the conflicts. What changes something is a form on
// them, and the form of a new command, which says how many boards it is for before
// anything is given.
package control
