// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ota

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/internal/disk"
	"fulmar/internal/disk/crash"
	"fulmar/ota"
	"fulmar/ota/install/programs"
	"fulmar/ota/release"
	"fulmar/ota/slot"
	"fulmar/schema"
	words "fulmar/schema/ota"
)

// program is the least that an installer takes for a program of this machine.
func program(version string) []byte {
	h := make([]byte, 64)
	copy(h, "\x7fELF\x02\x01\x01")
	h[16], h[18] = 2, map[string]byte{"amd64": 62, "arm64": 183}[runtime.GOARCH]
	return append(h, "fulmard "+version+strings.Repeat(".", 700)...)
}

// site is a board whose disk, slots, launcher and record are as they are; its network, its
// health and its power are the test's.
type site struct {
	t     *testing.T
	root  string // what the power can take
	away  string // what it cannot: the fleet's side
	disk  disk.Disk
	bad   map[string]string // by version: sick, or crashes
	mu    sync.Mutex
	told  []words.State
	floor uint64
	boot  uint64
	boots int
	quick release.Health // zero: the defaults
}

func (s *site) store() *slot.Store { return slot.OpenOn(filepath.Join(s.root, "fulmar"), s.disk) }

// seed puts the first program there, by the machine's own disk.
func (s *site) seed() {
	s.t.Helper()
	for _, d := range []string{"fulmar", "data"} {
		if err := os.MkdirAll(filepath.Join(s.root, d), 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	deb := filepath.Join(s.away, "deb")
	if err := os.MkdirAll(deb, 0o755); err != nil {
		s.t.Fatal(err)
	}
	for name, b := range map[string][]byte{"release": []byte("1.0\n"), slot.Agent: program("1.0")} {
		if err := os.WriteFile(filepath.Join(deb, name), b, 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	store := slot.Open(filepath.Join(s.root, "fulmar"))
	var st slot.State
	_, err := store.Seed(deb)
	if err == nil {
		st, err = store.Begin()
	}
	if err == nil {
		_, err = store.Confirm(st.Current)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// order is an update to a version, whose file comes as a patch of what runs.
func (s *site) order(version string, attempt uint64) ota.Order {
	b := program(version)
	sum := release.Hash(sha256.Sum256(b))
	m := &release.Manifest{V: 1, Release: version, Epoch: 1 + attempt, Components: []release.Component{{Name: programs.Agent, Version: version, Health: s.quick, Files: []release.File{{
		Path: slot.Agent, Object: release.Object{SHA256: sum, Tree: sum, Size: int64(len(b))},
		Encodings: []release.Encoding{{Codec: "patch", Object: release.Object{SHA256: sum, Tree: sum, Size: int64(len(b)) / 2}}},
	}}}}}
	raw, err := json.Marshal(m)
	if err == nil {
		err = os.WriteFile(filepath.Join(s.away, sum.String()), b, 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return ota.Order{Rollout: "r-1", Component: programs.Agent, Release: version, Attempt: attempt, Act: release.ActInstall, Manifest: m, Raw: raw, Hash: sha256.Sum256(raw), Before: "1.0"}
}

func (s *site) Fetch(_ context.Context, o release.Object, _ func(have, all int64)) (string, error) {
	return filepath.Join(s.away, o.Tree.String()), nil
}

func (s *site) Drop(release.Object) error { return nil }

func (s *site) apply(_ context.Context, _, _, patch, out string, _ release.Object) error {
	b, err := os.ReadFile(patch)
	if err != nil {
		return err
	}
	f, err := s.disk.Create(out, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

func (s *site) Floor() (uint64, error) { return s.floor, nil }

func (s *site) Raise(to uint64) error { s.floor = max(s.floor, to); return nil }

func (s *site) tell(w words.State) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, w)
	return nil
}

func (s *site) last(attempt uint64) (w words.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.told {
		if t.Attempt == attempt {
			w = t
		}
	}
	return w
}

// health is the gate of one life of the program.
type health struct {
	s       *site
	version string
}

func (health) Before(string) []byte { return []byte("before") }

func (h health) Look(string, release.Health, []byte) (ota.Verdict, string) {
	if h.s.bad[h.version] == "sick" {
		return ota.Bad, "no progress"
	}
	return ota.Good, ""
}

// update lives until an order has its last word, through all starts that it takes.
func (s *site) update(order func() ota.Order) (words.State, error) {
	attempt := order().Attempt
	for range 40 {
		s.boots++
		st, err := s.store().Begin()
		if err != nil || st.Current == "" {
			return words.State{}, fmt.Errorf("the launcher starts nothing: %+v, %w", st, err)
		}
		sl, err := s.store().Get(st.Current)
		if err != nil {
			return words.State{}, err
		}
		if s.bad[sl.Part(programs.Agent)] == "crashes" {
			time.Sleep(time.Second)
			continue
		}
		if w, over, err := s.run(st.Current, sl.Part(programs.Agent), order, attempt); over || err != nil {
			return w, err
		}
	}
	return words.State{}, errors.New("not over after 40 starts")
}

// run is one life of the program.
func (s *site) run(self, version string, order func() ota.Order, attempt uint64) (words.State, bool, error) {
	ctx, cancel := context.WithCancel(context.Background())
	p := programs.New(programs.Options{Slots: s.store(), Dir: filepath.Join(s.root, "data"), Self: self, RestartWorker: func(context.Context) error { return nil }, Disk: s.disk})
	u := ota.New(ota.Config{Dir: filepath.Join(s.root, "data", "ota"), Clock: schema.NewClock(s.boot, 0)}, ota.Deps{
		Installer: p.Installer, Fetch: s, Apply: s.apply, Gate: health{s, version}, Floor: s, Tell: s.tell, Warn: func(string, string) {},
		Unmet: func(*release.Component) []string { return nil }, Conditions: func(string, ota.Moment) []ota.Refusal { return nil },
		Free: func() (int64, error) { return 1 << 40, nil }, Disk: s.disk,
	})
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	end := func() { cancel(); <-done }
	if err := u.Offer(order()); err != nil {
		end()
		return words.State{}, false, err
	}
	for range 3600 {
		select {
		case <-u.Restarting():
			end()
			return words.State{}, false, nil
		case <-time.After(time.Second):
		}
		if w := s.last(attempt); over(w) {
			time.Sleep(time.Second) // it cleans up
			end()
			return w, true, nil
		}
	}
	end()
	return words.State{}, false, errors.New("no word within an hour")
}

// chapters are lives of a board, each on what the one before left.
type chapter struct {
	name, version string
	bad           string
	want          string
}

func chapters() []chapter {
	return []chapter{
		{"first update, on a new record", "2.0", "", words.Committed},
		{"a release that is sick", "3.0", "sick", words.RolledBack},
		{"a release that crashes", "4.0", "crashes", words.RolledBack},
		{"a good one after that", "5.0", "", words.Committed},
	}
}

// TestPowerCuts: the power fails at each step of the disk of all that a board lives through, and
// the board comes by itself, from wherever that was, to the end of the update that was
// under way: what runs is whole, is what the word says, and can be updated again.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	each := 1
	if os.Getenv("FULMAR_SOAK") != "" {
		each = 5
	}
	points, wrong := powerCuts(t, each, false, false)
	t.Logf("%d cuts", points)
	if points < 300 {
		t.Errorf("only %d points: the test proves little", points)
	}
	if len(wrong) > 0 {
		t.Errorf("%d of %d:\n%s", len(wrong), points, strings.Join(wrong[:min(10, len(wrong))], "\n"))
	}
}

// TestPowerCutsControl: where a disk forgets its syncs the same look finds boards that are lost, or
// it is blind.
func TestPowerCutsControl(t *testing.T) {
	t.Parallel()
	for name, c := range map[string][2]bool{"files": {true, false}, "folders": {false, true}} {
		points, wrong := powerCuts(t, 1, c[0], c[1])
		t.Logf("without fsync of %s: %d of %d cuts are bad", name, len(wrong), points)
		if len(wrong) < points/100 { // the rest is whole by chance, or by the other copy
			t.Errorf("without fsync of %s only %d of %d cuts are bad", name, len(wrong), points)
		}
	}
}

func powerCuts(t *testing.T, each int, noSync, noSyncDir bool) (points int, wrong []string) {
	root, away := memory(t), memory(t)
	s := &site{t: t, root: root, away: away, bad: map[string]string{}, boot: 1}
	s.seed()
	runs := "1.0"
	rng := rand.New(rand.NewPCG(31, uint64(each)))
	for i, c := range chapters() {
		attempt := uint64(i + 1)
		s.bad[c.version] = c.bad
		base := filepath.Join(memory(t), "base")
		if err := os.CopyFS(base, os.DirFS(root)); err != nil {
			t.Fatal(err)
		}
		copyLinks(t, root, base)
		rec := &crash.Recorder{T: t, Root: root, NoSync: noSync, NoSyncDir: noSyncDir}
		s.disk = rec
		var w words.State
		synctest.Test(t, func(*testing.T) {
			var err error
			if w, err = s.update(func() ota.Order { return s.order(c.version, attempt) }); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		})
		if w.State != c.want {
			t.Fatalf("%s: %+v", c.name, w)
		}
		after := runs
		if w.State == words.Committed {
			after = c.version
		}
		for k := range len(rec.Log) + 1 {
			for n := range each {
				share := []float64{0.5, 0, 1, 0.8, 0.2}[(k+n)%5]
				points++
				at := filepath.Join(memory(t), "disk")
				crash.Picture(crash.Load(t, base), rec.Log[:k]).Crash(t, at, rng, share)
				again := &crash.Recorder{T: t, Root: at, NoSync: noSync, NoSyncDir: noSyncDir}
				second := crash.Load(t, at)
				got := &site{t: t, root: at, away: away, bad: map[string]string{c.version: c.bad}, boot: 2, disk: again}
				where := fmt.Sprintf("%s, step %d of %d, share %.1f", c.name, k, len(rec.Log), share)
				synctest.Test(t, func(*testing.T) {
					if err := got.after(c, attempt, runs, k%7 == 0 && k%3 != 0); err != nil {
						wrong = append(wrong, where+": "+err.Error())
					}
				})
				if k%3 == 0 { // and once more on the way out of that
					points++
					k2 := rng.IntN(len(again.Log) + 1)
					at := filepath.Join(filepath.Dir(at), "second")
					crash.Picture(second, again.Log[:k2]).Crash(t, at, rng, 0.5)
					got := &site{t: t, root: at, away: away, bad: map[string]string{c.version: c.bad}, boot: 3, disk: &crash.Recorder{T: t, Root: at}}
					synctest.Test(t, func(*testing.T) {
						if err := got.after(c, attempt, runs, false); err != nil {
							wrong = append(wrong, fmt.Sprintf("%s, and again at step %d: %v", where, k2, err))
						}
					})
				}
				if err := os.RemoveAll(filepath.Dir(at)); err != nil {
					t.Fatal(err)
				}
			}
		}
		runs = after
	}
	return points, wrong
}

// copyLinks copies what os.CopyFS does not: the choice of slot is a link.
func copyLinks(t *testing.T, from, to string) {
	t.Helper()
	link := filepath.Join("fulmar", "current")
	name, err := os.Readlink(filepath.Join(from, link))
	if err == nil {
		_ = os.Remove(filepath.Join(to, link))
		err = os.Symlink(name, filepath.Join(to, link))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// after lives on after a cut and judges.
func (s *site) after(c chapter, attempt uint64, before string, again bool) error {
	w, err := s.update(func() ota.Order { return s.order(c.version, attempt) })
	if err != nil {
		return err
	}
	// A cut may turn a success into a going back, by the launcher's count of starts; a bad
	// release never succeeds, and nothing is left without an end.
	if w.State != c.want && !(w.State == words.RolledBack || w.State == words.Failed) {
		return fmt.Errorf("ends as %+v, wants %s", w, c.want)
	}
	runs := before
	if w.State == words.Committed {
		runs = c.version
	}
	if err := s.whole(runs); err != nil {
		return fmt.Errorf("%s (%s): %w", w.State, w.Reason, err)
	}
	if !again {
		return nil
	}
	if w, err = s.update(func() ota.Order { return s.order("9.0", attempt+10) }); err != nil || w.State != words.Committed {
		return fmt.Errorf("the next update: %+v, %w", w, err)
	}
	return s.whole("9.0")
}

// whole tells whether that version, and nothing else, is chosen for good, and the files that it
// names are those.
func (s *site) whole(version string) error {
	st, note, err := s.store().State()
	if err != nil || note != "" {
		return fmt.Errorf("state: %s, %w", note, err)
	}
	sl, err := s.store().Get(st.Current)
	if err != nil || sl.Part(programs.Agent) != version || st.Trial {
		return fmt.Errorf("%s is chosen (trial %v), wants %s: %w", st.Current, st.Trial, version, err)
	}
	if err := s.store().Verify(st.Current); err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(s.root, "fulmar", "current", slot.Agent))
	if err != nil || !slices.Equal(b, program(version)) {
		return fmt.Errorf("what current names is not %s: %w", version, err)
	}
	return nil
}
