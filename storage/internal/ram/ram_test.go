// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ram

import (
	"errors"
	"fmt"
	"math/rand/v2"
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
	if err := s.Refuse(schema.ClassAlarm, epoch(s, schema.ClassAlarm), 2, schema.ReasonOversize); err != nil {
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
		if err := s.Refuse(schema.ClassEvent, bad[0], bad[2]+1, schema.ReasonOversize); !errors.Is(err, ErrUnknown) {
			t.Errorf("refusal %v: %v", bad, err)
		}
	}
	if left := s.Left(); len(left) != 1 || left[0].First != 1 || left[0].Last != 1 || left[0].Epoch != e {
		t.Errorf("left is %v", left)
	}
}
