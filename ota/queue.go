// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ota

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"fulmar/internal/disk"
	"fulmar/ota/record"
	"fulmar/ota/release"
	"fulmar/ota/steps"
	"fulmar/ota/table"
	words "fulmar/schema/ota"
)

func (u *Updater) manifests() string { return filepath.Join(u.cfg.Dir, "manifests") }

func (u *Updater) files() string { return filepath.Join(u.cfg.Dir, "files") }

func parent(dir string) string { return filepath.Dir(filepath.Clean(dir)) }

// take takes an order in: it waits its turn, ends what it replaces, or is known and told
// again.
func (m *machine) take(o *Order) {
	r := m.rec.Load()
	mem := r.Components[o.Component]
	unnumbered := o.Attempt == 0
	if unnumbered {
		if mem != nil {
			o.Attempt = mem.Attempt // it raises nothing
		}
		if w := r.Work; w != nil && w.Component == o.Component && w.Unnumbered && w.Hash == o.Hash && w.Act == o.Act {
			return // it is being done
		}
	}
	if err := admits(r, o, unnumbered); err != nil {
		m.deps.Log.Info("an order is not taken", "rollout", o.Rollout, "err", err)
		return
	}
	if !unnumbered && m.known(r, mem, o) {
		return
	}
	at := slices.IndexFunc(r.Queue, func(q record.Order) bool { return q.Component == o.Component })
	if at < 0 && len(r.Queue) >= record.MaxQueue {
		m.deps.Log.Warn("an order is not taken", "rollout", o.Rollout, "err", ErrFull)
		return
	}
	q := record.Order{
		Rollout: o.Rollout, Component: o.Component, Release: o.Release, Attempt: o.Attempt, Act: o.Act, Hash: o.Hash, Patches: o.Patches,
		Before: o.Before, Local: o.Local, Unnumbered: unnumbered, Lasts: m.cfg.Total.Milliseconds(),
	}
	if o.Deadline > 0 {
		q.Lasts = o.Deadline.Milliseconds()
	}
	if err := m.keep(o); err != nil {
		m.refuse(&q, err)
		return
	}
	if at >= 0 {
		m.drop(at, steps.Why(words.Superseded, "attempt %d of rollout %s came", o.Attempt, o.Rollout))
	}
	m.queue = append(m.queue, m.now()+time.Duration(q.Lasts)*time.Millisecond)
	if !m.save(func(r *record.Record) { r.Queue = append(r.Queue, q) }) {
		m.queue = m.queue[:len(m.queue)-1]
		return // the fleet sends it again
	}
	m.say(&q, words.Offered, "", 0)
	m.replaces(&q)
}

// known tells an order's newest word again, if it is one that was taken already.
func (m *machine) known(r *record.Record, mem *record.Component, o *Order) bool {
	if w := r.Work; w != nil && w.Component == o.Component && w.Attempt == o.Attempt && !w.Unnumbered {
		m.tell()
		return true
	}
	for i := range r.Queue {
		if q := &r.Queue[i]; q.Component == o.Component && q.Attempt == o.Attempt && !q.Unnumbered {
			m.say(q, words.Offered, "", 0)
			return true
		}
	}
	if mem == nil || mem.Attempt != o.Attempt || mem.Rollout != o.Rollout {
		return false // its word gave way to that of a person's order, which has no number
	}
	if mem.Word == "" {
		return true
	}
	m.say(&record.Order{Rollout: mem.Rollout, Component: o.Component, Attempt: mem.Attempt}, mem.Word, mem.Reason, 0)
	return true
}

// replaces ends the update in work, if a newer order for its component came.
func (m *machine) replaces(q *record.Order) {
	w := m.rec.Load().Work
	if w == nil || w.Component != q.Component {
		return
	}
	on, reason := table.Newer, steps.Why(words.Superseded, "attempt %d of rollout %s came", q.Attempt, q.Rollout)
	if q.Act == release.ActUndo {
		on, reason = table.Withdrawn, steps.Why(words.Undone, "rollout %s was taken back", q.Rollout)
	}
	if _, ok := table.Next(table.State(w.State), on); ok {
		m.fire(steps.Outcome{On: on, Reason: reason})
	}
}

// refuse ends an order that could not even be kept.
func (m *machine) refuse(q *record.Order, err error) {
	reason := steps.Why(words.Disk, "its manifest could not be kept: %v", err)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		reason = steps.Why(words.NoSpace, "not even for its manifest: %v", err)
	}
	m.last(q, reason, func(*record.Record) {})
}

