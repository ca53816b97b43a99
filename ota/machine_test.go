// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ota

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/internal/disk"
	"fulmar/internal/run"
	"fulmar/ota/record"
	"fulmar/ota/release"
	"fulmar/ota/steps"
	"fulmar/ota/table"
	"fulmar/schema"
	words "fulmar/schema/ota"
)

// rig is a board of which everything is as the test says.
type rig struct {
	t   *testing.T
	dir string

	mu       sync.Mutex
	standing map[string]Standing // by token
	restart  Restart             // of a switch
	calls    []string
	verdict  Verdict
	told     []words.State
	floor    uint64
	against  []Refusal
	unmet    []string
	free     int64
	failing  map[string]error // by method
	runs     string
}

// memory is a folder in memory, where there is one: these tests make thousands of records.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "fulmar-ota-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func newRig(t *testing.T) *rig {
	return &rig{t: t, dir: memory(t), standing: map[string]Standing{"new": NotYet, "old": InForce}, verdict: Good, floor: 2, free: 1 << 30, failing: map[string]error{}, runs: "1.0"}
}

func (r *rig) call(what string, fn func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, what)
	if err := r.failing[what]; err != nil {
		return err
	}
	return fn()
}

func (r *rig) Running(context.Context) (string, error) {
	return r.runs, r.call("running", func() error { return nil })
}

func (r *rig) Stage(context.Context, *release.Component, map[string]string) (string, error) {
	return "new", r.call("stage", func() error { return nil })
}
func (r *rig) Base(context.Context, release.Hash) (string, error) { return "", ErrNoBase }
func (r *rig) Switch(_ context.Context, token string) (got Restart, err error) {
	return got, r.call("switch", func() error {
		if got = r.restart; got == RestartNone {
			r.standing[token] = OnTrial
		}
		return nil
	})
}

func (r *rig) Look(_ context.Context, token string) (s Standing, why string, err error) {
	return s, why, r.call("look", func() error { s, why = r.standing[token], "it crashed"; return nil })
}

func (r *rig) Confirm(_ context.Context, token string) error {
	return r.call("confirm", func() error { r.standing[token] = InForce; return nil })
}

func (r *rig) Back(_ context.Context, token, _ string) (got Restart, err error) {
	return got, r.call("back", func() error {
		if s := r.standing[token]; s == OnTrial || s == InForce {
			if got = r.restart; got == RestartNone {
				r.standing[token] = Fallen
			}
		}
		return nil
	})
}
func (r *rig) Sweep(context.Context, []string) error {
	return r.call("sweep", func() error { return nil })
}
func (r *rig) Space(context.Context, *release.Component) (int64, int64, error) {
	return 1000, r.free, r.call("space", func() error { return nil })
}

func (r *rig) Shadow(_ context.Context, token string) error {
	return r.call("shadow "+token, func() error { return nil })
}

func (r *rig) Fetch(_ context.Context, o release.Object, progress func(have, all int64)) (string, error) {
	progress(o.Size, o.Size)
	return filepath.Join(r.dir, "object"), r.call("fetch", func() error {
		return os.WriteFile(filepath.Join(r.dir, "object"), []byte("content"), 0o600)
	})
}
func (r *rig) Drop(release.Object) error { return nil }
func (r *rig) Before(string) []byte      { return []byte("before") }
func (r *rig) Floor() (uint64, error)    { return r.floor, nil }
func (r *rig) tell(s words.State) error  { r.mu.Lock(); defer r.mu.Unlock(); return r.take(s) }
func (r *rig) Raise(to uint64) error {
	return r.call("raise", func() error { r.floor = to; return nil })
}
func (r *rig) take(s words.State) error { r.told = append(r.told, s); return r.failing["tell"] }
func (r *rig) last() words.State        { r.mu.Lock(); defer r.mu.Unlock(); return r.told[len(r.told)-1] }
func (r *rig) count(what string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.calls {
		if c == what {
			n++
		}
	}
	return n
}

// gate is the rig's; its Look has another form than the installer's.
type gate struct{ *rig }

func (g gate) Look(string, release.Health, []byte) (Verdict, string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.verdict, "frames are few"
}

func (r *rig) updater(boot uint64, mono time.Duration) *Updater {
	return New(Config{Dir: filepath.Join(r.dir, "ota"), Clock: schema.NewClock(boot, mono)}, Deps{
		Installer: func(c string) Installer {
			if c == "agent" || c == "model/parcels" {
				return r
			}
			return nil
		},
		Fetch: r, Gate: gate{r}, Floor: r, Tell: r.tell, Warn: func(string, string) {}, Free: func() (int64, error) { return r.free, nil },
		Unmet:      func(*release.Component) []string { return r.unmet },
		Conditions: func(string, Moment) []Refusal { r.mu.Lock(); defer r.mu.Unlock(); return r.against },
		Apply: func(context.Context, string, string, string, string, release.Object) error {
			return errors.ErrUnsupported
		},
	})
}

