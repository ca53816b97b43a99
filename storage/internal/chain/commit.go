// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"context"
	"fmt"
	"slices"
	"time"

	"fulmar/schema"
	"fulmar/storage/internal/classconf"
	"fulmar/storage/internal/queue"
)

// Append queues a record and, for the durable classes, waits until it is on disk.
func (c *Class) Append(ctx context.Context, payload []byte) (uint64, error) {
	if len(payload) == 0 || len(payload) > schema.MaxRecord {
		return 0, fmt.Errorf("a record of %d bytes, wants 1 to %d", len(payload), schema.MaxRecord)
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	now := time.Now()
	it := &queue.Item{Wall: now.UnixMilli(), At: now, Payload: slices.Clone(payload)}
	if !classconf.Durable(c.id) {
		return c.enqueueMetric(it)
	}
	it.Done = make(chan error, 1)
	c.mu.Lock()
	switch {
	case c.closed:
		c.mu.Unlock()
		return 0, ErrClosed
	case !c.queue.Fits(it, queueMax, queueBytes):
		c.stats.Rejected++
		c.mu.Unlock()
		return 0, fmt.Errorf("%w: %d records wait for the disk", ErrFull, queueMax)
	}
	c.enqueue(it)
	run := c.s.Running.Load()
	c.mu.Unlock()
	if !run {
		_ = c.flush() // the outcome of this record comes by its channel
	}
	select {
	case err := <-it.Done:
		return it.Seq, err
	case <-ctx.Done():
		return 0, fmt.Errorf("record may or may not be on disk: %w", ctx.Err())
	}
}

// enqueueMetric never waits for the disk: a record that finds the queue full is
// lost now and told as a gap.
func (c *Class) enqueueMetric(it *queue.Item) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, ErrClosed
	}
	if c.queue.Fits(it, queueMax, queueBytes) {
		it.Seq = c.next
		c.next++
		c.enqueue(it)
		return it.Seq, nil
	}
	c.stats.Rejected++
	c.poke()
	why := c.full
	if why == 0 { // the disk has not failed, it is only slow
		why = schema.ReasonUnsavable
	}
	seq, wall := c.next, it.Wall
	if n := len(c.owed); n > 0 && c.owed[n-1].Last+1 == seq && c.owed[n-1].Reason == why {
		c.owed[n-1].Last, c.owed[n-1].ToWall = seq, wall
	} else if n < maxOwed {
		c.owed = append(c.owed, schema.Gap{Class: c.id, Epoch: c.epoch, First: seq, Last: seq, Reason: why, FromWall: wall, ToWall: wall})
	} else {
		return 0, fmt.Errorf("%w: the disk takes nothing (%s); record refused without a number", ErrFull, why)
	}
	c.next++
	return 0, fmt.Errorf("%w: the disk takes nothing (%s); record %d is lost", ErrFull, why, seq)
}

// enqueue adds to the queue and wakes the committer where it may have to act
// earlier than it knows; mu is held.
func (c *Class) enqueue(it *queue.Item) {
	c.queue.Push(it)
	if c.queue.Len() == 1 || c.batchFull() {
		c.poke()
	}
}

func (c *Class) batchFull() bool {
	return c.queue.Len() >= c.cfg.BatchMax || c.queue.Bytes() >= batchBytes ||
		!classconf.Durable(c.id) && c.next > c.queue.First().Seq+classconf.ReserveBlock(c.id)/2
}

// flushRounds bounds the batches that one flush writes while it keeps readers of
// the class waiting: a full queue of the smallest default batches.
const flushRounds = queueMax / 256

// flush commits what is queued.
func (c *Class) flush() error {
	c.io.Lock()
	defer c.io.Unlock()
	if c.isClosed() { // Close has flushed; the folder may be another's by now
		return nil
	}
	return c.flushLocked()
}