// drop ends an order that waits.
func (m *machine) drop(i int, reason string) bool {
	q := m.rec.Load().Queue[i]
	return m.last(&q, reason, func(r *record.Record) {
		r.Queue = slices.Delete(r.Queue, i, i+1)
		m.queue = slices.Delete(m.queue, i, i+1)
	})
}

// last gives an order that was never begun its last word. What is in work for the component
// keeps its own.
func (m *machine) last(q *record.Order, reason string, change func(*record.Record)) bool {
	ok := m.save(func(r *record.Record) {
		change(r)
		mem := r.Mem(q.Component)
		if q.Attempt >= mem.Attempt && (r.Work == nil || r.Work.Component != q.Component) {
			mem.Attempt, mem.Rollout, mem.Release, mem.Word, mem.Reason, mem.Untold = q.Attempt, q.Rollout, q.Release, words.Failed, reason, true
		}
	})
	if ok {
		m.say(q, words.Failed, reason, 0)
		m.sweepManifests()
	}
	return ok
}

// begin takes the first order that waits into work.
func (m *machine) begin() {
	r := m.rec.Load()
	q := r.Queue[0]
	ends, total, since := m.ends, m.total, m.since
	m.total, m.since = m.queue[0], m.now()
	m.ends = m.since + table.LimitOf(table.Offered).Deadline
	rest := m.queue
	ok := m.save(func(r *record.Record) {
		r.Queue, m.queue = slices.Delete(r.Queue, 0, 1), rest[1:]
		r.Work = &record.Work{Order: q, State: string(table.Offered), Path: words.Offered, Passes: map[string]int{string(table.Offered): 1}}
		mem := r.Mem(q.Component)
		if mem.Attempt != q.Attempt {
			mem.FailedHash, mem.Failed = release.Hash{}, 0
		}
		mem.Attempt, mem.Rollout, mem.Release, mem.Word, mem.Reason, mem.Untold = q.Attempt, q.Rollout, q.Release, "", "", false
	})
	if !ok {
		m.ends, m.total, m.since, m.queue = ends, total, since, rest
		return
	}
	m.step++
	m.resumed, m.paths, m.manif, m.progress, m.reason = false, nil, nil, 0, ""
}

// abort ends what a person does not want.
func (m *machine) abort(component string) error {
	r := m.rec.Load()
	reason := steps.Why(words.Aborted, "by a person at the board")
	done := false
	for i := len(r.Queue) - 1; i >= 0; i-- {
		if component == "" || r.Queue[i].Component == component {
			done = m.drop(i, reason) || done
		}
	}
	if w := r.Work; w != nil && (component == "" || w.Component == component) {
		if _, ok := table.Next(table.State(w.State), table.Abort); ok {
			m.fire(steps.Outcome{On: table.Abort, Reason: reason})
			done = true
		}
	}
	if !done {
		return ErrNothing
	}
	return nil
}

// keep keeps an order's manifest under its hash.
func (m *machine) keep(o *Order) error {
	if o.Act == release.ActUndo {
		return nil
	}
	path := filepath.Join(m.manifests(), o.Hash.String())
	if b, err := readManifest(path); err == nil && release.Hash(sha256.Sum256(b)) == o.Hash {
		return nil
	}
	tmp := filepath.Join(m.manifests(), ".new")
	err := disk.Put(m.deps.Disk, tmp, 0o600, o.Raw)
	if err == nil {
		err = m.deps.Disk.Rename(tmp, path)
	}
	if err == nil {
		err = m.deps.Disk.SyncDir(m.manifests())
	}
	return err
}

func readManifest(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, release.MaxManifest+1))
}

// manifest reads the manifest of the update in work, nil where it is gone or was changed.
func (m *machine) manifest(w *record.Work) *release.Manifest {
	if m.manif != nil || w.Act == release.ActUndo {
		return m.manif
	}
	b, err := readManifest(filepath.Join(m.manifests(), w.Hash.String()))
	if err == nil && release.Hash(sha256.Sum256(b)) != w.Hash {
		err = fmt.Errorf("manifest %s has changed on the disk", w.Hash)
	}
	var man *release.Manifest
	if err == nil {
		man, err = release.Parse(b)
	}
	if err == nil && man.Component(w.Component) == nil {
		err = fmt.Errorf("manifest %s has no component %s", w.Hash, w.Component)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			m.deps.Log.Warn("an update's manifest cannot be read", "err", err)
		}
		return nil
	}
	m.manif = man
	return man
}
