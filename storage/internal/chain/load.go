// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"fulmar/schema"
	"fulmar/storage/internal/classconf"
	"fulmar/storage/internal/ranges"
	"fulmar/storage/internal/recovery"
)

// Load brings a class up from its folder, whatever state that is in. Numbers that
// may have been used and are in no file are owed as crash gaps: of metrics those that
// were reserved, of the others only where the newest file is damaged or gone.
func (c *Class) Load() error {
	st, err := recovery.Load(&c.files, c.s.ForeignFile)
	c.stats.Quarantined += uint64(st.Shelved)
	if err != nil {
		return err
	}
	c.gen, c.reserved, c.epoch = st.Gen, st.Reserved, st.Epoch
	c.done = ranges.New(st.Low, st.Above)
	c.next = max(c.done.Highest(), st.Used) + 1
	if !classconf.Durable(c.id) || !st.Exact {
		// Numbers may have been seen that are in no file.
		c.next = max(c.next, c.reserved+1)
	}
	c.durable, c.onDisk, c.savedLow = max(st.Used, c.done.Low()), st.Used, c.done.Low()
	if c.files.Len() == 0 {
		c.durable = c.next - 1
		if err := c.roll(c.next); err != nil {
			return err
		}
	}
	for _, r := range c.done.Missing(c.durable+1, c.next-1) {
		c.owed = append(c.owed, schema.Gap{Class: c.id, Epoch: c.epoch, First: r.First, Last: r.Last, Reason: schema.ReasonCrash})
	}
	if len(c.owed) == 0 {
		c.durable = c.next - 1
	}
	// Both copies must be there from the start, or one of them counts as damaged.
	for c.gen < 2 || st.Bad > 0 {
		if err := c.persist(); err != nil {
			return err
		}
		st.Bad = 0
	}
	c.publish()
	return nil
}
