// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package classconf

import (
	"time"

	"fulmar/schema"
)

// Stats tells of one class. Counters count since Open.
type Stats struct {
	Class       schema.Class
	Epoch       uint64
	Segments    int           // files in the chain
	Bytes       int64         // in those files
	QuotaBytes  int64         // bound of Bytes
	Outstanding uint64        // records on disk and not settled
	Queued      int           // records waiting for a commit
	OldestAge   time.Duration // of the oldest unsettled record, by the wall clock; 0: none, or the disk is busy
	// LossWindow is how much of the class a crash now could lose: zero for the
	// durable classes, else the linger or, if longer, the age of what waits.
	LossWindow    time.Duration
	Appended      uint64     // records on disk
	AppendedBytes uint64     // their payload
	Acked         uint64     // records settled by Ack
	Rejected      uint64     // records refused because the queue was full
	Lost          [16]uint64 // records lost, by schema.Reason
	Owed          int        // gaps that wait to be written because the disk fails
	Commits       uint64
	CommitErrors  uint64  // failed commits and cursor writes
	CommitSeconds float64 // a commit's time, moving average over about 8
	Quarantined   uint64  // segments moved to quarantine
}
