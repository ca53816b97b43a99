// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"fulmar/schema"
	"fulmar/storage/internal/classconf"
	"fulmar/storage/internal/disk"
	"fulmar/storage/internal/meta"
	"fulmar/storage/internal/queue"
	"fulmar/storage/internal/ranges"
	"fulmar/storage/internal/segment"
	"fulmar/storage/internal/tail"
)

// seg is one file of the chain. Only the newest is appended to, and only while the
// handle that made it is open.
type seg struct {
	first uint64 // lowest number it may hold: its name
	last  uint64 // highest number it may hold; of the newest: not set
	bytes int64
	path  string
}

// Class is the spool of one class. io guards the files and what is said of them,
// mu the memory; mu is taken after io and never held during I/O.
type Class struct {
	s    *Shared
	id   schema.Class
	cfg  Config
	dir  string
	kick chan struct{} // 1-buffered: the committer should look again

	io       sync.Mutex
	w        *segment.DB // the newest segment; nil: it is sealed, the next record begins another
	r        *segment.DB // the sealed segment that was read last, or nil
	segs     []seg       // oldest first, never empty after load
	gen      uint64      // generation of the meta on disk
	reserved uint64      // highest number that may be used
	recs     []segment.Record
	batch    []*queue.Item

	mu        sync.Mutex
	epoch     uint64
	next      uint64 // number of the next record
	durable   uint64 // highest number on disk or settled by a gap
	done      ranges.Settled
	dirty     time.Time // since when the cursor differs from the disk's; zero: it does not
	queue     queue.Queue
	owed      []schema.Gap  // losses not yet written down
	full      schema.Reason // why the disk took nothing, at the last try
	tail      tail.Tail
	retryAt   time.Time // not before: the disk failed
	retryWait time.Duration
	closed    bool
	stats     Stats
}

func (c *Class) opts() segment.Options {
	return segment.Options{MaxBytes: c.cfg.SegmentBytes, NoSync: c.s.NoSync}
}

func (c *Class) path(first uint64) string {
	return filepath.Join(c.dir, segment.Name(first))
}

func (c *Class) newest() *seg { return &c.segs[len(c.segs)-1] }

func (c *Class) bytes() (n int64) {
	for i := range c.segs {
		n += c.segs[i].bytes
	}
	return n
}

// commitTries bounds the tries at one commit: as it is, in a new segment because
// the newest one failed, and after room was made on a full disk.
const commitTries = 3

// commit puts the items on disk as one transaction, or none of them. gap: they
// are gap records, which may use what is held back for them. io is held.
func (c *Class) commit(items []*queue.Item, gap bool) error {
	for try := 1; ; try++ {
		err := c.tryCommit(items, gap)
		if err == nil {
			return nil
		}
		switch {
		case disk.Full(err): // bbolt has rolled back; a new segment would need more room
			if try < commitTries && c.s.relieve(c, gap) {
				continue
			}
		case c.w != nil:
			c.s.Log.Error("spool segment is sealed because it cannot be appended to", "class", c.id.String(), "err", err)
			c.closeWriter()
			if try < commitTries {
				continue
			}
		}
		c.mu.Lock()
		c.stats.CommitErrors++
		c.full = schema.ReasonUnsavable
		if disk.Full(err) {
			c.full = schema.ReasonDiskFull
		}
		c.mu.Unlock()
		return err
	}
}

func (c *Class) tryCommit(items []*queue.Item, gap bool) error {
	c.mu.Lock()
	first := c.next
	c.mu.Unlock()
	need := int64(commitSlack)
	for i, it := range items {
		if classconf.Durable(c.id) {
			it.Seq = first + uint64(i)
		}
		need += int64(len(it.Payload)) + 48 // frame, key and page header
	}
	if err := c.ready(items[0].Seq, need, gap); err != nil {
		return err
	}
	if err := c.reserve(items[len(items)-1].Seq); err != nil {
		return err
	}
	c.recs = c.recs[:0]
	for _, it := range items {
		c.recs = append(c.recs, segment.Record{Seq: it.Seq, Wall: it.Wall, Payload: it.Payload})
	}
	start := time.Now()
	err := c.w.Append(c.recs)
	clear(c.recs)
	if err != nil {
		return err
	}
	c.committed(items, time.Since(start))
	return nil
}

// ready makes sure of a segment with room for need bytes, inside the quota. A file
// that was closed is never appended to again: bbolt, writing to a file that was
// damaged meanwhile, may follow a wild page number through all the memory there is.
func (c *Class) ready(first uint64, need int64, gap bool) error {
	if err := c.makeRoom(need, gap); err != nil {
		return err
	}
	if c.w == nil || c.w.Size() >= c.cfg.SegmentBytes {
		return c.roll(first)
	}
	return nil
}

// makeRoom keeps the class inside its quota: alarms are refused, the others lose
// their oldest segment.
func (c *Class) makeRoom(need int64, gap bool) error {
	limit := c.cfg.QuotaBytes
	if c.id == schema.ClassAlarm {
		if gap {
			limit += c.cfg.SegmentBytes
		} else {
			limit -= limit / gapReserve
		}
		if c.bytes()+need > limit && c.drained() { // acknowledged, and the cursor is not written yet
			if err := c.persist(); err != nil {
				return err
			}
		}
		if have := c.bytes(); have+need > limit {
			return fmt.Errorf("%w: %d of %d bytes wait for the fleet", ErrFull, have, limit)
		}
		return nil
	}
	for len(c.segs) > 1 && c.bytes()+need > limit {
		if err := c.evict(schema.ReasonQuota, false); err != nil {
			return fmt.Errorf("evict the oldest segment: %w", err)
		}
	}
	return nil
}

