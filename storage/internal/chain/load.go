// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"fulmar/internal/atomicfile"
	"fulmar/schema"
	"fulmar/storage/internal/ranges"
	"fulmar/storage/internal/segment"
)

// load brings a class up from its folder, whatever state that is in. Numbers that
// were reserved and not used are owed as crash gaps.
func (c *class) load() error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return fmt.Errorf("spool folder: %w", err)
	}
	m, bad, err := loadMeta(c.dir, c.id)
	if err != nil {
		return err
	}
	if err := c.list(); err != nil {
		return err
	}
	switch {
	case m.epoch != 0 && bad > 0:
		c.s.log.Warn("one copy of the spool's meta is unreadable, a block of numbers is skipped", "class", c.id.String())
		m.reserved += reserveBlock(c.id)
	case m.epoch == 0 && len(c.segs) > 0:
		if m, err = c.rebuildMeta(); err != nil {
			return err
		}
	}
	if m.epoch == 0 {
		m = meta{epoch: newEpoch()}
		c.s.log.Info("new spool", "class", c.id.String(), "epoch", fmt.Sprintf("%016x", m.epoch))
	}
	c.gen, c.reserved, c.epoch = m.gen, m.reserved, m.epoch
	c.done = ranges.New(m.low, m.above)
	used, err := c.openActive()
	if err != nil {
		return err
	}
	c.next = max(c.reserved, c.done.Highest(), used) + 1
	c.durable = used
	if len(c.segs) == 0 {
		c.durable = c.next - 1
		if err := c.roll(c.next); err != nil {
			return err
		}
	}
	c.active().last = 0
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

// openActive opens the newest segment to append to and tells the highest number
// used. Where the file cannot tell, all reserved numbers count as used: reading
// finds out which are there.
func (c *class) openActive() (used uint64, err error) {
	if len(c.segs) == 0 {
		return 0, nil
	}
	c.w, err = c.openSegment(*c.active(), false)
	if err == nil {
		if used, err = c.w.Last(); err == nil {
			return max(used, c.active().first-1), nil
		}
	}
	if !errors.Is(err, segment.ErrDamaged) {
		return 0, err
	}
	c.s.log.Error("newest spool segment is damaged and sealed", "class", c.id.String(), "err", err)
	c.closeWriter()
	c.suspect = true
	return max(c.reserved, c.active().first-1), nil
}

// rebuildMeta makes a meta from the newest segment that can be read, after both
// copies were lost. It skips two blocks of numbers, more than can have been given
// out. Without a readable segment nothing is known of the numbers: the files go
// to quarantine and the class begins anew.
func (c *class) rebuildMeta() (meta, error) {
	for i := len(c.segs) - 1; i >= 0; i-- {
		db, err := segment.Open(c.segs[i].path, c.opts(), true)
		if err != nil && !errors.Is(err, segment.ErrDamaged) {
			return meta{}, err
		} else if err != nil {
			continue
		}
		h := db.Header
		last, err := db.Last()
		_ = db.Close()
		if err != nil || h.Class != c.id || h.First != c.segs[i].first || h.Epoch == 0 {
			continue
		}
		c.s.log.Error("spool meta is lost and was rebuilt from a segment", "class", c.id.String(), "epoch", fmt.Sprintf("%016x", h.Epoch))
		top := max(last, c.active().first, h.First)
		return meta{epoch: h.Epoch, reserved: top + 2*reserveBlock(c.id), low: c.segs[0].first - 1}, nil
	}
	c.s.log.Error("spool meta and segments are lost: the class begins anew", "class", c.id.String(), "segments", len(c.segs))
	for len(c.segs) > 0 {
		if err := c.shelve(len(c.segs) - 1); err != nil {
			return meta{}, err
		}
	}
	return meta{}, nil
}

// list finds the segments of the class, oldest first (the names sort so).
func (c *class) list() error {
	ents, err := os.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("spool folder: %w", err)
	}
	for _, e := range ents {
		path := filepath.Join(c.dir, e.Name())
		if first, ok := parseSegment(strings.TrimSuffix(e.Name(), ".tmp")); ok && e.Type().IsRegular() {
			if strings.HasSuffix(e.Name(), ".tmp") { // begun and not finished: it never had a name
				if err := os.Remove(path); err != nil {
					return fmt.Errorf("remove unfinished segment: %w", err)
				}
				continue
			}
			fi, err := e.Info()
			if err != nil {
				return fmt.Errorf("spool segment: %w", err)
			}
			if n := len(c.segs); n > 0 {
				c.segs[n-1].last = first - 1
			}
			c.segs = append(c.segs, seg{first: first, bytes: diskBytes(fi), path: path})
		} else if e.Name() != "meta.a" && e.Name() != "meta.b" {
			c.s.foreign(path)
		}
	}
	return nil
}

func parseSegment(name string) (first uint64, ok bool) {
	hex, found := strings.CutSuffix(name, ".db")
	if !found || len(hex) != 16 || strings.ToLower(hex) != hex {
		return 0, false
	}
	first, err := strconv.ParseUint(hex, 16, 64)
	return first, err == nil && first > 0
}

// newEpoch gives a random number that is not zero.
func newEpoch() uint64 {
	for {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails, see crypto/rand
		if e := binary.LittleEndian.Uint64(b[:]); e != 0 {
			return e
		}
	}
}

// makeDir makes the spool's folder and its name durable.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("spool folder: %w", err)
	}
	return atomicfile.SyncDir(filepath.Dir(dir))
}
