// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ota

import (
	"strings"
	"time"

	"fulmar/ota/record"
	"fulmar/ota/release"
	"fulmar/ota/steps"
	"fulmar/ota/table"
	words "fulmar/schema/ota"
)

// wordOf is the word at the front of a reason.
func wordOf(reason string) string {
	w, _, _ := strings.Cut(reason, ":")
	return w
}

// save changes the record and makes it durable. What is changed is a copy: on an error
// all is as it was.
func (m *machine) save(change func(*record.Record)) bool {
	r, err := m.rec.Load().Clone()
	if err == nil {
		change(r)
		now := m.now()
		left := func(end time.Duration) int64 { return max(0, (end - now).Milliseconds()) }
		r.Boot, r.Mono = m.cfg.Clock.Boot(), int64(now)
		for i := range r.Queue {
			r.Queue[i].Left = left(m.queue[i])
		}
		if r.Work != nil {
			r.Work.Ends, r.Work.Left, r.Work.Since = left(m.ends), left(m.total), max(0, (now-m.since).Milliseconds())
		}
		err = m.store.Save(r)
	}
	if err != nil {
		if !m.broken {
			m.deps.Log.Error("updates stand still: the record cannot be written", "err", err)
		}
		m.broken, m.mend = true, m.now()+patience
		return false
	}
	m.broken = false
	m.rec.Store(r)
	m.saved = m.now()
	return true
}

// ended takes what an effect says at its end.
func (m *machine) ended(out ending) {
	if out.step < 0 || out.step != m.step || m.rec.Load().Work == nil {
		return // of a state that is over
	}
	if out.Paths != nil {
		m.paths = out.Paths
	}
	if out.On != "" {
		m.fire(out.Outcome)
		return
	}
	if out.Ask != RestartNone {
		m.save(func(r *record.Record) {
			r.Work.Asked, r.Work.AskedIn = uint8(out.Ask), m.cfg.Clock.Boot()
			if out.Set != nil {
				out.Set(r.Work)
			}
		})
		m.ask(out.Ask) // also where it could not be written: Look tells after the start
	}
}

func (m *machine) ask(what Restart) {
	m.deps.Log.Info("an update wants a restart", "of", what.String())
	select {
	case <-m.restart: // an older word
	default:
	}
	m.restart <- what
}

// fire moves the update in work along an arrow of the table; it is durable when the next
// effect begins. Where it cannot be made so, it is tried again.
func (m *machine) fire(out steps.Outcome) {
	r := m.rec.Load()
	from := table.State(r.Work.State)
	if !from.Known() {
		from = table.Offered
		if r.Work.Token != "" {
			from = table.Trial
		}
	}
	to, ok := table.Next(from, out.On)
	if !ok {
		m.deps.Log.Error("an update's step has no such way", "from", from, "on", out.On)
		return
	}
	for !to.Over() && r.Work.Passes[string(to)] >= table.LimitOf(to).Passes {
		out.Reason = steps.Why(words.Loop, "came %d times by %s; the last time: %s", r.Work.Passes[string(to)], to, out.Reason)
		to, _ = table.Next(to, table.Looped)
	}
	if m.running != nil && m.running.step == m.step {
		m.running.cancel()
	}
	if !m.enter(to, out) {
		m.late = &out
		return
	}
	m.step++
	m.resumed, m.progress, m.reason, m.late = false, 0, "", nil
	if w := m.rec.Load().Work; w != nil {
		m.reason = w.Reason
	}
	if to.Over() {
		m.over(r.Work, to, out.Reason)
	}
	m.tell()
}

// enter writes down that the update is in a state.
func (m *machine) enter(to table.State, out steps.Outcome) bool {
	ends, since := m.ends, m.since
	m.since = m.now()
	m.ends = m.since + m.lasts(to)
	ok := m.save(func(r *record.Record) {
		w := r.Work
		if out.Set != nil {
			out.Set(w)
		}
		if out.Owed > 0 {
			r.Owed = max(r.Owed, out.Owed)
		}
		if out.Mem != nil {
			out.Mem(r.Mem(w.Component))
		}
		if to.Over() {
			m.remember(r, to, out)
			r.Work = nil
			return
		}
		w.State, w.Reason, w.Asked, w.AskedIn = string(to), record.Clip(out.Reason), 0, 0
		if len(w.Path) < record.MaxPath-32 {
			w.Path += " " + to.Word()
		}
		if w.Passes == nil {
			w.Passes = map[string]int{}
		}
		w.Passes[string(to)]++
	})
	if !ok {
		m.ends, m.since = ends, since
	}
	return ok
}

