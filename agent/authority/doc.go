// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package authority knows whose word a board takes: commands, settings, and orders of
// people who stand before it, all signed by keys of its fleet's key set (see trust).
//
// The first set is taken from the fleet that the board enrolled with, over a connection
// that proves that fleet. From then on only the root keys of the set in force name the
// next one: a fleet that was taken over cannot name others where its root is elsewhere,
// and an older set that is played back changes nothing. A set that is damaged on the
// disk is not replaced by whatever comes first: the board takes no commands, says so,
// and does all else.
package authority
