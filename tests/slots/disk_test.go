// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package slots

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fulmar/ota/slot"
	"fulmar/tests/powerloss/memdisk"
)

// word is a state in short.
func word(st slot.State) string {
	fell := ""
	if st.Fall != nil {
		fell = st.Fall.From
	}
	return fmt.Sprintf("%s trial=%v tries=%d previous=%s fell=%s", st.Current, st.Trial, st.Tries, st.Previous, fell)
}

// TestPowerLoss lets the real launcher install, start, confirm and go back on a real
// ext4, and then looks at that disk as the power may have left it: writes since the last
// flush kept, lost or torn.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	if missing := memdisk.Missing(); missing != "" {
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	points := 60
	if os.Getenv("FULMAR_SOAK") != "" {
		points = 1000
	}
	launcher, _, seeds := small(t)
	dir := open(t)
	disks, mnt := filepath.Join(dir, "disks"), filepath.Join(dir, "mnt")
	for _, d := range []string{disks, mnt} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	server, err := memdisk.Serve(disks)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	disk := server.Add("board", memdisk.NewImage(48<<20))
	if err := disk.Format(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { memdisk.Discard(mnt) })
	live := lives(t, disk, launcher, mnt, seeds)
	base, log := live.base, live.log

	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 2))
	cuts := []int{len(log)}
	for len(cuts) < points {
		cuts = append(cuts, r.IntN(len(log)))
	}
	slices.Sort(cuts)
	replay := memdisk.NewReplay(base, log)
	seen := map[string]bool{}
	for _, cut := range cuts {
		before, after := "", ""
		for _, op := range log[:cut] {
			if w, ok := strings.CutPrefix(op.Note, "to "); ok {
				after = w
			} else if op.Note != "" {
				before, after = op.Note, op.Note
			}
		}
		disk.Insert(replay.At(cut, r))
		seen[look(t, disk, launcher, mnt, fmt.Sprintf("at %d of %d", cut, len(log)), before, live.becomes[after], after)] = true
	}
	t.Logf("%d points in a log of %d, %d different states seen", len(cuts), len(log), len(seen))
	if len(seen) < 6 {
		t.Errorf("only %d states were seen: the test proves little", len(seen))
	}
}

// life is what was written while the launcher worked.
type life struct {
	base    *memdisk.Image
	log     []memdisk.Op
	becomes map[string]string // of a step that was begun: the state it led to
}

// lives does the steps, with a note in the log before and after each.
func lives(t *testing.T, disk *memdisk.Disk, launcher, mnt string, seeds []string) life {
	t.Helper()
	state := filepath.Join(mnt, "state")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(disk.Mount(mnt, ""))
	must(os.Mkdir(state, 0o755))
	give(t, state)
	must(memdisk.Unmount(mnt))
	must(disk.Mount(mnt, "commit=1"))
	l := life{base: disk.Record(), becomes: map[string]string{}}
	start := []string{"run", "--state", state, slot.Agent}
	steps := [][]string{
		{"seed", "--state", state, "--from", seeds[0]},
		start,
		{"confirm", "--state", state},
		{"seed", "--state", state, "--from", seeds[1]},
		start, start, start, start,
		{"seed", "--state", state, "--from", seeds[1]},
		start,
		{"confirm", "--state", state},
		{"back", "--state", state},
		{"seed", "--state", state, "--from", seeds[0]},
		start,
	}
	for i, args := range steps {
		disk.Note(fmt.Sprintf("to %d", i))
		if out, err := command(launcher, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		st, note, err := slot.Open(state).State()
		if err != nil || note != "" {
			t.Fatalf("%v: %s, %v", args, note, err)
		}
		l.becomes[fmt.Sprint(i)] = word(st)
		disk.Note(word(st))
	}
	l.log, _ = disk.Log()
	must(memdisk.Unmount(mnt))
	return l
}

// look mounts what is left and holds it to the state before or, where a step was begun,
// after; "" for no state yet. Then it starts the board.
func look(t *testing.T, disk *memdisk.Disk, launcher, mnt, where, before, becomes, step string) string {
	t.Helper()
	if err := disk.Mount(mnt, ""); err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	defer func() {
		if err := memdisk.Unmount(mnt); err != nil {
			t.Fatal(err)
		}
	}()
	state := filepath.Join(mnt, "state")
	s := slot.Open(state)
	st, note, err := s.State()
	if err != nil || note != "" && before != "" {
		t.Errorf("%s: %s, %v", where, note, err)
		return ""
	}
	if got := word(st); before != "" && got != before && got != becomes {
		t.Errorf("%s, in step %s: %s, wants %s or %s", where, step, got, before, becomes)
	}
	for _, id := range []string{st.Current, st.Previous} {
		if err := s.Verify(id); id != "" && err != nil {
			t.Errorf("%s: %v", where, err)
		}
	}
	if st.Current == "" {
		return ""
	}
	out, err := command(launcher, "run", "--state", state, slot.Agent).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "fulmard\n") {
		t.Errorf("%s: the next start: %v\n%s", where, err, out)
	}
	if to, err := os.Readlink(filepath.Join(state, "current")); err != nil || s.Verify(filepath.Base(to)) != nil {
		t.Errorf("%s: after the next start current names %q, %v", where, to, err)
	}
	return word(st)
}
