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
	"fulmar/storage/internal/segment"
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

// slice is a run of old records and what is to stand for them.
type slice struct {
	numbers  ranges.Range
	from, to int64 // times of its first and last record
	bytes    int   // of its records
	records  [][]byte
}

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
	from = c.done.Next(from)
	c.mu.Unlock()
	if from > last {
		c.thinned = last
		return nil
	}
	s, err := c.gather(i, from, last)
	if err != nil {
		return fmt.Errorf("thin metrics from %d: %w", from, err)
	}
	n := 0
	for _, r := range s.records {
		n += len(r)
	}
	if n > s.bytes/thinGain {
		c.thinned = s.numbers.Last
		return nil
	}
	if ok, err := c.appendNow(s.records); err != nil || !ok {
		return err
	}
	if err := c.loseBetween(s.numbers, schema.ReasonThinned, s.from, s.to, false); err != nil {
		return err
	}
	c.thinned = s.numbers.Last
	if s.numbers.Last < last {
		return nil
	}
	return c.persist()
}

// gather reads what fits into one run. Damage is left for Read to tell.
func (c *Class) gather(i int, from, last uint64) (*slice, error) {
	db, err := c.files.Reader(i)
	if err != nil {
		c.thinned = last // Read will find and tell it
		return nil, err
	}
	s := &slice{}
	var g thin.Gathering
	next, _, err := c.files.Walk(db, from, last, func(r segment.Record) bool {
		if !c.open(r.Seq) {
			return true
		}
		if !g.Add(r.Payload) {
			return false
		}
		if s.from == 0 {
			s.from = r.Wall
		}
		s.to, s.bytes = r.Wall, s.bytes+len(r.Payload)
		return true
	})
	if err != nil {
		return nil, err
	}
	s.numbers = ranges.Range{First: from, Last: next - 1}
	s.records, err = g.Records()
	return s, err
}

// appendNow gives records their numbers behind all others and writes them; false
// when the queue has no room for them.
func (c *Class) appendNow(records [][]byte) (bool, error) {
	now := time.Now()
	c.mu.Lock()
	n := 0
	for _, r := range records {
		n += len(r)
	}
	if c.closed || c.queue.Len()+len(records) > queueMax || c.queue.Bytes()+n > queueBytes {
		c.mu.Unlock()
		return false, nil
	}
	for _, r := range records {
		c.queue.Push(&queue.Item{Seq: c.next, Wall: now.UnixMilli(), At: now, Payload: r})
		c.next++
	}
	last := c.next - 1
	c.mu.Unlock()
	for {
		c.mu.Lock()
		done := c.durable >= last
		c.mu.Unlock()
		if done {
			return true, nil
		}
		if err := c.commitQueued(); err != nil {
			return false, err
		}
	}
}
