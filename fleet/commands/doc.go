// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package commands gives commands to boards and keeps what became of each, until every
// board has said its last word on it.
//
// # What is kept, and when
//
// Each step of a command on a board is a row before anything is done about it: it is
// "sent" in the database before a byte leaves, and a board's word is stored before it is
// acknowledged. A server that dies at any point goes on from the rows.
//
// # Order
//
// A board takes a command only where its number is above all that came before, and
// remembers it by its id. So that none overtakes another, the next one leaves when the
// board has said that it has the one before, and numbers are given when a command
// leaves. What jumps the queue (a safety command, a cancel) may overtake one that was on
// its way; that one then leaves again with a new number and its old id. This is safe
// because a board forgets an id only after its last word is stored here.
//
// # Whose word counts
//
// The board's last word is the truth and never replaced. Where it does not come, the
// fleet says expired (its time is over and the board did not say that it has it),
// cancelled (before it left) or unknown; the board's word may still come, and replaces
// that.
//
// # After a restore
//
// A fleet that was put back from a backup begins nothing that it finds unsettled: it may
// have been done since. It asks the board with an envelope whose time is over, which is
// answered with what the board knows and can have no effect.
package commands
