// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package ram is what a spool keeps while it has no disk: a bounded ring for each
// class, in memory, under epochs of its own. Its numbers can be reserved nowhere, so
// they must never be taken for those of the spool on disk.
package ram

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"fulmar/schema"
	"fulmar/storage/internal/gaps"
	"fulmar/storage/internal/meta"
	"fulmar/storage/internal/ranges"
)

// What a caller may want to tell apart; the spool's own errors wrap them.
var (
	ErrFull    = errors.New("memory is full")
	ErrUnknown = errors.New("unknown range")
	errHoles   = errors.New("too many separate ranges are acknowledged")
)

const (
	// alarmBytes and the others bound what is held: 1 MiB in all, of a daemon of 16.
	alarmBytes    = 256 << 10
	eventBytes    = 384 << 10
	metricBytes   = 256 << 10
	snapshotBytes = 128 << 10
	// overhead is what a record costs beside its payload.
	overhead = 64
	// gapReserve is what only gap records may fill of the alarms' share.
	gapReserve = 16 << 10
	// maxIntervals bounds the settled intervals of a class.
	maxIntervals = 1024
)

func quota(c schema.Class) int {
	return [schema.NumClasses]int{alarmBytes, eventBytes, metricBytes, snapshotBytes}[c]
}

type item struct {
	seq     uint64
	at      time.Time
	payload []byte
}

// ring holds one class, oldest first.
type ring struct {
	epoch   uint64 // zero until the first record
	next    uint64
	items   []item
	bytes   int
	done    ranges.Settled // acknowledged, refused or dropped: all that is not in items
	untold  ranges.Range   // dropped, and no gap record made yet; zero: none
	dropped uint64
}

// Store is the memory of all classes.
type Store struct {
	clock schema.Clock

	mu    sync.Mutex
	rings [schema.NumClasses]ring
}

// New makes an empty store; clock stamps its gap records.
func New(clock schema.Clock) *Store { return &Store{clock: clock} }

// Append keeps a copy of a record and gives its number. The oldest records of the
// class make room, except for alarms: those are refused with [ErrFull].
func (s *Store) Append(c schema.Class, payload []byte) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, need := &s.rings[c], len(payload)+overhead
	limit := quota(c)
	if c == schema.ClassAlarm {
		if limit -= gapReserve; r.bytes+need > limit {
			return 0, fmt.Errorf("%w: %d bytes of alarms wait for the fleet and there is no disk", ErrFull, r.bytes)
		}
	}
	for len(r.items) > 0 && r.bytes+need > limit {
		r.drop()
	}
	return r.add(slices.Clone(payload)), nil
}

func (r *ring) add(payload []byte) uint64 {
	if r.epoch == 0 {
		r.epoch, r.next = meta.NewEpoch(), 1
	}
	it := item{seq: r.next, at: time.Now(), payload: payload}
	r.next++
	r.items = append(r.items, it)
	r.bytes += len(payload) + overhead
	return it.seq
}

// drop loses the oldest record. Records go in the order of their numbers, so one
// range tells of all; what of it the fleet has, it knows. The number is settled:
// nobody will acknowledge it, and a hole that stays would be there for ever.
func (r *ring) drop() {
	it := r.items[0]
	r.remove(0)
	if r.untold.First == 0 {
		r.untold.First = it.seq
	}
	r.untold.Last = it.seq
	r.done.Add(it.seq, it.seq)
	r.dropped++
}

func (r *ring) remove(i int) {
	r.bytes -= len(r.items[i].payload) + overhead
	r.items = slices.Delete(r.items, i, i+1)
}

// Read gives records of a class and epoch that are not acknowledged, from number
// from on: at most maxRecords, and at most maxBytes unless the first is larger.
func (s *Store) Read(c schema.Class, epoch, from uint64, maxRecords, maxBytes int) []schema.Stored {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c == schema.ClassAlarm {
		s.tellDropped()
	}
	r := &s.rings[c]
	if r.epoch != epoch {
		return nil
	}
	var out []schema.Stored
	for _, it := range r.items {
		if it.seq < from {
			continue
		}
		if maxBytes -= len(it.payload); len(out) >= maxRecords || len(out) > 0 && maxBytes < 0 {
			break
		}
		out = append(out, schema.Stored{Class: c, Epoch: epoch, Seq: it.seq, Payload: it.payload})
	}
	return out
}

