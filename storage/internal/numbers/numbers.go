// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package numbers is who has which number of a class: what was given out, what is on
// disk, what is settled, and what of that the meta on disk says. It does no locking
// and no I/O.
package numbers

import (
	"fmt"
	"slices"
	"time"

	"fulmar/schema"
	"fulmar/storage/internal/classconf"
	"fulmar/storage/internal/meta"
	"fulmar/storage/internal/ranges"
	"fulmar/storage/internal/recovery"
)

// Book is the numbers of one class.
type Book struct {
	Class    schema.Class
	Epoch    uint64
	Next     uint64         // number of the next record
	Kept     uint64         // all numbers up to it are on disk or settled
	OnDisk   uint64         // highest number in a file
	Reserved uint64         // highest number that may be used, as the meta on disk says
	Done     ranges.Settled // what is settled

	commit   uint64    // records in a commit, lately; of metrics it sets the block
	savedLow uint64    // all numbers up to it are settled, as the meta on disk says
	dirty    time.Time // since when Done differs from the disk's; zero: it does not
	inMemory bool      // numbers were settled that are in no file, and the meta does not say so
}

// Load takes over what recovery found.
func (b *Book) Load(st recovery.State) {
	b.Epoch, b.Reserved, b.Done = st.Epoch, st.Reserved, ranges.New(st.Low, st.Above)
	b.Next = max(b.Done.Highest()+1, st.Used+1, st.Begun)
	if !classconf.Durable(b.Class) || !st.Exact {
		// Numbers may have been seen that are in no file.
		b.Next = max(b.Next, b.Reserved+1)
	}
	b.Kept, b.OnDisk, b.savedLow = max(st.Used, b.Done.Low()), st.Used, b.Done.Low()
}

// Unused are the numbers that may have been seen and are in no file, after Load.
func (b *Book) Unused() []ranges.Range { return b.Done.Missing(b.Kept+1, b.Next-1) }

// Given is the highest number that a reader can have seen.
func (b *Book) Given() uint64 {
	if classconf.Durable(b.Class) {
		return b.Kept
	}
	return max(b.Kept, min(b.Next-1, b.Reserved))
}

// Settle marks numbers as done with and tells how many were not before.
func (b *Book) Settle(first, last uint64) uint64 {
	n := b.Done.Add(first, last)
	if n > 0 && b.dirty.IsZero() {
		b.dirty = time.Now()
	}
	if !classconf.Durable(b.Class) {
		b.inMemory = b.inMemory || n > 0 && last > b.OnDisk
		b.Kept = max(b.Kept, b.Done.Low())
	}
	return n
}

// Dirty tells whether the meta on disk lags behind.
func (b *Book) Dirty() bool { return !b.dirty.IsZero() }

// Block is how many numbers to reserve: some commits' worth of metrics.
func (b *Book) Block() uint64 {
	most := classconf.ReserveBlock(b.Class)
	if classconf.Durable(b.Class) {
		return most
	}
	return min(max(blockCommits*b.commit, classconf.ReserveLeast), most)
}

// blockCommits is for how many commits a block of metrics lasts.
const blockCommits = 32

// Committed notes that n records are on disk, and all numbers up to last there or
// settled.
func (b *Book) Committed(n int, last uint64) {
	b.commit = (3*b.commit + uint64(n)) / 4
	b.Kept, b.OnDisk, b.Next = max(b.Kept, last), max(b.OnDisk, last), max(b.Next, last+1)
}

// Short tells whether more numbers must be reserved before last is used. Metrics get
// their numbers before the commit, so theirs are reserved half a block ahead.
func (b *Book) Short(last uint64) bool {
	ahead := uint64(0)
	if !classconf.Durable(b.Class) {
		ahead = b.Block() / 2
	}
	return last+ahead > b.Reserved
}

// Untold tells whether the meta must be written before a record is: numbers that
// were settled from memory are in no file, and below a number that is in one they
// would be taken for damage.
func (b *Book) Untold() bool { return b.inMemory }

// Meta is what is to be written to disk. Call Saved or Unsaved after the try.
func (b *Book) Meta(gen, newest uint64) (m meta.Meta, untold bool) {
	above := b.Done.Above()
	m = meta.Meta{
		Gen: gen, Epoch: b.Epoch, Reserved: max(b.Reserved, b.Done.Highest()), Low: b.Done.Low(), Newest: newest,
		Above: slices.Clone(above[:min(len(above), meta.MaxIntervals)]),
	}
	untold, b.inMemory = b.inMemory, false // what is settled from now on is not in m
	return m, untold
}

// Saved notes that m is on disk.
func (b *Book) Saved(m *meta.Meta) {
	b.Reserved, b.savedLow = m.Reserved, m.Low
	if b.Done.Low() == m.Low {
		b.dirty = time.Time{}
	}
}

// Unsaved notes that a meta did not reach the disk.
func (b *Book) Unsaved(untold bool) { b.inMemory = b.inMemory || untold }

// CursorDue tells when the meta is to be written; zero: it need not be. ahead: the
// reader takes records from memory and needs reserved numbers.
func (b *Book) CursorDue(ahead bool) time.Time {
	switch {
	case ahead && b.Next+b.Block()/2 > b.Reserved:
		return time.Now()
	case b.dirty.IsZero():
		return time.Time{}
	case b.savedLow >= b.OnDisk: // it would free nothing
		return b.dirty.Add(classconf.CursorLazy)
	}
	return b.dirty.Add(classconf.CursorEvery)
}

// Check refuses an acknowledgement of what nobody can have seen; unknown is wrapped.
// At the bound of intervals it still takes what closes or joins one: refused for
// ever, an acknowledgement would hold up all that come after it.
func (b *Book) Check(epoch, first, last uint64, unknown error) error {
	switch {
	case epoch != b.Epoch:
		return fmt.Errorf("%w: epoch %016x, the spool's is %016x", unknown, epoch, b.Epoch)
	case first == 0 || last < first || last > b.Given():
		return fmt.Errorf("%w: %d to %d, given out are 1 to %d", unknown, first, last, b.Given())
	case len(b.Done.Above()) >= classconf.MaxIntervals && b.Done.Splits(first, last):
		return fmt.Errorf("%d separate ranges are acknowledged; acknowledge %d first", classconf.MaxIntervals, b.Done.Low()+1)
	}
	return nil
}

// Cursor tells where the class stands.
func (b *Book) Cursor() schema.Cursor {
	return schema.Cursor{Class: b.Class, Epoch: b.Epoch, Acked: b.Done.Low(), Last: b.Next - 1}
}