// machine is one whose loop does not run: the test moves it.
func (r *rig) machine(boot uint64, mono time.Duration) *machine {
	r.t.Helper()
	m := &machine{Updater: r.updater(boot, mono), group: run.New(r.t.Context()), done: make(chan ending), notes: make(chan note)}
	if _, err := m.load(); err != nil {
		r.t.Fatal(err)
	}
	if err := m.resume(); err != nil {
		r.t.Fatal(err)
	}
	return m
}

func testOrder(component string, attempt uint64) Order {
	sum := release.Hash(sha256.Sum256([]byte("content")))
	m := &release.Manifest{V: 1, Release: "2.0", Epoch: 4, Components: []release.Component{{
		Name: component, Version: "2.0", Files: []release.File{{Path: "program", Object: release.Object{SHA256: sum, Tree: sum, Size: 7}}},
	}}}
	raw, _ := json.Marshal(m)
	return Order{Rollout: "r-1", Component: component, Release: "2.0", Attempt: attempt, Act: release.ActInstall, Manifest: m, Raw: raw, Hash: sha256.Sum256(raw), Before: "1.0"}
}

// put writes a record in which an update stands in a state.
func (r *rig) put(state table.State, change func(*record.Record)) {
	r.t.Helper()
	m := r.machine(1, time.Hour)
	o := testOrder("agent", 9)
	m.take(&o)
	m.begin()
	m.ends = m.now() + time.Hour
	if !m.save(func(rec *record.Record) {
		w := rec.Work
		w.State, w.Passes[string(state)] = string(state), 1
		if !state.Before() || state == table.Ready {
			w.Token, w.Notes = "new", []byte("before")
		}
		w.Was, w.Epoch = "1.0", 4
		if change != nil {
			change(rec)
		}
	}) {
		r.t.Fatal("not saved")
	}
	r.told = nil
}

// TestStatesAndEvents: every event in every state does what the table says, is durable when the
// word goes out, and a start finds what was left; where there is no arrow, nothing moves.
func TestStatesAndEvents(t *testing.T) {
	t.Parallel()
	for _, from := range table.States() {
		if from.Over() {
			continue
		}
		for _, on := range table.Events() {
			for _, restarted := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, %v", from, on, restarted), func(t *testing.T) {
					r := newRig(t)
					r.put(from, nil)
					boot := uint64(1)
					if restarted {
						boot = 2
						r.machine(boot, time.Minute)
					}
					m := r.machine(boot, time.Hour+time.Minute)
					r.told = nil
					m.fire(steps.Outcome{On: on, Reason: words.Fetch + ": because"})
					want, ok := table.Next(from, on)
					r.holds(m, from, want, ok)
					r.holds(r.machine(boot, time.Hour+2*time.Minute), from, want, ok)
				})
			}
		}
	}
}

// holds tells whether a machine stands where the table leads.
func (r *rig) holds(m *machine, from, want table.State, moved bool) {
	r.t.Helper()
	rec := m.rec.Load()
	if !want.Over() {
		if rec.Work == nil || rec.Work.State != string(want) {
			r.t.Fatalf("it is %+v, wants %s", rec.Work, want)
		}
		if n := rec.Work.Passes[string(want)]; n < 1 {
			r.t.Errorf("%d passes of %s", n, want)
		}
	} else if rec.Work != nil {
		r.t.Fatalf("it is still in work as %s, wants %s", rec.Work.State, want)
	}
	if !moved {
		return
	}
	if len(r.told) == 0 || r.told[len(r.told)-1].State != want.Word() {
		r.t.Errorf("told %+v, wants %s", r.told, want.Word())
	}
	mem := rec.Components["agent"]
	if want.Over() && (mem.Word != want.Word() || mem.Untold || mem.Attempt != 9) {
		r.t.Errorf("%s is remembered as %+v", want, mem)
	}
	if runs := mem.Runs != nil; runs != (want == table.Committed && from != table.Offered) {
		r.t.Errorf("%s, and %+v runs", want, mem.Runs)
	}
}

// TestStarts: whatever a start finds, of the record and of what truly runs, it comes to the one
// end that is true, with nothing done twice that must not be.
func TestStarts(t *testing.T) {
	t.Parallel()
	for _, from := range table.States() {
		if from.Over() {
			continue
		}
		for _, standing := range []Standing{NotYet, OnTrial, InForce, Fallen} {
			for _, asked := range []Restart{RestartNone, RestartProgram, RestartMachine} {
				for _, booted := range []bool{false, true} {
					if from.Before() && (standing != NotYet || asked != RestartNone) {
						continue
					}
					if asked != RestartNone && from != table.Switching && from != table.RollingBack {
						continue
					}
					t.Run(fmt.Sprintf("%s, %s, %s asked, board %v", from, standing, asked, booted), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { start(t, from, standing, asked, booted) })
					})
				}
			}
		}
	}
}

