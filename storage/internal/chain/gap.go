// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"errors"
	"fmt"
	"slices"

	"fulmar/schema"
	"fulmar/storage/internal/classconf"
	"fulmar/storage/internal/disk"
	"fulmar/storage/internal/gaps"
	"fulmar/storage/internal/queue"
	"fulmar/storage/internal/ranges"
)

// lose writes down that the unsettled numbers of r are lost, and only then
// settles them. io is held; alarmHeld: that of the alarm class is, too.
func (c *Class) lose(r ranges.Range, why schema.Reason, alarmHeld bool) error {
	from, to := int64(0), int64(0)
	if why == schema.ReasonQuota || why == schema.ReasonDiskFull {
		c.mu.Lock()
		first := c.book.Done.Next(r.First)
		c.mu.Unlock()
		from, to = c.files.Walls(first)
	}
	return c.loseBetween(r, why, from, to, alarmHeld)
}

// loseBetween is lose for records of the times from to to, ms since 1970; 0 unknown.
func (c *Class) loseBetween(r ranges.Range, why schema.Reason, from, to int64, alarmHeld bool) error {
	if err := c.settleOwed(alarmHeld); err != nil {
		return err
	}
	c.mu.Lock()
	parts := c.book.Done.Missing(r.First, r.Last)
	epoch := c.book.Epoch
	c.mu.Unlock()
	if len(parts) == 0 {
		return nil
	}
	lost := gaps.Of(parts, schema.Gap{Class: c.id, Epoch: epoch, Reason: why, FromWall: from, ToWall: to})
	if err := c.s.writeGaps(lost, alarmHeld); err != nil {
		return err
	}
	c.mu.Lock()
	for _, g := range lost {
		c.lost(g)
	}
	c.mu.Unlock()
	return nil
}

// lost settles a gap that is written down; mu is held.
func (c *Class) lost(g schema.Gap) {
	if c.queue.Len() == 0 || c.queue.First().Seq > g.Last { // else what waits below it would look missing
		c.book.Kept = max(c.book.Kept, g.Last)
	}
	c.stats.Lost[g.Reason] += c.settle(g.First, g.Last)
}

// settleOwed writes the gaps that could not be written when they came to be.
func (c *Class) settleOwed(alarmHeld bool) error {
	c.mu.Lock()
	owed := slices.Clone(c.owed)
	c.mu.Unlock()
	if len(owed) == 0 {
		return nil
	}
	if err := c.reserve(owed[len(owed)-1].Last); err != nil {
		return err
	}
	if err := c.s.writeGaps(owed, alarmHeld); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, g := range owed {
		c.lost(g)
	}
	c.owed.Paid(owed)
	return nil
}

// WriteGaps puts gap records into the alarm class, durable.
func (s *Shared) WriteGaps(lost []schema.Gap) error { return s.writeGaps(lost, false) }

// failed tells the owner of a disk that fails; one that is full does not.
func (s *Shared) failed(err error) {
	if s.Failed != nil && disk.Failed(err) {
		s.Failed(err)
	}
}

// writeGaps puts gap records into the alarm class, durable.
func (s *Shared) writeGaps(lost []schema.Gap, alarmHeld bool) error {
	a := s.classes[schema.ClassAlarm]
	if !alarmHeld {
		a.io.Lock()
		defer a.io.Unlock()
	}
	now := s.Clock.Now()
	items := make([]*queue.Item, 0, len(lost))
	for i := range lost {
		b, err := schema.EncodeRecord(&schema.Record{Kind: schema.KindGap, Time: now, Gap: &lost[i]})
		if err != nil {
			return fmt.Errorf("write gap: %w", err)
		}
		items = append(items, &queue.Item{Wall: now.Wall, Payload: b})
	}
	if err := a.commit(items, true); err != nil {
		return fmt.Errorf("write gap: %w", err)
	}
	for _, g := range lost {
		if g.Reason == schema.ReasonThinned {
			s.Log.Info("spool thinned records to summaries", "class", g.Class.String(), "first", g.First, "last", g.Last)
			continue
		}
		s.Log.Warn("spool lost records", "class", g.Class.String(), "first", g.First, "last", g.Last, "reason", g.Reason.String())
	}
	return nil
}

// evict gives the oldest segment up: gap first, then the cursor, then the file.
func (c *Class) evict(why schema.Reason, alarmHeld bool) error {
	if err := c.lose(ranges.Range{First: 1, Last: c.files.At(0).Last}, why, alarmHeld || c.id == schema.ClassAlarm); err != nil {
		return err
	}
	return c.persist()
}

// errHeld: what could give way is in use by its own class.
var errHeld = errors.New("the classes that could give way are busy")

// relieve makes room on a full disk for class c, whose io is held: a segment, or for a
// gap record or an alarm a step of the balloon. ok: another try makes sense. held: a
// class that could give way is busy.
func (s *Shared) relieve(c *Class, gap bool) (ok, held bool) {
	if !gap {
		ok, held = s.evictLeast(c)
	}
	return ok || (gap || c.isAlarm()) && s.Balloon.Release(!gap), held
}

// evictLeast gives up the oldest segment of the least urgent class, but of none more
// urgent than c itself, whose io is held. Others may hold theirs and wait for c's, so
// theirs is not waited for: see makeWay.
func (s *Shared) evictLeast(c *Class) (ok, held bool) {
	for id := schema.Class(schema.NumClasses - 1); id > schema.ClassAlarm && id >= c.id && !ok; id-- {
		v := s.classes[id]
		switch {
		case v == c && held && classconf.Durable(id): // rather wait for those than lose one's own
			return false, true
		case v != c && !v.io.TryLock():
			held = true
			continue
		}
		ok = v.giveWay(c.isAlarm())
		if v != c {
			v.io.Unlock()
		}
	}
	return ok, held
}

// makeWay is evictLeast for a caller who holds no io, and so may wait for others'.
func (s *Shared) makeWay(c *Class) {
	ok := false
	for id := schema.Class(schema.NumClasses - 1); id > schema.ClassAlarm && id >= c.id && !ok; id-- {
		v := s.classes[id]
		v.io.Lock()
		ok = !v.isClosed() && v.giveWay(false)
		v.io.Unlock()
	}
}

// giveWay gives up the oldest segment on a full disk. Half of what is free by it goes
// back to the balloon: the next gap needs it. io is held.
func (c *Class) giveWay(alarmHeld bool) bool {
	if c.files.Len() < 2 {
		return false
	}
	bytes := c.files.At(0).Bytes
	if err := c.evict(schema.ReasonDiskFull, alarmHeld); err != nil {
		return false
	}
	if err := c.s.Balloon.Return(bytes / 2); err != nil {
		c.s.Log.Debug("spool has less reserve for a full disk", "err", err)
	}
	return true
}

// Refuse writes durable records down as lost for a reason that chain does not know
// of, and then settles them: the gap as it is, but for what of it is settled already.
func (c *Class) Refuse(g schema.Gap) error {
	c.io.Lock()
	defer c.io.Unlock()
	c.mu.Lock()
	known, closed := g.Epoch == c.book.Epoch && g.First > 0 && g.First <= g.Last && g.Last <= c.book.Given(), c.closed
	c.mu.Unlock()
	switch {
	case closed:
		return ErrClosed
	case !known:
		return fmt.Errorf("%w: %d to %d of epoch %016x", ErrUnknown, g.First, g.Last, g.Epoch)
	}
	return c.loseBetween(ranges.Range{First: g.First, Last: g.Last}, g.Reason, g.FromWall, g.ToWall, c.isAlarm())
}
