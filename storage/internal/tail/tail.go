// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import "fulmar/storage/internal/ranges"

// tailRecord is a record on disk that is also in memory.
type tailRecord struct {
	seq     uint64
	wall    int64
	payload []byte
}

// tail keeps the newest records of a class, at most tailBytes of them, in order
// and without leaving any out: from its first record on the disk need not be read.
type tail struct {
	recs  []tailRecord
	bytes int
}

func (t *tail) add(r tailRecord) {
	t.recs = append(t.recs, r)
	t.bytes += len(r.payload)
	n := 0
	for t.bytes > tailBytes {
		t.bytes -= len(t.recs[n].payload)
		n++
	}
	t.drop(n)
}

// dropTo forgets the records up to seq.
func (t *tail) dropTo(seq uint64) {
	n := 0
	for n < len(t.recs) && t.recs[n].seq <= seq {
		t.bytes -= len(t.recs[n].payload)
		n++
	}
	t.drop(n)
}

// drop cuts the first n records off; the array is reused from its front so that
// it does not creep and grow.
func (t *tail) drop(n int) {
	if n == 0 {
		return
	}
	left := copy(t.recs, t.recs[n:])
	clear(t.recs[left:])
	t.recs = t.recs[:left]
}

// holds tells whether everything from seq on that is on disk is here.
func (t *tail) holds(seq uint64) bool { return len(t.recs) > 0 && t.recs[0].seq <= seq }

// each calls fn for the unsettled records from seq on until it returns false.
func (t *tail) each(seq uint64, done *ranges.Settled, fn func(tailRecord) bool) {
	lo, hi := 0, len(t.recs)
	for lo < hi {
		if mid := (lo + hi) / 2; t.recs[mid].seq < seq {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	for _, r := range t.recs[lo:] {
		if !done.Has(r.seq) && !fn(r) {
			return
		}
	}
}
