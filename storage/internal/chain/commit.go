// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"fulmar/schema"
	"fulmar/storage/internal/classconf"
	"fulmar/storage/internal/queue"
)

// CheckPayload says whether a record may have this payload.
func CheckPayload(payload []byte) error {
	if len(payload) == 0 || len(payload) > schema.MaxRecord {
		return fmt.Errorf("a record of %d bytes, wants 1 to %d", len(payload), schema.MaxRecord)
	}
	return nil
}

// Append queues a record and, for the durable classes, waits until it is on disk.
func (c *Class) Append(ctx context.Context, payload []byte) (uint64, error) {
	if err := CheckPayload(payload); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	now := time.Now()
	it := queue.New(payload, now, c.s.Clock.Now().Wall)
	if !classconf.Durable(c.id) {
		return c.enqueueMetric(it)
	}
	it.Done = make(chan error, 1)
	c.mu.Lock()
	switch {
	case c.closed:
		c.mu.Unlock()
		return 0, ErrClosed
	case !c.queue.Fits(it, classconf.QueueMax, classconf.QueueBytes):
		c.stats.Rejected++
		c.mu.Unlock()
		return 0, fmt.Errorf("%w: %d records wait for the disk", ErrFull, classconf.QueueMax)
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
	if c.queue.Fits(it, classconf.QueueMax, classconf.QueueBytes) {
		it.Seq = c.book.Next
		c.book.Next++
		c.enqueue(it)
		c.tellSoon(it.At)
		return it.Seq, nil
	}
	c.stats.Rejected++
	c.poke()
	why := c.full
	if why == 0 { // the disk has not failed, it is only slow
		why = schema.ReasonUnsavable
	}
	seq := c.book.Next
	if !c.owed.Add(c.id, c.book.Epoch, seq, why, it.Wall) {
		return 0, fmt.Errorf("%w: the disk takes nothing (%s); record refused without a number", ErrFull, why)
	}
	c.book.Next++
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
	return c.queue.Len() >= c.cfg.BatchMax || c.queue.Bytes() >= classconf.BatchBytes ||
		!classconf.Durable(c.id) && !c.ramFirst() && c.book.Next > c.queue.First().Seq+classconf.ReserveLeast/2 && c.book.Next > c.book.Reserved
}

// flushRounds bounds the batches that one flush writes while it keeps readers of
// the class waiting: a full queue of the smallest default batches.
const flushRounds = classconf.QueueMax / 256

// wayTries bounds how often a flush lets others make room for it: each time there is a
// segment less, and whoever takes its room instead has his own to take next.
const wayTries = 4

// flush commits what is queued. Records that somebody waits for do not fail because
// another class is busy with what could make room for them.
func (c *Class) flush() error {
	for try := 1; ; try++ {
		again := try < wayTries && classconf.Durable(c.id)
		err := c.flushOnce(again)
		if !again || !errors.Is(err, errHeld) {
			return err
		}
		c.s.makeWay(c)
	}
}

func (c *Class) flushOnce(again bool) error {
	c.io.Lock()
	defer c.io.Unlock()
	if c.isClosed() { // Close has flushed; the folder may be another's by now
		return nil
	}
	return c.flushLocked(again)
}

// flushLocked is one try. again: there will be another after errHeld, so what waits
// stays queued then.
func (c *Class) flushLocked(again bool) error {
	err := c.commitQueued(again)
	if err == nil {
		err = c.thin()
	}
	if err != nil {
		if !again || !errors.Is(err, errHeld) {
			c.failed()
		}
		return fmt.Errorf("spool class %s: %w", c.id, err)
	}
	return nil
}

// commitQueued writes the gaps that are owed and what is queued, a bounded number
// of batches; again: as for flushLocked. What comes while the last is written lingers
// for the next flush: a commit of its own would double what the flash wears.
func (c *Class) commitQueued(again bool) (err error) {
	for round, all := 0, false; round < flushRounds && !all; round++ {
		if oerr := c.settleOwed(c.isAlarm()); oerr != nil {
			err = oerr
		}
		var n int
		var batch []*queue.Item
		if n, batch, all = c.peek(); n == 0 {
			break
		}
		var cerr error
		if len(batch) > 0 {
			cerr = c.commit(batch, false)
		}
		if again && errors.Is(cerr, errHeld) {
			clear(batch)
			return cerr
		}
		c.pop(n, batch, cerr)
		clear(batch)
		if cerr != nil {
			err = cerr
			if !classconf.Durable(c.id) {
				break // they stay queued; another try at once would fail as well
			}
		}
	}
	return err
}

// failed puts the next try off.
func (c *Class) failed() {
	c.mu.Lock()
	c.retryWait = min(max(2*c.retryWait, classconf.RetryMin), classconf.RetryMax)
	c.retryAt = time.Now().Add(c.retryWait)
	c.mu.Unlock()
}

// peek copies the next batch and tells how many of the queue it stands for: what
// was settled from memory needs no disk. all: nothing is queued behind it. Only the
// holder of io and, for metrics, settle take from the queue.
func (c *Class) peek() (n int, batch []*queue.Item, all bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.batch = c.queue.Peek(c.batch[:0], c.cfg.BatchMax, int(min(classconf.BatchBytes, c.cfg.SegmentBytes/2)))
	n = len(c.batch)
	all = n == c.queue.Len()
	if !classconf.Durable(c.id) {
		c.peeked = 0
		if n > 0 {
			c.peeked = c.batch[n-1].Seq
		}
		c.batch = slices.DeleteFunc(c.batch, func(it *queue.Item) bool { return c.book.Done.Has(it.Seq) })
	}
	return n, c.batch, all
}

// pop takes a batch out of the queue and tells those who wait for it. Metrics
// that did not reach the disk stay.
func (c *Class) pop(n int, batch []*queue.Item, err error) {
	c.mu.Lock()
	switch {
	case classconf.Durable(c.id):
		c.queue.Pop(n)
	case err == nil:
		c.queue.PopTo(c.peeked)
	}
	c.mu.Unlock()
	for _, it := range batch {
		if it.Done != nil {
			it.Done <- err
		}
	}
}
