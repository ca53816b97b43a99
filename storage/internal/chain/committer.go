// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"context"
	"fmt"
	"time"

	"fulmar/storage/internal/classconf"
	"fulmar/storage/internal/pace"
)

// Run is the committer of the class: it lingers, commits, writes the cursor and
// wakes the reader.
func (c *Class) Run(ctx context.Context) error {
	pace.Run(ctx, c.kick, classconf.RetryMax, func() {
		if c.isAlarm() {
			c.s.RefillBalloon()
		}
	},
		pace.Duty{Due: c.commitDue, Do: func() { c.report(c.flush()) }},
		pace.Duty{Due: c.cursorDue, Do: func() { c.report(c.writeCursor()) }},
		pace.Duty{Due: c.tellDue, Do: c.tell},
	)
	return nil
}

// commitDue tells when the next commit is to be.
func (c *Class) commitDue() (at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.queue.Len() > 0:
		at = c.queue.First().At
		if !c.batchFull() {
			at = at.Add(c.linger())
		}
		if classconf.Durable(c.id) {
			return at // callers wait: each gets its own try and its own error
		}
	case len(c.owed) > 0:
		at = c.retryAt
		if at.IsZero() {
			at = time.Now()
		}
	}
	return c.notBeforeRetry(at)
}

// cursorDue tells when the cursor is to be written.
func (c *Class) cursorDue() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.notBeforeRetry(c.book.CursorDue(c.ramFirst()))
}

// notBeforeRetry puts off what is due while the disk fails; mu is held.
func (c *Class) notBeforeRetry(at time.Time) time.Time {
	if !at.IsZero() && at.Before(c.retryAt) {
		return c.retryAt
	}
	return at
}

// linger is the configured one, or longer on a slow disk: without that, commits
// one after the other saturate it and the latency is worse than the linger.
func (c *Class) linger() time.Duration {
	if c.cfg.Linger == 0 {
		return 0
	}
	slow := time.Duration(4 * c.stats.CommitSeconds * float64(time.Second))
	wait := c.cfg.Linger
	if c.ramFirst() {
		wait = max(wait, classconf.SpillAfter)
	}
	return max(wait, min(slow, classconf.AdaptMax))
}

// writeCursor persists the acknowledgements, and reserves numbers ahead for what
// is read from memory.
func (c *Class) writeCursor() error {
	c.io.Lock()
	defer c.io.Unlock()
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	old := c.book.Reserved
	if c.ramFirst() {
		c.book.Reserved = max(c.book.Reserved, c.book.Next-1+c.book.Block())
	}
	c.mu.Unlock()
	err := c.cutOff()
	if err == nil {
		err = c.persist()
	}
	if err != nil {
		c.setReserved(old)
		c.mu.Lock()
		c.stats.CommitErrors++
		c.mu.Unlock()
		c.failed()
		c.s.failed(err)
		return fmt.Errorf("spool class %s: write the cursor: %w", c.id, err)
	}
	return nil
}

// Retry tries the disk now; nil: all that waited is on it.
func (c *Class) Retry() error {
	c.mu.Lock()
	c.retryAt = time.Time{}
	c.mu.Unlock()
	if err := c.flush(); err != nil {
		return err
	}
	return c.writeCursor()
}

// report logs what nobody else is told: the first error of a series.
func (c *Class) report(err error) {
	c.mu.Lock()
	first := err != nil && c.retryWait <= classconf.RetryMin
	wait := c.retryWait
	c.mu.Unlock()
	if first {
		c.s.Log.Error("spool does not reach the disk, will try again", "class", c.id.String(), "wait", wait, "err", err)
	}
}
