// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package book keeps the books of sequence numbers: which arrived, which are lost,
// how far a stream was heard of. It is pure; ingest stores it.
package book

import (
	"errors"
	"fmt"
)

const (
	// maxSpans bounds the ranges of one book: 1,024 take 8 KiB in its row, which
	// is rewritten with each transaction that touches it.
	maxSpans = 1024
	// MaxSeq is the highest number believed: a board giving out one each
	// microsecond needs 285 years for it, and JSON holds it exactly.
	MaxSeq = 1 << 53
)

// ErrBadNumber is wrapped when a sequence number is none a board could have given.
var ErrBadNumber = errors.New("sequence number refused")

// Book is the memory of one (board, class, epoch): which numbers arrived, which
// are lost, how far it was heard of. Its numbers always sum up:
// Heard = Arrived + Lost + Waiting.
//
// All numbers up to the floor are settled. Normally the floor rises over numbers
// that have arrived. Where a stream has more than maxSpans holes, the lowest one
// is closed: its numbers count as lost for good, later arrivals of them as
// duplicates.
type Book struct {
	Heard   uint64
	Floor   uint64
	Arrived uint64
	Closed  uint64 // numbers at or below the floor that never arrived
	Dups    uint64
	// FloorAt is when the newest number at or below the floor was made, ms since
	// 1970 as far as is known, 0 unknown: what waits is not older.
	FloorAt int64
	spans   spans // arrived, above the floor
	gaps    spans // told as lost, above the floor
}

// Arrival is what the arrival of a number means.
type Arrival uint8

// The arrivals.
const (
	Duplicate Arrival = iota // it had arrived before: no effect
	Fresh                    // first arrival
	Returned                 // first arrival, though a gap had told it as lost
)

// Arrive notes a number.
func (b *Book) Arrive(seq uint64) (Arrival, error) {
	if seq == 0 || seq > MaxSeq {
		return Duplicate, fmt.Errorf("%w: %d", ErrBadNumber, seq)
	}
	b.Heard = max(b.Heard, seq)
	if seq <= b.Floor || b.spans.has(seq) {
		b.Dups++
		return Duplicate, nil
	}
	b.Arrived++
	kind := Fresh
	if len(b.gaps) > 0 && b.gaps.has(seq) {
		kind = Returned
	}
	if seq == b.Floor+1 && len(b.spans) == 0 { // the common case
		b.Floor = seq
		if len(b.gaps) > 0 {
			b.gaps = b.gaps.cut(b.Floor)
		}
		return kind, nil
	}
	b.spans = b.spans.add(span{seq, seq})
	b.settle()
	return kind, nil
}

// Made notes when a number that has arrived was made.
func (b *Book) Made(seq uint64, at int64) {
	if seq <= b.Floor {
		b.FloorAt = max(b.FloorAt, at)
	}
}

// Lose notes a gap told by the board and tells how many numbers are lost by it:
// those that arrived stay so, those of an older gap were lost before.
func (b *Book) Lose(first, last uint64) (lost uint64, err error) {
	if first == 0 || last < first || last > MaxSeq {
		return 0, fmt.Errorf("%w: %d to %d", ErrBadNumber, first, last)
	}
	b.Heard = max(b.Heard, last)
	if last <= b.Floor {
		return 0, nil
	}
	before := b.Lost()
	b.gaps = b.gaps.add(span{max(first, b.Floor+1), last})
	lost = b.Lost() - before
	b.settle()
	return lost, nil
}

// Hear notes that the board has given out numbers up to last.
func (b *Book) Hear(last uint64) {
	if last <= MaxSeq {
		b.Heard = max(b.Heard, last)
	}
}

// Settled tells whether each number above from and up to to has arrived or is lost.
func (b *Book) Settled(from, to uint64) bool {
	at := max(from, b.Floor)
	for at < to {
		end := max(b.spans.end(at+1), b.gaps.end(at+1))
		if end == 0 {
			return false
		}
		at = end
	}
	return true
}

// settle raises the floor and keeps the sets bounded.
func (b *Book) settle() {
	for {
		if len(b.spans) > 0 && b.spans[0].first == b.Floor+1 {
			b.Floor = b.spans[0].last
			b.spans = b.spans[1:]
			b.gaps = b.gaps.cut(b.Floor)
			continue
		}
		if len(b.spans) <= maxSpans && len(b.gaps) <= maxSpans {
			return
		}
		// Close the lowest hole: up to the next arrived range, or to the end of
		// the lowest gap where that comes first.
		to := uint64(0)
		if len(b.gaps) > 0 {
			to = b.gaps[0].last
		}
		if len(b.spans) > 0 && (to == 0 || b.spans[0].first-1 < to) {
			to = b.spans[0].first - 1
		}
		b.Closed += to - b.Floor
		b.Floor = to
		b.gaps = b.gaps.cut(b.Floor)
	}
}

// Lost is how many numbers will never arrive, as far as is known.
func (b *Book) Lost() uint64 {
	n := b.gaps.count() + b.Closed
	for _, r := range b.spans {
		n -= b.gaps.overlap(r)
	}
	return n
}

// Waiting is how many numbers have neither arrived nor been told as lost.
func (b *Book) Waiting() uint64 { return b.Heard - b.Arrived - b.Lost() }

// Open reads a book from its columns.
func Open(heard, floor, arrived, closed, dups uint64, packedSpans, packedGaps []byte) (*Book, error) {
	s, err := unpackSpans(packedSpans)
	if err != nil {
		return nil, err
	}
	g, err := unpackSpans(packedGaps)
	if err != nil {
		return nil, err
	}
	return &Book{Heard: heard, Floor: floor, Arrived: arrived, Closed: closed, Dups: dups, spans: s, gaps: g}, nil
}

// Packed gives the ranges for a database row, as [Open] reads them.
func (b *Book) Packed() (spans, gaps []byte) { return b.spans.pack(), b.gaps.pack() }
