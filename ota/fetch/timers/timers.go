// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package timers measures how long pieces take, and from that tells when one is lost and how
// many may be on their way.
package timers

import (
	"math/rand/v2"
	"time"
)

// Estimate is a time that is measured again and again, as RFC 6298 does for a round trip.
type Estimate struct {
	First       time.Duration // the timeout while nothing was measured
	Least, Most time.Duration // its bounds

	mean, dev time.Duration
	backoff   uint // doublings since it was measured last
}

// Take takes a measure.
func (e *Estimate) Take(d time.Duration) {
	e.backoff = 0
	if e.mean == 0 {
		e.mean, e.dev = max(d, 1), d/2
		return
	}
	off := d - e.mean
	e.dev += (max(off, -off) - e.dev) / 4
	e.mean += off / 8
}

// Timeout is after what time what was expected is lost, with a tenth of jitter: boards that
// lost the same must not ask in the same moment.
func (e *Estimate) Timeout() time.Duration {
	d := e.First
	if e.mean > 0 {
		d = e.mean + 4*e.dev
	}
	d = min(max(d, e.Least)<<min(e.backoff, 10), e.Most)
	return d + rand.N(d/10+1)
}

// Lost notes that it was waited for in vain.
func (e *Estimate) Lost() { e.backoff++ }

// Calm ends the doublings: what is measured next has another reason to be late.
func (e *Estimate) Calm() { e.backoff = 0 }

// Bounds of the window of a [Window].
const (
	firstWindow = 2
	maxWindow   = 64 // 4 MiB
	// targetDelay is how long pieces may wait on the line: what the fleet acknowledges comes
	// behind them. With the two round trips of a far line, or a piece on a slow one, a record
	// is acknowledged within 120 ms then.
	targetDelay = 60 * time.Millisecond
	// recent is how long the shortest delay is remembered, once to twice: routes change. As
	// often a line that takes one piece at a time is tried with two.
	recent = 15 * time.Second
)

// Window is how many pieces may be on their way. It grows while they come at once, to as
// many as the line takes within a bound, and shrinks when they queue: it keeps the line
// busy, not its buffers full.
type Window struct {
	size   float64
	base   [2]time.Duration // shortest delays, of this while and the last
	turned time.Time
	each   time.Duration // mean time between pieces of a word; 0 not known
	tried  time.Time     // when it was measured last
}

// Pieces is the window as a number.
func (w *Window) Pieces() int {
	if w.size == 0 {
		w.size = firstWindow
	}
	return min(int(w.size), w.most())
}

// most is how many pieces a queue of targetDelay has, and the one that goes.
func (w *Window) most() int {
	if w.each == 0 {
		return maxWindow
	}
	return 1 + int(min(targetDelay/w.each, maxWindow-1))
}

// Next takes how long a piece came after the one before it, both of the same word.
func (w *Window) Next(d time.Duration, now time.Time) {
	w.tried = now
	if w.each == 0 {
		w.each = max(d, 1)
		return
	}
	w.each = max(w.each+(d-w.each)/8, 1)
}

// Took takes how long the first piece of a word took.
func (w *Window) Took(d time.Duration, now time.Time) {
	if now.Sub(w.turned) > recent {
		w.base[1], w.base[0], w.turned = w.base[0], d, now
	}
	w.base[0] = min(w.base[0], d)
	base := w.base[0]
	if w.base[1] > 0 {
		base = min(base, w.base[1])
	}
	if w.each > 0 && now.Sub(w.tried) > recent {
		w.each, w.size = 0, max(w.size, firstWindow)
	}
	switch late := d - base; {
	case late < targetDelay/2:
		w.size = w.size * 1.5
	case late < targetDelay:
		w.size++
	case late < 2*targetDelay:
		w.size *= 0.8
	default:
		w.size /= 2
	}
	w.size = max(min(w.size, float64(w.most())), 1)
}

// Lost notes that pieces did not come.
func (w *Window) Lost() { w.size = max(w.size/2, 1) }
