// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schedule

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"path"
	"sync/atomic"
	"time"

	"fulmar/device"
	"fulmar/schema"
)

// MaxStuck bounds the reads that are past their deadline at the same time. Each
// holds a thread; a board with 32 hung drivers needs a reboot and not a 33rd.
const MaxStuck = 32

// The states of a job; they only serve to count stuck reads right, whichever of
// the two sides is first.
const (
	stateIdle int32 = iota
	stateRunning
	stateOverdue
)

// job is one sensor and the goroutine that reads it. The fields below "tick" are
// the collecting goroutine's; readings and failed are the sensor's between start
// and done, and the collector's otherwise.
type job struct {
	sensor device.Sensor
	start  chan struct{} // cap 1
	done   chan struct{} // cap 1
	state  atomic.Int32
	stuck  *atomic.Int64 // shared by all jobs
	panics *atomic.Uint64
	log    *slog.Logger

	readings []device.Reading
	failed   bool // the last read panicked

	// tick
	started  bool     // by the tick under way
	pending  bool     // started and not yet seen done
	reported bool     // as not answering
	known    []series // what the last complete read gave
}

// series is one series of a sensor as last sent.
type series struct {
	name  string
	bad   bool // not a name: never sent
	rule  *OnChange
	value float64
	q     schema.Quality
	sent  time.Time
}

func (s *Scheduler) newJob(d device.Sensor) *job {
	return &job{
		sensor: d, start: make(chan struct{}, 1), done: make(chan struct{}, 1),
		stuck: &s.stuck, panics: &s.panics, log: s.log,
	}
}

// run reads the sensor whenever asked, until stopped (start closed) or ctx ends.
func (j *job) run(ctx context.Context) error {
	defer func() {
		if c, ok := j.sensor.(io.Closer); ok {
			if err := c.Close(); err != nil {
				j.log.Warn("sensor not closed", "sensor", j.sensor.Name(), "err", err)
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-j.start:
			if !ok {
				return nil
			}
		}
		j.state.Store(stateRunning)
		j.read()
		if j.state.Swap(stateIdle) == stateOverdue {
			j.stuck.Add(-1)
		}
		j.done <- struct{}{}
	}
}

// read guards against a panic in the driver: odd hardware may cost one sensor,
// not the telemetry of the board.
func (j *job) read() {
	defer func() {
		if p := recover(); p != nil {
			if j.panics.Add(1); !j.failed {
				j.log.Error("sensor panicked; its series are errors", "sensor", j.sensor.Name(), "panic", fmt.Sprint(p))
			}
			j.failed = true
		}
	}()
	j.readings = j.sensor.Read(j.readings[:0])
	j.failed = false
}

// begin starts a read and tells so, unless the last one is still under way.
func (j *job) begin() bool {
	if j.pending {
		select {
		case <-j.done:
			j.finish() // too late: that value is not of this tick
		default:
			return false
		}
	}
	if j.stuck.Load() >= MaxStuck {
		return false
	}
	j.pending = true
	j.start <- struct{}{}
	return true
}

// finish notes that the read has come back.
func (j *job) finish() {
	j.pending = false
	if j.reported {
		j.reported = false
		j.log.Info("sensor answers again", "sensor", j.sensor.Name())
	}
}

// expire is called at the deadline for a job that is pending: it counts the read
// as stuck. A read whose goroutine had no turn yet is not counted, only late.
func (j *job) expire() {
	select {
	case <-j.done:
		j.finish()
		return
	default:
	}
	if j.state.CompareAndSwap(stateRunning, stateOverdue) {
		j.stuck.Add(1)
	}
	if !j.reported {
		j.reported = true
		j.log.Warn("sensor does not answer; its series are stale until it does", "sensor", j.sensor.Name())
	}
}

// learn brings known in step with the readings. In steady state it compares names
// and does nothing.
func (j *job) learn(rules []OnChange) {
	for i := range j.readings {
		name := j.readings[i].Series
		if i < len(j.known) {
			if j.known[i].name == name {
				continue
			}
			j.known[i] = newSeries(name, rules)
			continue
		}
		j.known = append(j.known, newSeries(name, rules))
	}
	j.known = j.known[:len(j.readings)]
}

// rules makes the job look up its rules anew.
func (j *job) rules(rules []OnChange) {
	for i := range j.known {
		j.known[i] = newSeries(j.known[i].name, rules)
	}
}

func newSeries(name string, rules []OnChange) series {
	s := series{name: name, bad: schema.CheckName(name) != nil}
	for i := range rules {
		if ok, _ := path.Match(rules[i].Series, name); ok { // checked by Validate
			s.rule = &rules[i]
			break
		}
	}
	return s
}

// due tells whether the reading is to be sent now, and notes it as sent.
func (s *series) due(now time.Time, v float64, q schema.Quality) bool {
	if s.rule == nil {
		return true
	}
	if !s.sent.IsZero() && q == s.q && math.Abs(v-s.value) <= s.rule.Deadband && now.Sub(s.sent) < s.rule.MaxSilence {
		return false
	}
	s.value, s.q, s.sent = v, q, now
	return true
}
