// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"sync"
	"time"

	"fulmar/agent/identity"
	"fulmar/inference/worker"
	"fulmar/internal/fit"
	"fulmar/schema"
)

// maxSubjects bounds how many subjects a board reports on: cameras, models and
// the parts of the agent, with room.
const maxSubjects = 256

// status is what the board knows of itself now. Safe for use by many goroutines.
type status struct {
	mu       sync.Mutex
	worker   worker.Status
	workerAt time.Time
	refused  [schema.NumClasses]uint64
	ticks    uint64    // of the scheduler, when last asked
	tickAt   time.Time // when they last moved
	link     struct {
		State string
		Err   error
	}
	identity               identity.Status
	attested, attestFailed uint64 // questions of the fleet
}

func (s *status) setWorker(w worker.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.worker, s.workerAt = w, time.Now()
}

func (s *status) refuse(c schema.Class) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused[c]++
}

func (a *Agent) setLink(state string, err error) {
	a.status.mu.Lock()
	defer a.status.mu.Unlock()
	a.status.link.State, a.status.link.Err = state, err
}

// reports remembers the newest word on each subject, so that only changes travel.
type reports struct {
	mu   sync.Mutex
	last map[string]schema.Report
}

func (r *reports) changed(next schema.Report) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	old, known := r.last[next.Subject]
	if known && old.State == next.State && old.Text == next.Text || !known && len(r.last) >= maxSubjects {
		return false
	}
	r.last[next.Subject] = next
	return true
}

// say tells the fleet a state of the board, once per change.
func (a *Agent) say(subject, state string, sev schema.Severity, text string) {
	rep := schema.Report{Subject: subject, State: state, Severity: sev, Text: fit.Text(text, schema.MaxText)}
	if !a.said.changed(rep) {
		return
	}
	a.append(schema.ClassAlarm, &schema.Record{Kind: schema.KindReport, Time: a.clock.Now(), Report: &rep})
}
