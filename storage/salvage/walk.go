// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package salvage

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"fulmar/schema"
	"fulmar/storage/internal/ranges"
	"fulmar/storage/internal/segment"
	"fulmar/storage/vault"
)

// Record is one record that was found, with its identity on its board.
type Record struct {
	Class       schema.Class
	Epoch       uint64
	Seq         uint64
	Stored      time.Time      // when it was appended, by the board's clock, which may be wrong
	Settled     bool           // the fleet has it, or was told that it is lost
	Quarantined bool           // the fleet was told that it is lost
	Payload     []byte         // as it was stored; valid only during the call
	Body        *schema.Record // nil where the payload cannot be decoded
	Err         error          // then: why
}

// Report tells how reading one segment went.
type Report struct {
	Segment
	Class    schema.Class
	Epoch    uint64   // by its header; 0: the file cannot be opened
	Key      vault.ID // it is encrypted with; 0: it is plain
	Records  uint64   // that are sound
	Locked   uint64   // that could not be looked at for want of the key
	Waiting  uint64   // of these, not settled
	Last     uint64   // highest number found
	Oldest   time.Time
	Newest   time.Time
	Bad      Numbers // numbers whose frames do not match their checksum, or lie in a damaged part
	Missing  Numbers // numbers that should be there, and are not
	Unknown  Numbers // sound records that this program cannot decode
	Unread   int64   // bytes that the disk did not give
	Err      error   // why the file, or the rest of it, cannot be read
	Unopened bool    // Err is for want of the key: the file is sound so far as one can see
}

// Sound tells whether all of the segment could be read.
func (r *Report) Sound() bool {
	return r.Err == nil && r.Bad.Count == 0 && r.Missing.Count == 0 && r.Unknown.Count == 0 && r.Unread == 0
}

// Numbers is a set of numbers, of which the first ranges are kept.
type Numbers struct {
	Count  uint64
	Ranges []Range // at most maxRanges, rising
}

// Range is the inclusive range of numbers First to Last.
type Range = ranges.Range

// maxRanges bounds the ranges a report names: more are not read by a person.
const maxRanges = 16

func (n *Numbers) add(first, last uint64) {
	if last < first {
		return
	}
	n.Count += last - first + 1
	if i := len(n.Ranges); i > 0 && n.Ranges[i-1].Last+1 == first {
		n.Ranges[i-1].Last = last
	} else if i < maxRanges {
		n.Ranges = append(n.Ranges, Range{First: first, Last: last})
	}
}

// Select says what Walk gives.
type Select struct {
	Classes  []schema.Class          // nil: all
	Settled  bool                    // also what the fleet has, or was told as lost by the board
	Progress func(done, total int64) // bytes; nil: nobody asks
}

// Walk reads every frame of the classes, oldest segment first, and gives the sound
// records to fn: those that wait and, where sel says so, the settled ones. Records
// from quarantine count as waiting: the fleet has only been told of them. It ends
// early with fn's error; what is wrong with the files is in the reports, one for
// each segment.
func (s *Spool) Walk(sel Select, fn func(Record) error) (reports []Report, err error) {
	var total, done int64
	var classes []*Class
	for i := range s.Classes {
		if c := &s.Classes[i]; sel.Classes == nil || slices.Contains(sel.Classes, c.ID) {
			classes = append(classes, c)
			for _, sg := range c.Segments {
				total += sg.Bytes
			}
		}
	}
	for _, c := range classes {
		for _, sg := range c.Segments {
			w := walker{s: s, c: c, sel: sel, fn: fn, rep: Report{Segment: sg, Class: c.ID}}
			w.segment()
			reports = append(reports, w.rep)
			if w.stop != nil {
				return reports, w.stop
			}
			if done += sg.Bytes; sel.Progress != nil {
				sel.Progress(done, total)
			}
		}
	}
	return reports, nil
}

