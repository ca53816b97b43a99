// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package clocks

import (
	"slices"
	"time"

	"fulmar/schema"
)

// Grade says how well a moment is known. In the database, append-only.
type Grade uint8

// The grades, best first.
const (
	Exact     Grade = 0
	Estimated Grade = 1
	Unknown   Grade = 2
)

// String gives the word of the API.
func (g Grade) String() string {
	switch g {
	case Exact:
		return "exact"
	case Estimated:
		return "estimated"
	}
	return "unknown"
}

const (
	// maxBoots bounds the boots of a board that are told apart; the oldest go.
	maxBoots = 64
	// Earliest is 2024-01-01, ms: no board ran before, so no clock is believed that
	// says so.
	Earliest = int64(1704067200000)
	// ahead is how far in the future a wall clock may be and still be believed, ms.
	ahead = 5 * 60 * 1000
	// driftPPM is how much faster or slower than the fleet's a board's oscillator
	// may run, parts per million: crystals are within 100, with heat within 200.
	driftPPM = 200
	// maxMono bounds a boot time that is believed, ns: a hundred years without a reboot.
	maxMono = int64(100 * 365 * 24 * time.Hour)
	// moved is by how much an offset must change for stored records to be placed
	// anew, ms.
	moved = 2000
	// settling is how long after the first word in a boot its records stay open, ms: a
	// word may have been held up, 20 s by a broker and 20 s at a board that connects, and
	// a quicker one then tells the time better.
	settling = 60_000
)

// evidence is what an offset rests on, worst first. In the database.
type evidence uint8

const (
	nothing evidence = 0
	told    evidence = 1 // the wall clock
	synced  evidence = 2 // the wall clock while NTP kept it
	fleet   evidence = 3 // the fleet's clock
)

// Boot is what is known of one boot. Times are in ms.
type Boot struct {
	_        struct{} `cbor:",toarray"`
	ID       uint64
	Evidence evidence
	Offset   int64 // real time less boot time, by Evidence
	Mark     int64 // boot time at which Offset was measured
	Last     int64 // highest boot time of a record
	// Placed is the offset by which its records are placed, after Order has been
	// kept; Stored the one by which those in the database are.
	Placed, Stored int64
	Open           bool                      // records in the database may be placed anew
	Closed         bool                      // placed for good
	First          [schema.NumClasses]number // lowest number heard of each class
	lo, hi         int64                     // bounds of all its records
	first          int64                     // when the fleet heard the boot first, in this process
	held           int64                     // hi, as it held for the records in the database
}

type number struct {
	_     struct{} `cbor:",toarray"`
	Epoch uint64
	Seq   uint64
}

// Board is what is known of a board's boots, oldest first.
type Board struct {
	_     struct{} `cbor:",toarray"`
	Boots []Boot
	Floor int64 // where the boots before these ended, 0 unknown
	news  bool
}

// News tells whether, since it was asked last, something became known that should
// not be lost; the rest are numbers that the next message tells again.
func (b *Board) News() bool {
	n := b.news
	b.news = false
	return n
}

func (b *Board) find(id uint64) *Boot {
	for i := len(b.Boots) - 1; i >= 0; i-- {
		if b.Boots[i].ID == id {
			return &b.Boots[i]
		}
	}
	return nil
}

// believable tells whether a boot time may be one.
func believable(t schema.Time) bool { return t.Mono >= 0 && t.Mono <= maxMono }

func ms(t schema.Time) int64 { return t.Mono / int64(time.Millisecond) }

// sane tells whether a wall clock may be right, seen from the fleet's now.
func sane(wall, now int64) bool { return wall >= Earliest && wall <= now+ahead }

// Sent notes that a message sent at t came now, by the fleet's clock: t.Boot is
// the boot of a board that is here.
func (b *Board) Sent(t schema.Time, now int64) {
	if !believable(t) {
		return
	}
	at := b.find(t.Boot)
	if at == nil {
		b.Boots = append(b.Boots, Boot{ID: t.Boot})
		at = &b.Boots[len(b.Boots)-1]
	}
	off := now - ms(t)
	b.news = b.news || at.Evidence != fleet
	if at.Evidence != fleet {
		at.first = now
	} else {
		off = min(off, at.Offset+max(0, ms(t)-at.Mark)*driftPPM/1_000_000)
	}
	at.Evidence, at.Offset, at.Mark, at.Closed = fleet, off, max(at.Mark, ms(t)), false
	at.Last = max(at.Last, ms(t))
}

// Heard notes a record of class, epoch and number that was made at t, in a message
// of the boot current.
func (b *Board) Heard(c schema.Class, epoch, seq uint64, t schema.Time, current uint64, now int64) {
	if !believable(t) {
		return
	}
	i := slices.IndexFunc(b.Boots, func(x Boot) bool { return x.ID == t.Boot })
	if i < 0 {
		i = slices.IndexFunc(b.Boots, func(x Boot) bool { return x.ID == current })
		if i < 0 {
			i = len(b.Boots)
		}
		b.Boots, b.news = slices.Insert(b.Boots, i, Boot{ID: t.Boot}), true
	}
	x := &b.Boots[i]
	x.Last = max(x.Last, ms(t))
	if x.Evidence == nothing && sane(t.Wall, now) {
		x.Evidence, x.Offset, x.Mark = told, t.WallOffset(), ms(t)
	}
	if f := &x.First[c]; f.Seq == 0 {
		*f = number{Epoch: epoch, Seq: seq}
	} else if f.Epoch == epoch {
		f.Seq = min(f.Seq, seq)
	}
	for ; i > 0 && t.Boot != current && b.Boots[i-1].after(&b.Boots[i]); i-- {
		b.Boots[i-1], b.Boots[i] = b.Boots[i], b.Boots[i-1]
	}
}

