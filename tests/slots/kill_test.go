// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package slots

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fulmar/ota/slot"
)

// small is a launcher and two versions of a program that ends at once.
func small(t *testing.T) (launcher, state string, seeds []string) {
	t.Helper()
	dir := open(t)
	launcher, state = filepath.Join(dir, "launch"), filepath.Join(dir, "state")
	build(t, "./cmd/fulmar-launch", launcher, "release", "1")
	program := filepath.Join(dir, "short")
	build(t, "./tests/slots/testprog", program, "wrong", "short")
	if err := os.Mkdir(state, 0o755); err != nil {
		t.Fatal(err)
	}
	give(t, state)
	return launcher, state, []string{pack(t, dir, "1.0", program), pack(t, dir, "2.0", program)}
}

// TestKilled kills the launcher at any moment of a start, an installation and a
// confirmation, also several at once: what is there afterwards is whole and starts.
func TestKilled(t *testing.T) {
	t.Parallel()
	rounds := 200
	if os.Getenv("FULMAR_SOAK") != "" {
		rounds = 10_000
	}
	launcher, state, seeds := small(t)
	store := slot.Open(state)
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	words := [][]string{
		{"run", "--state", state, slot.Agent},
		{"seed", "--state", state, "--from", seeds[0]},
		{"seed", "--state", state, "--from", seeds[1]},
		{"confirm", "--state", state},
		{"back", "--state", state},
	}
	if out, err := command(launcher, words[1]...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	killed, ran := 0, map[string]int{}
	for i := range rounds {
		var cmds []*exec.Cmd
		for range 1 + r.IntN(2) {
			cmd := command(launcher, words[r.IntN(len(words))]...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			cmds = append(cmds, cmd)
		}
		time.Sleep(time.Duration(r.IntN(40_000)) * time.Microsecond)
		for _, cmd := range cmds {
			_ = cmd.Process.Kill()
			if err := cmd.Wait(); err != nil && cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
				killed++
			}
		}
		st, note, err := store.State()
		if err != nil || note != "" {
			t.Fatalf("round %d: %s, %v", i, note, err)
		}
		ran[st.Current]++
		if err := store.Verify(st.Current); err != nil {
			t.Fatalf("round %d: %+v: %v", i, st, err)
		}
		out, err := command(launcher, "run", "--state", state, slot.Agent).CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("fulmard\n")) {
			t.Fatalf("round %d: the next start: %v\n%s", i, err, out)
		}
		if to, err := os.Readlink(filepath.Join(state, "current")); err != nil || store.Verify(filepath.Base(to)) != nil {
			t.Fatalf("round %d: current names %s, %v", i, to, errors.Join(err, store.Verify(filepath.Base(to))))
		}
	}
	t.Logf("%d rounds, %d processes killed at work, ran %v", rounds, killed, ran)
	if killed < rounds/10 || len(ran) < 2 {
		t.Errorf("of %d rounds only %d killed something at work: the test proves little", rounds, killed)
	}
	ents, err := os.ReadDir(filepath.Join(state, "slots"))
	if err != nil || len(ents) > 4 { // three, and one that was being written
		t.Errorf("%v, %v", ents, err)
	}
}

// TestOthersRead: the worker's user, who may write nothing, starts the slot's program,
// and so does a person under the name of the program.
func TestOthersRead(t *testing.T) {
	t.Parallel()
	launcher, state, seeds := small(t)
	if out, err := command(launcher, "seed", "--state", state, "--from", seeds[0]).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	before, err := os.ReadFile(filepath.Join(state, "launch.json"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(launcher, "run", "--state", state, slot.Agent)
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody - 1, Gid: nobody - 1}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "fulmard") {
		t.Errorf("%v\n%s", err, out)
	}
	if os.Geteuid() != 0 {
		return
	}
	if after, err := os.ReadFile(filepath.Join(state, "launch.json")); err != nil || !bytes.Equal(before, after) {
		t.Errorf("another user's start was counted: %v\n%s", err, after)
	}
}
