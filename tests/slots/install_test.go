// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package slots

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"fulmar/ota"
	"fulmar/ota/install/installtest"
	"fulmar/ota/install/programs"
	"fulmar/ota/slot"
)

// TestInstaller: an update of the agent alone by its installer, started by the real launcher,
// which goes back from it; the installer of the old agent knows why, and a good one stays.
// The real launcher reads what the installer wrote, and writes what the installer reads.
func TestInstaller(t *testing.T) {
	t.Parallel()
	dir := open(t)
	launcher, state, notes := filepath.Join(dir, "launch"), filepath.Join(dir, "state"), filepath.Join(dir, "ota")
	build(t, "./cmd/fulmar-launch", launcher, "release", "1")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{state, notes} {
		must(os.Mkdir(d, 0o755))
	}
	short, exits := filepath.Join(dir, "short"), filepath.Join(dir, "exits")
	build(t, "./tests/slots/testprog", short, "wrong", "short")
	build(t, "./tests/slots/testprog", exits, "wrong", "exits")
	start := func(args ...string) string { // as the folder's owner, who this is
		out, _ := exec.Command(launcher, args...).CombinedOutput() // a broken agent's code is its own
		return string(out)
	}
	start("seed", "--state", state, "--from", pack(t, dir, "1.0", short))
	start("confirm", "--state", state)
	store := slot.Open(state)
	installer := func() ota.Installer { // of the process that the launcher has started last
		st, _, err := store.State()
		must(err)
		p := programs.New(programs.Options{Slots: store, Dir: notes, Self: st.Current, RestartWorker: func(context.Context) error { return nil }})
		return p.Installer(programs.Agent)
	}
	update := func(version, program string) string {
		t.Helper()
		b, err := os.ReadFile(program)
		must(err)
		c, paths := installtest.Files(t, programs.Agent, version, map[string]string{slot.Agent: string(b)})
		i := installer()
		token, err := i.Stage(t.Context(), c, paths)
		must(err)
		r, err := i.Switch(t.Context(), token)
		if err != nil || r != ota.RestartProgram {
			t.Fatalf("%v, %v", r, err)
		}
		return token
	}
	bad := update("2.0", exits)
	run := []string{"run", "--state", state, slot.Agent}
	for range slot.MaxTries {
		if out := start(run...); !strings.Contains(out, "this release is broken") {
			t.Fatalf("%s", out)
		}
	}
	if out := start(run...); !strings.Contains(out, "went back from slot "+bad) || !strings.Contains(out, "fulmard\n") {
		t.Fatalf("%s", out)
	}
	s, why, err := installer().Look(t.Context(), bad)
	if s != ota.Fallen || !strings.Contains(why, "not confirmed in 3 starts") || err != nil {
		t.Errorf("%v, %q, %v", s, why, err)
	}
	// Another program of the same bytes as the old one would ask for no restart: one byte more.
	b, err := os.ReadFile(short)
	must(err)
	must(os.WriteFile(short, append(b, 0), 0o755))
	good := update("3.0", short)
	if out := start(run...); !strings.Contains(out, "fulmard\n") {
		t.Fatalf("%s", out)
	}
	i := installer()
	if s, _, err := i.Look(t.Context(), good); s != ota.OnTrial || err != nil {
		t.Errorf("%v, %v", s, err)
	}
	must(i.Confirm(t.Context(), good))
	if out := start("status", "--verify", "--state", state); !strings.Contains(out, "current, confirmed") || strings.Contains(out, "not whole") {
		t.Errorf("%s", out)
	}
}
