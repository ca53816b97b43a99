// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// board makes a store with slots of these versions, each switched to and confirmed.
func board(t *testing.T, versions ...string) (*Store, []string) {
	t.Helper()
	s := Open(memory(t))
	var ids []string
	for _, v := range versions {
		ids = append(ids, add(t, s, v, FromDeb))
		if _, err := s.Confirm(ids[len(ids)-1]); err != nil {
			t.Fatal(err)
		}
	}
	return s, ids
}

// add writes a slot and switches to it.
func add(t *testing.T, s *Store, version, origin string) string {
	t.Helper()
	dir := packageOf(t, t.TempDir(), version)
	sl, err := s.Write(version, origin, map[string]string{Agent: filepath.Join(dir, Agent), "fulmar-infer": filepath.Join(dir, "fulmar-infer")})
	if err == nil {
		_, err = s.Switch(sl.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	return sl.ID
}

func wantState(t *testing.T, s *Store, current string, trial bool, tries int) State {
	t.Helper()
	st, note, err := s.State()
	if err != nil || note != "" || st.Current != current || st.Trial != trial || st.Tries != tries {
		t.Errorf("%+v, %q, %v; wants %s, trial %v, %d tries", st, note, err, current, trial, tries)
	}
	if s.link() != current {
		t.Errorf("current names %q, wants %s", s.link(), current)
	}
	return st
}

func start(t *testing.T, s *Store) {
	t.Helper()
	if _, err := s.Begin(); err != nil {
		t.Error(err)
	}
}

func TestTrial(t *testing.T) {
	t.Parallel()
	s, ids := board(t, "1.0")
	start(t, s)
	wantState(t, s, ids[0], false, 0) // confirmed: nothing is counted
	two := add(t, s, "2.0", FromDeb)
	for n := range MaxTries {
		wantState(t, s, two, true, n)
		start(t, s)
	}
	wantState(t, s, two, true, MaxTries)
	start(t, s)
	st := wantState(t, s, ids[0], false, 0)
	if f := st.Fall; f == nil || f.From != two || f.To != ids[0] || f.Told || f.Reason != "not confirmed in 3 starts" {
		t.Errorf("the going back is %+v", f)
	}
	if _, err := s.Confirm(two); !errors.Is(err, ErrNotCurrent) {
		t.Errorf("a slot that was gone back from is confirmed: %v", err)
	}
	if _, err := s.Back(ids[0], "x"); !errors.Is(err, ErrNoOther) {
		t.Errorf("went back to a slot that had failed: %v", err)
	}
	// A third try of the same content is a new trial.
	if _, err := s.Switch(two); err != nil {
		t.Fatal(err)
	}
	start(t, s)
	over, err := s.Confirm(two)
	if err != nil || !over {
		t.Errorf("confirmed: %v, %v", over, err)
	}
	if st := wantState(t, s, two, false, 0); st.Fall != nil || st.Previous != ids[0] {
		t.Errorf("after it: %+v", st)
	}
}

// TestTrialOverTrial: an upgrade over one that never proved itself goes back to the
// last good one, not to that.
func TestTrialOverTrial(t *testing.T) {
	t.Parallel()
	s, ids := board(t, "1.0")
	add(t, s, "2.0", FromDeb)
	three := add(t, s, "3.0", FromDeb)
	if st := wantState(t, s, three, true, 0); st.Previous != ids[0] {
		t.Errorf("goes back to %s, wants %s", st.Previous, ids[0])
	}
}

// TestAlone: the first slot has nothing to go back to and is started on and on.
func TestAlone(t *testing.T) {
	t.Parallel()
	s := Open(memory(t))
	one := add(t, s, "1.0", FromDeb)
	for range 6 {
		start(t, s)
	}
	wantState(t, s, one, true, MaxTries)
	if _, err := s.Confirm(one); err != nil {
		t.Error(err)
	}
	wantState(t, s, one, false, 0)
}

// TestDamage: for each thing that may be broken, what the next start runs. The slots
// are 1.0, confirmed before, and 2.0, confirmed and current.
func TestDamage(t *testing.T) {
	t.Parallel()
	type m = map[string]func(t *testing.T, s *Store, ids []string)
	change := func(name string, i int, fn func(path string) error) func(*testing.T, *Store, []string) {
		return func(t *testing.T, s *Store, ids []string) {
			if err := fn(s.Path(ids[i], name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	flip := func(path string) error {
		b, err := os.ReadFile(path)
		if err == nil {
			b[len(b)/2] ^= 1
			err = os.WriteFile(path, b, 0o644)
		}
		return err
	}
	at := func(name string, fn func(path string) error) func(*testing.T, *Store, []string) {
		return func(t *testing.T, s *Store, _ []string) {
			if err := fn(filepath.Join(s.dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	empty := func(path string) error { return os.Truncate(path, 0) }
	folder := func(path string) error {
		return errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "x"), 0o755))
	}
	both := func(a, b func(*testing.T, *Store, []string)) func(*testing.T, *Store, []string) {
		return func(t *testing.T, s *Store, ids []string) { a(t, s, ids); b(t, s, ids) }
	}
	for want, cases := range map[string]m{
		"1.0 confirmed": {
			"the agent is gone":           change(Agent, 1, os.Remove),
			"the agent is empty":          change(Agent, 1, empty),
			"a bit of the agent":          change(Agent, 1, flip),
			"the agent is a folder":       change(Agent, 1, folder),
			"the worker is gone":          change("fulmar-infer", 1, os.Remove),
			"slot.json is gone":           change(slotFile, 1, os.Remove),
			"slot.json is empty":          change(slotFile, 1, empty),
			"a bit of slot.json":          change(slotFile, 1, flip),
			"the whole slot is gone":      change("", 1, os.RemoveAll),
			"and the link is gone":        both(change(Agent, 1, flip), at(linkName, os.Remove)),
			"launch.json gone, agent too": both(at(stateFile, os.Remove), change(Agent, 1, flip)),
		},
		"2.0 confirmed": {
			"nothing":                    func(*testing.T, *Store, []string) {},
			"the link is gone":           at(linkName, os.Remove),
			"the link names no slot":     at(linkName, func(p string) error { return errors.Join(os.Remove(p), os.Symlink("/etc", p)) }),
			"the link is a file":         at(linkName, func(p string) error { return errors.Join(os.Remove(p), os.WriteFile(p, nil, 0o600)) }),
			"the previous slot is gone":  change("", 0, os.RemoveAll),
			"a writer was cut off":       at("slots/.new", func(p string) error { return os.MkdirAll(p+"/x", 0o755) }),
			"other things in the folder": at("slots/lost+found", func(p string) error { return os.MkdirAll(p+"/x", 0o755) }),
			"a new state half written":   at(".launch.json.new", func(p string) error { return os.WriteFile(p, []byte("{"), 0o644) }),
			"a new link not renamed":     at(".current.new", func(p string) error { return os.Symlink("slots/x", p) }),
		},
		"2.0 trial": {
			"launch.json is gone":      at(stateFile, os.Remove),
			"launch.json is empty":     at(stateFile, empty),
			"a bit of launch.json":     at(stateFile, flip),
			"launch.json is very long": at(stateFile, func(p string) error { return os.WriteFile(p, make([]byte, 1<<20), 0o644) }),
			"launch.json and the link": both(at(stateFile, os.Remove), at(linkName, os.Remove)),
		},
		"none": {
			"both agents":   both(change(Agent, 0, flip), change(Agent, 1, flip)),
			"all slots":     at(slotsDir, os.RemoveAll),
			"slots: a file": at(slotsDir, func(p string) error { return errors.Join(os.RemoveAll(p), os.WriteFile(p, nil, 0o600)) }),
		},
	} {
		for name, damage := range cases {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s, ids := board(t, "1.0", "2.0")
				damage(t, s, ids)
				got := "none"
				if st, err := s.Begin(); err == nil {
					version, _, _ := cutLast(st.Current, "-")
					got = version + map[bool]string{true: " trial", false: " confirmed"}[st.Trial]
					if s.link() != st.Current || s.Verify(st.Current, Agent) != nil {
						t.Errorf("current names %s, and it is not whole: %v", s.link(), s.Verify(st.Current))
					}
				} else if !errors.Is(err, ErrNoOther) && !strings.Contains(err.Error(), "not a directory") {
					t.Error(err)
				}
				if got != want {
					t.Errorf("the next start runs %s, wants %s", got, want)
				}
				// Whatever it was, installing the package mends it, but where a file sits in
				// the place of the folder of slots: nothing of ours removes that.
				if name == "slots: a file" {
					return
				}
				if _, err := s.Seed(packageOf(t, t.TempDir(), "2.0")); err != nil {
					t.Error(err)
				}
				if st, note, err := s.State(); err != nil || note != "" || s.Verify(st.Current) != nil || s.link() != st.Current {
					t.Errorf("not mended: %+v, %s, %v, %v", st, note, err, s.Verify(st.Current))
				}
			})
		}
	}
}

// TestSeed is the rule of package against over the air.
func TestSeed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		current, origin, seed string
		runs                  string
	}{
		{"1.0", FromDeb, "1.1", "1.1"},
		{"1.1", FromDeb, "1.0", "1.0"}, // a downgrade is a person's wish
		{"1.0", FromOTA, "1.1", "1.1"},
		{"1.1", FromOTA, "1.0", "1.1"},
		{"1.1", FromOTA, "1.1", "1.1"},
		{"1.1", FromOTA, "1.1~rc1", "1.1"},
		{"1.9", FromOTA, "1.10", "1.10"},
		{"0.0.0~git20261126.25cf98b", FromOTA, "0.1.0", "0.1.0"},
	} {
		t.Run(fmt.Sprintf("%s by %s, then %s", c.current, c.origin, c.seed), func(t *testing.T) {
			t.Parallel()
			s := Open(memory(t))
			old := add(t, s, c.current, c.origin)
			did, err := s.Seed(packageOf(t, t.TempDir(), c.seed))
			if err != nil || did == "" || strings.Contains(did, "\n") {
				t.Fatalf("%q, %v", did, err)
			}
			st, _, err := s.State()
			if err != nil {
				t.Fatal(err)
			}
			if got, err := s.Get(st.Current); err != nil || got.Version != c.runs {
				t.Errorf("%s: runs %s, %v, wants %s", did, got.Version, err, c.runs)
			}
			if stays := c.origin == FromOTA && c.runs == c.current; stays != (st.Current == old) {
				t.Errorf("%s: runs %s, and it was %s", did, st.Current, old)
			}
			// Twice is once.
			before, _, _ := s.State()
			if _, err := s.Seed(packageOf(t, t.TempDir(), c.seed)); err != nil {
				t.Error(err)
			}
			if after, _, _ := s.State(); told(after) != told(before) {
				t.Errorf("a second time changed %s to %s", told(before), told(after))
			}
		})
	}
}

// TestDamagedOTASlot: a newer slot over the air that is damaged does not stay.
func TestDamagedOTASlot(t *testing.T) {
	t.Parallel()
	s := Open(memory(t))
	id := add(t, s, "2.0", FromOTA)
	path := s.Path(id, "fulmar-infer")
	b, err := os.ReadFile(path)
	if err == nil {
		b[3] ^= 1
		err = os.WriteFile(path, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Seed(packageOf(t, t.TempDir(), "1.0")); err != nil {
		t.Fatal(err)
	}
	if st, _, _ := s.State(); !strings.HasPrefix(st.Current, "1.0-") {
		t.Errorf("runs %s", st.Current)
	}
}

func TestSeedRefuses(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(dir string) error{
		"no release":         func(d string) error { return os.Remove(filepath.Join(d, "release")) },
		"release of no form": func(d string) error { return os.WriteFile(filepath.Join(d, "release"), []byte("../x\n"), 0o644) },
		"release of two":     func(d string) error { return os.WriteFile(filepath.Join(d, "release"), []byte("1\n2\n"), 0o644) },
		"release very long":  func(d string) error { return os.WriteFile(filepath.Join(d, "release"), make([]byte, 1<<20), 0o644) },
		"no agent":           func(d string) error { return os.Remove(filepath.Join(d, Agent)) },
		"agent is empty":     func(d string) error { return os.Truncate(filepath.Join(d, Agent), 0) },
		"agent is a link": func(d string) error {
			p := filepath.Join(d, Agent)
			return errors.Join(os.Remove(p), os.Symlink("/bin/sh", p))
		},
		"a folder in it":    func(d string) error { return os.Mkdir(filepath.Join(d, "x"), 0o755) },
		"a name of no form": func(d string) error { return os.WriteFile(filepath.Join(d, "a b"), []byte("x"), 0o644) },
		"a slot.json in it": func(d string) error { return os.WriteFile(filepath.Join(d, slotFile), []byte("x"), 0o644) },
		"more files than any": func(d string) error {
			for i := range maxFiles {
				if err := os.WriteFile(filepath.Join(d, fmt.Sprint("f", i)), []byte("x"), 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, ids := board(t, "1.0")
			dir := packageOf(t, t.TempDir(), "2.0")
			if err := harm(dir); err != nil {
				t.Fatal(err)
			}
			if did, err := s.Seed(dir); err == nil {
				t.Errorf("taken: %s", did)
			}
			wantState(t, s, ids[0], false, 0)
		})
	}
}

// TestBound: at most three slots, and never without the one that it goes back to.
func TestBound(t *testing.T) {
	t.Parallel()
	s, _ := board(t, "1.0", "2.0", "3.0", "4.0")
	dir := packageOf(t, t.TempDir(), "5.0")
	if _, err := s.Write("5.0", FromOTA, map[string]string{Agent: filepath.Join(dir, Agent)}); err != nil {
		t.Fatal(err)
	}
	slots, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, sl := range slots {
		got += sl.Version + " "
	}
	if got != "5.0 4.0 3.0 " {
		t.Errorf("there are %s", got)
	}
}

// TestSameContent: written twice it is one slot; a damaged one is written anew.
func TestSameContent(t *testing.T) {
	t.Parallel()
	s, ids := board(t, "1.0")
	if id := add(t, s, "1.0", FromDeb); id != ids[0] {
		t.Errorf("%s and %s are the same", id, ids[0])
	}
	if err := os.Truncate(s.Path(ids[0], Agent), 1); err != nil {
		t.Fatal(err)
	}
	add(t, s, "1.0", FromDeb)
	if err := s.Verify(ids[0]); err != nil {
		t.Error(err)
	}
	wantState(t, s, ids[0], false, 0)
}

// TestModes: programs can be run and all can be read by the worker's user, whatever the umask.
func TestModes(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	s, ids := board(t, "1.0")
	for path, want := range map[string]os.FileMode{
		s.Path(ids[0], Agent): 0o755, s.Path(ids[0], slotFile): 0o644, s.Path(ids[0], ""): 0o755,
		filepath.Join(s.dir, slotsDir): 0o755, filepath.Join(s.dir, stateFile): 0o644,
	} {
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; wants %v", path, fi.Mode(), err, want)
		}
	}
}

// TestManyAtOnce: an upgrade, a confirmation and starts at the same time leave one of
// their states, whole.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	s, ids := board(t, "1.0", "2.0")
	dir := packageOf(t, t.TempDir(), "3.0")
	var wg sync.WaitGroup
	for range MaxTries { // no more starts than a trial has
		wg.Go(func() {
			if _, err := s.Seed(dir); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() { start(t, s) })
		wg.Go(func() {
			if _, err := s.Confirm(ids[1]); err != nil && !errors.Is(err, ErrNotCurrent) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	st, note, err := s.State()
	if err != nil || note != "" || !strings.HasPrefix(st.Current, "3.0-") || !st.Trial || st.Previous != ids[1] || s.Verify(st.Current) != nil {
		t.Errorf("%+v, %s, %v", st, note, err)
	}
}

// TestLockHeld: a start does not wait for ever for somebody who holds the lock.
func TestLockHeld(t *testing.T) {
	t.Parallel()
	s, _ := board(t, "1.0")
	unlock, err := s.lock(stateLock, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if _, err := s.lock(stateLock, 0); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("taken twice: %v", err)
	}
	if _, err := s.Begin(); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("a start with the lock held elsewhere: %v", err)
	}
}
