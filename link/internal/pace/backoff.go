// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package pace

import "time"

const (
	backoffCap   = 5 * time.Minute
	backoffLeast = 15 * time.Second // the cap of the smallest fleets
	capWindows   = 8                // the cap in windows: three doublings
)

// Backoff is full jitter: the first try falls anywhere in the window, each further
// one in twice the one before, up to a cap. The cap grows with the window, so that a
// fleet of ten boards need not be away for minutes after a short outage. u is 0 to 1.
func Backoff(window time.Duration, try int, u float64) time.Duration {
	limit := max(min(max(capWindows*window, backoffLeast), backoffCap), window) // a very large fleet has a longer window
	span := window
	for range min(try, 20) {
		span = min(2*max(span, time.Second), limit)
	}
	return time.Duration(u * float64(min(span, limit)))
}

// Millis is a duration from the wire, cut to a bound before it can overflow.
func Millis(ms int64, most time.Duration) time.Duration {
	return time.Duration(min(max(ms, 0), most.Milliseconds())) * time.Millisecond
}
