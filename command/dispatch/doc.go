// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package dispatch does each command on a board once, and tells how it ended, whatever is
// cut, resent, reordered or crashes in between.
//
// A command is signed bytes from the fleet, or comes from a person or a rule on the board,
// whom the caller has authenticated. It is accepted, begun and ended, and each of that is
// in the journal before it has an effect or is told. What was begun and not ended when the
// process died is judged by its handler: one that may be repeated is done again, one that
// can ask whether its effect is there asks, and any other is ended as Unknown, for a
// person to look.
//
// # Order and replays
//
// Each actor numbers its commands. A number that is not above the highest one that came
// from its actor is never accepted, so nothing can be replayed, and the order of an actor
// is kept. One that is known gets its result told again. The board's own actors (a person,
// a rule, an operator's key) are numbered here; there may be any number of them.
//
// # Time
//
// A command carries when it ends to be valid, in the fleet's time. Where a board does not
// know that time, it does nothing that could be too old. It is asked again before the
// command is begun.
//
// # Lanes
//
// Commands of the safety class have a lane of their own: what else runs is cancelled and
// begins no more until they have ended. All others are done one after the other, except
// long ones and those that are over at once, which run beside, a few at a time.
//
// # What waits for the fleet
//
// Results wait for the fleet in bounds, and never cost a command of the board itself: when
// there is no more room, the oldest results of what the board gave itself become one count,
// told in their place. What the fleet gave is refused then, for it gives it again; safety
// never is.
package dispatch
