// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"slices"
	"sync"
	"time"

	"fulmar/inference/worker"
)

const (
	// badLimit is how many bad frames in a row make a camera a failed one.
	badLimit  = 10
	latencies = 256                    // frames over which p50 and p99 are told
	rateSpan  = 5 * time.Second        // over which the rate is told
	rateStep  = 250 * time.Millisecond // of its buckets
	rateSteps = int(rateSpan / rateStep)
	// sameMoment forgives a source its jitter when it is asked whether a time has
	// passed: a camera at 10 frames a second with an event each second shall have
	// one each second, not one each 1.1 s.
	sameMoment = 10 * time.Millisecond
)

// stats counts for one camera name; it outlives changes of the camera.
type stats struct {
	mu      sync.Mutex
	c       worker.CameraStatus
	badRun  int // bad frames since the last good one
	started time.Time
	ring    [latencies]uint32
	seen    int // latencies ever
	buckets [rateSteps]uint32
	step    int64 // number of the newest bucket
}

func newStats(name string) *stats {
	return &stats{c: worker.CameraStatus{Name: name, State: stateRunning}, started: time.Now()}
}

// The states of a camera.
const (
	stateRunning = "running"
	stateFailed  = "failed"
)

// set changes the state; an error text belongs to failed alone.
func (s *stats) set(state, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.c.State, s.c.Error = state, why
}

func (s *stats) frame() { s.mu.Lock(); s.c.Frames++; s.mu.Unlock() }
func (s *stats) late()  { s.mu.Lock(); s.c.Late++; s.mu.Unlock() }

// bad counts a frame that could not be had or looked at; the reason stands until
// the next good one.
func (s *stats) bad(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.c.Bad++
	s.c.Error = why.Error()
	if s.badRun++; s.badRun >= badLimit {
		s.c.State = stateFailed
	}
}

// inferred counts a frame looked at.
func (s *stats) inferred(latency time.Duration, right, wrong, missed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.c.Inferred++
	s.c.State, s.c.Error, s.badRun = stateRunning, "", 0
	s.c.True += uint64(right)
	s.c.False += uint64(wrong)
	s.c.Missed += uint64(missed)
	s.ring[s.seen%latencies] = micros(latency)
	s.seen++
	s.turn()
	s.buckets[s.step%int64(rateSteps)]++
}

// turn empties the buckets whose time has passed; s.mu is held.
func (s *stats) turn() {
	now := int64(time.Since(s.started) / rateStep)
	for n := min(now-s.step, int64(rateSteps)); n > 0; n-- {
		s.buckets[(now-n+1)%int64(rateSteps)] = 0
	}
	s.step = now
}

// status gives a copy with rate and latencies.
func (s *stats) status() worker.CameraStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn()
	var n uint32
	for _, b := range s.buckets {
		n += b
	}
	c := s.c
	// The newest bucket is only partly over, so the span is.
	span := rateSpan - rateStep + time.Since(s.started)%rateStep
	span = min(span, max(time.Since(s.started), time.Second))
	c.FPS = float64(n) / span.Seconds()
	if k := min(s.seen, latencies); k > 0 {
		l := slices.Clone(s.ring[:k])
		slices.Sort(l)
		c.P50Us, c.P99Us = l[k/2], l[k*99/100]
	}
	return c
}

func micros(d time.Duration) uint32 {
	return uint32(min(max(d.Microseconds(), 0), 1<<32-1))
}
