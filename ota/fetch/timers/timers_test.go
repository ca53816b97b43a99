// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package timers

import (
	"testing"
	"time"
)

// word lets a word of n pieces go over a line, of which another's take so much time before.
func word(w *Window, now *time.Time, trip, each, others time.Duration) (n int) {
	n = w.Pieces()
	*now = now.Add(trip + others + each)
	w.Took(trip+others+each, *now)
	for range n - 1 {
		*now = now.Add(each)
		w.Next(each, *now)
	}
	return n
}

// TestWindow: a line is kept busy, and what waits on it is no longer than the target, on
// lines of 1 to 1,000 Mbit/s.
func TestWindow(t *testing.T) {
	t.Parallel()
	const piece = 64 << 10
	for _, c := range []struct {
		mbit float64
		trip time.Duration
	}{{1, 100 * time.Millisecond}, {8, 50 * time.Millisecond}, {16, 20 * time.Millisecond}, {50, 20 * time.Millisecond}, {100, time.Millisecond}, {1000, 200 * time.Millisecond}} {
		each := time.Duration(piece * 8 / c.mbit * float64(time.Microsecond))
		w, now, sum := new(Window), time.Unix(1, 0), 0
		for i := range 400 {
			n := word(w, &now, c.trip, each, 0)
			if queue := time.Duration(n-1) * each; queue > targetDelay && i > 1 && each < targetDelay {
				t.Fatalf("%v Mbit/s, word %d: %d pieces wait %v", c.mbit, i, n, queue)
			}
			if i >= 200 {
				sum += n
			}
		}
		want := float64(min(1+targetDelay/each, maxWindow))
		if mean := float64(sum) / 200; mean < 0.6*want || mean > want+0.1 {
			t.Errorf("%v Mbit/s: %.2f pieces in the mean, wants %.2f", c.mbit, mean, want)
		}
	}
}

// TestOthers: what others send over the line makes the window small, and it grows again.
func TestOthers(t *testing.T) {
	t.Parallel()
	w, now := new(Window), time.Unix(1, 0)
	for range 20 {
		word(w, &now, 20*time.Millisecond, 2*time.Millisecond, 0)
	}
	full := w.Pieces()
	for range 8 {
		word(w, &now, 20*time.Millisecond, 2*time.Millisecond, 300*time.Millisecond)
	}
	if n := w.Pieces(); full < 20 || n != 1 {
		t.Errorf("%d pieces alone, %d beside others", full, n)
	}
	for range 20 {
		word(w, &now, 20*time.Millisecond, 2*time.Millisecond, 0)
	}
	if n := w.Pieces(); n < full/2 {
		t.Errorf("%d pieces afterwards, %d before", n, full)
	}
	for range 10 {
		w.Lost()
	}
	if n := w.Pieces(); n != 1 {
		t.Errorf("%d pieces on a line that loses all", n)
	}
}

// TestEstimate: a time that is waited for follows what was measured, and doubles while
// nothing comes.
func TestEstimate(t *testing.T) {
	t.Parallel()
	e := Estimate{First: time.Second, Least: 50 * time.Millisecond, Most: time.Minute}
	near := func(d, want time.Duration) {
		t.Helper()
		if d < want || d > want+want/10+1 {
			t.Errorf("%v, wants %v and a tenth at most", d, want)
		}
	}
	near(e.Timeout(), time.Second)
	for range 200 {
		e.Take(200 * time.Millisecond)
	}
	near(e.Timeout(), 200*time.Millisecond)
	e.Lost()
	e.Lost()
	near(e.Timeout(), 800*time.Millisecond)
	e.Calm()
	near(e.Timeout(), 200*time.Millisecond)
	for range 20 {
		e.Lost()
	}
	near(e.Timeout(), time.Minute)
	for range 200 {
		e.Take(time.Millisecond)
	}
	near(e.Timeout(), 50*time.Millisecond)
}
