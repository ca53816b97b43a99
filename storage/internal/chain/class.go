// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"fmt"
	"sync"
	"time"

	"fulmar/schema"
	"fulmar/storage/internal/classconf"
	"fulmar/storage/internal/disk"
	"fulmar/storage/internal/files"
	"fulmar/storage/internal/gaps"
	"fulmar/storage/internal/meta"
	"fulmar/storage/internal/numbers"
	"fulmar/storage/internal/queue"
	"fulmar/storage/internal/ranges"
	"fulmar/storage/internal/segment"
	"fulmar/storage/internal/tail"
)

// Class is the spool of one class. io guards the files and what is said of them,
// mu the memory; mu is taken after io and never held during I/O.
type Class struct {
	s    *Shared
	id   schema.Class
	cfg  Config
	dir  string
	kick chan struct{} // 1-buffered: the committer should look again

	io      sync.Mutex
	files   files.Chain // never empty after load
	gen     uint64      // generation of the meta on disk
	recs    []segment.Record
	batch   []*queue.Item
	peeked  uint64 // metrics: last number that batch stands for
	cut     bool   // durable classes: the last commit failed, see cutOff
	thinned uint64 // metrics: numbers up to it are thinned, or not worth it

	mu        sync.Mutex
	book      numbers.Book
	tellAt    time.Time // when the reader is to hear of records in memory; zero: nothing new
	queue     queue.Queue
	owed      gaps.Owed     // losses not yet written down
	full      schema.Reason // why the disk took nothing, at the last try
	tail      tail.Tail
	retryAt   time.Time // not before: the disk failed
	retryWait time.Duration
	closed    bool
	stats     Stats
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
			ok, held := c.s.relieve(c, gap)
			if ok && try < commitTries {
				continue
			}
			if held || ok && !gap { // ok: others took the room
				err = fmt.Errorf("%w: %w", errHeld, err)
			}
		case c.files.Writer() != nil:
			c.s.Log.Error("spool segment is sealed because it cannot be appended to", "class", c.id.String(), "err", err)
			c.files.CloseWriter()
			if try < commitTries {
				continue
			}
		}
		c.cut = c.cut || classconf.Durable(c.id) && !disk.Full(err)
		c.mu.Lock()
		c.stats.CommitErrors++
		c.full = schema.ReasonUnsavable
		if disk.Full(err) {
			c.full = schema.ReasonDiskFull
		}
		c.mu.Unlock()
		c.s.failed(err)
		return err
	}
}

func (c *Class) tryCommit(items []*queue.Item, gap bool) error {
	c.mu.Lock()
	first := c.book.Next
	c.mu.Unlock()
	need := int64(classconf.CommitSlack)
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
	// Numbers that were settled from memory are in no file. Where the meta did
	// not say so before a record above them is in one, a restart would take them
	// for damage.
	c.mu.Lock()
	untold := c.book.Untold()
	c.mu.Unlock()
	if untold {
		if err := c.persist(); err != nil {
			return err
		}
	}
	c.recs = c.recs[:0]
	for _, it := range items {
		c.recs = append(c.recs, segment.Record{Seq: it.Seq, Wall: it.Wall, Payload: it.Payload})
	}
	start := time.Now()
	err := c.files.Append(c.recs)
	clear(c.recs)
	if err != nil {
		return err
	}
	c.committed(items, time.Since(start))
	return nil
}

// ready makes sure of a segment with room for need bytes, inside the quota.
func (c *Class) ready(first uint64, need int64, gap bool) error {
	if err := c.makeRoom(need, gap); err != nil {
		return err
	}
	if c.files.Room() {
		return nil
	}
	if !gap && disk.Low(c.dir) { // a new segment would take what others on the board need
		_, _ = c.s.evictLeast(c) // there is room for this one
	}
	return c.roll(first)
}

// roll seals the newest segment and begins a new one, whose first number is first.
// The meta says so before the first record is in it: should the file ever be gone,
// the next start knows.
func (c *Class) roll(first uint64) error {
	if err := c.files.Roll(first); err != nil {
		return err
	}
	if err := c.persist(); err != nil {
		c.files.CloseWriter()
		return err
	}
	c.cut = false
	return nil
}

