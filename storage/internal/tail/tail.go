// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package tail keeps the newest records of a class in memory, so that sending
// live does not read the disk. It does no locking.
package tail

import "fulmar/storage/internal/ranges"

// MaxBytes is how much payload is kept: two messages of the link.
const MaxBytes = 128 << 10

// Record is a record on disk that is also in memory.
type Record struct {
	Seq     uint64
	Wall    int64 // ms since 1970, at Append
	Payload []byte
}

// Tail keeps the newest records of a class, at most MaxBytes of them, in order and
// without leaving any out: from its first record on the disk need not be read.
type Tail struct {
	recs  []Record
	bytes int
}

// Add appends a record, whose number is above all that came before. Call Trim after
// the last of a batch.
func (t *Tail) Add(r Record) {
	t.recs = append(t.recs, r)
	t.bytes += len(r.Payload)
}

// Trim forgets the oldest records above MaxBytes.
func (t *Tail) Trim() {
	n := 0
	for t.bytes > MaxBytes {
		t.bytes -= len(t.recs[n].Payload)
		n++
	}
	t.drop(n)
}

// DropTo forgets the records up to seq.
func (t *Tail) DropTo(seq uint64) {
	n := 0
	for n < len(t.recs) && t.recs[n].Seq <= seq {
		t.bytes -= len(t.recs[n].Payload)
		n++
	}
	t.drop(n)
}

// drop cuts the first n records off; the array is reused from its front so that
// it does not creep and grow.
func (t *Tail) drop(n int) {
	if n == 0 {
		return
	}
	left := copy(t.recs, t.recs[n:])
	clear(t.recs[left:])
	t.recs = t.recs[:left]
}

// Holds tells whether everything from seq on that is on disk is here.
func (t *Tail) Holds(seq uint64) bool { return len(t.recs) > 0 && t.recs[0].Seq <= seq }

// Each calls fn for the unsettled records from seq on until it returns false.
func (t *Tail) Each(seq uint64, done *ranges.Settled, fn func(Record) bool) {
	lo, hi := 0, len(t.recs)
	for lo < hi {
		if mid := (lo + hi) / 2; t.recs[mid].Seq < seq {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	for _, r := range t.recs[lo:] {
		if !done.Has(r.Seq) && !fn(r) {
			return
		}
	}
}
