// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package control joins what can be told to a board: whose word counts (authority), what
// it shall be (shadow), what it is to do once (commands), what it moves (device/output),
// what it decides alone (device/rule, autonomy), and the people before it (local).
//
//	fleet  -> link inbox -> authority: signed? -> shadow or commands
//	person -> local socket -> autonomy: allowed? -> commands or shadow
//	sensor -> newest values -> rules, interlocks -> autonomy -> commands
//	commands -> outputs, settings, worker;  all of it -> reported section of the twin
//
// The parts do not know each other; the arrows are here and nowhere else.
package control
