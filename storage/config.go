// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"fulmar/schema"
)

// What a caller may want to tell apart.
var (
	// ErrLocked: another process has the spool open.
	ErrLocked = errors.New("spool is in use by another process")
	// ErrNewer: a newer fulmar wrote the spool; this one must not touch it.
	ErrNewer = errors.New("spool was written by a newer version")
	// ErrFull: the class has reached its quota and may not evict (alarms), or the
	// queue of metrics is full because the disk takes nothing.
	ErrFull = errors.New("class is full")
	// ErrUnknown: an acknowledgement of numbers or an epoch never given out.
	ErrUnknown = errors.New("unknown range")
	// ErrClosed: the spool is closed.
	ErrClosed = errors.New("spool is closed")
)

// Limits of the spool, with their reasons.
const (
	// lockWait bounds the wait for another process to let go of the spool: long
	// enough for the end of a restarting fulmard's fsync, short for an operator.
	lockWait = 1500 * time.Millisecond
	// batchBytes bounds one commit: bbolt holds the whole batch in memory.
	batchBytes = 256 << 10
	// queueMax bounds the records waiting for a commit in one class. For metrics
	// this is what a stalled disk may hold back in memory, with queueBytes.
	queueMax = 4096
	// queueBytes bounds the bytes waiting: fulmard's whole memory is 12 MB.
	queueBytes = 1 << 20
	// tailBytes is what each class keeps in memory of its newest records, so that
	// sending live does not read the disk: two messages of the link.
	tailBytes = 128 << 10
	// cursorEvery is how often a cursor is written at most. After a crash the
	// acknowledgements of that time are forgotten and those records sent again.
	cursorEvery = 500 * time.Millisecond
	// retryMin and retryMax bound the wait between tries at a disk that fails.
	retryMin, retryMax = time.Second, time.Minute
	// adaptMax bounds how far a slow disk may stretch the linger (4 commits' time).
	adaptMax = 250 * time.Millisecond
	// stopGrace is how long Run waits for a disk that hangs when it is stopped.
	stopGrace = 5 * time.Second
	// maxOwed bounds the gaps that wait to be written because the disk fails.
	maxOwed = 64
	// maxGaps bounds the gap records that one loss may write; what is between
	// them and acknowledged is then told as lost too, which the fleet ignores.
	maxGaps = 16
	// maxIntervals bounds the acknowledged intervals above the cursor; the link's
	// window makes at most 64 and each gap may make one.
	maxIntervals = 4096
	// segmentMin and quotaShare: a quota must hold several segments, or evicting
	// one would lose most of the class.
	segmentMin, quotaShare = 32 << 10, 4
	// gapReserve is the part of the alarm quota that only gap records may fill.
	gapReserve = 8
)

// ClassConfig sets up one class. Zero values take the defaults.
type ClassConfig struct {
	// QuotaBytes bounds the class on disk. Default 64 MiB for alarms and
	// snapshots, 256 MiB for events and metrics.
	QuotaBytes int64
	// SegmentBytes is the size at which a new file is begun, at most a quarter
	// of the quota. Default 16 MiB.
	SegmentBytes int64
	// Linger is how long a commit waits for company. Default none for alarms,
	// 20 ms for events and snapshots, 1 s for metrics; negative is none.
	Linger time.Duration
	// BatchMax is the number of records at which a commit waits no longer, and
	// the most in one commit. Default 256, for metrics 1000.
	BatchMax int
}

// Config sets up a spool.
type Config struct {
	Dir     string       // made if it is not there
	Clock   schema.Clock // stamps the gap records
	Log     *slog.Logger // nil: nothing is logged
	Classes [schema.NumClasses]ClassConfig
	// NoSync leaves out every fsync: for simulations, where a power loss is not.
	NoSync bool
}

func (c ClassConfig) withDefaults(id schema.Class) (ClassConfig, error) {
	def := ClassConfig{QuotaBytes: 64 << 20, SegmentBytes: 16 << 20, Linger: 20 * time.Millisecond, BatchMax: 256}
	switch id {
	case schema.ClassAlarm:
		def.Linger = -1
	case schema.ClassEvent:
		def.QuotaBytes = 256 << 20
	case schema.ClassMetric:
		def.QuotaBytes, def.Linger, def.BatchMax = 256<<20, time.Second, 1000
	}
	if c.QuotaBytes == 0 {
		c.QuotaBytes = def.QuotaBytes
	}
	if c.SegmentBytes == 0 {
		c.SegmentBytes = min(def.SegmentBytes, c.QuotaBytes/quotaShare)
	}
	if c.Linger == 0 {
		c.Linger = def.Linger
	}
	c.Linger = max(c.Linger, 0)
	if c.BatchMax == 0 {
		c.BatchMax = def.BatchMax
	}
	if c.SegmentBytes < segmentMin || c.SegmentBytes > 256<<20 || c.SegmentBytes > c.QuotaBytes/quotaShare {
		return c, fmt.Errorf("spool class %s: segments of %d bytes in a quota of %d; a segment is %d bytes to 256 MiB and at most a quarter of the quota",
			id, c.SegmentBytes, c.QuotaBytes, segmentMin)
	}
	if c.BatchMax < 1 || c.BatchMax > queueMax || c.Linger > time.Minute {
		return c, fmt.Errorf("spool class %s: batches of %d after %v; 1 to %d and at most a minute may be set", id, c.BatchMax, c.Linger, queueMax)
	}
	return c, nil
}

// reserveBlock is how many numbers are reserved at a time: one fdatasync each,
// and what a crash gap may overstate. Alarms are few, so their block is small.
func reserveBlock(id schema.Class) uint64 {
	if id == schema.ClassAlarm {
		return 32
	}
	return 1024
}

// durable tells whether Append waits for the disk.
func durable(id schema.Class) bool { return id != schema.ClassMetric }