// lasts is how long a state may last.
func (m *machine) lasts(s table.State) time.Duration {
	if s == table.Trial {
		return time.Duration(m.health().WithinS) * time.Second
	}
	if d := table.LimitOf(s).Deadline; d > 0 {
		return d
	}
	return 365 * 24 * time.Hour // the order's own deadline comes first
}

// health is the contract of the update in work, with its defaults where the manifest is
// not there any more.
func (m *machine) health() release.Health {
	w := m.rec.Load().Work
	if w == nil {
		return release.Health{}.With("")
	}
	if man := m.manifest(w); man != nil {
		return man.Component(w.Component).Health.With(w.Component)
	}
	return release.Health{}.With(w.Component)
}

// remember writes the last word of an update into what is known of its component.
func (m *machine) remember(r *record.Record, to table.State, out steps.Outcome) {
	w := r.Work
	mem := r.Mem(w.Component)
	mem.Attempt = max(mem.Attempt, w.Attempt)
	mem.Rollout, mem.Release, mem.Word, mem.Reason, mem.Untold = w.Rollout, w.Release, to.Word(), record.Clip(out.Reason), true
	mem.Was = w.Was
	switch {
	case to == table.Committed:
		commits(mem, w)
	case to == table.RolledBack && w.Act == release.ActUndo:
		undoes(mem, w)
	}
	if w.Act == release.ActUndo {
		return
	}
	if to == table.Committed || mem.FailedHash != w.Hash {
		mem.FailedHash, mem.Failed = release.Hash{}, 0
	}
	if failure := wordOf(mem.Reason); to != table.Committed && failure != words.Aborted && failure != words.Superseded && failure != words.Undone {
		mem.FailedHash = w.Hash
		mem.Failed++
	}
}

// commits notes what runs now, and what ran before it.
func commits(mem *record.Component, w *record.Work) {
	v := &record.Version{Rollout: w.Rollout, Release: w.Release, Hash: w.Hash, Epoch: w.Epoch, Token: w.Token}
	switch old := mem.Runs; {
	case w.Act == release.ActShadow:
		mem.Shadow = v
		return
	case w.Token == "": // it ran already
		return
	case old != nil && old.Token == w.Token: // the same, by another name: who takes that back changes nothing
		v.Rollout = old.Rollout
	case old == nil:
		mem.Past = &record.Version{Release: w.Was, Epoch: w.Under}
	case old.Rollout != w.Rollout: // else what ran before the rollout is what it was
		mem.Past = old
	}
	mem.Runs, mem.Shadow = v, nil
}

// undoes notes that what ran before runs again.
func undoes(mem *record.Component, w *record.Work) {
	if w.Token == "" {
		return // there was nothing to undo
	}
	if s := mem.Shadow; s != nil && s.Token == w.Token && s.Rollout == w.Rollout {
		mem.Shadow = nil
		return
	}
	if mem.Runs != nil && mem.Runs.Token == w.Token {
		mem.Runs, mem.Past = mem.Past, nil
	}
}

// over cleans up after an update whose last word is durable.
func (m *machine) over(w *record.Work, to table.State, reason string) {
	m.sweeps = append(m.sweeps, sweep{component: w.Component, manifest: m.manifest(w), patches: w.Patches})
	m.paths, m.manif = nil, nil
	m.sweepManifests()
	m.deps.Log.Info("an update is over", "component", w.Component, "release", w.Release, "rollout", w.Rollout, "word", to.Word(), "reason", reason)
	now := m.now()
	took := m.lifetime(w) - (m.total - now)
	err := record.Remember(m.deps.Disk, m.cfg.Dir, record.Past{
		Rollout: w.Rollout, Component: w.Component, Release: w.Release, Before: w.Was, Attempt: w.Attempt, Act: w.Act, Word: to.Word(),
		Reason: record.Clip(reason), Path: strings.TrimSpace(w.Path + " " + to.Word()), Took: max(0, took.Milliseconds()), Boots: w.Boots,
		Wall: m.cfg.Clock.Now().Wall,
	})
	if err != nil {
		m.deps.Log.Warn("the history of updates has a gap", "err", err)
	}
}

// lifetime is the deadline that an order got when it was taken.
func (m *machine) lifetime(w *record.Work) time.Duration {
	return time.Duration(w.Lasts) * time.Millisecond
}

// noted takes what an effect tells on its way: to the fleet at most once a minute, and for
// each tenth of what has to be fetched.
func (m *machine) noted(n note) {
	if n.step != m.step || m.rec.Load().Work == nil {
		return
	}
	if n.progress >= 0 {
		m.progress = n.progress
	}
	if n.reason != "" {
		m.reason = n.reason
	}
	now := m.now()
	if wordOf(m.reason) != wordOf(m.told.reason) && now >= m.told.at+time.Minute || m.progress >= m.told.progress+10 && now >= m.told.at+30*time.Second {
		m.tell()
	}
}
