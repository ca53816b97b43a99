// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package installtest is what every [ota.Installer] has to hold: each method does the same
// when it is called twice, a process may end between any two calls, wrong tokens do
// nothing, and neither what runs nor what it would go back to is ever removed.
package installtest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"fulmar/ota"
	"fulmar/ota/release"
)

// Subject is an installer in its surroundings: a disk that stays, processes that come and go.
type Subject interface {
	// Installer is that of the present process.
	Installer() ota.Installer
	// Restart ends the process and starts the next one; for RestartMachine the machine.
	Restart(r ota.Restart)
	// Component makes a version of the component, with its files in a folder beside.
	Component(version string) (*release.Component, map[string]string)
	// Runs is the version that truly runs, "" for none: what a user of it would find.
	Runs() string
}

// Object describes a file as a manifest does. The tree's root is not looked at by installers.
func Object(t *testing.T, path string) release.Object {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := release.Hash(sha256.Sum256(b))
	return release.Object{SHA256: sum, Size: int64(len(b)), Tree: sum}
}

// Files writes files into a folder and makes a component of them.
func Files(t *testing.T, name, version string, content map[string]string) (*release.Component, map[string]string) {
	t.Helper()
	dir := t.TempDir()
	c, paths := &release.Component{Name: name, Version: version}, map[string]string{}
	for p, text := range content {
		path := filepath.Join(dir, strings.ReplaceAll(p, "/", "_"))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c.Files = append(c.Files, release.File{Path: p, Object: Object(t, path)})
		paths[p] = path
	}
	return c, paths
}

// Run holds subjects that fresh makes to all of it. Each test gets a new one, on which
// nothing of the component was ever installed, or where something came otherwise.
func Run(t *testing.T, fresh func(t *testing.T) Subject) {
	t.Helper()
	for name, cut := range map[string]bool{"life": false, "life, cut between any two calls": true} {
		t.Run(name, func(t *testing.T) { life(&run{T: t, s: fresh(t), cut: cut}) })
	}
	for name, fn := range map[string]func(*run){
		"wrong tokens": wrong, "sweep": sweep, "base": base, "wrong files": files, "going on after a fall": again, "ended": ended,
	} {
		t.Run(name, func(t *testing.T) { fn(&run{T: t, s: fresh(t)}) })
	}
}

// run calls an installer, each method twice, and where cut is set in a new process each time.
type run struct {
	*testing.T
	s   Subject
	cut bool
}

func (r *run) in() ota.Installer {
	if r.cut {
		r.s.Restart(ota.RestartNone)
	}
	return r.s.Installer()
}

func (r *run) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *run) stage(version string) string {
	r.Helper()
	c, paths := r.s.Component(version)
	need, free, err := r.in().Space(r.Context(), c)
	if err != nil || need <= 0 || free <= 0 {
		r.Errorf("space for %s: %d of %d, %v", version, need, free, err)
	}
	token, err := r.in().Stage(r.Context(), c, paths)
	r.must(err)
	if again, err := r.in().Stage(r.Context(), c, paths); err != nil || again != token || token == "" || len(token) > ota.MaxToken {
		r.Fatalf("staged again: %q in place of %q, %v", again, token, err)
	}
	return token
}

func (r *run) change(what string, fn func(ota.Installer) (ota.Restart, error)) {
	r.Helper()
	restart, err := fn(r.in())
	r.must(err)
	if second, err := fn(r.in()); err != nil || second > restart {
		r.Fatalf("%s again: %v after %v, %v", what, second, restart, err)
	}
	if restart != ota.RestartNone {
		r.s.Restart(restart)
	}
	if r.cut { // the process may also die after its restart and before it knows
		r.s.Restart(restart)
	}
}

func (r *run) switchTo(token string) {
	r.Helper()
	r.change("switch", func(i ota.Installer) (ota.Restart, error) { return i.Switch(r.Context(), token) })
}

