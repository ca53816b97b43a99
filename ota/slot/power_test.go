// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fulmar/internal/disk/crash"
)

// A life is what a board goes through: the first package, an upgrade, one that fails
// three times and is gone back from, one more whose old slots are removed, a person
// who goes back, and the broken one again over the air.
var life = []struct {
	name string
	do   func(s *Store, seed func(string) string) error
}{
	{"first package", func(s *Store, seed func(string) string) error { return seeded(s, seed("1.0")) }},
	{"first start", begin},
	{"confirmed", confirm},
	{"upgrade", func(s *Store, seed func(string) string) error { return seeded(s, seed("2.0")) }},
	{"start", begin},
	{"confirmed", confirm},
	{"bad upgrade", func(s *Store, seed func(string) string) error { return seeded(s, seed("3.0")) }},
	{"start", begin},
	{"start", begin},
	{"start", begin},
	{"goes back", begin},
	{"told", func(s *Store, _ func(string) string) error { return s.Told() }},
	{"better upgrade", func(s *Store, seed func(string) string) error { return seeded(s, seed("3.1")) }},
	{"start", begin},
	{"confirmed", confirm},
	{"a person goes back", func(s *Store, _ func(string) string) error {
		st, _, err := s.State()
		if err == nil {
			_, err = s.Back(st.Current, "a person")
		}
		return err
	}},
	{"downgrade", func(s *Store, seed func(string) string) error { return seeded(s, seed("1.0")) }},
	{"start", begin},
}

func seeded(s *Store, dir string) error {
	_, err := s.Seed(dir)
	return err
}

func begin(s *Store, _ func(string) string) error {
	_, err := s.Begin()
	return err
}

func confirm(s *Store, _ func(string) string) error {
	st, _, err := s.State()
	if err == nil {
		_, err = s.Confirm(st.Current)
	}
	return err
}

