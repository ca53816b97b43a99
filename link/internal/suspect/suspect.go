// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package suspect finds the record that a broker ends each connection for, and
// nothing else. MQTT 3.1.1 has no way to refuse one message: a broker that forbids
// its topic or its size hangs up, and again in the next connection.
//
// A message that is the first without a PUBACK in three connections in a row that
// the broker ended is held back, so that all others can go. Then its records are
// sent one by one, each alone in flight. A record that ends three more connections
// alone is condemned, if something else of its class got through meanwhile. Where
// nothing does, the broker or its rights are at fault: nothing is given up, the class
// waits until all else is sent, and now and then one of its records is tried.
//
// A [Watch] may be used by several goroutines. It outlives connections, not restarts.
package suspect

import (
	"slices"
	"sync"

	"fulmar/schema"
)

const (
	// strikes is how many connections in a row one message must end to be held back,
	// and how many more one record alone. Two may be chance on a bad line.
	strikes = 3
	// maxHeld bounds the messages held back at one time.
	maxHeld = 8
	// maxBlind bounds those of a class of which nothing gets through: with more the
	// fault is not in the messages.
	maxBlind = 2
	// minPack is the least that messages are cut down to, in bytes of records.
	minPack = 2 << 10
)

// Message names the records of one message.
type Message struct {
	Class       schema.Class
	Epoch       uint64
	First, Last uint64
	Size        int // bytes
}

// Record names one record.
type Record struct {
	Class schema.Class
	Epoch uint64
	Seq   uint64
}

// held is a message under suspicion.
type held struct {
	Message
	next  uint64 // record to try
	kills int    // connections that it ended alone while others got through
	// probe is where a record is looked for that gets through at all, counted from
	// First, while none has.
	probe uint64
	found bool // one of its records was condemned
}

// Verdict is what the end of a connection taught.
type Verdict struct {
	Suspect   *Message // held back from now on
	Condemned *Record  // give it up; then call Settled
	// Blocked is set where a class gets nothing through any more: class and the
	// message that ended the last connections.
	Blocked *Message
}

// Watch keeps what is suspected.
type Watch struct {
	mu      sync.Mutex
	last    Message // first without PUBACK when the last connections ended
	strikes int
	held    []*held
	through [schema.NumClasses]bool // something of the class got through since it is suspected
	blocked [schema.NumClasses]bool // the class waits: nothing of it gets through
	blind   [schema.NumClasses]int  // connections that probes ended
	pack    int                     // bytes of records in a message; 0 as many as fit
}

// Skip gives the first range held back of the class and epoch that ends at from or
// above it.
func (w *Watch) Skip(c schema.Class, epoch, from uint64) (first, last uint64, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.held {
		if h.Class == c && h.Epoch == epoch && h.Last >= from && (!ok || h.First < first) {
			first, last, ok = h.First, h.Last, true
		}
	}
	return first, last, ok
}

// Pack bounds the bytes of records in one message: what was learned of the broker's
// limit.
func (w *Watch) Pack(most int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pack > 0 {
		return min(w.pack, most)
	}
	return most
}

// Held is how many messages are held back.
func (w *Watch) Held() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.held)
}

// Blocked tells whether a class waits because nothing of it gets through.
func (w *Watch) Blocked(c schema.Class) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.blocked[c]
}

// Next gives a record to be sent alone, if it is time for one: something of its
// class has got through. With patient, where all else was sent and the connection
// has stood for long, nothing needs to have: then a record is looked for that does.
func (w *Watch) Next(patient bool) (Record, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.held {
		if w.through[h.Class] {
			return Record{h.Class, h.Epoch, h.next}, true
		}
	}
	if !patient || len(w.held) == 0 {
		return Record{}, false
	}
	h := w.held[0]
	return Record{h.Class, h.Epoch, h.First + h.probe%(h.Last-h.First+1)}, true
}

// Passed notes that a record went through alone.
func (w *Watch) Passed(r Record) {
	w.mu.Lock()
	w.pass(r.Class)
	w.mu.Unlock()
	w.Settled(r)
}

// pass notes that something of a class got through.
func (w *Watch) pass(c schema.Class) {
	w.through[c], w.blocked[c], w.blind[c] = true, false, 0
}

// Settled notes that a record is no question any more: it went through alone, was
// given up, or is gone from the spool.
func (w *Watch) Settled(r Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.IndexFunc(w.held, func(h *held) bool { return h.has(r) })
	if i < 0 {
		return
	}
	h := w.held[i]
	if r.Seq != h.next {
		h.probe++ // it will be found settled in its turn
		return
	}
	h.next, h.kills = r.Seq+1, 0
	if h.next <= h.Last {
		return
	}
	w.held = slices.Delete(w.held, i, i+1)
	if !h.found && h.First < h.Last {
		// Each alone is taken, all together are not: the broker takes no message so large.
		w.pack = max(h.Size/2, minPack)
	}
}

func (h *held) has(r Record) bool {
	return h.Class == r.Class && h.Epoch == r.Epoch && r.Seq >= h.First && r.Seq <= h.Last
}

// Through notes the PUBACK of a message.
func (w *Watch) Through(m Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.held {
		if h.has(Record{m.Class, m.Epoch, m.First}) {
			return // one of its own
		}
	}
	w.pass(m.Class)
}

// Ended notes the end of a connection by the broker: oldest is the first message
// without PUBACK, nil where there was none; trial is the record that was alone in
// flight, if one was.
func (w *Watch) Ended(oldest *Message, trial *Record) Verdict {
	w.mu.Lock()
	defer w.mu.Unlock()
	if oldest == nil {
		return Verdict{} // nothing to blame; the row goes on
	}
	if trial != nil {
		for _, h := range w.held {
			if h.has(*trial) && h.has(Record{oldest.Class, oldest.Epoch, oldest.First}) {
				return w.killed(h, *trial)
			}
		}
	}
	if oldest.Class != w.last.Class || oldest.Epoch != w.last.Epoch || oldest.First != w.last.First {
		w.last, w.strikes = *oldest, 0
	}
	// Messages are packed anew each time: what is common to all of them is suspected.
	w.last.Last, w.last.Size = min(w.last.Last, oldest.Last), min(w.last.Size, oldest.Size)
	if w.strikes++; w.strikes < strikes {
		return Verdict{}
	}
	return w.suspect()
}

// killed counts a connection that a record ended alone.
func (w *Watch) killed(h *held, r Record) Verdict {
	if w.through[h.Class] {
		if r.Seq != h.next {
			return Verdict{}
		}
		if h.kills++; h.kills < strikes {
			return Verdict{}
		}
		h.found = true
		return Verdict{Condemned: &r}
	}
	h.probe++
	w.held = append(slices.DeleteFunc(w.held, func(o *held) bool { return o == h }), h) // the next one's turn
	if w.blind[h.Class]++; w.blind[h.Class] < strikes {
		return Verdict{}
	}
	m := h.Message
	return Verdict{Blocked: &m}
}

// suspect holds back the message that ended the last connections.
func (w *Watch) suspect() Verdict {
	m := w.last
	same := 0
	for _, h := range w.held {
		if h.Class == m.Class {
			same++
		}
	}
	if same == 0 {
		w.through[m.Class], w.blind[m.Class] = false, 0
	}
	if same >= maxBlind && !w.through[m.Class] {
		w.blocked[m.Class] = true
		return Verdict{Blocked: &m}
	}
	if len(w.held) == maxHeld {
		return Verdict{}
	}
	w.held = append(w.held, &held{Message: m, next: m.First})
	w.strikes = 0
	return Verdict{Suspect: &m}
}
