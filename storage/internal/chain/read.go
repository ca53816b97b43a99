// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"time"

	"fulmar/schema"
	"fulmar/storage/internal/disk"
	"fulmar/storage/internal/ranges"
	"fulmar/storage/internal/segment"
	"fulmar/storage/internal/tail"
)

// reading is the answer to one Read while it is put together.
type reading struct {
	class    schema.Class
	epoch    uint64
	records  int
	room     int // bytes
	out      []schema.Stored
	complete bool // no more fits
}

// take adds a record and tells whether it did. The first one always fits: a
// caller with a small buffer must still get past a large record.
func (rd *reading) take(seq uint64, payload []byte) bool {
	if len(rd.out) > 0 && len(payload) > rd.room || len(rd.out) >= rd.records {
		rd.complete = true
		return false
	}
	rd.room -= len(payload)
	rd.out = append(rd.out, schema.Stored{Class: rd.class, Epoch: rd.epoch, Seq: seq, Payload: payload})
	return true
}

// fromTail answers from memory where that is the whole answer; mu is held.
func (c *Class) fromTail(rd *reading, want uint64) bool {
	if want > c.durable {
		return true
	}
	if !c.tail.Holds(want) {
		return false
	}
	c.tail.Each(want, &c.done, func(r tail.Record) bool { return rd.take(r.Seq, r.Payload) })
	return true
}

