// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rule

import (
	"fmt"
	"strings"
	"time"

	"fulmar/device/rule/cond"
	"fulmar/device/rule/script"
)

const (
	// staleGaps is how many times the last gap between two readings may pass before the
	// newest is stale: a late tick or two are no failure.
	staleGaps = 3
	// staleLeast and staleFirst bound that: a sensor of 10 ms may miss a second on a busy
	// board, and of a series that came once the period is not known; the slowest group of
	// the default plan is read once a minute.
	staleLeast = 5 * time.Second
	staleFirst = 3 * time.Minute
	// cameraLife is how long a worker's word that a camera runs holds: it says so each
	// second.
	cameraLife = 10 * time.Second
	// buckets is into how many parts a window of count is cut: it is as exact as that.
	buckets = 60
	// never is later than all that happens.
	never = time.Duration(1<<63 - 1)
	// noClock is how soon the time is asked for again where it is not known.
	noClock = 10 * time.Second
)

// slot is one input of one rule. Times are of the engine's clock.
type slot struct {
	in    cond.Input
	stale time.Duration // of the rule; 0 is by the gap
	quiet time.Duration // longest silence that says nothing, of a series that is thinned

	value cond.Value // as it was given
	came  time.Duration
	gap   time.Duration // between the last two
	seen  bool

	first int64 // number of the newest bucket
	n     [buckets]uint32

	is cond.Value // what it is now, as last evaluated
}

// take takes a value that was given.
func (s *slot) take(now time.Duration, v cond.Value) {
	if s.seen {
		s.gap = now - s.came
	}
	s.value, s.came, s.seen = v, now, true
}

// life is how long the newest reading holds.
func (s *slot) life() time.Duration {
	switch {
	case s.stale > 0:
		return s.stale
	case s.gap == 0:
		return max(staleFirst, s.quiet)
	}
	return max(staleGaps*s.gap, staleLeast, s.quiet)
}

// width is the span of one bucket.
func (s *slot) width() time.Duration { return max(s.in.Window/buckets, 1) }

// turn empties the buckets that have left the window.
func (s *slot) turn(now time.Duration) {
	newest := int64(now / s.width())
	for i := max(s.first+1, newest-buckets+1); i <= newest; i++ {
		s.n[i%buckets] = 0
	}
	s.first = max(s.first, newest)
}

// add counts detections.
func (s *slot) add(now time.Duration, n int) {
	s.turn(now)
	s.n[s.first%buckets] += uint32(n)
}

// sum is what the window holds, and when that becomes less.
func (s *slot) sum(now time.Duration) (total float64, until time.Duration) {
	s.turn(now)
	until = never
	for i := max(s.first-buckets+1, 0); i <= s.first; i++ {
		if n := s.n[i%buckets]; n > 0 {
			total += float64(n)
			until = min(until, time.Duration(i+buckets)*s.width())
		}
	}
	return total, until
}

// now gives the value of an input, and until when it holds if nothing comes.
func (e *Engine) now(s *slot, now time.Duration) (cond.Value, time.Duration) {
	switch {
	case s.in.Window > 0:
		known, end := e.runs(s.in.Camera, now)
		n, until := s.sum(now)
		if !known {
			return cond.Value{}, until
		}
		return cond.Num(n), min(until, end)
	case s.in.Name == script.InLinkUp:
		return cond.Is(e.linkUp), never
	case s.in.Name == script.InDownFor:
		if e.linkUp {
			return cond.Num(0), never
		}
		n := (now - e.downAt) / time.Second
		return cond.Num(float64(n)), e.downAt + (n+1)*time.Second
	case s.in.Name == script.InSafety:
		return e.safety, never
	case strings.HasPrefix(s.in.Name, "time."):
		return e.wallNow(s.in.Name, now)
	case strings.HasPrefix(s.in.Name, script.PrefixApp) || strings.HasPrefix(s.in.Name, script.PrefixOutput):
		return s.value, never
	}
	end := s.came + s.life()
	if !s.seen || now >= end {
		return cond.Value{}, never
	}
	return s.value, end
}

// runs tells whether a camera is looked at, and until when that is known.
func (e *Engine) runs(camera string, now time.Duration) (bool, time.Duration) {
	end := time.Duration(0)
	for name, until := range e.cameras {
		if camera == "*" || camera == name {
			end = max(end, until)
		}
	}
	return end > now, end
}

func (e *Engine) wallNow(name string, now time.Duration) (cond.Value, time.Duration) {
	t, known := e.wall(now)
	if !known {
		return cond.Value{}, now + noClock
	}
	left := time.Minute - time.Duration(t.Second())*time.Second - time.Duration(t.Nanosecond())
	n := t.Minute()
	switch name {
	case script.InHour:
		n = t.Hour()
	case script.InWeekday:
		if n = int(t.Weekday()); n == 0 {
			n = 7
		}
	}
	return cond.Num(float64(n)), now + left
}

// missing says why an input is not known.
func (e *Engine) missing(s *slot) string {
	switch {
	case s.in.Window > 0:
		return fmt.Sprintf("%s: camera %s is not looked at", s.in, s.in.Camera)
	case strings.HasPrefix(s.in.Name, "time."):
		return s.in.Name + ": the board does not know the time"
	case !s.seen:
		return s.in.Name + " was never seen"
	case !s.value.Known():
		return s.in.Name + " has no good value"
	}
	return s.in.Name + " is stale"
}
