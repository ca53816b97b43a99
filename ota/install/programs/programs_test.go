// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"fulmar/internal/disk"
	"fulmar/internal/disk/crash"
	"fulmar/ota"
	"fulmar/ota/install/installtest"
	"fulmar/ota/release"
	"fulmar/ota/slot"
)

// elf is the least that is a program for this machine, with a text behind it.
func elf(text string) string {
	h := make([]byte, 64)
	copy(h, "\x7fELF\x02\x01\x01")
	h[elfType], h[elfMachine] = elfExec, machineX86
	if runtime.GOARCH == "arm64" {
		h[elfMachine] = machineARM
	}
	return string(h) + text
}

// board is a folder of slots, a launcher, and the two processes.
type board struct {
	t      *testing.T
	root   string
	disk   disk.Disk
	which  string // the component under test
	self   string // slot of fulmard
	worker string // slot that the worker was started from
	starts int    // of the worker
	fails  error  // of asking the worker to start anew
	p      *Programs
}

func (b *board) store() *slot.Store { return slot.OpenOn(filepath.Join(b.root, "fulmar"), b.disk) }

func newBoard(t *testing.T, root, which string) *board {
	t.Helper()
	b := &board{t: t, root: root, which: which, disk: disk.OS{}}
	for _, d := range []string{"fulmar", "ota"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b.deb("0.9")
	b.launch()
	if _, err := b.store().Confirm(b.self); err != nil {
		t.Fatal(err)
	}
	b.worker = b.self
	return b
}

// deb installs a package: a version of all.
func (b *board) deb(version string) {
	b.t.Helper()
	seed := b.t.TempDir()
	for name, text := range map[string]string{
		"release": version + "\n", slot.Agent: elf("fulmard " + version), slot.Worker: elf("infer " + version), "libonnxruntime.so.1": elf("a library " + strings.Repeat("x", 500)),
	} {
		if err := os.WriteFile(filepath.Join(seed, name), []byte(text), 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	if _, err := b.store().Seed(seed); err != nil {
		b.t.Fatal(err)
	}
}

// launch is what the launcher does for fulmard.
func (b *board) launch() {
	b.t.Helper()
	st, err := b.store().Begin()
	if err != nil {
		panic(err) // a finding, where the power was cut
	}
	b.self = st.Current
	b.process()
}

// process is fulmard's: what it knows after its start.
func (b *board) process() {
	b.p = New(Options{
		Slots: b.store(), Dir: filepath.Join(b.root, "ota"), Self: b.self, Disk: b.disk,
		RestartWorker: func(context.Context) error {
			if b.fails != nil {
				return b.fails
			}
			b.starts++
			b.worker = b.store().Order()[0]
			return nil
		},
	})
}

func (b *board) Installer() ota.Installer { return b.p.Installer(b.which) }

func (b *board) Restart(r ota.Restart) {
	if r == ota.RestartNone {
		b.process() // not counted: the same slot, a cut that the launcher does not see
		return
	}
	b.launch()
}

func (b *board) Component(version string) (*release.Component, map[string]string) {
	if b.which == Agent {
		return installtest.Files(b.t, Agent, version, map[string]string{slot.Agent: elf("fulmard " + version)})
	}
	return installtest.Files(b.t, Worker, version, map[string]string{
		slot.Worker: elf("infer " + version), "libonnxruntime.so.1": elf("a library " + strings.Repeat("x", 500)),
	})
}

func (b *board) Runs() string {
	id, name := b.self, slot.Agent
	if b.which == Worker {
		id, name = b.worker, slot.Worker
	}
	text, err := os.ReadFile(b.store().Path(id, name))
	if err != nil || len(text) < 64 {
		return fmt.Sprintf("%s of %s is damaged: %v", name, id, err)
	}
	_, version, _ := strings.Cut(string(text[64:]), " ")
	return version
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, which := range []string{Agent, Worker} {
		t.Run(which, func(t *testing.T) {
			t.Parallel()
			installtest.Run(t, func(t *testing.T) installtest.Subject { return newBoard(t, t.TempDir(), which) })
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// update stages and switches a version of what is under test.
func (b *board) update(version string) (string, ota.Restart) {
	b.t.Helper()
	c, paths := b.Component(version)
	token, err := b.Installer().Stage(b.t.Context(), c, paths)
	must(b.t, err)
	r, err := b.Installer().Switch(b.t.Context(), token)
	must(b.t, err)
	return token, r
}

// TestWorkerAlone: fulmard goes on, the worker starts anew once, nothing is copied that was
// there, and each part tells its own version.
func TestWorkerAlone(t *testing.T) {
	t.Parallel()
	b := newBoard(t, t.TempDir(), Worker)
	before := b.self
	token, r := b.update("1.0")
	if r != ota.RestartNone || b.starts != 1 || b.self != before || b.Runs() != "1.0" {
		t.Fatalf("restart %v, the worker started %d times, fulmard of %s, worker %s", r, b.starts, b.self, b.Runs())
	}
	for name, same := range map[string]bool{slot.Agent: true, "libonnxruntime.so.1": true, slot.Worker: false} {
		x, err := os.Stat(b.store().Path(before, name))
		must(t, err)
		y, err := os.Stat(b.store().Path(token, name))
		must(t, err)
		if os.SameFile(x, y) != same {
			t.Errorf("%s: one file %v, wants %v", name, !same, same)
		}
	}
	sl, err := b.store().Get(token)
	must(t, err)
	if sl.Version != "0.9+worker.1.0" || sl.Part(Agent) != "0.9" || sl.Part(Worker) != "1.0" || sl.Origin != slot.FromOTA {
		t.Errorf("%+v", sl)
	}
	if fi, err := os.Stat(b.store().Path(token, slot.Worker)); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("the worker's mode: %v, %v", fi.Mode(), err) // it was brought without any right to run it
	}
	if v, err := b.p.Installer(Agent).Running(t.Context()); err != nil || v != "0.9" {
		t.Errorf("the agent is %s, %v", v, err)
	}
	if !b.p.Owns(token) || b.p.Owns(before) {
		t.Error("who owns the trial is wrong")
	}
	must(t, b.Installer().Confirm(t.Context(), token))
	if b.p.Owns(token) {
		t.Error("it is owned for ever")
	}
	// fulmard still runs from the old slot: that stays, whatever comes.
	for _, v := range []string{"1.1", "1.2", "1.3"} {
		token, _ = b.update(v)
		must(t, b.Installer().Confirm(t.Context(), token))
		must(t, b.Installer().Sweep(t.Context(), nil))
		must(t, b.store().Verify(before))
	}
	if all, err := b.store().List(); err != nil || len(all) != 3 {
		t.Errorf("%d slots, %v", len(all), err)
	}
	// The board starts anew: all of it from the newest slot.
	b.launch()
	if b.self != token {
		t.Errorf("fulmard of %s, wants %s", b.self, token)
	}
}

// TestThreeStarts: a bad agent is gone back from by the launcher, and its installer says why.
func TestThreeStarts(t *testing.T) {
	t.Parallel()
	b := newBoard(t, t.TempDir(), Agent)
	before := b.self
	token, r := b.update("1.0")
	if r != ota.RestartProgram {
		t.Fatal(r)
	}
	if s, why, err := b.Installer().Look(t.Context(), token); s != ota.NotYet || err != nil || why == "" {
		t.Errorf("before the restart: %v, %q, %v", s, why, err)
	}
	if err := b.Installer().Confirm(t.Context(), token); err == nil {
		t.Error("confirmed by a process of another slot")
	}
	for range slot.MaxTries {
		b.launch()
		if s, _, err := b.Installer().Look(t.Context(), token); s != ota.OnTrial || err != nil {
			t.Fatalf("%v, %v", s, err)
		}
	}
	b.launch()
	s, why, err := b.Installer().Look(t.Context(), token)
	if s != ota.Fallen || !strings.Contains(why, "not confirmed in 3 starts") || err != nil || b.self != before {
		t.Fatalf("%v, %q, %v, runs %s", s, why, err, b.self)
	}
	// A second attempt has not fallen before it was tried, whatever is remembered of the first.
	c, paths := b.Component("1.0")
	again, err := b.Installer().Stage(t.Context(), c, paths)
	must(t, err)
	b.launch()
	if s, _, err := b.Installer().Look(t.Context(), again); again != token || s != ota.NotYet || err != nil {
		t.Errorf("%s is %v, %v", again, s, err)
	}
	// Nor where the second switch is cut between its note and the choice.
	noted := false
	b.disk = &crash.Recorder{T: t, Root: b.root, Before: func(what, path string) error {
		noted = noted || what == "rename" && strings.HasSuffix(path, notesFile+".new")
		if noted && what == "rename" && strings.HasSuffix(path, "launch.json.new") {
			return errors.New("cut")
		}
		return nil
	}}
	b.process()
	if _, err := b.Installer().Switch(t.Context(), again); err == nil || !noted {
		t.Fatalf("not cut: %v", err)
	}
	b.disk = disk.OS{}
	b.launch()
	if s, why, err := b.Installer().Look(t.Context(), again); s != ota.NotYet || err != nil {
		t.Errorf("%s is %v, %s, %v", again, s, why, err)
	}
}

// TestWorkerFollows: the agent and its worker in one component; the launcher goes back; the
// worker that still runs from the bad slot is started anew, once, also where a cut came between.
func TestWorkerFollows(t *testing.T) {
	t.Parallel()
	b := newBoard(t, t.TempDir(), Agent)
	before := b.self
	c, paths := installtest.Files(t, Agent, "2.0", map[string]string{slot.Agent: elf("fulmard 2.0"), slot.Worker: elf("infer 2.0")})
	token, err := b.Installer().Stage(t.Context(), c, paths)
	must(t, err)
	b.fails = errors.New("killed")
	if _, err := b.Installer().Switch(t.Context(), token); err == nil {
		t.Fatal("the worker could not be asked, and nobody says so")
	}
	b.fails = nil
	b.launch()
	if s, _, err := b.Installer().Look(t.Context(), token); s != ota.OnTrial || err != nil || b.worker != token || b.starts != 1 {
		t.Fatalf("%v, %v, worker of %s after %d starts", s, err, b.worker, b.starts)
	}
	for range slot.MaxTries {
		b.launch()
	}
	if s, _, err := b.Installer().Look(t.Context(), token); s != ota.Fallen || err != nil || b.worker != before || b.starts != 2 {
		t.Fatalf("%v, %v, worker of %s after %d starts", s, err, b.worker, b.starts)
	}
	must(t, b.p.Follow(t.Context()))
	if b.starts != 2 {
		t.Errorf("the worker was started %d times", b.starts)
	}
	// No notes at all: nothing is restarted on a guess; damaged ones: once too often.
	must(t, os.Remove(filepath.Join(b.root, "ota", notesFile)))
	must(t, b.p.Follow(t.Context()))
	must(t, os.WriteFile(filepath.Join(b.root, "ota", notesFile), []byte("{"), 0o600))
	must(t, b.p.Follow(t.Context()))
	must(t, b.p.Follow(t.Context()))
	if b.starts != 3 {
		t.Errorf("the worker was started %d times", b.starts)
	}
}

// TestPackageBetween: a package that a person installs while an update waits or is on trial
// is not undone by it.
func TestPackageBetween(t *testing.T) {
	t.Parallel()
	b := newBoard(t, t.TempDir(), Worker)
	c, paths := b.Component("1.0")
	token, err := b.Installer().Stage(t.Context(), c, paths)
	must(t, err)
	b.deb("0.9.5")
	b.launch()
	if _, err := b.Installer().Switch(t.Context(), token); err == nil || !strings.Contains(err.Error(), "stage it again") {
		t.Fatalf("switched over a package: %v", err)
	}
	_, err = b.store().Confirm(b.self)
	must(t, err)
	token, _ = b.update("1.0")
	b.deb("1.5") // newer than 0.9.5+worker.1.0
	b.launch()
	s, why, err := b.Installer().Look(t.Context(), token)
	if s != ota.Fallen || !strings.Contains(why, "1.5") || err != nil {
		t.Errorf("%v, %q, %v", s, why, err)
	}
	if r, err := b.Installer().Back(t.Context(), token, "no"); r != ota.RestartNone || err != nil || !strings.HasPrefix(b.self, "1.5-") {
		t.Errorf("%v, %v, runs %s", r, err, b.self)
	}
}

// TestRefused: what may not be in a component of programs.
func TestRefused(t *testing.T) {
	t.Parallel()
	other := []byte(elf("x"))
	other[elfMachine] = 243
	for name, c := range map[string]struct {
		which string
		files map[string]string
		want  string
	}{
		"the launcher":         {Agent, map[string]string{slot.Agent: elf("1"), "fulmar-launch": elf("2")}, "package alone"},
		"the launcher, too":    {Worker, map[string]string{slot.Worker: elf("1"), "fulmar-launch.new": elf("2")}, "package alone"},
		"another file":         {Agent, map[string]string{slot.Agent: elf("1"), "sh": elf("2")}, "wants"},
		"a folder":             {Agent, map[string]string{slot.Agent: elf("1"), "lib/libx.so": elf("2")}, "wants"},
		"slot.json":            {Agent, map[string]string{slot.Agent: elf("1"), "slot.json": elf("2")}, "wants"},
		"fulmard in a worker":  {Worker, map[string]string{slot.Worker: elf("1"), slot.Agent: elf("2")}, "component agent"},
		"no fulmard":           {Agent, map[string]string{slot.Worker: elf("1")}, "no fulmard"},
		"no worker":            {Worker, map[string]string{"libonnxruntime.so.1": elf("1")}, "no fulmar-infer"},
		"a script":             {Agent, map[string]string{slot.Agent: "#!/bin/sh\nexit 0 # and some more\n"}, "no ELF"},
		"another machine":      {Agent, map[string]string{slot.Agent: string(other)}, "another machine"},
		"an object file":       {Agent, map[string]string{slot.Agent: strings.Replace(elf("x"), "\x02\x00"+string(elf("x")[18]), "\x01\x00"+string(elf("x")[18]), 1)}, "neither"},
		"a truncated header":   {Agent, map[string]string{slot.Agent: "\x7fELF"}, "no ELF"},
		"a version of nothing": {Agent, map[string]string{slot.Agent: elf("1")}, "version"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBoard(t, t.TempDir(), c.which)
			version := "1.0"
			if c.want == "version" {
				version = "+1"
			}
			rc, paths := installtest.Files(t, c.which, version, c.files)
			if _, err := b.Installer().Stage(t.Context(), rc, paths); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; wants %q", err, c.want)
			}
			if all, err := b.store().List(); err != nil || len(all) != 1 {
				t.Errorf("%d slots, %v", len(all), err)
			}
		})
	}
}

// TestLabel: a package between two versions goes before what came over the air, an older one not.
func TestLabel(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("1", 60)
	for _, c := range [][3]string{
		{"1.9", "1.9", "1.9"},
		{"1.9", "2.0", "1.9+worker.2.0"},
		{"1_9", "1_9", "1.9"},
	} {
		if got, err := label(c[0], c[1]); err != nil || got != c[2] {
			t.Errorf("%v: %s, %v", c, got, err)
		}
	}
	got, err := label(long, "2")
	other, err2 := label(long, "3")
	if err != nil || err2 != nil || len(got) > maxLabel || got == other {
		t.Errorf("%s, %s, %v, %v", got, other, err, err2)
	}
	v, _ := label("1.9.0", "1.9.1")
	if slot.CompareVersions("1.9.0", v) >= 0 || slot.CompareVersions("1.9.1", v) <= 0 {
		t.Errorf("%s has a wrong place", v)
	}
}

func TestPowerCuts(t *testing.T) {
	t.Parallel()
	for _, which := range []string{Agent, Worker} {
		t.Run(which, func(t *testing.T) {
			t.Parallel()
			installtest.PowerCuts(t, func(t *testing.T, root string, d disk.Disk) installtest.Subject {
				if _, err := os.Stat(filepath.Join(root, "fulmar")); err != nil {
					newBoard(t, root, which)
				}
				b := &board{t: t, root: root, which: which, disk: d}
				b.launch()
				b.worker = b.self
				return b
			})
		})
	}
}
