// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package classconf is what the user sees of one class of the spool: how it is set
// up, what stands where he says nothing, what differs between the classes, and
// what is counted.
package classconf

import (
	"fmt"
	"time"

	"fulmar/schema"
)

const (
	// QueueMax bounds the records waiting for a commit in one class.
	QueueMax = 4096
	// segmentMin: an empty segment takes 24 KiB.
	segmentMin = 64 << 10
	// ttlMin: less could give up what is on its way.
	ttlMin = time.Minute
	// quotaShare: a quota must hold several segments, or evicting one would lose
	// most of the class.
	quotaShare = 4
)

// Config sets up one class. Zero values take the defaults.
type Config struct {
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
	// TTL is how old a record may become before it is read, by the time that the board
	// ran since (see package age) and never by the wall clock; an older one is given up
	// with [schema.ReasonExpired]. 0 is never; else at least a minute. Only events and
	// metrics grow too old.
	TTL time.Duration
}

// WithDefaults fills in the zero values and checks the rest.
func (c Config) WithDefaults(id schema.Class) (Config, error) {
	def := Config{QuotaBytes: 64 << 20, SegmentBytes: 16 << 20, Linger: 20 * time.Millisecond, BatchMax: 256}
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
	if c.TTL != 0 && (c.TTL < ttlMin || id != schema.ClassEvent && id != schema.ClassMetric) {
		return c, fmt.Errorf("spool class %s: a time to live of %v; events and metrics may have one, of at least %v", id, c.TTL, ttlMin)
	}
	if c.BatchMax < 1 || c.BatchMax > QueueMax || c.Linger > time.Minute {
		return c, fmt.Errorf("spool class %s: batches of %d after %v; 1 to %d and at most a minute may be set", id, c.BatchMax, c.Linger, QueueMax)
	}
	return c, nil
}

// ReserveBlock is how many numbers are reserved at most at a time: one fdatasync
// each. Of metrics it is what the gap after a crash may overstate, so theirs goes by
// their rate, see [ReserveLeast]; of the others only a damaged newest file does.
func ReserveBlock(id schema.Class) uint64 {
	switch id {
	case schema.ClassAlarm:
		return 256
	case schema.ClassMetric:
		return 8192
	}
	return 4096
}

// ReserveLeast is the smallest block of metrics: one write in two minutes at one
// record a second.
const ReserveLeast = 256

// Durable tells whether Append waits for the disk.
func Durable(id schema.Class) bool { return id != schema.ClassMetric }
