// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"errors"
	"time"

	"fulmar/storage/internal/classconf"
)

// Config sets up one class.
type Config = classconf.Config

// What a caller may want to tell apart; see the same names in storage.
var (
	ErrFull    = errors.New("class is full")
	ErrUnknown = errors.New("unknown range")
	ErrClosed  = errors.New("spool is closed")
)

// Limits of a class, with their reasons.
const (
	// batchBytes bounds one commit: bbolt holds the whole batch in memory.
	batchBytes = 256 << 10
	// queueMax bounds the records waiting for a commit in one class. For metrics
	// this is what a stalled disk may hold back in memory, with queueBytes.
	queueMax = classconf.QueueMax
	// queueBytes bounds the bytes waiting: fulmard's whole memory is 12 MB.
	queueBytes = 1 << 20
	// cursorEvery is how often a cursor is written at most. After a crash the
	// acknowledgements of that time are forgotten and those records sent again.
	cursorEvery = 500 * time.Millisecond
	// cursorLazy is the same where the cursor would free nothing on disk: a write
	// a minute costs the flash nothing, and what a crash forgets, the fleet knows.
	cursorLazy = time.Minute
	// spillAfter is how long a metric waits in memory for its acknowledgement while
	// the link is up: several round trips of a bad mobile network.
	spillAfter = 2 * time.Second
	// gather is how long the reader is not told of metrics in memory, so that a
	// message carries more than one.
	gather = 100 * time.Millisecond
	// retryMin and retryMax bound the wait between tries at a disk that fails.
	retryMin, retryMax = time.Second, time.Minute
	// adaptMax bounds how far a slow disk may stretch the linger (4 commits' time).
	adaptMax = 250 * time.Millisecond
	// maxOwed bounds the gaps that wait to be written because the disk fails.
	maxOwed = 64
	// maxGaps bounds the gap records that one loss may write; what is between
	// them and acknowledged is then told as lost too, which the fleet ignores.
	maxGaps = 16
	// maxIntervals bounds the acknowledged intervals above the cursor; the link's
	// window makes at most 64 and each gap may make one.
	maxIntervals = 4096
	// commitSlack is what one commit may take besides its records: the six pages
	// of a new segment, and the pages on the way to the records.
	commitSlack = 12 * 4096
	// gapReserve is the part of the alarm quota that only gap records may fill.
	gapReserve = 8
)