func start(t *testing.T, from table.State, standing Standing, asked Restart, booted bool) {
	r := newRig(t)
	r.put(from, func(rec *record.Record) { rec.Work.Asked, rec.Work.AskedIn = uint8(asked), 1 })
	r.standing["new"] = standing
	boot := uint64(1)
	if booted {
		boot = 2
	}
	ctx, cancel := context.WithCancel(t.Context())
	u := r.updater(boot, 90*time.Minute)
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	waits := asked == RestartMachine && !booted // for the board, which nobody starts
	want := words.Committed
	switch {
	case from == table.RollingBack, waits:
		want = words.RolledBack
	case !from.Before() && standing == Fallen, (from == table.Trial || from == table.Confirming) && standing == NotYet:
		want = words.RolledBack
	}
	asks := 0
	for end := time.Now().Add(3 * time.Hour); time.Now().Before(end); {
		select {
		case got := <-u.Restarting():
			if asks++; got != asked {
				t.Errorf("asks for %s", got)
			}
		case <-time.After(time.Second):
		}
		if s := u.Status(); s.Work == nil && s.Trouble == "" && len(r.told) > 0 {
			break
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if waits && from == table.RollingBack {
		want = words.Failed // it could not be told to have gone back
	}
	if got := r.last(); got.State != want || got.Attempt != 9 {
		t.Errorf("ends as %+v, wants %s", got, want)
	}
	if waits != (asks > 0) {
		t.Errorf("asked %d times for a restart", asks)
	}
	if committed := want == words.Committed; (r.floor == 4) != committed {
		t.Errorf("%s, and the floor is %d", want, r.floor)
	}
	if n := r.count("switch"); n > 1 || n == 1 && from == table.Trial {
		t.Errorf("switched %d times", n)
	}
}

// TestStrange: a record of a newer program, in a state that this one does not know, is led to
// its end.
func TestStrange(t *testing.T) {
	t.Parallel()
	for token, want := range map[string]string{"": words.Failed, "new": words.RollingBack} {
		r := newRig(t)
		r.put(table.Staged, func(rec *record.Record) { rec.Work.State, rec.Work.Token = "verifying", token })
		r.machine(1, time.Hour)
		if got := r.last(); got.State != want || !strings.HasPrefix(got.Reason, words.Loop+":") {
			t.Errorf("token %q: %+v", token, got)
		}
	}
}

// TestLoops: a start that finds an update in a state for the last time it may ends it.
func TestLoops(t *testing.T) {
	t.Parallel()
	for _, from := range []table.State{table.Fetching, table.Trial, table.RollingBack} {
		r := newRig(t)
		r.put(from, nil)
		limit := table.LimitOf(from).Passes
		for i := range 2 * limit {
			m := r.machine(1, time.Hour)
			w := m.rec.Load().Work
			if w == nil || w.State != string(from) {
				if i != limit-1 {
					t.Errorf("%s ended after %d starts, wants %d", from, i+1, limit)
				}
				break
			}
		}
		if got := r.last(); !strings.HasPrefix(got.Reason, words.Loop+":") {
			t.Errorf("%s: %+v", from, got)
		}
	}
}

// TestBroken: while the record cannot be written nothing moves and nothing is told, and it goes
// on when it can.
func TestBroken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.put(table.Trial, nil)
		r.standing["new"] = OnTrial
		u := r.updater(1, time.Hour)
		d := &failing{}
		u.deps.Disk = d
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- u.Run(ctx) }()
		time.Sleep(10 * time.Second)
		d.set(errors.New("input/output error"))
		time.Sleep(5 * time.Minute)
		if got := r.last(); got.State != words.Trial || r.floor != 2 || u.Status().Trouble == "" {
			t.Errorf("%+v, floor %d, %q", got, r.floor, u.Status().Trouble)
		}
		d.set(nil)
		time.Sleep(time.Minute)
		if got := r.last(); got.State != words.Committed || r.floor != 4 || u.Status().Trouble != "" {
			t.Errorf("%+v, floor %d, %q", got, r.floor, u.Status().Trouble)
		}
		cancel()
		<-done
	})
}

// failing is a disk that takes nothing for a while.
type failing struct {
	disk.OS
	mu  sync.Mutex
	err error
}

func (d *failing) set(err error) { d.mu.Lock(); defer d.mu.Unlock(); d.err = err }

func (d *failing) Open(path string) (disk.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return nil, d.err
	}
	return d.OS.Open(path)
}