// packageOf makes what a package of that version brings.
func packageOf(t *testing.T, dir, version string) string {
	t.Helper()
	dir = filepath.Join(dir, version)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]string{
		"release": version + "\n", Agent: "the agent " + version + strings.Repeat(".", 300), "lib.so.1": "a library",
		"fulmar-infer": "the worker " + version,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(b), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// memory is a folder in memory, where there is one: these tests make thousands of files
// and the model of the disk is their own.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "fulmar-slot-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// told is a state in short, without what is no matter of old or new.
func told(st State) string {
	f := ""
	if st.Fall != nil {
		f = fmt.Sprintf(" fell from %s, told %v", st.Fall.From, st.Fall.Told)
	}
	return fmt.Sprintf("%s trial %v tries %d previous %s%s", st.Current, st.Trial, st.Tries, st.Previous, f)
}

// cuts lives the life once and cuts the power after each step of the disk, several
// times each; then once more during the first start after that. wrong is what was
// found that may not be, a line a point.
func cuts(t *testing.T, noSync, noSyncDir bool, each int) (points int, wrong []string) {
	dir := memory(t)
	seeds := memory(t)
	seed := func(v string) string { return packageOf(t, seeds, v) }
	rec := &crash.Recorder{T: t, Root: dir, NoSync: noSync, NoSyncDir: noSyncDir}
	s := &Store{dir: dir, disk: rec}
	base := crash.Empty
	before := told(State{})
	r := rand.New(rand.NewPCG(11, 12))
	for i, act := range life {
		from := len(rec.Log)
		if err := act.do(s, seed); err != nil {
			t.Fatalf("%d %s: %v", i, act.name, err)
		}
		st, _, err := s.State()
		if err != nil {
			t.Fatal(err)
		}
		after := told(st)
		for k := from; k <= len(rec.Log); k++ {
			for n := range each {
				share := []float64{0.5, 0, 1, 0.8, 0.2}[n%5]
				at := memory(t)
				crash.Picture(base(), rec.Log[:k]).Crash(t, at, r, share)
				points++
				where := fmt.Sprintf("%d %s, step %d of %d, share %.1f", i, act.name, k-from, len(rec.Log)-from, share)
				allowed := []string{before, after}
				if k == len(rec.Log) {
					allowed = allowed[1:]
				}
				if found := append(look(t, at, where, i == 0, allowed), again(t, at, where, r, rec)...); len(found) > 0 {
					wrong = append(wrong, strings.Join(found, "; "))
				}
				if err := os.RemoveAll(at); err != nil {
					t.Fatal(err)
				}
			}
		}
		before = after
	}
	return points, wrong
}

// look holds a folder after a cut to what is allowed. fresh: there was no choice before,
// so there may be none, or none yet that is written down.
func look(t *testing.T, at, where string, fresh bool, allowed []string) (wrong []string) {
	t.Helper()
	s := Open(at)
	st, note, err := s.State()
	got := told(st)
	if note != "" && !(strings.Contains(note, "not there") && fresh) || err != nil {
		return []string{fmt.Sprintf("%s: %s, %v", where, note, err)}
	}
	if note == "" && got != allowed[0] && got != allowed[len(allowed)-1] {
		wrong = append(wrong, fmt.Sprintf("%s: %s, wants %q", where, got, allowed))
	}
	// What runs is whole, for the agent and for a reader that follows the link.
	for _, id := range []string{st.Current, st.Previous, s.link()} {
		if id == "" {
			continue
		}
		if err := s.Verify(id); err != nil {
			wrong = append(wrong, fmt.Sprintf("%s: %v", where, err))
		}
	}
	if st.Current != "" && s.link() == "" && !fresh {
		wrong = append(wrong, fmt.Sprintf("%s: current names nothing", where))
	}
	return wrong
}

// again starts the board after the cut, with the power failing once more in between.
func again(t *testing.T, at, where string, r *rand.Rand, like *crash.Recorder) (wrong []string) {
	t.Helper()
	state, note, err := Open(at).State()
	if err != nil {
		return []string{fmt.Sprintf("%s: %v", where, err)}
	}
	fresh := note != "" || Open(at).link() == ""
	base := crash.Load(t, at)
	rec := &crash.Recorder{T: t, Root: at, NoSync: like.NoSync, NoSyncDir: like.NoSyncDir}
	next, err := (&Store{dir: at, disk: rec}).Begin()
	if err != nil || next.Current == "" && state.Current != "" {
		return []string{fmt.Sprintf("%s: the next start: %+v, %v", where, next, err)}
	}
	k := r.IntN(len(rec.Log) + 1)
	second := memory(t)
	crash.Picture(base, rec.Log[:k]).Crash(t, second, r, 0.5)
	defer os.RemoveAll(second)
	allowed := []string{told(state), told(next)}
	if k == len(rec.Log) {
		allowed = allowed[1:]
	}
	if wrong = look(t, second, where+", again", fresh, allowed); wrong != nil {
		return wrong
	}
	// And a package that is installed then heals everything.
	s := &Store{dir: second, disk: &crash.Recorder{T: t, Root: second}}
	if _, err := s.Seed(packageOf(t, memory(t), "4.0")); err != nil {
		return []string{fmt.Sprintf("%s: install after it: %v", where, err)}
	}
	st, note, err := s.State()
	if err != nil || note != "" || !strings.HasPrefix(st.Current, "4.0-") || s.link() != st.Current || s.Verify(st.Current) != nil {
		return []string{fmt.Sprintf("%s: install after it: %+v, %s, %v", where, st, note, err)}
	}
	return nil
}

// TestPowerCut: at every step the old choice or the new one, and what it names is whole.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	points, wrong := cuts(t, false, false, 3)
	t.Logf("%d cuts", points)
	if len(wrong) > 0 {
		t.Errorf("%d of %d cuts:\n%s", len(wrong), points, strings.Join(wrong[:min(8, len(wrong))], "\n"))
	}
	if points < 500 {
		t.Errorf("only %d points: the test proves little", points)
	}
}

// TestPowerCutControl: without the fsyncs the same look finds losses, or it is blind.
func TestPowerCutControl(t *testing.T) {
	t.Parallel()
	for name, c := range map[string][2]bool{"files": {true, false}, "folders": {false, true}} {
		points, wrong := cuts(t, c[0], c[1], 2)
		t.Logf("without fsync of %s: %d of %d cuts are bad", name, len(wrong), points)
		if len(wrong) < points/20 {
			t.Errorf("without fsync of %s only %d of %d cuts are bad", name, len(wrong), points)
		}
	}
}
