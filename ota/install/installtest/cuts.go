// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package installtest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"fulmar/internal/disk"
	"fulmar/internal/disk/crash"
	"fulmar/ota"
)

// Make makes a subject on what lies in a folder. Where the folder is empty it puts there
// what a board has at first, by the machine's own disk.
type Make func(t *testing.T, root string, d disk.Disk) Subject

// Control switches off what makes a disk keep things.
type Control struct{ NoSync, NoSyncDir bool }

// step is one call of the updater in the life that is cut.
type step struct {
	name    string
	version string
	do      func(*testing.T, Subject, *tokens) error
}

type tokens map[string]string

func stage(version string) step {
	return step{"stage " + version, version, func(t *testing.T, s Subject, all *tokens) error {
		c, paths := s.Component(version)
		token, err := s.Installer().Stage(t.Context(), c, paths)
		if err == nil {
			(*all)[version] = token
		}
		return err
	}}
}

func on(what, version string) step {
	return step{what + " " + version, version, func(t *testing.T, s Subject, all *tokens) (err error) {
		i, token, r := s.Installer(), (*all)[version], ota.RestartNone
		switch what {
		case "switch":
			r, err = i.Switch(t.Context(), token)
		case "back from":
			r, err = i.Back(t.Context(), token, "it is bad")
		case "confirm":
			err = i.Confirm(t.Context(), token)
		case "sweep but":
			err = i.Sweep(t.Context(), []string{token})
		}
		if r != ota.RestartNone {
			s.Restart(r)
		}
		return err
	}}
}

func steps() []step {
	return []step{
		stage("1.0"), on("switch", "1.0"), on("confirm", "1.0"),
		stage("2.0"), on("switch", "2.0"), on("back from", "2.0"),
		stage("2.0"), on("switch", "2.0"), on("confirm", "2.0"), on("sweep but", "2.0"),
		stage("3.0"), on("switch", "3.0"), on("confirm", "3.0"), on("sweep but", ""), on("back from", "3.0"),
	}
}

// word is how all stands, in short.
func word(t *testing.T, s Subject, all tokens) string {
	t.Helper()
	out := "runs " + s.Runs()
	for _, v := range []string{"1.0", "2.0", "3.0"} {
		if all[v] == "" {
			continue
		}
		st, _, err := s.Installer().Look(t.Context(), all[v])
		if err != nil {
			return out + ": " + err.Error()
		}
		out += fmt.Sprintf(", %s %v", v, st)
	}
	return out
}

// Cuts lives a life of three versions and cuts the power after each change of the disk, each
// times; the board starts again, and the updater does over what it was at. wrong is what was
// found that may not be, a line a point: neither the old nor the new version runs, or the
// step cannot be done over, or does not lead where it led without the cut.
func Cuts(t *testing.T, fresh Make, control Control, each int) (points int, wrong []string) {
	t.Helper()
	root := memory(t)
	fresh(t, root, disk.OS{})
	base := func() *crash.Node { return crash.Load(t, root) }
	first := memory(t)
	base().Crash(t, first, rand.New(rand.NewPCG(1, 1)), 1) // the same, to live in
	rec := &crash.Recorder{T: t, Root: first, NoSync: control.NoSync, NoSyncDir: control.NoSyncDir}
	s, all := fresh(t, first, rec), tokens{}
	rec.Log = nil
	r := rand.New(rand.NewPCG(11, 12))
	runs := s.Runs()
	for _, st := range steps() {
		from, known := len(rec.Log), clone(all)
		if err := st.do(t, s, &all); err != nil {
			t.Fatalf("%s: %v", st.name, err)
		}
		after, allowed := word(t, s, all), []string{runs, s.Runs()}
		for k := from; k <= len(rec.Log); k++ {
			for n := range each {
				share := []float64{0.5, 0, 1, 0.8, 0.2}[n%5]
				at := memory(t)
				crash.Picture(base(), rec.Log[:k]).Crash(t, at, r, share)
				points++
				if found := look(t, fresh, at, st, known, allowed, after); found != "" {
					wrong = append(wrong, fmt.Sprintf("%s, step %d of %d, share %.1f: %s", st.name, k-from, len(rec.Log)-from, share, found))
				}
				if err := os.RemoveAll(at); err != nil {
					t.Fatal(err)
				}
			}
		}
		runs = s.Runs()
	}
	return points, wrong
}

// look starts a board on what a cut left and does the step over.
func look(t *testing.T, fresh Make, at string, st step, all tokens, allowed []string, after string) (wrong string) {
	t.Helper()
	defer func() {
		if p := recover(); p != nil {
			wrong = fmt.Sprint(p)
		}
	}()
	s := fresh(t, at, &crash.Recorder{T: t, Root: at})
	s.Restart(ota.RestartMachine)
	if got := s.Runs(); got != allowed[0] && got != allowed[1] {
		return fmt.Sprintf("%q runs, wants one of %q", got, allowed)
	}
	if err := st.do(t, s, &all); err != nil {
		return "done over: " + err.Error()
	}
	if got := word(t, s, all); got != after {
		return fmt.Sprintf("done over: %s; wants %s", got, after)
	}
	return ""
}

func clone(m tokens) tokens {
	out := tokens{}
	for k, v := range m {
		out[k] = v
	}
	return out
}

// PowerCuts is [Cuts] as a test: none may be wrong, and without syncs many have to be.
func PowerCuts(t *testing.T, fresh Make) {
	t.Helper()
	for name, c := range map[string]Control{"": {}, "without fsync of files": {NoSync: true}, "without fsync of folders": {NoSyncDir: true}} {
		each := 3
		if name != "" {
			each = 2
		}
		t.Run("power cut "+name, func(t *testing.T) {
			t.Parallel()
			points, wrong := Cuts(t, fresh, c, each)
			t.Logf("%d of %d cuts are bad", len(wrong), points)
			switch {
			case name == "" && len(wrong) > 0:
				t.Errorf("%d of %d cuts:\n%s", len(wrong), points, strings.Join(wrong[:min(12, len(wrong))], "\n"))
			case name == "" && points < 200:
				t.Errorf("only %d points: the test proves little", points)
			case name != "" && len(wrong) < points/30:
				t.Errorf("%s only %d of %d cuts are bad: the test is blind", name, len(wrong), points)
			}
		})
	}
}

// memory is a folder in memory, where there is one: these tests make thousands of files
// and the model of the disk is their own.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "fulmar-install-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
