// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package shadow is a board's side of its twin at work: package twin decides, this one
// keeps it on the disk, speaks with the fleet, puts what holds over the board's config, and
// goes back from what makes the board unhealthy.
//
// # Order
//
// A change is made on a copy, saved, and only then put in place, applied and told. What
// the disk does not take has not happened: who set it is told so, and what the fleet sent
// is asked for again. What the board reports of itself is not saved: the next run reports
// it anew, so it costs no write.
//
// # Trial
//
// What changes the board's behaviour is on trial for a time, and a mark of it is on the
// disk before it is applied. If the board gets a cause of ill health that it had not
// before, or starts anew twice within the trial, what is on trial is undone, and the fleet
// is told why. So no setting can keep a board from coming up.
//
// A [Shadow] is safe for use by many goroutines.
package shadow
