// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ota

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"fulmar/internal/run"
	"fulmar/ota/bring"
	"fulmar/ota/record"
	"fulmar/ota/release"
	"fulmar/ota/steps"
	"fulmar/ota/table"
	words "fulmar/schema/ota"
)

// machine is the one goroutine that owns the record. Effects run beside it, one at a time,
// and tell how they ended; a step is durable before its effect begins.
type machine struct {
	*Updater
	group *run.Group
	store *record.Store
	bring *bring.Bringer

	// Ends are of this boot's clock; the record has what is left of them.
	ends, total, since time.Duration
	queue              []time.Duration // of those that wait
	saved              time.Duration   // when the record was written

	step    int // rises with each state; what an effect of an earlier one says is not heard
	begun   int // the step whose effect was begun
	resumed bool
	running *effect
	done    chan ending
	notes   chan note
	sweeps  []sweep
	paths   map[string]string // of the files that were brought, while they are whole
	manif   *release.Manifest // of the update in work

	late   *steps.Outcome // a step that could not be made durable
	broken bool           // the record could not be written
	mend   time.Duration  // when it is tried again
	retry  time.Duration  // when a word is told again that could not be kept

	progress int
	reason   string // of the moment; the record has that of the step
	told     telling
}

// telling is what was told last, so that a flood is none.
type telling struct {
	at       time.Duration
	word     string
	reason   string
	progress int
	failed   bool
}

// effect is one that runs.
type effect struct {
	step   int
	cancel context.CancelFunc
}

// ending is how an effect of a step ended.
type ending struct {
	step int
	steps.Outcome
}

// note is what an effect tells on its way.
type note struct {
	step     int
	progress int // -1 none
	reason   string
}

// Run works until ctx ends. An error is one that a new start may mend.
func (u *Updater) Run(ctx context.Context) error {
	m := &machine{Updater: u, group: run.New(ctx), done: make(chan ending), notes: make(chan note)}
	defer m.end()
	if err := m.open(ctx); err != nil {
		return err
	}
	for {
		m.advance()
		m.show()
		timer := time.NewTimer(m.next())
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-m.group.Context().Done():
			timer.Stop()
			if err := m.group.Wait(stopGrace); err != nil {
				return err
			}
			return ctx.Err() // both end at once, and either may be seen first
		case o := <-u.offers:
			m.take(&o)
		case a := <-u.aborts:
			a.done <- m.abort(a.component)
		case out := <-m.done:
			m.running = nil
			m.ended(out)
		case n := <-m.notes:
			m.noted(n)
		case <-timer.C:
		}
		timer.Stop()
		m.tick()
	}
}

// end waits for the effect that runs: what it does next could meet that of a new start.
func (m *machine) end() {
	m.group.Stop()
	if err := m.group.Wait(stopGrace); err != nil {
		m.deps.Log.Warn("an update's step did not end", "err", err)
	}
}

func (m *machine) now() time.Duration { return time.Duration(m.cfg.Clock.Now().Mono) }

// open reads the record and goes on with what it finds. A disk that cannot be read is asked
// again and again: the rest of the program does not depend on it.
func (m *machine) open(ctx context.Context) error {
	for first := true; ; first = false {
		note, err := m.load()
		if err == nil {
			if r := m.rec.Load(); r.Lost && note != "" {
				m.deps.Warn(words.Disk, record.Clip("the record of updates was damaged and is begun anew; what runs goes on to run, and only what is proven to be the newest is installed: "+note))
			} else if note != "" {
				m.deps.Log.Info("a copy of the record of updates is damaged, as by a power cut; the other one is whole", "note", note)
			}
			return m.resume()
		}
		if first {
			m.deps.Log.Error("no updates: the record cannot be read", "err", err)
			m.deps.Warn(words.Disk, record.Clip("no updates are taken: "+err.Error()))
		}
		m.view.Store(&Status{Trouble: err.Error()})
		if steps.Sleep(ctx, patience) != nil {
			return ctx.Err()
		}
	}
}

