// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fulmar/ota/slot"
)

// shell begins a shell that is kept.
func shell(t *testing.T, script string) func() (*Proc, error) {
	log, err := openLog(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	return func() (*Proc, error) { return start("sh", "/bin/sh", log, "-c", script) }
}

// TestKept: what ends is started again, whether in order or not, and a stop is for good.
func TestKept(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]func(error) bool{
		"exit 0": func(err error) bool { return errors.Is(err, errInOrder) },
		"exit 3": func(err error) bool { return err != nil && strings.Contains(err.Error(), "status 3") },
	} {
		mark := filepath.Join(t.TempDir(), "mark")
		again := make(chan error, startBurst)
		k, err := keep(shell(t, "trap 'exit 0' TERM; if [ ! -e "+mark+" ]; then touch "+mark+"; "+script+"; fi; while :; do sleep 0.05; done"),
			func(_ *Proc, ended error) { again <- ended })
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-again:
			if !want(err) {
				t.Errorf("%s: it was said to end by %v", script, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: it was not started again", script)
		}
		time.Sleep(100 * time.Millisecond) // until the shell has its trap
		if _, err := k.Stop(); err != nil {
			t.Errorf("%s: %v", script, err)
		}
		if _, err := k.Stop(); err != nil || len(again) > 0 {
			t.Errorf("%s: stopped twice: %v, started %d more times", script, err, len(again))
		}
	}
}

// TestKeptGivesUp: one that ends at once is not started for ever.
func TestKeptGivesUp(t *testing.T) {
	t.Parallel()
	var starts atomic.Int32
	begin := shell(t, "echo no; exit 4")
	k, err := keep(func() (*Proc, error) { starts.Add(1); return begin() }, func(*Proc, error) {})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-k.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on")
	}
	if _, err := k.Stop(); err == nil || !strings.Contains(err.Error(), "6 times") || starts.Load() != startBurst {
		t.Errorf("%d starts, %v", starts.Load(), err)
	}
	if k.Output() != "no" {
		t.Errorf("it said %q", k.Output())
	}
}

// TestSeed: what was built is run and is not on trial; what came over the air stays.
func TestSeed(t *testing.T) {
	t.Parallel()
	s := &Site{Dir: t.TempDir(), Bin: t.TempDir()}
	store := slot.Open(s.SlotsDir("b"))
	seed := func(version string) slot.State {
		t.Helper()
		if err := os.WriteFile(filepath.Join(s.Bin, slot.Agent), []byte("program "+version), 0o755); err != nil {
			t.Fatal(err)
		}
		if did, err := s.Seed("b", version); err != nil || strings.Contains(did, "trial") {
			t.Fatalf("%q, %v", did, err)
		}
		st, _, err := store.State()
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	for _, v := range []string{"1.0", "1.0", "1.1", "1.0"} {
		if st := seed(v); !strings.HasPrefix(st.Current, v+"-") || st.Trial {
			t.Errorf("%s: %+v", v, st)
		}
	}
	sl, err := store.Write("2.0", slot.FromOTA, map[string]string{slot.Agent: filepath.Join(s.Bin, slot.Agent)})
	if err == nil {
		_, err = store.Switch(sl.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	if st := seed("1.3"); st.Current != sl.ID || !st.Trial {
		t.Errorf("an update on trial: %+v", st)
	}
}