// cutOff begins a new file where the last commit failed. It may be on the disk all the
// same, and the next start would give its records once more, which meanwhile went
// another way: to memory, or back to who made them. io is held.
func (c *Class) cutOff() error {
	if !c.cut {
		return nil
	}
	return c.roll(c.book.Next)
}

// makeRoom keeps the class inside its quota: alarms are refused, the others lose
// their oldest segment.
func (c *Class) makeRoom(need int64, gap bool) error {
	limit := c.cfg.QuotaBytes
	if c.id == schema.ClassAlarm {
		if gap {
			limit += c.cfg.SegmentBytes
		} else {
			limit -= limit / classconf.GapReserve
		}
		if c.files.Bytes()+need > limit && c.drained() { // acknowledged, and the cursor is not written yet
			if err := c.persist(); err != nil {
				return err
			}
		}
		if have := c.files.Bytes(); have+need > limit {
			return fmt.Errorf("%w: %d of %d bytes wait for the fleet", ErrFull, have, limit)
		}
		return nil
	}
	for c.files.Len() > 1 && c.files.Bytes()+need > limit {
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
	return c.files.Len() > 1 && c.files.At(0).Last <= c.book.Done.Low()
}

// reserve makes sure that numbers up to last are reserved on disk.
func (c *Class) reserve(last uint64) error {
	c.mu.Lock()
	old, short := c.book.Reserved, c.book.Short(last)
	if short {
		c.book.Reserved = last + c.book.Block()
	}
	c.mu.Unlock()
	if !short {
		return nil
	}
	err := c.persist()
	if err != nil {
		c.setReserved(old)
	}
	return err
}

func (c *Class) setReserved(n uint64) {
	c.mu.Lock()
	c.book.Reserved = n
	c.mu.Unlock()
}

// committed books items that are on disk.
func (c *Class) committed(items []*queue.Item, took time.Duration) {
	c.mu.Lock()
	c.book.Committed(len(items), items[len(items)-1].Seq)
	for _, it := range items {
		c.tail.Add(tail.Record{Seq: it.Seq, Wall: it.Wall, Payload: it.Payload})
		c.stats.AppendedBytes += uint64(len(it.Payload))
	}
	c.tail.Trim()
	c.stats.Appended += uint64(len(items))
	c.stats.Commits++
	c.stats.CommitSeconds += (took.Seconds() - c.stats.CommitSeconds) / 8
	c.retryAt, c.retryWait = time.Time{}, 0
	c.mu.Unlock()
	c.publish()
	c.s.Signal()
}

// persist writes reservation and cursor, then unlinks what is drained by it. io is held.
func (c *Class) persist() error {
	c.mu.Lock()
	m, untold := c.book.Meta(c.gen+1, c.files.Newest().First)
	c.mu.Unlock()
	if err := meta.Write(c.dir, c.id, m, c.s.NoSync); err != nil {
		c.mu.Lock()
		c.book.Unsaved(untold)
		c.mu.Unlock()
		return err
	}
	c.gen = m.Gen
	c.mu.Lock()
	c.book.Saved(&m)
	c.mu.Unlock()
	saved := ranges.New(m.Low, m.Above)
	err := c.files.Drop(func(first, last uint64) bool { return saved.Next(first) > last })
	c.publish()
	return err
}

// publish copies what Stats tells of the files.
func (c *Class) publish() {
	n, b := c.files.Len(), c.files.Bytes()
	c.mu.Lock()
	c.stats.Segments, c.stats.Bytes = n, b
	c.mu.Unlock()
}

// Ack settles what the fleet has.
func (c *Class) Ack(epoch, first, last uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	if err := c.book.Check(epoch, first, last, ErrUnknown); err != nil {
		return err
	}
	c.stats.Acked += c.settle(first, last)
	return nil
}

// settle marks numbers as done with; mu is held.
func (c *Class) settle(first, last uint64) uint64 {
	clean := !c.book.Dirty()
	n := c.book.Settle(first, last)
	if n > 0 && clean {
		c.poke()
	}
	low := c.book.Done.Low()
	c.tail.DropTo(low)
	if !classconf.Durable(c.id) {
		c.queue.PopTo(low)
	}
	return n
}

// poke makes the committer look again.
func (c *Class) poke() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

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