func (r *run) back(token string) {
	r.Helper()
	r.change("back", func(i ota.Installer) (ota.Restart, error) { return i.Back(r.Context(), token, "it is bad") })
}

func (r *run) confirm(token string) {
	r.Helper()
	r.must(r.in().Confirm(r.Context(), token))
	r.must(r.in().Confirm(r.Context(), token))
}

func (r *run) stands(token string, want ota.Standing) string {
	r.Helper()
	got, why, err := r.in().Look(r.Context(), token)
	if err != nil || got != want {
		r.Fatalf("%s is %v (%s), %v; wants %v", token, got, why, err, want)
	}
	return why
}

func (r *run) runs(version string) {
	r.Helper()
	if got := r.s.Runs(); got != version {
		r.Fatalf("%q runs, wants %q", got, version)
	}
	if got, err := r.in().Running(r.Context()); err != nil || got != version {
		r.Fatalf("running: %q, %v; wants %q", got, err, version)
	}
}

func (r *run) install(version string) string {
	r.Helper()
	token := r.stage(version)
	r.stands(token, ota.NotYet)
	r.switchTo(token)
	r.stands(token, ota.OnTrial)
	r.runs(version)
	r.confirm(token)
	r.stands(token, ota.InForce)
	return token
}

// life is installed, replaced, gone back from, tried again, and undone.
func life(r *run) {
	before := r.s.Runs()
	bad := r.stage("1.0")
	r.switchTo(bad)
	r.runs("1.0")
	r.back(bad) // also the first one can be gone back from
	r.runs(before)
	if why := r.stands(bad, ota.Fallen); !strings.Contains(why, "it is bad") {
		r.Errorf("why: %q", why)
	}

	one := r.install("1.1")
	two := r.stage("2.0")
	r.runs("1.1")
	r.switchTo(two)
	r.runs("2.0")
	r.stands(two, ota.OnTrial)
	r.back(two)
	r.runs("1.1")
	r.stands(two, ota.Fallen)
	r.stands(one, ota.InForce)

	two = r.install("2.0") // a second attempt of the same
	r.runs("2.0")
	r.back(two) // undone, after it was confirmed
	r.runs("1.1")
	r.stands(two, ota.Fallen)
	r.back(two) // nothing more to go back from
	r.runs("1.1")
}

func wrong(r *run) {
	before := r.s.Runs()
	for range 2 {
		for _, token := range []string{"", ".", "..", "../x", "nobody-0123456789abcdef", strings.Repeat("x", 4096), "a\x00b"} {
			i := r.in()
			if _, err := i.Switch(r.Context(), token); err == nil {
				r.Errorf("switched to %.20q", token)
			}
			if err := i.Confirm(r.Context(), token); err == nil {
				r.Errorf("confirmed %.20q", token)
			}
			if s, why, err := i.Look(r.Context(), token); s != ota.NotYet && err == nil {
				r.Errorf("%.20q is %v, %s", token, s, why)
			}
			if restart, err := i.Back(r.Context(), token, "no"); restart != ota.RestartNone {
				r.Errorf("back from %.20q: %v, %v", token, restart, err)
			}
			if got := r.s.Runs(); got != before {
				r.Fatalf("after %.20q %q runs, wants %q", token, got, before)
			}
		}
		if before != "1.0" {
			r.install("1.0")
			before = "1.0"
		}
	}
}

func sweep(r *run) {
	one := r.install("1.0")
	kept, gone := r.stage("3.0"), r.stage("4.0")
	two := r.stage("2.0")
	r.switchTo(two)
	for range 2 {
		r.must(r.in().Sweep(r.Context(), []string{kept, "nobody", ""}))
		r.runs("2.0")
	}
	r.s.Restart(ota.RestartProgram)
	r.runs("2.0")
	r.back(two)
	r.runs("1.0")
	r.stands(one, ota.InForce)
	if _, err := r.in().Switch(r.Context(), gone); err == nil {
		r.Errorf("switched to %s, which was swept", gone)
	}
	r.runs("1.0")
	if again := r.stage("3.0"); again != kept {
		r.Errorf("staged again as %s, was %s", again, kept)
	}
	r.switchTo(kept)
	r.runs("3.0")
	r.confirm(kept)
	r.must(r.in().Sweep(r.Context(), nil))
	r.s.Restart(ota.RestartProgram)
	r.runs("3.0")
	r.back(kept)
	r.runs("1.0")
}

