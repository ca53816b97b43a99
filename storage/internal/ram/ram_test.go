// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ram

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"fulmar/schema"
)

func epoch(s *Store, c schema.Class) uint64 {
	for _, cur := range s.Cursors() {
		if cur.Class == c {
			return cur.Epoch
		}
	}
	return 0
}

// TestEveryNumberIsTold fills the classes far beyond their room while some is read
// and acknowledged: at the end each number was acknowledged or is in a gap, and the
// memory never passed its bound.
func TestEveryNumberIsTold(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 9))
		s := New(schema.Clock{})
		told := [schema.NumClasses]map[uint64]bool{{}, {}, {}, {}}
		var made [schema.NumClasses]uint64
		take := func(c schema.Class, most int) int {
			recs := s.Read(c, epoch(s, c), 0, most, 1<<20)
			for _, r := range recs {
				if rec, err := schema.DecodeRecord(r.Payload); err == nil && rec.Gap != nil {
					for n := rec.Gap.First; n <= rec.Gap.Last; n++ {
						told[rec.Gap.Class][n] = true
					}
				}
				told[c][r.Seq] = true
				if err := s.Ack(c, r.Epoch, r.Seq, r.Seq); err != nil {
					t.Fatal(err)
				}
			}
			return len(recs)
		}
		for range 3000 {
			c := schema.Class(1 + rng.IntN(3))
			if n, err := s.Append(c, make([]byte, 1+rng.IntN(2000))); err != nil || n != made[c]+1 {
				t.Fatalf("seed %d: append gives %d, %v", seed, n, err)
			}
			made[c]++
			if rng.IntN(20) == 0 {
				take(schema.Class(rng.IntN(4)), rng.IntN(30))
			}
			for c := range schema.Class(schema.NumClasses) {
				if st := s.Stats(c); st.Bytes > quota(c) {
					t.Fatalf("seed %d: %s holds %d bytes", seed, c, st.Bytes)
				}
			}
		}
		for _, c := range []schema.Class{1, 2, 3, 0} {
			for take(c, 100) > 0 {
			}
		}
		for c := schema.Class(1); c < schema.NumClasses; c++ {
			for n := uint64(1); n <= made[c]; n++ {
				if !told[c][n] {
					t.Fatalf("seed %d: number %d of %d of %s is neither read nor in a gap", seed, n, made[c], c)
				}
			}
		}
	}
}

func TestAlarmsAreRefused(t *testing.T) {
	t.Parallel()
	s := New(schema.Clock{})
	n := 0
	var err error
	for ; n < 10_000 && err == nil; n++ {
		_, err = s.Append(schema.ClassAlarm, []byte(fmt.Sprint("alarm ", n)))
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("after %d alarms: %v", n, err)
	}
	if err := s.Refuse(one(schema.ClassAlarm, epoch(s, schema.ClassAlarm), 2)); err != nil {
		t.Errorf("a gap has no room among alarms: %v", err)
	}
	if got := s.Read(schema.ClassAlarm, epoch(s, schema.ClassAlarm), 1, 1, 0); len(got) != 1 || got[0].Seq != 1 {
		t.Errorf("the oldest alarm is not kept: %v", got)
	}
}

func TestUnknownIsRefused(t *testing.T) {
	t.Parallel()
	s := New(schema.Clock{})
	if err := s.Ack(schema.ClassEvent, 0, 1, 1); err == nil {
		t.Error("an empty class acknowledges")
	}
	if _, err := s.Append(schema.ClassEvent, []byte("x")); err != nil {
		t.Fatal(err)
	}
	e := epoch(s, schema.ClassEvent)
	for _, bad := range [][3]uint64{{e + 1, 1, 1}, {e, 0, 1}, {e, 1, 2}, {e, 2, 1}} {
		if err := s.Ack(schema.ClassEvent, bad[0], bad[1], bad[2]); !errors.Is(err, ErrUnknown) {
			t.Errorf("acknowledgement %v: %v", bad, err)
		}
		if err := s.Refuse(one(schema.ClassEvent, bad[0], bad[2]+1)); !errors.Is(err, ErrUnknown) {
			t.Errorf("refusal %v: %v", bad, err)
		}
	}
	if left := s.Left(); len(left) != 1 || left[0].First != 1 || left[0].Last != 1 || left[0].Epoch != e {
		t.Errorf("left is %v", left)
	}
}