func (m *machine) load() (note string, err error) {
	d := m.deps.Disk
	for _, dir := range []string{m.cfg.Dir, m.manifests()} {
		if err := d.Mkdir(dir); err == nil {
			if err := d.SyncDir(parent(dir)); err != nil {
				return "", err
			}
		} else if !errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("make the folder of updates: %w", err)
		}
	}
	store, r, note, err := record.Open(d, m.cfg.Dir)
	if err != nil {
		return "", err
	}
	m.store = store
	m.bring = bring.New(bring.Config{Dir: m.files(), Disk: d, Fetch: m.deps.Fetch, Apply: m.deps.Apply})
	m.rec.Store(r)
	return note, nil
}

// resume goes on after a start. Deadlines run on in the same boot; another boot gives
// back at most what passed since the record was written, and that a bounded number of times.
func (m *machine) resume() error {
	r := m.rec.Load()
	now := m.now()
	passed, boot := time.Duration(0), m.cfg.Clock.Boot()
	if same := r.Boot == boot && r.Mono <= int64(now); same {
		passed = now - time.Duration(r.Mono)
	}
	left := func(ms int64) time.Duration { return now + time.Duration(ms)*time.Millisecond - passed }
	for _, o := range r.Queue {
		m.queue = append(m.queue, left(o.Left))
	}
	if w := r.Work; w != nil {
		m.ends, m.total, m.since = left(w.Ends), left(w.Left), now-time.Duration(w.Since)*time.Millisecond-passed
		m.step++
		m.resumed = true
		m.again(r.Boot != boot)
	}
	for name := range r.Components {
		if w := r.Work; w == nil || w.Component != name {
			m.sweeps = append(m.sweeps, sweep{component: name})
		}
	}
	m.sweepManifests()
	m.tell()
	m.repay()
	return nil
}

// again counts the start for the update in work.
func (m *machine) again(booted bool) {
	w := m.rec.Load().Work
	state := table.State(w.State)
	if !state.Known() {
		m.fire(steps.Outcome{On: table.Strange, Reason: steps.Why(words.Loop, "the record is of a newer program, in a state %q that this one does not know", w.State)})
		return
	}
	if state == table.Trial {
		m.ends = max(m.ends, m.now()+m.lasts(state)) // a start that is new proves itself anew
	}
	if w.Passes[w.State] >= table.LimitOf(state).Passes || w.Boots >= maxBoots {
		m.fire(steps.Outcome{On: table.Looped, Reason: steps.Why(words.Loop, "started %d times in state %s, and %d times the board", w.Passes[w.State], w.State, w.Boots)})
		return
	}
	m.save(func(r *record.Record) {
		r.Work.Passes[w.State]++
		if booted {
			r.Work.Boots++
		}
	})
}

// advance begins the next effect, if none runs.
func (m *machine) advance() {
	if m.running != nil {
		return
	}
	if len(m.sweeps) > 0 {
		s := m.sweeps[0]
		m.sweeps = m.sweeps[1:]
		m.launch(-1, func(ctx context.Context) steps.Outcome { return m.sweep(ctx, s) })
		return
	}
	r := m.rec.Load()
	if r.Work == nil && len(r.Queue) > 0 && !m.hurt() {
		m.begin()
		r = m.rec.Load()
	}
	if r.Work != nil && m.begun != m.step && m.late == nil {
		m.begun = m.step
		j := m.job()
		m.launch(m.step, j.Do)
	}
}

// launch runs an effect. One that panics has failed; nothing else falls with it.
func (m *machine) launch(step int, fn func(context.Context) steps.Outcome) {
	ctx, cancel := context.WithCancel(m.group.Context())
	m.running = &effect{step, cancel}
	m.group.Go("update", func(context.Context) error {
		defer cancel()
		out := ending{step, guarded(ctx, fn)}
		select {
		case m.done <- out:
		case <-m.group.Context().Done():
		}
		return nil
	})
}

func guarded(ctx context.Context, fn func(context.Context) steps.Outcome) (out steps.Outcome) {
	defer func() {
		if p := recover(); p != nil {
			out = steps.Outcome{On: table.GaveUp, Reason: steps.Why(words.Disk, "a step of the update panicked: %v", p)}
		}
	}()
	return fn(ctx)
}

