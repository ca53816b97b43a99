// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package pace

import (
	"testing"
	"time"
)

var t0 = time.Unix(1000, 0)

// line is a line of some bytes a second and a delay: what is sent is answered when
// all before it has gone through. It gives bytes a second and the longest answer.
func line(p *Pace, perSecond float64, delay, span time.Duration) (rate float64, longest time.Duration) {
	const message = 4 << 10
	type flight struct{ sent, back time.Time }
	var flying []flight
	now, free, total := t0, t0, 0
	for now.Before(t0.Add(span)) {
		for {
			if ok, _ := p.Go(now); !ok {
				break
			}
			if free.Before(now) {
				free = now
			}
			free = free.Add(time.Duration(message / perSecond * float64(time.Second)))
			flying = append(flying, flight{now, free.Add(delay)})
			p.Sent(message, now)
		}
		if len(flying) == 0 {
			now = now.Add(time.Millisecond)
			continue
		}
		f := flying[0]
		flying = flying[1:]
		now = f.back
		total += message
		took := now.Sub(f.sent)
		if now.After(t0.Add(span / 2)) {
			longest = max(longest, took)
		}
		p.Answered(took, message, now)
	}
	return float64(total) / span.Seconds(), longest
}

// TestLines: slow, far and fast lines are used, and none of them is filled with a
// queue of seconds.
func TestLines(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what     string
		rate     float64
		delay    time.Duration
		share    float64 // of the line, or of what the window lets through
		longest  time.Duration
		atMost   int
		expected float64
	}{
		{"a fast LAN", 100e6, 200 * time.Microsecond, 0.9, 60 * time.Millisecond, 256 << 10, 100e6},
		{"a mobile line of 1 Mbit/s", 125e3, 50 * time.Millisecond, 0.85, 500 * time.Millisecond, 256 << 10, 125e3},
		{"a satellite of 10 Mbit/s", 1.25e6, 600 * time.Millisecond, 0.75, 1500 * time.Millisecond, 256 << 10, 256 << 10 / 0.6},
	} {
		p := New(c.atMost)
		got, longest := line(p, c.rate, c.delay, time.Minute)
		if got < c.share*c.expected || longest > c.longest {
			t.Errorf("%s: %.0f bytes/s of %.0f, the longest answer took %v, wants at most %v", c.what, got, c.expected, longest, c.longest)
		}
	}
}

// TestStartsSmall: a new connection does not send a window at once.
func TestStartsSmall(t *testing.T) {
	t.Parallel()
	p := New(256 << 10)
	used := 0
	for ok := true; ok; ok, _ = p.Go(t0) {
		p.Sent(1<<10, t0)
		used += 1 << 10
	}
	if used > first {
		t.Errorf("%d bytes went before the first answer, wants at most %d", used, first)
	}
	for range 40 {
		p.Answered(time.Millisecond, p.Limit(), t0)
	}
	if p.Limit() != 256<<10 {
		t.Errorf("after 40 windows the limit is %d", p.Limit())
	}
}

// TestHalvesOnce: one late window halves once, however many messages it had, and
// never goes below the floor.
func TestHalvesOnce(t *testing.T) {
	t.Parallel()
	p := New(256 << 10)
	for range 40 {
		p.Answered(time.Millisecond, p.Limit(), t0)
	}
	p.flying = 0
	now := t0.Add(time.Second)
	for range 20 {
		p.Answered(100*time.Millisecond, 1000, now)
	}
	if p.Limit() != 128<<10 {
		t.Errorf("the limit is %d, wants one halving", p.Limit())
	}
	for range 20 {
		now = now.Add(200 * time.Millisecond)
		p.Answered(100*time.Millisecond, 1000, now)
	}
	if p.Limit() != floor {
		t.Errorf("the limit is %d, wants the floor %d", p.Limit(), floor)
	}
	if ok, _ := p.Go(now); !ok {
		t.Error("nothing may go with nothing in flight")
	}
}

// TestNewRoute: a route that became longer for good is not taken for a queue for
// longer than the memory of the old one.
func TestNewRoute(t *testing.T) {
	t.Parallel()
	p := New(256 << 10)
	now := t0
	for range 200 {
		p.Answered(5*time.Millisecond, 16<<10, now)
		now = now.Add(10 * time.Millisecond)
	}
	for range 600 {
		p.Answered(300*time.Millisecond, 16<<10, now)
		now = now.Add(100 * time.Millisecond)
	}
	if p.Limit() != 256<<10 {
		t.Errorf("a minute after the route changed the limit is %d", p.Limit())
	}
}

// TestRate: the fleet's bound holds over seconds, alarms are taken from it, and
// lifting it lifts it.
func TestRate(t *testing.T) {
	t.Parallel()
	p := New(1 << 30)
	p.limit = 1 << 30
	p.SetRate(10_000, t0)
	sent := 0
	now := t0
	for now.Before(t0.Add(10 * time.Second)) {
		ok, wait := p.Go(now)
		if !ok {
			now = now.Add(wait)
			continue
		}
		p.Sent(700, now)
		p.Answered(time.Millisecond, 700, now)
		sent += 700
	}
	if sent < 95_000 || sent > 101_000 {
		t.Errorf("%d bytes in 10 s at 10,000 a second", sent)
	}
	for range 1000 {
		p.Sent(10_000, now) // alarms do not ask
		p.Answered(time.Millisecond, 10_000, now)
	}
	if ok, wait := p.Go(now); ok || wait > maxDebt+2*time.Second {
		t.Errorf("after a flood of alarms: %v, wait %v", ok, wait)
	}
	p.SetRate(0, now)
	if ok, _ := p.Go(now); !ok {
		t.Error("the bound holds after it was lifted")
	}
}

// TestSpread: 1,000 boards that lost the fleet at once come back over the window:
// no second holds more than twice its fair share and the noise of a draw.
func TestSpread(t *testing.T) {
	t.Parallel()
	const boards, window = 1000, 60 * time.Second
	seconds := map[int]int{}
	for i := range boards {
		u := float64((i*2654435761)%boards) / boards
		seconds[int(Backoff(window, 0, u)/time.Second)]++
	}
	for s, n := range seconds {
		if n > 2*boards/60 {
			t.Errorf("second %d holds %d of %d", s, n, boards)
		}
	}
	if Backoff(0, 0, 1) != 0 || Backoff(time.Second, 50, 1) != backoffLeast || Backoff(time.Minute, 50, 1) != backoffCap || Backoff(time.Hour, 0, 1) != time.Hour {
		t.Error("the pause does not keep its bounds")
	}
}