// TestMoreMadeThanSent: for longer than any bound, twice as much is made as the link
// takes. Each acknowledgement goes through and the cursor follows: what was dropped
// leaves no hole.
func TestMoreMadeThanSent(t *testing.T) {
	t.Parallel()
	s, c, from := New(schema.Clock{}), schema.ClassMetric, uint64(0)
	var e uint64
	for round := range 3 * maxIntervals {
		for range 20 {
			if _, err := s.Append(c, make([]byte, 400)); err != nil {
				t.Fatal(err)
			}
		}
		e = epoch(s, c)
		recs := s.Read(c, e, from, 10, 1<<20)
		from = recs[len(recs)-1].Seq + 1
		if err := s.Ack(c, e, recs[0].Seq, from-1); err != nil {
			t.Fatalf("round %d: %v; %+v", round, err, s.Stats(c))
		}
		if round%50 == 7 { // the alarms, and among them the gaps, go as well
			ae := epoch(s, schema.ClassAlarm)
			for _, g := range s.Read(schema.ClassAlarm, ae, 0, 100, 1<<20) {
				if err := s.Ack(schema.ClassAlarm, ae, g.Seq, g.Seq); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if s.Stats(c).Dropped == 0 {
		t.Fatal("nothing was dropped: the test proves nothing")
	}
	for recs := s.Read(c, e, 0, 100, 1<<20); len(recs) > 0; recs = s.Read(c, e, 0, 100, 1<<20) {
		if err := s.Ack(c, e, recs[0].Seq, recs[len(recs)-1].Seq); err != nil {
			t.Fatal(err)
		}
	}
	for _, cur := range s.Cursors() {
		if cur.Class == c && cur.Acked != cur.Last {
			t.Errorf("all is sent or dropped and told, and the cursor stands at %d of %d", cur.Acked, cur.Last)
		}
	}
}

// TestBoundOfHoles: at the bound an acknowledgement that makes one more hole is
// refused, one that closes or joins some is taken.
func TestBoundOfHoles(t *testing.T) {
	t.Parallel()
	s, c := New(schema.Clock{}), schema.ClassEvent
	for range 2*maxIntervals + 10 {
		if _, err := s.Append(c, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	e := epoch(s, c)
	n := uint64(2)
	for ; n <= 2*maxIntervals; n += 2 {
		if err := s.Ack(c, e, n, n); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Ack(c, e, n+1, n+1); err == nil || errors.Is(err, ErrUnknown) {
		t.Errorf("one hole more than %d: %v", maxIntervals, err)
	}
	for _, ok := range [][2]uint64{{n - 1, n}, {5, 7}, {4, 4}, {1, 1}} {
		if err := s.Ack(c, e, ok[0], ok[1]); err != nil {
			t.Errorf("at the bound, and %d to %d makes no hole: %v", ok[0], ok[1], err)
		}
	}
	if err := s.Ack(c, e, n+2, n+2); err != nil {
		t.Errorf("holes were closed and there is room again: %v", err)
	}
}

// TestSettledAsWhatItIs: what was refused or dropped is settled and told once, under
// its reason; for the end with a disk also where nobody took the gap, or there was no
// room for it.
func TestSettledAsWhatItIs(t *testing.T) {
	t.Parallel()
	s, c := New(schema.Clock{}), schema.ClassMetric
	for range 3 {
		if _, err := s.Append(c, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	e := epoch(s, c)
	for range 2 {
		if err := s.Refuse(one(c, e, 1)); err != nil {
			t.Fatal(err)
		}
	}
	a := epoch(s, schema.ClassAlarm)
	if n := len(s.Read(schema.ClassAlarm, a, 0, 100, 1<<20)); n != 1 {
		t.Errorf("%d gaps of one refusal", n)
	}
	for s.addGap(&schema.Gap{Class: schema.ClassEvent, Epoch: 9, First: 1, Last: 1, Reason: schema.ReasonQuota}) {
	}
	for range 2 {
		if _, err := s.Append(c, make([]byte, quota(c)-2*(100+2*overhead))); err != nil {
			t.Fatal(err)
		}
	}
	i := slices.IndexFunc(s.Cursors(), func(cur schema.Cursor) bool { return cur.Class == c })
	if cur := s.Cursors()[i]; cur.Acked != 1 || cur.Last != 5 {
		t.Errorf("2 to 4 are dropped and the alarms have no room to tell it, and the cursor says %+v", cur)
	}
	told := map[uint64]schema.Reason{}
	for _, g := range s.Left() {
		for n := g.First; g.Class == c && n <= g.Last; n++ {
			told[n] = g.Reason
		}
	}
	want := map[uint64]schema.Reason{1: schema.ReasonOversize, 2: schema.ReasonUnsavable, 3: schema.ReasonUnsavable, 4: schema.ReasonUnsavable, 5: schema.ReasonUnsavable}
	if fmt.Sprint(told) != fmt.Sprint(want) {
		t.Errorf("left is %v, want %v", told, want)
	}
}

// one is the gap of one number.
func one(c schema.Class, epoch, seq uint64) schema.Gap {
	return schema.Gap{Class: c, Epoch: epoch, First: seq, Last: seq, Reason: schema.ReasonOversize}
}
