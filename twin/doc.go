// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package twin keeps what a board shall be, what it is, and what somebody changed on it
// while the fleet could not be asked, so that both sides come to the same whatever was
// lost between them.
//
// A twin has three sections. Reported is what the board is: the board alone writes it.
// Desired is what it shall be: the fleet alone writes it, signed as a whole. Override is
// what was changed on the board, key by key, for a time (a lease) or until it is cleared.
// What holds is computed from desired and override, the same way on both sides.
//
// # Who knew what
//
// Each edit has a name, its dot: the nth edit of an actor. An actor is one run of the
// program that edits, so no name is used twice, also not by a board whose disk was put
// back or by a fleet that was restored. An edit says which edits of its key it has seen;
// those it replaces. Two edits that have not seen each other are in conflict, and the
// key's [Policy] decides, or holds both until a person does. No clock is asked.
// (Dotted version vectors: Preguiça and others, 2010, arXiv:1011.5808.)
//
// The section override is a set from which edits are removed. It keeps no tombstones:
// its clock counts the edits that were known, and one that is counted and not there was
// removed (an optimized OR-set: Bieniusa and others, 2012, arXiv:1210.3368).
//
// # Healing
//
// On each connection the board tells the digests of its sections. What differs is sent
// whole, so nothing depends on a change having arrived: two messages each way, each
// within the bounds of package schema. Between, changes travel as they are made.
//
// [Board] and [Fleet] are one side each. They do no input or output, start nothing, ask
// no clock, and are not safe for concurrent use: who holds one saves it before it lets
// others see what it did.
package twin
