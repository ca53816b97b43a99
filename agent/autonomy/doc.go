// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package autonomy says what a board may do on its own while its fleet cannot be asked,
// for how long, and what it goes back to when that time is over.
//
//	connected -- grace without the fleet --> alone -- a lease ends --> over -- done --> safe
//	    ^                                                                                |
//	    +---------------- the fleet can be asked again, for a while ---------------------+
//
// Alone, an actor of the board (a rule, a person) may give the commands that an
// [Allowance] names for it, until its lease is over; then the outputs that it names go to
// their safe states, or the whole board is shut down for safety. That is always allowed,
// and so is what the fleet has signed.
//
// When the fleet is back, what was allowed is allowed again, rules that are for a board
// alone end and do their else, and leases begin anew the next time. What went to a safe
// state stays there until somebody says otherwise: the board does not know why it was
// cut off.
//
// # Time
//
// Spans are time that the board runs, by the monotonic clock: nobody's wall clock is
// asked, and a board without a battery clock works the same. What has passed is on the
// disk and goes on after a restart; one without a stop in order counts for the longest
// that may have been lost.
package autonomy
