// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"fmt"
	"time"

	"fulmar/schema"
	"fulmar/storage/internal/classconf"
	"fulmar/storage/internal/queue"
	"fulmar/storage/internal/ranges"
	"fulmar/storage/internal/thin"
)

const (
	// thinAt is the part of its quota, in percent, from which old metrics are
	// thinned: early enough that nothing has to be evicted while it goes on.
	thinAt = 80
	// thinGain: where less than half is gained, the records are left as they are.
	// Sampling once in two minutes gains nothing.
	thinGain = 2
)

// thin replaces one run of the oldest metrics by summaries, when the class is
// nearly full and the link is down. First the summaries are on disk, then the gap
// that names what they stand for, then the old ones are settled. A crash in between
// leaves both: the fleet sees by their span that they tell the same. io is held.
func (c *Class) thin() error {
	if classconf.Durable(c.id) || c.s.Online.Load() || c.files.Bytes() <= c.cfg.QuotaBytes*thinAt/100 {
		return nil
	}
	for i := range c.files.Len() - 1 {
		if sg := c.files.At(i); sg.Last > c.thinned {
			return c.thinSegment(i, max(sg.First, c.thinned+1), sg.Last)
		}
	}
	return nil
}

// thinSegment takes the next run of the i-th segment.
func (c *Class) thinSegment(i int, from, last uint64) error {
	c.mu.Lock()
	from = c.book.Done.Next(from)
	c.mu.Unlock()
	if from > last {
		c.thinned = last
		return nil
	}
	s, err := thin.Take(&c.files, i, from, last, c.open)
	if err != nil {
		return fmt.Errorf("thin metrics from %d: %w", from, err)
	}
	if s == nil { // damaged
		c.thinned = last
		return nil
	}
	if s.Size() > s.Bytes/thinGain {
		c.thinned = s.Last
		return nil
	}
	if ok, err := c.appendNow(s.Records, s.Size()); err != nil || !ok {
		return err
	}
	if err := c.loseBetween(ranges.Range{First: from, Last: s.Last}, schema.ReasonThinned, s.From, s.To, false); err != nil {
		return err
	}
	c.thinned = s.Last
	if s.Last < last {
		return nil
	}
	return c.persist()
}

// appendNow gives records their numbers behind all others and writes them; false
// when the queue has no room for them.
func (c *Class) appendNow(records [][]byte, size int) (bool, error) {
	now, wall := time.Now(), c.s.Clock.Now().Wall
	c.mu.Lock()
	if c.closed || c.queue.Len()+len(records) > classconf.QueueMax || c.queue.Bytes()+size > classconf.QueueBytes {
		c.mu.Unlock()
		return false, nil
	}
	for _, r := range records {
		c.queue.Push(&queue.Item{Seq: c.book.Next, Wall: wall, At: now, Payload: r})
		c.book.Next++
	}
	last := c.book.Next - 1
	c.mu.Unlock()
	for {
		c.mu.Lock()
		done := c.book.Kept >= last
		c.mu.Unlock()
		if done {
			return true, nil
		}
		if err := c.commitQueued(false); err != nil {
			return false, err
		}
	}
}
