// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package slots

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fulmar/ota/slot"
	"fulmar/tests/local"
)

// told waits until the newest word on a subject at the fleet has this state and text.
func told(t *testing.T, api *local.API, subject, state, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	last := "nothing"
	for ctx.Err() == nil {
		if b, err := api.Board(ctx, "dock-1"); err == nil {
			for _, r := range b.Reports {
				if r.Subject != subject {
					continue
				}
				if last = r.State + ": " + r.Text; r.State == state && strings.Contains(r.Text, text) {
					return
				}
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("of %s the fleet was told %q, wants %s with %q", subject, last, state, text)
}

// TestUpgrades: version 1 to 2, which proves itself in its minute, then versions that
// are broken, each of which the board goes back from by itself, and the fleet knows why.
func TestUpgrades(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "bin/fulmar-fleet")); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v; run: make build", err)
		}
		t.Skipf("%v; run: make build", err)
	}
	dir := open(t)
	s, err := local.New(dir, filepath.Join(root, "bin"), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.StartFleet(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Fleet.Kill() })
	config, err := s.PrepareBoard(local.Board{Name: "dock-1"})
	if err != nil {
		t.Fatal(err)
	}
	api, err := s.API()
	if err != nil {
		t.Fatal(err)
	}
	launcher, state := filepath.Join(dir, "launch"), filepath.Join(dir, "state")
	build(t, "./cmd/fulmar-launch", launcher, "release", "1")
	for _, v := range []string{"1.0", "2.0"} {
		build(t, "./cmd/fulmard", filepath.Join(dir, "fulmard-"+v), "release", v)
		pack(t, dir, v, filepath.Join(dir, "fulmard-"+v))
	}
	if err := os.Mkdir(state, 0o755); err != nil {
		t.Fatal(err)
	}
	give(t, state, config, s.BoardDir("dock-1"))
	do := func(args ...string) {
		t.Helper()
		out, err := command(launcher, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		t.Logf("%s", strings.TrimSpace(string(out)))
	}

	do("seed", "--state", state, "--from", filepath.Join(dir, "seed-1.0"))
	u := startUnit(t, dir, launcher, "run", "--state", state, slot.Agent, "run", "--config", config)
	u.runs("1.0", 30*time.Second)
	do("confirm", "--state", state)
	do("seed", "--state", state, "--from", filepath.Join(dir, "seed-2.0"))
	u.kill(syscall.SIGTERM)
	begin := time.Now()
	u.runs("2.0", 30*time.Second)
	told(t, api, "slot", "trial", "start 1 of 3")
	for st := (slot.State{Trial: true}); st.Trial; time.Sleep(100 * time.Millisecond) {
		if st, _, err = slot.Open(state).State(); err != nil || time.Since(begin) > 100*time.Second {
			t.Fatalf("not confirmed: %+v, %v", st, err)
		}
	}
	if took := time.Since(begin); took < time.Minute {
		t.Errorf("confirmed after %v, wants a minute of progress", took)
	}
	told(t, api, "slot", "confirmed", "slot 2.0-")
	told(t, api, "slot/fall", "none", "")

	for _, wrong := range []string{"exits", "hangs", "deaf", "cut"} {
		program := filepath.Join(dir, wrong)
		if wrong == "cut" { // the first half of the real one
			b, err := os.ReadFile(filepath.Join(dir, "fulmard-2.0"))
			if err == nil {
				err = os.WriteFile(program, b[:len(b)/2], 0o755)
			}
			if err != nil {
				t.Fatal(err)
			}
		} else {
			build(t, "./tests/slots/testprog", program, "wrong", wrong)
		}
		do("seed", "--state", state, "--from", pack(t, dir, "3."+wrong, program))
		begin := time.Now()
		u.kill(syscall.SIGTERM)
		time.Sleep(2 * restart)
		for b := ""; !strings.Contains(b, "\"3."+wrong); {
			st, _, err := slot.Open(state).State()
			if err != nil || time.Since(begin) > time.Minute {
				t.Fatalf("%+v, %v", st, err)
			}
			if st.Fall != nil && strings.HasPrefix(st.Fall.From, "3."+wrong) {
				b = "\"3." + wrong
			}
			time.Sleep(20 * time.Millisecond)
		}
		u.runs("2.0", time.Minute)
		t.Logf("3.%s: back on 2.0 after %v", wrong, time.Since(begin).Round(10*time.Millisecond))
		told(t, api, "slot/fall", "went-back", "went back from slot 3."+wrong)
		told(t, api, "slot", "confirmed", "slot 2.0-")
	}
}