func (c *Class) flushLocked() error {
	err := c.settleOwed(c.id == schema.ClassAlarm)
	for range flushRounds {
		batch := c.peek()
		if len(batch) == 0 {
			break
		}
		cerr := c.commit(batch, false)
		c.pop(batch, cerr)
		clear(batch)
		if cerr != nil {
			err = cerr
			if !classconf.Durable(c.id) {
				break // they stay queued; another try at once would fail as well
			}
		}
	}
	if err != nil {
		c.mu.Lock()
		c.retryWait = min(max(2*c.retryWait, retryMin), retryMax)
		c.retryAt = time.Now().Add(c.retryWait)
		c.mu.Unlock()
		return fmt.Errorf("spool class %s: %w", c.id, err)
	}
	return nil
}

// peek copies the next batch; only the holder of io takes from the queue.
func (c *Class) peek() []*queue.Item {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.batch = c.queue.Peek(c.batch[:0], c.cfg.BatchMax, int(min(batchBytes, c.cfg.SegmentBytes/2)))
	return c.batch
}

// pop takes a batch out of the queue and tells those who wait for it. Metrics
// that did not reach the disk stay.
func (c *Class) pop(batch []*queue.Item, err error) {
	if err != nil && !classconf.Durable(c.id) {
		return
	}
	c.mu.Lock()
	c.queue.Pop(len(batch))
	c.mu.Unlock()
	for _, it := range batch {
		if it.Done != nil {
			it.Done <- err
		}
	}
}

// Run is the committer of the class: it lingers, commits, and writes the cursor.
func (c *Class) Run(ctx context.Context) error {
	t := time.NewTimer(retryMax)
	defer t.Stop()
	for {
		now := time.Now()
		commit, cursor := c.due()
		switch {
		case !commit.IsZero() && !commit.After(now):
			c.report(c.flush())
			continue
		case !cursor.IsZero() && !cursor.After(now):
			c.report(c.writeCursor())
			continue
		}
		wait := retryMax
		for _, at := range [...]time.Time{commit, cursor} {
			if !at.IsZero() {
				wait = min(wait, at.Sub(now))
			}
		}
		t.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-c.kick:
		case <-t.C:
			if c.id == schema.ClassAlarm {
				c.s.RefillBalloon()
			}
		}
	}
}

// due tells when the next commit and the next writing of the cursor are to be;
// zero: nothing waits.
func (c *Class) due() (commit, cursor time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.queue.Len() > 0 {
		commit = c.queue.First().At
		if !c.batchFull() {
			commit = commit.Add(c.linger())
		}
	} else if len(c.owed) > 0 {
		commit = c.retryAt
		if commit.IsZero() {
			commit = time.Now()
		}
	}
	// Callers wait for a durable record: each gets its own try and its own error.
	if !commit.IsZero() && commit.Before(c.retryAt) && (!classconf.Durable(c.id) || c.queue.Len() == 0) {
		commit = c.retryAt
	}
	if !c.dirty.IsZero() {
		cursor = c.dirty.Add(cursorEvery)
		if cursor.Before(c.retryAt) {
			cursor = c.retryAt
		}
	}
	return commit, cursor
}

// linger is the configured one, or longer on a slow disk: without that, commits
// one after the other saturate it and the latency is worse than the linger.
func (c *Class) linger() time.Duration {
	if c.cfg.Linger == 0 {
		return 0
	}
	slow := time.Duration(4 * c.stats.CommitSeconds * float64(time.Second))
	return max(c.cfg.Linger, min(slow, adaptMax))
}

// writeCursor persists the acknowledgements.
func (c *Class) writeCursor() error {
	c.io.Lock()
	defer c.io.Unlock()
	if c.isClosed() {
		return nil
	}
	err := c.persist()
	if err != nil {
		c.mu.Lock()
		c.stats.CommitErrors++
		c.retryWait = min(max(2*c.retryWait, retryMin), retryMax)
		c.retryAt = time.Now().Add(c.retryWait)
		c.mu.Unlock()
		return fmt.Errorf("spool class %s: write the cursor: %w", c.id, err)
	}
	return nil
}

// report logs what nobody else is told: the first error of a series.
func (c *Class) report(err error) {
	c.mu.Lock()
	first := err != nil && c.retryWait <= retryMin
	wait := c.retryWait
	c.mu.Unlock()
	if first {
		c.s.Log.Error("spool does not reach the disk, will try again", "class", c.id.String(), "wait", wait, "err", err)
	}
}