// job is the picture that a step gets.
func (m *machine) job() *steps.Job {
	r := m.rec.Load()
	w, step := r.Work, m.step
	j := &steps.Job{
		World: steps.World{
			Installer: m.deps.Installer, Bring: m.bring, Gate: m.deps.Gate, Floor: m.deps.Floor, Unmet: m.deps.Unmet, Conditions: m.deps.Conditions,
			Free: m.deps.Free, Log: m.deps.Log, Poll: m.cfg.Poll, Look: m.cfg.Look,
		},
		Work: w, Mem: r.Components[w.Component], Manifest: m.manifest(w), Paths: m.paths, Resumed: m.resumed,
		Note: func(ctx context.Context, progress int, reason string) {
			select {
			case m.notes <- note{step, progress, reason}:
			case <-ctx.Done():
			}
		},
	}
	if j.Mem == nil {
		j.Mem = &record.Component{}
	}
	switch Restart(w.Asked) {
	case RestartProgram:
		j.Booted = m.resumed
	case RestartMachine:
		j.Booted = w.AskedIn != m.cfg.Clock.Boot()
	}
	return j
}

// next is how long nothing has to be done if nothing happens.
func (m *machine) next() time.Duration {
	r := m.rec.Load()
	end := m.now() + time.Hour
	if r.Work != nil || len(r.Queue) > 0 {
		end = min(end, m.saved+m.cfg.Tick)
	}
	if r.Work != nil {
		end = min(end, m.ends)
		if table.State(r.Work.State).Before() {
			end = min(end, m.total)
		}
	}
	for _, q := range m.queue {
		end = min(end, q)
	}
	if m.told.failed || m.untold() {
		end = min(end, m.retry)
	}
	if m.hurt() {
		end = m.mend // before that nothing can be done
	}
	// A clock that stood still in a suspend is looked at again soon.
	return min(max(end-m.now(), 10*time.Millisecond), time.Minute)
}

// hurt tells whether the record could not be written a moment ago. Nothing moves then.
func (m *machine) hurt() bool { return m.broken && m.now() < m.mend }

// tick does what time asks for.
func (m *machine) tick() {
	if m.hurt() {
		return
	}
	now := m.now()
	if m.late != nil {
		out := *m.late
		m.late = nil
		m.fire(out)
	}
	if now >= m.retry && (m.told.failed || m.untold()) {
		m.tell()
	}
	r := m.rec.Load()
	for i, q := range m.queue {
		if now >= q && i < len(r.Queue) {
			m.drop(i, steps.Why(words.Deadline, "it waited for another update until its deadline"))
			return
		}
	}
	if w := r.Work; w != nil {
		state := table.State(w.State)
		switch {
		case now >= m.ends:
			m.fire(steps.Outcome{On: table.Late, Reason: m.lateReason(w, state)})
		case now >= m.total && state.Before():
			m.fire(steps.Outcome{On: table.Late, Reason: m.lateReason(w, state)})
		}
	}
	if r := m.rec.Load(); (r.Work != nil || len(r.Queue) > 0) && now >= m.saved+m.cfg.Tick {
		m.saved = now // whether it can be written or not
		m.save(func(*record.Record) {})
	}
}

// lateReason says what it waited for. A trial that did not prove itself is unhealthy, and what
// kept an update waiting is the reason itself.
func (m *machine) lateReason(w *record.Work, state table.State) string {
	last := m.reason
	if last == "" {
		last = w.Reason
	}
	switch {
	case state == table.Trial:
		return steps.Why(words.Unhealthy, "not healthy in time: %s", strings.TrimPrefix(last, words.Unhealthy+": "))
	case (state == table.Scheduled || state == table.Ready) && slices.Contains(words.Reasons(), wordOf(last)):
		return record.Clip(clip(last, record.MaxReason-40) + "; not until its deadline")
	case last != "":
		return steps.Why(words.Deadline, "not done with %s in time: %s", w.State, last)
	}
	return steps.Why(words.Deadline, "not done with %s in time", w.State)
}

func clip(s string, n int) string { return s[:min(len(s), n)] }