// tellDropped makes the gap records that are due; one for each class, however much
// was dropped since the last.
func (s *Store) tellDropped() {
	for c := range s.rings {
		r := &s.rings[c]
		if r.untold.First == 0 {
			continue
		}
		g := schema.Gap{Class: schema.Class(c), Epoch: r.epoch, First: r.untold.First, Last: r.untold.Last, Reason: schema.ReasonUnsavable}
		if s.addGap(&g) {
			r.untold = ranges.Range{}
		}
	}
}

// addGap puts a gap record among the alarms, if it has room.
func (s *Store) addGap(g *schema.Gap) bool {
	a := &s.rings[schema.ClassAlarm]
	b, err := schema.EncodeRecord(&schema.Record{Kind: schema.KindGap, Time: s.clock.Now(), Gap: g})
	if err != nil || a.bytes+len(b)+overhead > alarmBytes {
		return false
	}
	a.add(b)
	return true
}

// Ack frees what the fleet has. Many records acknowledged out of order are refused at
// a bound, but never those that close or join what was acknowledged before.
func (s *Store) Ack(c schema.Class, epoch, first, last uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.rings[c]
	switch {
	case !r.knows(epoch, first, last):
		return fmt.Errorf("%w: %d to %d of epoch %016x, kept in memory", ErrUnknown, first, last, epoch)
	case len(r.done.Above()) >= maxIntervals && r.done.Splits(first, last):
		return fmt.Errorf("%w: %d, kept in memory; acknowledge %d first", errHoles, maxIntervals, r.done.Low()+1)
	}
	r.forget(first, last)
	return nil
}

func (r *ring) knows(epoch, first, last uint64) bool {
	return r.epoch != 0 && r.epoch == epoch && first > 0 && first <= last && last < r.next
}

// forget settles numbers and lets go of their records.
func (r *ring) forget(first, last uint64) {
	r.done.Add(first, last)
	r.items = slices.DeleteFunc(r.items, func(it item) bool {
		gone := it.seq >= first && it.seq <= last
		if gone {
			r.bytes -= len(it.payload) + overhead
		}
		return gone
	})
}

// Refuse tells records as lost for a reason that the store does not know of. What is
// settled already stays as it was told.
func (s *Store) Refuse(g schema.Gap) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.rings[g.Class]
	if !r.knows(g.Epoch, g.First, g.Last) {
		return fmt.Errorf("%w: %d to %d of epoch %016x, kept in memory", ErrUnknown, g.First, g.Last, g.Epoch)
	}
	for _, lost := range gaps.Of(r.done.Missing(g.First, g.Last), g) {
		if !s.addGap(&lost) {
			return ErrFull
		}
		r.forget(lost.First, lost.Last)
	}
	return nil
}

// Cursors tells where the classes stand that hold or held something. What was dropped
// counts as settled once a gap record of it is among the alarms.
func (s *Store) Cursors() (out []schema.Cursor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tellDropped() // else a reader would not learn that there are alarms
	for c := range s.rings {
		r := &s.rings[c]
		if r.epoch == 0 {
			continue
		}
		low := r.done.Low()
		if r.untold.First > 0 {
			low = min(low, r.untold.First-1)
		}
		out = append(out, schema.Cursor{Class: schema.Class(c), Epoch: r.epoch, Acked: low, Last: r.next - 1})
	}
	return out
}

// Left tells what the fleet does not have, as gaps, for whoever ends with a disk: the
// records held, what was dropped and not told, and the gap records that nobody took,
// as they are.
func (s *Store) Left() (out []schema.Gap) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.rings {
		r := &s.rings[c]
		if r.epoch == 0 {
			continue
		}
		lost := schema.Gap{Class: schema.Class(c), Epoch: r.epoch, Reason: schema.ReasonUnsavable}
		if r.untold.First > 0 {
			out = append(out, gaps.Of([]ranges.Range{r.untold}, lost)...)
		}
		out = append(out, gaps.Of(r.done.Missing(1, r.next-1), lost)...)
	}
	for _, it := range s.rings[schema.ClassAlarm].items {
		if rec, err := schema.DecodeRecord(it.payload); err == nil && rec.Kind == schema.KindGap && rec.Gap != nil {
			out = append(out, *rec.Gap)
		}
	}
	return out
}

// Stats tells of one class.
type Stats struct {
	Records, Bytes int
	Dropped        uint64
	Oldest         time.Time // of what is held; zero: nothing is
}

// Stats tells how much is held.
func (s *Store) Stats(c schema.Class) Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.rings[c]
	st := Stats{Records: len(r.items), Bytes: r.bytes, Dropped: r.dropped}
	if len(r.items) > 0 {
		st.Oldest = r.items[0].at
	}
	return st
}
