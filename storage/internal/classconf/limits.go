// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package classconf

import "time"

// Limits of a class, with their reasons.
const (
	// BatchBytes bounds one commit: bbolt holds the whole batch in memory.
	BatchBytes = 256 << 10
	// QueueBytes bounds the bytes waiting: fulmard's whole memory is 12 MB.
	QueueBytes = 1 << 20
	// CursorEvery is how often a cursor is written at most. After a crash the
	// acknowledgements of that time are forgotten and those records sent again.
	CursorEvery = 500 * time.Millisecond
	// CursorLazy is the same where the cursor would free nothing on disk: a write
	// a minute costs the flash nothing, and what a crash forgets, the fleet knows.
	CursorLazy = time.Minute
	// SpillAfter is how long a metric waits in memory for its acknowledgement while
	// the link is up: several round trips of a bad mobile network.
	SpillAfter = 2 * time.Second
	// Gather is how long the reader is not told of metrics in memory, so that a
	// message carries more than one.
	Gather = 100 * time.Millisecond
	// RetryMin and RetryMax bound the wait between tries at a disk that fails.
	RetryMin, RetryMax = time.Second, time.Minute
	// AdaptMax bounds how far a slow disk may stretch the linger (4 commits' time).
	AdaptMax = 250 * time.Millisecond
	// MaxOwed bounds the gaps that wait to be written because the disk fails.
	MaxOwed = 64
	// MaxGaps bounds the gap records that one loss may write; what is between
	// them and acknowledged is then told as lost too, which the fleet ignores.
	MaxGaps = 16
	// MaxIntervals bounds the acknowledged intervals above the cursor; the link's
	// window makes at most 64 and each gap may make one.
	MaxIntervals = 4096
	// CommitSlack is what one commit may take besides its records: the six pages
	// of a new segment, and the pages on the way to the records.
	CommitSlack = 12 * 4096
	// GapReserve is the part of the alarm quota that only gap records may fill.
	GapReserve = 8
)
