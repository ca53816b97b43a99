// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package numbers

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/schema"
	"fulmar/storage/internal/meta"
	"fulmar/storage/internal/ranges"
	"fulmar/storage/internal/recovery"
)

func book(c schema.Class, st recovery.State) *Book {
	b := &Book{Class: c}
	b.Load(st)
	return b
}

// TestNoNumberTwice: after any stop the next number is above all that can have been
// seen, and what is skipped is told.
func TestNoNumberTwice(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		class  schema.Class
		st     recovery.State
		next   uint64
		unused []ranges.Range
	}{
		"durable, the files tell":  {schema.ClassEvent, recovery.State{Meta: meta.Meta{Reserved: 4096, Low: 10}, Used: 20, Exact: true}, 21, nil},
		"durable, a file is gone":  {schema.ClassEvent, recovery.State{Meta: meta.Meta{Reserved: 4096, Low: 10}, Used: 20}, 4097, []ranges.Range{{First: 21, Last: 4096}}},
		"metrics":                  {schema.ClassMetric, recovery.State{Meta: meta.Meta{Reserved: 1024, Low: 10}, Used: 20, Exact: true}, 1025, []ranges.Range{{First: 21, Last: 1024}}},
		"durable, a file is begun": {schema.ClassEvent, recovery.State{Meta: meta.Meta{Reserved: 4096, Low: 10}, Used: 20, Begun: 31, Exact: true}, 31, []ranges.Range{{First: 21, Last: 30}}},
		"metrics, a file is begun": {schema.ClassMetric, recovery.State{Meta: meta.Meta{Reserved: 25, Low: 10}, Used: 20, Begun: 31, Exact: true}, 31, []ranges.Range{{First: 21, Last: 30}}},
		"metrics settled ahead": {
			schema.ClassMetric,
			recovery.State{Meta: meta.Meta{Reserved: 1024, Low: 10, Above: []ranges.Range{{First: 500, Last: 600}}}, Used: 20},
			1025,
			[]ranges.Range{{First: 21, Last: 499}, {First: 601, Last: 1024}},
		},
	} {
		b := book(c.class, c.st)
		if b.Next != c.next {
			t.Errorf("%s: next is %d, want %d", name, b.Next, c.next)
		}
		got := b.Unused()
		if len(got) != len(c.unused) {
			t.Fatalf("%s: unused %v, want %v", name, got, c.unused)
		}
		for i := range got {
			if got[i] != c.unused[i] {
				t.Errorf("%s: unused %v, want %v", name, got, c.unused)
			}
		}
	}
}

// TestUntold follows numbers that are settled from memory until the meta says so,
// also over a write that failed.
func TestUntold(t *testing.T) {
	t.Parallel()
	b := book(schema.ClassMetric, recovery.State{Meta: meta.Meta{Reserved: 2000}})
	b.Next = 101
	if b.Settle(1, 50) != 50 || !b.Untold() || b.Kept != 50 {
		t.Fatalf("untold %v, kept %d", b.Untold(), b.Kept)
	}
	_, untold := b.Meta(1, 1)
	b.Unsaved(untold)
	if !b.Untold() {
		t.Fatal("a failed write counts as one")
	}
	m, _ := b.Meta(1, 1)
	b.Settle(51, 60) // while it is written
	b.Saved(&m)
	if !b.Untold() || !b.Dirty() {
		t.Error("what was settled during the write is taken for written")
	}
	m, _ = b.Meta(2, 1)
	b.Saved(&m)
	if b.Untold() || b.Dirty() || m.Low != 60 {
		t.Errorf("untold %v, dirty %v, low %d", b.Untold(), b.Dirty(), m.Low)
	}
}

// TestCursorIsLazyWhereItFreesNothing: a cursor each half second where files wait
// for it, each minute where not, at once where numbers run short.
func TestCursorIsLazyWhereItFreesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := book(schema.ClassMetric, recovery.State{Meta: meta.Meta{Reserved: 2000}})
		b.Next = 101
		if !b.CursorDue(false).IsZero() {
			t.Error("due with nothing to say")
		}
		b.Settle(1, 10)
		if d := time.Until(b.CursorDue(false)); d != time.Minute {
			t.Errorf("nothing on disk: in %v", d)
		}
		b.Committed(100, 100)
		if d := time.Until(b.CursorDue(false)); d != 500*time.Millisecond {
			t.Errorf("files wait: in %v", d)
		}
		b.Next = 1950
		if d := time.Until(b.CursorDue(true)); d != 0 {
			t.Errorf("numbers run short: in %v", d)
		}
	})
}

func TestCheck(t *testing.T) {
	t.Parallel()
	unknown := errors.New("unknown")
	b := book(schema.ClassEvent, recovery.State{Meta: meta.Meta{Epoch: 7}, Used: 10, Exact: true})
	if err := b.Check(7, 1, 10, unknown); err != nil {
		t.Error(err)
	}
	for _, bad := range [][3]uint64{{8, 1, 1}, {7, 0, 1}, {7, 5, 4}, {7, 1, 11}} {
		if err := b.Check(bad[0], bad[1], bad[2], unknown); !errors.Is(err, unknown) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	n := uint64(12)
	for ; len(b.Done.Above()) < 4096; n += 2 {
		b.Done.Add(n, n)
	}
	b.Committed(1, 2*n)
	if err := b.Check(7, n+1, n+1, unknown); err == nil || errors.Is(err, unknown) {
		t.Errorf("one interval more than 4096: %v", err)
	}
	for _, good := range [][2]uint64{{1, 1}, {1, 11}, {13, 13}, {n - 1, n - 1}, {n - 2, n + 7}, {12, 2 * n}} {
		if err := b.Check(7, good[0], good[1], unknown); err != nil {
			t.Errorf("4096 intervals, and one that closes or joins some: %v", err)
		}
	}
}

// TestBlock: what a crash may overstate goes by the rate of metrics, and alarms
// have few.
func TestBlock(t *testing.T) {
	t.Parallel()
	slow, fast := book(schema.ClassMetric, recovery.State{}), book(schema.ClassMetric, recovery.State{})
	for n := range uint64(40) {
		slow.Committed(1, n+1)
		fast.Committed(1000, 1000*(n+1))
	}
	if slow.Block() != 256 || fast.Block() != 8192 {
		t.Errorf("blocks of %d and %d", slow.Block(), fast.Block())
	}
	if n := book(schema.ClassAlarm, recovery.State{}).Block(); n != 256 {
		t.Errorf("block of alarms is %d", n)
	}
}
