// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package pace is the clock of a class's committer: it does what is due, then
// sleeps until the next thing is, or until it is kicked.
package pace

import (
	"context"
	"time"
)

// Duty is something to do at a time; Due gives the zero time for: nothing to do.
type Duty struct {
	Due func() time.Time
	Do  func()
}

// Run does the duties, the first that is due first, until the context ends. kick
// makes it ask anew when they are due. idle is called when nothing was due for the
// time of most.
func Run(ctx context.Context, kick <-chan struct{}, most time.Duration, idle func(), duties ...Duty) {
	t := time.NewTimer(most)
	defer t.Stop()
next:
	for {
		wait := most
		for _, d := range duties {
			at := d.Due()
			if at.IsZero() {
				continue
			}
			left := time.Until(at) // the clock is read after Due, which may say: now
			if left <= 0 {
				d.Do()
				continue next
			}
			wait = min(wait, left)
		}
		t.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-kick:
		case <-t.C:
			idle()
		}
	}
}
