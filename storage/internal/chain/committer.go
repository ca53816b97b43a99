// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"context"
	"fmt"
	"time"

	"fulmar/schema"
	"fulmar/storage/internal/classconf"
)

// Run is the committer of the class: it lingers, commits, and writes the cursor.
func (c *Class) Run(ctx context.Context) error {
	t := time.NewTimer(retryMax)
	defer t.Stop()
	for {
		now := time.Now()
		commit, cursor := c.due()
		c.tell(now)
		switch {
		case !commit.IsZero() && !commit.After(now):
			c.report(c.flush())
			continue
		case !cursor.IsZero() && !cursor.After(now):
			c.report(c.writeCursor())
			continue
		}
		wait := retryMax
		for _, at := range [...]time.Time{commit, cursor, c.telling()} {
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
	switch {
	case c.ramFirst() && c.next+classconf.ReserveBlock(c.id)/2 > c.reserved:
		cursor = time.Now() // records without a reserved number cannot be read from memory
	case !c.dirty.IsZero() && c.savedLow >= c.onDisk:
		cursor = c.dirty.Add(cursorLazy)
	case !c.dirty.IsZero():
		cursor = c.dirty.Add(cursorEvery)
	}
	if !cursor.IsZero() && cursor.Before(c.retryAt) {
		cursor = c.retryAt
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
	wait := c.cfg.Linger
	if c.ramFirst() {
		wait = max(wait, spillAfter)
	}
	return max(wait, min(slow, adaptMax))
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
	old := c.reserved
	if c.ramFirst() {
		c.reserved = max(c.reserved, c.next-1+classconf.ReserveBlock(c.id))
	}
	c.mu.Unlock()
	err := c.persist()
	if err != nil {
		c.setReserved(old)
		c.mu.Lock()
		c.stats.CommitErrors++
		c.mu.Unlock()
		c.failed()
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
