// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"fmt"
	"slices"
	"time"

	"fulmar/schema"
	"fulmar/storage/internal/answer"
	"fulmar/storage/internal/files"
	"fulmar/storage/internal/queue"
	"fulmar/storage/internal/ranges"
	"fulmar/storage/internal/segment"
	"fulmar/storage/internal/tail"
)

// fromMemory answers from memory where that is the whole answer; mu is held.
func (c *Class) fromMemory(rd *answer.Answer, want uint64) bool {
	if want <= c.book.Kept {
		if !c.tail.Holds(want) {
			return false
		}
		c.tail.Each(want, &c.book.Done, func(r tail.Record) bool { return rd.Take(r.Seq, r.Payload) })
	}
	if !rd.Complete && c.ramFirst() {
		c.queue.Each(want, func(it *queue.Item) bool {
			// A number that is not reserved on disk could be given again after a crash.
			return it.Seq <= c.book.Reserved && (c.book.Done.Has(it.Seq) || rd.Take(it.Seq, it.Payload))
		})
	}
	return true
}

// Read gives unsettled durable records from number from on.
func (c *Class) Read(from uint64, maxRecords, maxBytes int) ([]schema.Stored, error) {
	if maxRecords < 1 {
		return nil, nil
	}
	c.mu.Lock()
	rd := &answer.Answer{Class: c.id, Epoch: c.book.Epoch, Records: maxRecords, Room: maxBytes}
	if c.closed {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	all := c.fromMemory(rd, c.book.Done.Next(from))
	c.mu.Unlock()
	if all {
		return rd.Out, nil
	}
	c.io.Lock()
	defer c.io.Unlock()
	for want := from; !rd.Complete; {
		c.mu.Lock()
		want = c.book.Done.Next(want)
		all, closed := c.fromMemory(rd, want), c.closed
		c.mu.Unlock()
		if closed {
			return nil, ErrClosed
		}
		if all {
			break
		}
		next, err := c.readSegment(rd, want)
		if err != nil {
			if len(rd.Out) > 0 {
				break // what is sound goes out now; the error comes back with the next Read
			}
			return nil, fmt.Errorf("spool class %s: read from %d: %w", c.id, want, err)
		}
		want = next
	}
	return rd.Out, nil
}

// readSegment takes records from the segment that holds want, and writes down as
// corrupt what should be there and is not. It gives the number to go on from.
func (c *Class) readSegment(rd *answer.Answer, want uint64) (uint64, error) {
	i := c.files.Find(want)
	if i < 0 { // the segment is gone
		next := c.files.At(0).First
		return next, c.lose(ranges.Range{First: want, Last: next - 1}, schema.ReasonCorrupt, c.isAlarm())
	}
	last := c.files.At(i).Last
	if i == c.files.Len()-1 {
		c.mu.Lock()
		last = c.book.Kept
		c.mu.Unlock()
	}
	db, err := c.files.Reader(i)
	if why := files.Unreadable(err); why != 0 {
		c.s.Log.Error("spool segment cannot be opened and goes to quarantine", "class", c.id.String(), "err", err)
		return last + 1, c.giveUp(i, ranges.Range{First: want, Last: last}, why)
	}
	if err != nil {
		return 0, err
	}
	next, holes, err := c.files.Walk(db, want, last, func(r segment.Record) bool {
		return !c.open(r.Seq) || rd.Take(r.Seq, slices.Clone(r.Payload))
	})
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

// giveUp tells the numbers of r as lost and moves their file, the i-th, away.
func (c *Class) giveUp(i int, r ranges.Range, why schema.Reason) error {
	first := c.files.At(i).First
	if err := c.lose(r, why, c.isAlarm()); err != nil {
		return err
	}
	// The alarm class's own gap record may have changed the chain.
	if i >= c.files.Len() || c.files.At(i).First != first {
		return nil
	}
	return c.quarantine(i)
}

func (c *Class) isAlarm() bool { return c.id == schema.ClassAlarm }

// open tells whether a number is not settled yet.
func (c *Class) open(seq uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.book.Done.Has(seq)
}

// oldestAge is how long the oldest unsettled record has waited; zero where there
// is none or the disk is busy.
func (c *Class) oldestAge(now time.Time) time.Duration {
	c.mu.Lock()
	want := c.book.Done.Next(1)
	wall := int64(0)
	switch {
	case c.book.Done.Open(c.book.Kept) == 0:
		if c.queue.Len() == 0 {
			c.mu.Unlock()
			return 0
		}
		wall = c.queue.First().Wall
	case c.tail.Holds(want):
		c.tail.Each(want, &c.book.Done, func(r tail.Record) bool { wall = r.Wall; return false })
	}
	c.mu.Unlock()
	if wall == 0 && c.io.TryLock() {
		if !c.isClosed() {
			wall = c.files.Wall(max(0, c.files.Find(want)), want)
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
	sg := c.files.At(i)
	if i < c.files.Len()-1 {
		return c.shelve(i)
	}
	c.mu.Lock()
	first := c.book.Kept + 1
	c.mu.Unlock()
	c.files.CloseReader()
	if err := c.files.Roll(first); err != nil { // persist would remove the file: all of it is settled
		return err
	}
	if c.files.Newest().Path != sg.Path { // else it held nothing and has been replaced
		if err := c.shelve(i); err != nil {
			return err
		}
	}
	return c.persist()
}

// shelve moves the file of the i-th segment to quarantine.
func (c *Class) shelve(i int) error {
	if err := c.files.Shelve(i); err != nil {
		return err
	}
	c.mu.Lock()
	c.stats.Quarantined++
	c.mu.Unlock()
	c.publish()
	return nil
}
