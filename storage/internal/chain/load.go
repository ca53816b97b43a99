// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"fulmar/schema"
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
	c.gen = st.Gen
	c.book.Load(st)
	if c.files.Len() == 0 {
		c.book.Kept = c.book.Next - 1
		if err := c.roll(c.book.Next); err != nil {
			return err
		}
	}
	for _, r := range c.book.Unused() {
		c.owed = append(c.owed, schema.Gap{Class: c.id, Epoch: c.book.Epoch, First: r.First, Last: r.Last, Reason: schema.ReasonCrash})
	}
	if len(c.owed) == 0 {
		c.book.Kept = c.book.Next - 1
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
