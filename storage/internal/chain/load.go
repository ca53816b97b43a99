// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"fulmar/schema"
	"fulmar/storage/internal/classconf"
	"fulmar/storage/internal/meta"
	"fulmar/storage/internal/ranges"
	"fulmar/storage/internal/segment"
)

// Load brings a class up from its folder, whatever state that is in. Numbers that
// were reserved and not used are owed as crash gaps.
func (c *Class) Load() error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return fmt.Errorf("spool folder: %w", err)
	}
	m, bad, err := meta.Load(c.dir, c.id)
	if err != nil {
		return err
	}
	if err := c.list(); err != nil {
		return err
	}
	switch {
	case m.Epoch != 0 && bad > 0:
		c.s.Log.Warn("one copy of the spool's meta is unreadable, a block of numbers is skipped", "class", c.id.String())
		m.Reserved += classconf.ReserveBlock(c.id)
	case m.Epoch == 0 && c.files.Len() > 0:
		if m, err = c.rebuildMeta(); err != nil {
			return err
		}
	}
	if m.Epoch == 0 {
		m = meta.Meta{Epoch: meta.NewEpoch()}
		c.s.Log.Info("new spool", "class", c.id.String(), "epoch", fmt.Sprintf("%016x", m.Epoch))
	}
	c.gen, c.reserved, c.epoch, c.files.Epoch = m.Gen, m.Reserved, m.Epoch, m.Epoch
	c.done = ranges.New(m.Low, m.Above)
	used, err := c.lastUsed()
	if err != nil {
		return err
	}
	c.next = max(c.reserved, c.done.Highest(), used) + 1
	c.durable, c.onDisk, c.savedLow = max(used, c.done.Low()), used, c.done.Low()
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
	for c.gen < 2 || bad > 0 {
		if err := c.persist(); err != nil {
			return err
		}
		bad = 0
	}
	c.publish()
	return nil
}

// lastUsed tells the highest number used. Where the newest file cannot tell, all
// reserved numbers count as used: reading finds out which are there.
func (c *Class) lastUsed() (used uint64, err error) {
	if c.files.Len() == 0 {
		return 0, nil
	}
	db, err := c.files.Reader(c.files.Len() - 1)
	if err == nil {
		if used, err = db.Last(); err == nil {
			return max(used, c.files.Newest().First-1), nil
		}
		c.files.CloseReader()
	}
	if !errors.Is(err, segment.ErrDamaged) {
		return 0, err
	}
	c.s.Log.Error("newest spool segment is damaged", "class", c.id.String(), "err", err)
	return max(c.reserved, c.files.Newest().First-1), nil
}

// rebuildMeta makes a meta from the newest segment that can be read, after both
// copies were lost. It skips two blocks of numbers, more than can have been given
// out. Without a readable segment nothing is known of the numbers: the files go
// to quarantine and the class begins anew.
func (c *Class) rebuildMeta() (meta.Meta, error) {
	for i := c.files.Len() - 1; i >= 0; i-- {
		db, err := segment.Open(c.files.At(i).Path, c.files.Opts)
		if err != nil && !errors.Is(err, segment.ErrDamaged) {
			return meta.Meta{}, err
		} else if err != nil {
			continue
		}
		h := db.Header
		last, err := db.Last()
		_ = db.Close()
		if err != nil || h.Class != c.id || h.First != c.files.At(i).First || h.Epoch == 0 {
			continue
		}
		c.s.Log.Error("spool meta is lost and was rebuilt from a segment", "class", c.id.String(), "epoch", fmt.Sprintf("%016x", h.Epoch))
		top := max(last, c.files.Newest().First, h.First)
		return meta.Meta{Epoch: h.Epoch, Reserved: top + 2*classconf.ReserveBlock(c.id), Low: c.files.At(0).First - 1}, nil
	}
	c.s.Log.Error("spool meta and segments are lost: the class begins anew", "class", c.id.String(), "segments", c.files.Len())
	for c.files.Len() > 0 {
		if err := c.shelve(c.files.Len() - 1); err != nil {
			return meta.Meta{}, err
		}
	}
	return meta.Meta{}, nil
}

// list finds the segments of the class, oldest first.
func (c *Class) list() error {
	foreign, err := c.files.List()
	if err != nil {
		return err
	}
	for _, path := range foreign {
		if !meta.Owns(filepath.Base(path)) {
			c.s.ForeignFile(path)
		}
	}
	return nil
}