// drained tells whether writing the cursor would free the oldest segment.
func (c *Class) drained() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.segs) > 1 && c.segs[0].last <= c.done.Low()
}

// roll seals the newest segment and begins a new one, whose first number is first.
func (c *Class) roll(first uint64) error {
	c.closeWriter()
	c.mu.Lock()
	h := segment.Header{Class: c.id, Epoch: c.epoch, First: first}
	c.mu.Unlock()
	db, err := segment.Create(c.path(first), h, c.opts())
	if err != nil {
		return err
	}
	c.w = db
	if n := len(c.segs); n > 0 {
		if c.segs[n-1].first == first { // it held nothing and has been replaced
			c.closeReader()
			c.segs = c.segs[:n-1]
		} else {
			c.segs[n-1].last = first - 1
		}
	}
	c.segs = append(c.segs, seg{first: first, path: c.path(first), bytes: db.Size()})
	c.publish()
	return nil
}

// openSegment opens a segment's file and checks that it is what its name says.
func (c *Class) openSegment(sg seg) (*segment.DB, error) {
	db, err := segment.Open(sg.path, c.opts())
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	want := segment.Header{Class: c.id, Epoch: c.epoch, First: sg.first}
	c.mu.Unlock()
	if db.Header != want {
		got := db.Header
		_ = db.Close()
		return nil, fmt.Errorf("%w: %s holds class %s, epoch %016x, from %d", segment.ErrDamaged, sg.path, got.Class, got.Epoch, got.First)
	}
	return db, nil
}

func (c *Class) closeWriter() {
	if c.w == nil {
		return
	}
	if err := c.w.Close(); err != nil {
		c.s.Log.Error("spool segment did not close", "class", c.id.String(), "err", err)
	}
	c.w = nil
}

func (c *Class) closeReader() {
	if c.r != nil {
		_ = c.r.Close() // read only: nothing can be lost
		c.r = nil
	}
}

// reserve makes sure that numbers up to last are reserved on disk. Metrics get
// their numbers before the commit, so theirs are reserved half a block ahead.
func (c *Class) reserve(last uint64) error {
	block, ahead := classconf.ReserveBlock(c.id), uint64(0)
	if !classconf.Durable(c.id) {
		ahead = block / 2
	}
	if last+ahead <= c.reserved {
		return nil
	}
	old := c.reserved
	c.reserved = last + block
	if err := c.persist(); err != nil {
		c.reserved = old
		return err
	}
	return nil
}

// committed books items that are on disk.
func (c *Class) committed(items []*queue.Item, took time.Duration) {
	c.mu.Lock()
	last := items[len(items)-1].Seq
	c.durable = max(c.durable, last)
	c.next = max(c.next, last+1)
	for _, it := range items {
		c.tail.Add(tail.Record{Seq: it.Seq, Wall: it.Wall, Payload: it.Payload})
		c.stats.AppendedBytes += uint64(len(it.Payload))
	}
	c.stats.Appended += uint64(len(items))
	c.stats.Commits++
	c.stats.CommitSeconds += (took.Seconds() - c.stats.CommitSeconds) / 8
	c.retryAt, c.retryWait = time.Time{}, 0
	c.mu.Unlock()
	c.newest().bytes = c.w.Size()
	c.publish()
	c.s.signal()
}

// persist writes reservation and cursor, then unlinks what is drained by it. io is held.
func (c *Class) persist() error {
	c.mu.Lock()
	m := meta.Meta{Gen: c.gen + 1, Epoch: c.epoch, Reserved: max(c.reserved, c.done.Highest()), Low: c.done.Low()}
	above := c.done.Above()
	m.Above = slices.Clone(above[:min(len(above), meta.MaxIntervals)])
	c.mu.Unlock()
	if err := meta.Write(c.dir, c.id, m, c.s.NoSync); err != nil {
		return err
	}
	c.gen, c.reserved = m.Gen, m.Reserved
	c.mu.Lock()
	if c.done.Low() == m.Low {
		c.dirty = time.Time{}
	}
	c.mu.Unlock()
	for len(c.segs) > 1 && c.segs[0].last <= m.Low {
		c.closeReader()
		// A name that comes back after a power loss is drained again at the
		// next start, so the folder needs no fsync.
		if err := os.Remove(c.segs[0].path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove drained segment: %w", err)
		}
		c.segs = slices.Delete(c.segs, 0, 1)
	}
	c.publish()
	return nil
}

// publish copies what Stats tells of the files.
func (c *Class) publish() {
	n, b := len(c.segs), c.bytes()
	c.mu.Lock()
	c.stats.Segments, c.stats.Bytes = n, b
	c.mu.Unlock()
}

// Ack settles what the fleet has.
func (c *Class) Ack(epoch, first, last uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return ErrClosed
	case epoch != c.epoch:
		return fmt.Errorf("%w: epoch %016x, the spool's is %016x", ErrUnknown, epoch, c.epoch)
	case first == 0 || last < first || last > c.durable:
		return fmt.Errorf("%w: %d to %d, given out are 1 to %d", ErrUnknown, first, last, c.durable)
	case len(c.done.Above()) >= maxIntervals:
		return fmt.Errorf("%d separate ranges are acknowledged; acknowledge %d first", maxIntervals, c.done.Low()+1)
	}
	c.stats.Acked += c.settle(first, last)
	return nil
}

// settle marks numbers as done with; mu is held.
func (c *Class) settle(first, last uint64) uint64 {
	n := c.done.Add(first, last)
	if n > 0 && c.dirty.IsZero() {
		c.dirty = time.Now()
		c.poke()
	}
	c.tail.DropTo(c.done.Low())
	return n
}

// poke makes the committer look again.
func (c *Class) poke() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}
