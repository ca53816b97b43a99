// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package lanes

import (
	"testing"

	"fulmar/schema"
)

func cursor(c schema.Class, epoch, acked, last uint64) schema.Cursor {
	return schema.Cursor{Class: c, Epoch: epoch, Acked: acked, Last: last}
}

// TestFollow: at the beginning what is there is backlog and what comes is live; an
// epoch that comes later is live from its first number; one that is gone is dropped,
// but not under a picture that is on its way.
func TestFollow(t *testing.T) {
	t.Parallel()
	l := New()
	l.Follow([]schema.Cursor{cursor(schema.ClassEvent, 1, 10, 20), cursor(schema.ClassMetric, 2, 5, 5)}, true)
	want := []Lane{
		{Class: schema.ClassEvent, Epoch: 1, Side: Backlog, Next: 11, Last: 20},
		{Class: schema.ClassEvent, Epoch: 1, Side: Live, Next: 21},
		{Class: schema.ClassMetric, Epoch: 2, Side: Live, Next: 6},
	}
	check := func(want []Lane) {
		t.Helper()
		if len(l.all) != len(want) {
			t.Fatalf("%d lanes, wants %d", len(l.all), len(want))
		}
		for i, w := range want {
			got := *l.all[i]
			if w.Last == 0 {
				got.Last = 0
			}
			if got != w {
				t.Errorf("lane %d is %+v, wants %+v", i, got, w)
			}
		}
	}
	check(want)
	l.all[0].Next = 21 // done
	l.all[1].Busy = true
	l.Follow([]schema.Cursor{cursor(schema.ClassMetric, 2, 5, 50), cursor(schema.ClassEvent, 3, 1, 4)}, false)
	want[1].Busy = true
	check([]Lane{want[1], want[2], {Class: schema.ClassEvent, Epoch: 3, Side: Live, Next: 2}})
	l.all[0].Busy = false
	l.Follow(nil, false)
	check(nil)
	l.Follow([]schema.Cursor{cursor(schema.ClassEvent, 1, 12, 30)}, false) // its disk is back
	check([]Lane{{Class: schema.ClassEvent, Epoch: 1, Side: Backlog, Next: 13, Last: 30}, {Class: schema.ClassEvent, Epoch: 1, Side: Live, Next: 31}})
	l.all[1].Busy = true
	var many []schema.Cursor
	for i := range uint64(1000) {
		many = append(many, cursor(schema.ClassEvent, 100+i, 1, 4))
	}
	l.Follow(many, true)
	if len(l.all) > 1+2*schema.MaxCursors {
		t.Errorf("%d lanes", len(l.all))
	}
}

// TestTurns: by bytes live has 70 % and the backlog 30 %, in each events, metrics and
// pictures 4 : 2 : 1, and alarms are asked apart from all of them.
func TestTurns(t *testing.T) {
	t.Parallel()
	l := New()
	var cursors []schema.Cursor
	for i, c := range schema.Classes() {
		cursors = append(cursors, cursor(c, uint64(i+1), 0, 100))
	}
	l.Follow(cursors, true)
	got := map[[2]int]int{}
	step := func(size int) func(*Lane) (bool, int, error) {
		return func(o *Lane) (bool, int, error) {
			got[[2]int{o.Side, int(o.Class)}] += size
			return true, size, nil
		}
	}
	for i := range 100_000 {
		if done, _, err := l.Other(step(100 + i%900)); !done || err != nil {
			t.Fatal(done, err)
		}
		if done, _, err := l.Alarm(step(100)); !done || err != nil {
			t.Fatal(done, err)
		}
	}
	total := 0
	for side := range numSides {
		for _, c := range others {
			total += got[[2]int{side, int(c)}]
		}
	}
	for side, part := range [...]float64{Live: 0.7, Backlog: 0.3} {
		for i, of := range []float64{4. / 7, 2. / 7, 1. / 7} {
			share := float64(got[[2]int{side, int(others[i])}]) / float64(total)
			if d := share - part*of; d < -0.01 || d > 0.01 {
				t.Errorf("side %d, %s: %.3f, wants %.3f", side, others[i], share, part*of)
			}
		}
	}
	if live, old := got[[2]int{Live, 0}], got[[2]int{Backlog, 0}]; live+old != 100*100_000 || live < 69*100_000 || live > 71*100_000 {
		t.Errorf("alarms: %d live and %d of the backlog", live, old)
	}
}
