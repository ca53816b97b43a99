// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package suspect

import (
	"math/rand/v2"
	"slices"
	"testing"

	"fulmar/schema"
)

func message(first, last uint64) Message {
	return Message{Class: schema.ClassEvent, Epoch: 9, First: first, Last: last}
}

// strike ends three connections right after m.
func strike(w *Watch, m Message) Verdict {
	var v Verdict
	for range strikes {
		v = w.Ended(&m, nil)
	}
	return v
}

// kill ends connections with r alone in flight.
func kill(w *Watch, r Record, times int) Verdict {
	var v Verdict
	for range times {
		m := Message{Class: r.Class, Epoch: r.Epoch, First: r.Seq, Last: r.Seq}
		v = w.Ended(&m, &r)
	}
	return v
}

// TestOneOfEight: of eight records one is bad; it alone is condemned.
func TestOneOfEight(t *testing.T) {
	t.Parallel()
	w := &Watch{}
	if v := strike(w, message(1, 8)); v.Suspect == nil || *v.Suspect != message(1, 8) {
		t.Fatalf("%+v", v)
	}
	if first, last, ok := w.Skip(schema.ClassEvent, 9, 5); !ok || first != 1 || last != 8 {
		t.Fatalf("holds %d to %d, %v", first, last, ok)
	}
	if r, ok := w.Next(false); ok {
		t.Fatalf("tries %v though nothing else got through", r)
	}
	w.Through(message(9, 20))
	for seq := uint64(1); seq <= 8; seq++ {
		r, ok := w.Next(false)
		if !ok || r.Seq != seq {
			t.Fatalf("tries %v, wants %d", r, seq)
		}
		if seq != 5 {
			w.Passed(r)
			continue
		}
		if v := kill(w, r, strikes-1); v != (Verdict{}) {
			t.Fatalf("after two: %+v", v)
		}
		if v := kill(w, r, 1); v.Condemned == nil || *v.Condemned != r {
			t.Fatalf("after three: %+v", v)
		}
		w.Settled(r)
	}
	if w.Held() != 0 || w.Pack(9999) != 9999 {
		t.Errorf("%d held, packs %d", w.Held(), w.Pack(9999))
	}
}

// TestTooLargeTogether: where each record alone gets through, none is condemned and
// messages become smaller.
func TestTooLargeTogether(t *testing.T) {
	t.Parallel()
	w := &Watch{}
	for range 10 {
		m := message(1, 8)
		m.Size = w.Pack(schema.MaxPayload)
		strike(w, m)
		w.Through(message(9, 9))
		for r, ok := w.Next(false); ok; r, ok = w.Next(false) {
			w.Passed(r)
		}
	}
	if w.Pack(1<<20) != minPack {
		t.Errorf("packs %d bytes, wants %d", w.Pack(1<<20), minPack)
	}
}

// TestNothingGetsThrough: with every message ending the connection, none is ever
// condemned, however long it goes on, and it is said what is wrong.
func TestNothingGetsThrough(t *testing.T) {
	t.Parallel()
	w := &Watch{}
	blocked, probed := 0, map[uint64]bool{}
	for range 1000 {
		m := message(1, 4)
		for _, last, ok := w.Skip(schema.ClassEvent, 9, 1); ok; _, last, ok = w.Skip(schema.ClassEvent, 9, last+1) {
			m = message(last+1, last+4)
		}
		var v Verdict
		if r, ok := w.Next(true); ok && (w.Blocked(schema.ClassEvent) || rand.IntN(2) == 0) {
			v = kill(w, r, 1)
			probed[r.Seq] = true
		} else {
			v = w.Ended(&m, nil)
		}
		if v.Condemned != nil {
			t.Fatalf("condemned %v", *v.Condemned)
		}
		if v.Blocked != nil {
			blocked++
		}
		if w.Held() > maxHeld {
			t.Fatalf("%d held", w.Held())
		}
	}
	if blocked == 0 || !w.Blocked(schema.ClassEvent) {
		t.Error("it was never said that nothing gets through")
	}
	if len(probed) != 4*maxBlind {
		t.Errorf("%d records were tried, wants all of those held back", len(probed))
	}
	r, _ := w.Next(true)
	w.Passed(r) // the rights were mended
	if w.Blocked(schema.ClassEvent) {
		t.Error("still blocked")
	}
	if next, ok := w.Next(false); !ok {
		t.Errorf("tries %v, %v", next, ok)
	}
}

// TestBadLine: connections that end at different messages make nobody a suspect,
// nor do those that end with nothing in flight.
func TestBadLine(t *testing.T) {
	t.Parallel()
	w := &Watch{}
	for i := range uint64(100) {
		m := message(1+i/2*8, 8+i/2*8) // each message at most twice
		if v := w.Ended(&m, nil); v != (Verdict{}) {
			t.Fatalf("%+v", v)
		}
		if v := w.Ended(nil, nil); v != (Verdict{}) {
			t.Fatalf("%+v", v)
		}
	}
}

// TestOtherGenerationsDoNotCount: a connection that ends with the trial already
// acknowledged is not held against it.
func TestOtherGenerationsDoNotCount(t *testing.T) {
	t.Parallel()
	w := &Watch{}
	strike(w, message(1, 1))
	w.Through(message(2, 2))
	r, _ := w.Next(false)
	for range 2 * strikes {
		m := message(100, 101)
		if v := w.Ended(&m, &r); v.Condemned != nil {
			t.Fatalf("%+v", v)
		}
		if v := w.Ended(nil, &r); v.Condemned != nil {
			t.Fatalf("%+v", v)
		}
	}
}

// TestPackedAnew: messages that begin alike and end differently are held back only
// as far as they are alike.
func TestPackedAnew(t *testing.T) {
	t.Parallel()
	w := &Watch{}
	var v Verdict
	for _, last := range slices.Backward([]uint64{40, 7, 20}) {
		m := message(1, last)
		v = w.Ended(&m, nil)
	}
	if v.Suspect == nil || *v.Suspect != message(1, 7) {
		t.Errorf("%+v", v.Suspect)
	}
}