// Read gives unsettled durable records from number from on.
func (c *Class) Read(from uint64, maxRecords, maxBytes int) ([]schema.Stored, error) {
	if maxRecords < 1 {
		return nil, nil
	}
	c.mu.Lock()
	rd := &reading{class: c.id, epoch: c.epoch, records: maxRecords, room: maxBytes}
	if c.closed {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	all := c.fromTail(rd, c.done.Next(from))
	c.mu.Unlock()
	if all {
		return rd.out, nil
	}
	c.io.Lock()
	defer c.io.Unlock()
	for want := from; !rd.complete; {
		c.mu.Lock()
		want = c.done.Next(want)
		all, closed := c.fromTail(rd, want), c.closed
		c.mu.Unlock()
		if closed {
			return nil, ErrClosed
		}
		if all {
			break
		}
		next, err := c.readSegment(rd, want)
		if err != nil {
			if len(rd.out) > 0 {
				break // what is sound goes out now; the error comes back with the next Read
			}
			return nil, fmt.Errorf("spool class %s: read from %d: %w", c.id, want, err)
		}
		want = next
	}
	return rd.out, nil
}

// readSegment takes records from the segment that holds want, and writes down as
// corrupt what should be there and is not. It gives the number to go on from.
func (c *Class) readSegment(rd *reading, want uint64) (uint64, error) {
	i := sort.Search(len(c.segs), func(i int) bool { return c.segs[i].first > want }) - 1
	if i < 0 { // the segment is gone
		next := c.segs[0].first
		return next, c.lose(ranges.Range{First: want, Last: next - 1}, schema.ReasonCorrupt, c.isAlarm())
	}
	last := c.segs[i].last
	if i == len(c.segs)-1 {
		c.mu.Lock()
		last = c.durable
		c.mu.Unlock()
	}
	db, err := c.reader(i)
	if errors.Is(err, segment.ErrDamaged) || errors.Is(err, os.ErrNotExist) {
		c.s.Log.Error("spool segment cannot be opened and goes to quarantine", "class", c.id.String(), "err", err)
		if err := c.lose(ranges.Range{First: want, Last: last}, schema.ReasonCorrupt, c.isAlarm()); err != nil {
			return 0, err
		}
		// The alarm class's own gap record may have changed the chain.
		if i < len(c.segs) && c.segs[i].first <= want {
			err = c.quarantine(i)
		} else {
			err = nil
		}
		return last + 1, err
	}
	if err != nil {
		return 0, err
	}
	next, holes, err := c.walk(rd, db, want, last)
	if err != nil {
		return 0, err
	}
	for _, h := range holes {
		if err := c.lose(h, schema.ReasonCorrupt, c.isAlarm()); err != nil {
			return 0, err
		}
	}
	return next, nil
}

func (c *Class) isAlarm() bool { return c.id == schema.ClassAlarm }

// walk takes records want to last from one segment. It gives the number to go on
// from and the holes before it.
func (c *Class) walk(rd *reading, db *segment.DB, want, last uint64) (next uint64, holes []ranges.Range, err error) {
	hole := func(first, last uint64) {
		if n := len(holes); n > 0 && holes[n-1].Last+1 == first {
			holes[n-1].Last = last
		} else if first <= last {
			holes = append(holes, ranges.Range{First: first, Last: last})
		}
	}
	next = want
	err = db.Walk(want, func(r segment.Record, ok bool) bool {
		if r.Seq > last {
			return false
		}
		if r.Seq > next {
			hole(next, r.Seq-1)
			next = r.Seq
		}
		if !ok {
			hole(r.Seq, r.Seq)
		} else if c.open(r.Seq) && !rd.take(r.Seq, slices.Clone(r.Payload)) {
			return false
		}
		next = r.Seq + 1
		return true
	})
	switch {
	case errors.Is(err, segment.ErrDamaged):
		c.s.Log.Error("spool segment is damaged, reading on behind it", "class", c.id.String(), "seq", next, "err", err)
		to := db.SkipDamage(next, last)
		hole(next, to-1)
		if db == c.w {
			c.closeWriter()
		}
		return to, holes, nil
	case err != nil:
		return 0, nil, err
	case !rd.complete && next <= last:
		hole(next, last)
		next = last + 1
	}
	return next, holes, nil
}

// open tells whether a number is not settled yet.
func (c *Class) open(seq uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.done.Has(seq)
}

// reader gives the i-th segment opened. At most one sealed segment of a class is
// open at a time: each is a memory map.
func (c *Class) reader(i int) (*segment.DB, error) {
	sg := c.segs[i]
	if i == len(c.segs)-1 && c.w != nil {
		return c.w, nil
	}
	if c.r != nil && c.r.Header.First == sg.first {
		return c.r, nil
	}
	c.closeReader()
	db, err := c.openSegment(sg)
	if err != nil {
		return nil, err
	}
	c.r = db
	return db, nil
}

// oldestAge is how long the oldest unsettled record has waited; zero where there
// is none or the disk is busy.
func (c *Class) oldestAge(now time.Time) time.Duration {
	c.mu.Lock()
	want := c.done.Next(1)
	wall := int64(0)
	switch {
	case c.done.Open(c.durable) == 0:
		if c.queue.Len() == 0 {
			c.mu.Unlock()
			return 0
		}
		wall = c.queue.First().Wall
	case c.tail.Holds(want):
		c.tail.Each(want, &c.done, func(r tail.Record) bool { wall = r.Wall; return false })
	}
	c.mu.Unlock()
	if wall == 0 && c.io.TryLock() {
		i := max(0, sort.Search(len(c.segs), func(i int) bool { return c.segs[i].first > want })-1)
		if db, err := c.reader(i); err == nil && !c.isClosed() {
			_ = db.Walk(want, func(r segment.Record, ok bool) bool { wall = r.Wall; return !ok })
		}
		c.io.Unlock()
	}
	if wall == 0 {
		return 0
	}
	return max(0, now.Sub(time.UnixMilli(wall)))
}

func (c *Class) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// quarantine moves the i-th segment, which cannot be opened, out of the chain.
// Its numbers must have been told as lost before.
func (c *Class) quarantine(i int) error {
	sg := c.segs[i]
	c.closeReader()
	if i == len(c.segs)-1 {
		c.mu.Lock()
		first := c.durable + 1
		c.mu.Unlock()
		if err := c.roll(first); err != nil {
			return err
		}
		if c.newest().path == sg.path { // it held nothing and has been replaced
			return nil
		}
	}
	return c.shelve(i)
}

// shelve moves the file of the i-th segment to quarantine.
func (c *Class) shelve(i int) error {
	sg := c.segs[i]
	dir := filepath.Join(c.s.Dir, "quarantine")
	if err := disk.Quarantine(sg.path, dir, c.id.String()+"-"+filepath.Base(sg.path)); err != nil {
		return err
	}
	c.segs = slices.Delete(c.segs, i, i+1)
	c.mu.Lock()
	c.stats.Quarantined++
	c.mu.Unlock()
	c.publish()
	return nil
}