// walker reads one segment.
type walker struct {
	s     *Spool
	c     *Class
	sel   Select
	fn    func(Record) error
	rep   Report
	known bool   // the class's meta speaks of this segment
	next  uint64 // lowest number not yet seen
	stop  error  // of fn
}

func (w *walker) segment() {
	db, err := segment.OpenCopy(w.rep.Path, segment.Options{Keys: w.s.keys})
	if err != nil {
		w.rep.Err = err
		w.skipFile()
		return
	}
	defer func() { _ = db.Close() }() // of a copy: nothing can be lost
	h := db.Header
	w.rep.Epoch, w.rep.Key, w.rep.Unread = h.Epoch, h.Key, db.Unread
	if h.Class != w.c.ID || h.First != w.rep.First || h.Epoch == 0 {
		w.rep.Err = fmt.Errorf("%s is another file by its header: class %s, from number %d", w.rep.Path, h.Class, h.First)
		w.skipFile()
		return
	}
	if w.rep.Err = db.Locked; db.Locked != nil {
		w.rep.Unopened = true
	}
	w.known = h.Epoch == w.c.Epoch && !w.rep.Quarantined
	w.next = h.First
	limit := w.limit(db)
	for from := w.next; ; from = w.next {
		err := db.Walk(from, w.record)
		if err == nil || w.stop != nil {
			break
		}
		if !errors.Is(err, segment.ErrDamaged) || w.next > limit {
			w.rep.Err = errors.Join(w.rep.Err, err)
			break
		}
		to := db.SkipDamage(w.next, limit)
		w.rep.Bad.add(w.next, to-1)
		w.next = to
	}
	if w.stop == nil && w.known && w.rep.last > 0 {
		w.skipTo(w.rep.last + 1)
	}
}

// limit is a number that no record of the file is above.
func (w *walker) limit(db *segment.DB) uint64 {
	if w.rep.last > 0 {
		return w.rep.last
	}
	last, err := db.Last()
	if err != nil {
		last = w.rep.First + 1<<32 // more frames than fit in a file
	}
	return max(last, w.rep.First)
}

// skipFile books all that should be in a file which holds none of it.
func (w *walker) skipFile() {
	if w.known = !w.rep.Quarantined && w.c.Epoch != 0 && w.rep.last > 0; w.known {
		w.next = w.rep.First
		w.skipTo(w.rep.last + 1)
	}
}

// skipTo books the numbers before seq that were not found.
func (w *walker) skipTo(seq uint64) {
	if w.known {
		for _, r := range w.c.done.Missing(w.next, seq-1) {
			w.rep.Missing.add(r.First, r.Last)
		}
	}
	w.next = seq
}

// record takes one frame.
func (w *walker) record(r segment.Record, ok bool) bool {
	if r.Seq > w.next {
		w.skipTo(r.Seq)
	}
	w.next, w.rep.Last = r.Seq+1, r.Seq
	if !ok {
		if w.rep.Unopened {
			w.rep.Locked++
		} else {
			w.rep.Bad.add(r.Seq, r.Seq)
		}
		return true
	}
	at := time.UnixMilli(r.Wall).UTC()
	if w.rep.Records == 0 || at.Before(w.rep.Oldest) {
		w.rep.Oldest = at
	}
	if w.rep.Records == 0 || at.After(w.rep.Newest) {
		w.rep.Newest = at
	}
	w.rep.Records++
	settled := w.known && w.c.done.Has(r.Seq)
	if !settled {
		w.rep.Waiting++
	}
	body, err := schema.DecodeRecord(r.Payload)
	if err != nil {
		w.rep.Unknown.add(r.Seq, r.Seq)
	}
	if settled && !w.sel.Settled || w.fn == nil {
		return true
	}
	w.stop = w.fn(Record{
		Class: w.c.ID, Epoch: w.rep.Epoch, Seq: r.Seq, Stored: at, Settled: settled, Quarantined: w.rep.Quarantined,
		Payload: r.Payload, Body: body, Err: err,
	})
	return w.stop == nil
}