func base(r *run) {
	r.install("1.0")
	c, paths := r.s.Component("1.0")
	if c.Name == "rootfs" {
		return // an image is no base: the system has written to it
	}
	for i := range c.Files {
		got, err := r.in().Base(r.Context(), c.Files[i].SHA256)
		r.must(err)
		if Object(r.T, got) != Object(r.T, paths[c.Files[i].Path]) {
			r.Errorf("%s is not %s", got, c.Files[i].Path)
		}
	}
	if p, err := r.in().Base(r.Context(), release.Hash{1}); !errors.Is(err, ota.ErrNoBase) {
		r.Errorf("a base of nothing: %s, %v", p, err)
	}
}

func files(r *run) {
	before := r.s.Runs()
	c, paths := r.s.Component("1.0")
	other := *c
	other.Name = "model/of-somebody-else"
	if _, err := r.in().Stage(r.Context(), &other, paths); err == nil {
		r.Error("another component was staged")
	}
	if _, err := r.in().Stage(r.Context(), c, nil); err == nil {
		r.Error("staged without its files")
	}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		r.must(err)
		b[len(b)-1] ^= 1
		r.must(os.WriteFile(p, b, 0o600))
	}
	if token, err := r.in().Stage(r.Context(), c, paths); err == nil {
		r.Errorf("staged %s of files that are others", token)
	}
	if got := r.s.Runs(); got != before {
		r.Errorf("%q runs, wants %q", got, before)
	}
	r.install("1.0")
}

// again: a bad version, a good one, and the bad one is still known to have fallen or not to run.
func again(r *run) {
	r.install("1.0")
	bad := r.stage("2.0")
	r.switchTo(bad)
	r.back(bad)
	r.install("3.0")
	r.runs("3.0")
	if s, _, err := r.in().Look(r.Context(), bad); err != nil || s == ota.OnTrial || s == ota.InForce {
		r.Errorf("%s is %v, %v", bad, s, err)
	}
	r.back(bad) // an old word that comes late
	r.runs("3.0")
	if err := r.in().Confirm(r.Context(), bad); err == nil {
		r.Errorf("%s was confirmed", bad)
	}
}

// ended: a context that is over leaves the old or the new one.
func ended(r *run) {
	r.install("1.0")
	ctx, cancel := context.WithCancel(r.Context())
	cancel()
	c, paths := r.s.Component("2.0")
	if token, err := r.in().Stage(ctx, c, paths); err == nil {
		_, _ = r.in().Switch(ctx, token)
		_, _ = r.in().Back(ctx, token, "the time is up")
	}
	r.s.Restart(ota.RestartNone)
	r.runs("1.0")
	r.install("2.0")
}

// Full holds an installer to a full disk: fill leaves less room than version wants, until
// the function that it gives is called. Nothing is left behind, and what runs goes on.
func Full(t *testing.T, s Subject, version string, fill func() (free func())) {
	t.Helper()
	r := &run{T: t, s: s}
	r.install("1.0")
	free := fill()
	c, paths := s.Component(version)
	for range 2 {
		token, err := s.Installer().Stage(t.Context(), c, paths)
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("on a full disk: %q, %v; wants an error that says so", token, err)
		}
	}
	if need, have, err := s.Installer().Space(t.Context(), c); err != nil || need <= have {
		t.Errorf("space on a full disk: %d of %d, %v", need, have, err)
	}
	s.Restart(ota.RestartProgram)
	r.runs("1.0")
	free()
	r.install(version)
	fmt.Fprintln(t.Output(), "installed after the disk had room again")
}
