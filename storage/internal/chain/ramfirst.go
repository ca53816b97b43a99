// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"time"

	"fulmar/storage/internal/classconf"
)

// While the link is up, a metric is read from memory and, where its acknowledgement
// comes within classconf.SpillAfter, never written: on a good day telemetry costs the flash
// nothing. What is not acknowledged in time goes to disk as ever. Only numbers that
// are reserved on disk are given out, so a crash never makes a number mean two
// records.

// ramFirst tells whether the class is read from memory now.
func (c *Class) ramFirst() bool { return !classconf.Durable(c.id) && c.s.Online.Load() }

// tellSoon lets the reader hear of a record in memory, with those that come within
// the gathering time; mu is held.
func (c *Class) tellSoon(now time.Time) {
	if c.ramFirst() && c.tellAt.IsZero() {
		c.tellAt = now.Add(classconf.Gather)
		c.poke()
	}
}

func (c *Class) tellDue() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tellAt
}

// tell wakes the reader.
func (c *Class) tell() {
	c.mu.Lock()
	c.tellAt = time.Time{}
	c.mu.Unlock()
	c.s.Signal()
}

// LinkChanged makes the committer look again: what waited for the link goes to
// disk, or the other way round.
func (c *Class) LinkChanged() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ramFirst() && c.queue.Len() > 0 {
		c.tellAt = time.Now()
	}
	c.poke()
}