// after tells whether a's records were made after b's, by their numbers.
func (a *Boot) after(b *Boot) bool {
	for c := range a.First {
		if a.First[c].Seq > 0 && b.First[c].Seq > 0 && a.First[c].Epoch == b.First[c].Epoch {
			return a.First[c].Seq > b.First[c].Seq
		}
	}
	return false
}

// Anchor notes an anchor made at t. A boot that was measured by the fleet needs none.
func (b *Board) Anchor(t schema.Time, a *schema.Anchor, now int64) {
	x := b.find(t.Boot)
	if x == nil || !believable(t) || !sane(a.New+ms(t), now) {
		return
	}
	is := told
	if a.Synced {
		is = synced
	}
	if is < x.Evidence || is == x.Evidence && ms(t) < x.Mark {
		return
	}
	x.Evidence, x.Offset, x.Mark, b.news = is, a.New, ms(t), true
}

// Settle places all boots anew after what was noted and gives those whose stored
// records have to be placed anew. It drops the oldest boots over the bound.
func (b *Board) Settle(now int64) (changed []uint64) {
	if over := len(b.Boots) - maxBoots; over > 0 {
		for i := range b.Boots[:over] {
			b.Floor = max(b.Floor, min(now, b.Boots[i].Placed+b.Boots[i].Last))
		}
		b.Boots = slices.Delete(b.Boots, 0, over)
	}
	begins := now // the latest moment at which the next boot can have begun
	for i := len(b.Boots) - 1; i >= 0; i-- {
		x := &b.Boots[i]
		x.hi = max(begins, b.Floor, Earliest) // where boots tell more time than there was
		begins -= x.Last
		if x.Evidence == fleet {
			x.hi, begins = now, min(x.hi, x.Offset)
		}
	}
	lo, ordered := max(b.Floor, Earliest), b.Floor > 0
	for i := range b.Boots {
		x := &b.Boots[i]
		x.lo = min(lo, x.hi)
		switch {
		case x.Evidence == fleet:
			x.Placed, x.lo = x.Offset, Earliest
		case x.Closed:
			x.Placed = x.Stored
		default:
			off := x.Offset
			if x.Evidence == nothing {
				off = x.lo
				if !ordered { // of the first boots: just before the next whose time is told
					off = b.toldAfter(i) - x.Last
				}
			}
			x.Placed = max(min(off, x.hi-x.Last), x.lo)
		}
		lo, ordered = max(lo, min(now, x.Placed+x.Last)), true
		// Where the next boot turns out to have begun earlier than thought, so do those that
		// had to end before it.
		clamped := x.Evidence != fleet && x.held != 0 && x.hi < x.held-moved
		if d := x.Placed - x.Stored; x.Open && (clamped || d > moved || d < -moved) {
			changed = append(changed, x.ID)
			x.Stored, x.held, b.news = x.Placed, x.hi, true
		}
	}
	return changed
}

// toldAfter gives the moment before which a boot that is the first one known, and
// whose time nothing tells, must have ended.
func (b *Board) toldAfter(i int) int64 {
	end := b.Boots[i].hi
	for j := i + 1; j < len(b.Boots) && b.Boots[j].Evidence != fleet; j++ {
		if b.Boots[j].Evidence != nothing {
			end = min(end, b.Boots[j].Offset)
		}
	}
	return end
}

// Place gives the moment t on the fleet's clock, ms since 1970, and how well it is
// known. Call Settle after what was noted, before this.
func (b *Board) Place(t schema.Time, now int64) (int64, Grade) {
	x := b.find(t.Boot)
	if x == nil || !believable(t) {
		if sane(t.Wall, now) {
			return min(t.Wall, now), Unknown
		}
		return now, Unknown
	}
	at := x.Placed + ms(t)
	switch x.Evidence {
	case fleet:
		return min(max(at, Earliest), now), Exact
	case synced:
		return min(max(at, x.lo), x.hi), Estimated
	}
	return min(max(at, x.lo), x.hi), Unknown
}

// Stored notes that records of the boot are in the database which are placed anew
// should better evidence come, and tells whether that is so.
func (b *Board) Stored(boot uint64, now int64) bool {
	x := b.find(boot)
	if x == nil || x.Closed || x.Evidence == fleet && now-x.first > settling {
		return false
	}
	if !x.Open {
		x.Open, x.Stored, b.news = true, x.Placed, true
	}
	if x.held == 0 {
		x.held = x.hi
	}
	return true
}

// Close places a boot for good: its records are final.
func (b *Board) Close(boot uint64) {
	if x := b.find(boot); x != nil {
		x.Closed, x.Open, x.Stored = x.Evidence != fleet, false, x.Placed
	}
}

// Span gives a span that a board told by its wall clock, ms, on the fleet's clock:
// told in a record of wall time wall that lies at. Zeros where that makes no sense.
func Span(from, to, wall, at int64) (int64, int64) {
	const slack = 60_000 // ms by which the clock may have been set between the two
	off := at - wall
	fits := func(t int64) bool { return t > 0 && t < 1<<43 && t+off >= Earliest && t+off <= at+slack }
	if !fits(from) || !fits(to) || from > to {
		return 0, 0
	}
	return min(from+off, at), min(to+off, at)
}
