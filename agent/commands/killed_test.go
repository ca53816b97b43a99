// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/command"
)

// TestKilledAtEachStep: the power goes after each entry of the journal, and within each;
// what was begun had its effect or had not. The next start ends every command, moves an
// output at most once more where it is not where it was to go, never undoes a shutdown
// by itself, and takes a restart for done.
func TestKilledAtEachStep(t *testing.T) {
	t.Parallel()
	var journal []byte
	long := func(c *command.Command) { c.Expires += 1e9 }
	synctest.Test(t, func(t *testing.T) {
		st := newStation(t)
		for _, c := range [][2]string{
			{"set-valve-position", `{"valve":"inlet","percent":50}`},
			{"set-output", `{"output":"heater","value":7}`},
			{"trigger-safety-shutdown", ``},
			{"release-safety-shutdown", ``},
			{"pause-model", `{"model":"parcels"}`},
		} {
			id, e := st.f.order(t, c[0], c[1], long)
			st.give(e)
			st.ends(id, command.Done, "")
		}
		_, e := st.f.order(t, "restart", `{"part":"agent"}`, long)
		st.give(e)
		time.Sleep(time.Minute)
		var err error
		if journal, err = os.ReadFile(filepath.Join(st.dir, JournalName)); err != nil {
			t.Fatal(err)
		}
	})
	var cuts []int
	for at := 8; at < len(journal); {
		n := 8 + int(binary.LittleEndian.Uint32(journal[at:]))
		cuts = append(cuts, at, at+n/2)
		at += n
	}
	cuts = append(cuts, len(journal))
	if len(cuts) < 30 {
		t.Fatalf("only %d steps", len(cuts))
	}
	for _, cut := range cuts {
		for v := range 4 {
			// Whether what was begun had its effect, and whether somebody shut down since.
			had, latched := v&1 > 0, v&2 > 0
			t.Run(fmt.Sprintf("%d had %v latched %v", cut, had, latched), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { killed(t, journal[:cut], had, latched) })
			})
		}
	}
}

func killed(t *testing.T, journal []byte, had, latched bool) {
	st := newStation(t)
	st.stop()
	if err := os.WriteFile(filepath.Join(st.dir, JournalName), journal, 0o600); err != nil {
		t.Fatal(err)
	}
	if had {
		st.bank.values["inlet"], st.bank.values["heater"] = 50, 7
	}
	if latched {
		st.bank.latched = "rule/smoke"
	}
	time.Sleep(time.Hour)
	now := time.Now().UnixMilli()
	st.start()
	time.Sleep(90 * time.Second)
	synctest.Wait()
	if len(st.stopped) > 0 { // a restart that was not begun
		st.start()
		time.Sleep(90 * time.Second)
		synctest.Wait()
	}
	list, err := st.s.List(context.Background(), 100)
	if err != nil {
		t.Fatal(err)
	}
	released := false
	for _, r := range list {
		begun := r.Begun.Wall != 0 && r.Begun.Wall < now // in the life that was cut
		switch {
		case !r.Result.State.Final():
			t.Errorf("%s is %v", r.Command.Name, r.Result.State)
		case r.Result.Time.Wall < now: // ended before
		case r.Command.Name == "release-safety-shutdown":
			released = !begun && r.Result.State == command.Done
			if begun && latched && r.Result.Code != codeLatched || begun && !latched && r.Result.State != command.Done {
				t.Errorf("a release that was begun ended as %v %q", r.Result.State, r.Result.Text)
			}
		case r.Command.Name == "restart":
			if want := map[bool]int{true: 0, false: 1}[begun]; len(st.stopped) != want || r.Result.State != command.Done {
				t.Errorf("restarted %d times, wants %d; %v", len(st.stopped), want, r.Result.State)
			}
		case r.Command.Name == "set-output", r.Command.Name == "set-valve-position":
			sets := 0
			for _, m := range st.bank.moves {
				if m[0] == 'h' && r.Command.Name == "set-output" || m[0] == 'i' && r.Command.Name != "set-output" {
					sets++
				}
			}
			if begun && had && (sets != 0 || r.Result.State != command.Done) || sets > 1 || (sets == 1) != (r.Result.State == command.Done) && !(begun && had) {
				t.Errorf("%s ended as %v with %d moves", r.Command.Name, r.Result.State, sets)
			}
		}
	}
	if active, _, _ := st.bank.Safe(); latched && !active && !released {
		t.Error("a newer shutdown was undone")
	}
}
