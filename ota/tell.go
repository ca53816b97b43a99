// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ota

import (
	"time"

	"fulmar/ota/record"
	"fulmar/ota/steps"
	"fulmar/ota/table"
	"fulmar/schema"
	words "fulmar/schema/ota"
)

// tell tells the fleet the newest word: of the update in work, and last words that were not
// told yet.
func (m *machine) tell() {
	m.told.failed = false
	r := m.rec.Load()
	for name, mem := range r.Components {
		if !mem.Untold || mem.Word == "" {
			continue
		}
		if m.say(&record.Order{Rollout: mem.Rollout, Component: name, Attempt: mem.Attempt}, mem.Word, mem.Reason, 0) {
			m.save(func(r *record.Record) { r.Components[name].Untold = false })
		}
	}
	if w := m.rec.Load().Work; w != nil {
		m.say(&w.Order, table.State(w.State).Word(), m.reason, m.progress)
		m.told.word, m.told.reason, m.told.progress, m.told.at = w.State, m.reason, m.progress, m.now()
	}
}

// untold tells whether there are last words that the fleet was not told.
func (m *machine) untold() bool {
	for _, mem := range m.rec.Load().Components {
		if mem.Untold && mem.Word != "" {
			return true
		}
	}
	return false
}

// say hands one word over.
func (m *machine) say(o *record.Order, word, reason string, progress int) bool {
	r := m.rec.Load()
	s := words.State{
		V: schema.Version, Rollout: o.Rollout, Attempt: max(1, o.Attempt), State: word, Progress: uint8(max(0, min(progress, 100))),
		Reason: record.Clip(reason), Component: o.Component,
	}
	if mem := r.Components[o.Component]; mem != nil && mem.Runs != nil {
		s.Release = mem.Runs.Release
	} else if w := r.Work; w != nil && w.Component == o.Component {
		s.Release = w.Was
	} else if mem != nil && mem.Was != "" {
		s.Release = mem.Was
	}
	floor, err := m.deps.Floor.Floor()
	if err != nil {
		m.deps.Log.Warn("the floor of epochs cannot be read", "err", err)
	}
	s.Floor = floor
	if err := m.deps.Tell(s); err != nil {
		m.deps.Log.Warn("a word on an update could not be kept for the fleet", "rollout", o.Rollout, "word", word, "err", err)
		m.told.failed, m.retry = true, m.now()+patience
		return false
	}
	return true
}

// show renews what people are told.
func (m *machine) show() {
	s := &Status{}
	if m.broken {
		s.Trouble = "the record of updates cannot be written; it is tried again every ten seconds"
	}
	r := m.rec.Load()
	now := m.now()
	job := func(o *record.Order, state, reason string, since, ends time.Duration) Job {
		return Job{Rollout: o.Rollout, Component: o.Component, Release: o.Release, Act: o.Act, Attempt: o.Attempt, State: state, Reason: reason, Since: since, Ends: ends - now}
	}
	if w := r.Work; w != nil {
		ends := m.ends
		if table.State(w.State).Before() {
			ends = min(ends, m.total)
		}
		j := job(&w.Order, table.State(w.State).Word(), m.reason, now-m.since, ends)
		j.Progress = m.progress
		s.Work = &j
	}
	for i := range r.Queue {
		q := &r.Queue[i]
		took := time.Duration(q.Lasts)*time.Millisecond - (m.queue[i] - now)
		s.Waiting = append(s.Waiting, job(q, words.Offered, "waits for the one in work", took, m.queue[i]))
	}
	m.view.Store(s)
}

// repay raises the floor to what was committed while it could not be raised.
func (m *machine) repay() {
	r := m.rec.Load()
	if r.Owed == 0 {
		return
	}
	if err := steps.Raise(m.deps.Floor, r.Owed); err != nil {
		m.deps.Log.Warn("the floor of epochs could not be raised", "to", r.Owed, "err", err)
		return
	}
	m.save(func(r *record.Record) { r.Owed = 0 })
}
