// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"time"

	"fulmar/storage/internal/classconf"
)

// Stats tells of one class.
type Stats = classconf.Stats

// Stats tells where the class stands. It never waits for the disk.
func (c *Class) Stats(now time.Time) Stats {
	age := c.oldestAge(now)
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.stats
	st.Class, st.Epoch, st.QuotaBytes = c.id, c.book.Epoch, c.cfg.QuotaBytes
	st.Outstanding, st.Queued, st.Owed, st.OldestAge = c.book.Done.Open(c.book.Kept), c.queue.Len(), len(c.owed), age
	if !classconf.Durable(c.id) {
		st.LossWindow = c.cfg.Linger
		if c.ramFirst() {
			st.LossWindow = max(st.LossWindow, classconf.SpillAfter)
		}
		if c.queue.Len() > 0 {
			st.LossWindow = max(st.LossWindow, now.Sub(c.queue.First().At))
		}
	}
	return st
}
