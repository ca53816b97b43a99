// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ota

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"fulmar/internal/disk"
	"fulmar/ota"
	"fulmar/ota/install/programs"
	"fulmar/ota/record"
	"fulmar/ota/release"
	"fulmar/schema"
	words "fulmar/schema/ota"
)

// childOf names the folder in which this test program is a board's program for one life.
const childOf = "FULMAR_OTA_CHILD"

// How a life ends.
const (
	overCode    = 10
	restartCode = 11
	brokenCode  = 12
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childOf); dir != "" {
		os.Exit(child(dir))
	}
	os.Exit(m.Run())
}

// task is what the fleet wants, beside the board's folder.
type task struct {
	Version string
	Attempt uint64
	Bad     bool
	Boot    uint64
}

// child is a life of the program, over a real folder, until the update is over, a restart is
// wanted, or it is killed.
func child(dir string) int {
	var want task
	b, err := os.ReadFile(filepath.Join(dir, "away", "task"))
	if err == nil {
		err = json.Unmarshal(b, &want)
	}
	s := &site{root: filepath.Join(dir, "board"), away: filepath.Join(dir, "away"), disk: disk.OS{}, bad: map[string]string{}, quick: release.Health{HoldS: 1, WithinS: 20}}
	if want.Bad {
		s.bad[want.Version] = "sick"
	}
	st, berr := s.store().Begin()
	sl, gerr := s.store().Get(st.Current)
	if err := errors.Join(err, berr, gerr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return brokenCode
	}
	p := programs.New(programs.Options{Slots: s.store(), Dir: filepath.Join(s.root, "data"), Self: st.Current, RestartWorker: func(context.Context) error { return nil }})
	last := make(chan words.State, 64)
	u := ota.New(ota.Config{Dir: filepath.Join(s.root, "data", "ota"), Clock: schema.BootClock(want.Boot), Poll: 10 * time.Millisecond, Look: 10 * time.Millisecond}, ota.Deps{
		Installer: p.Installer, Fetch: s, Apply: s.apply, Gate: health{s, sl.Part(programs.Agent)}, Floor: s,
		Tell:  func(w words.State) error { last <- w; return nil },
		Warn:  func(reason, text string) { fmt.Fprintln(os.Stderr, reason, text); os.Exit(brokenCode) },
		Unmet: func(*release.Component) []string { return nil }, Conditions: func(string, ota.Moment) []ota.Refusal { return nil },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	end := func(code int) int { cancel(); <-done; return code }
	if err := u.Offer(s.order(want.Version, want.Attempt)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return brokenCode
	}
	for {
		select {
		case <-u.Restarting():
			return end(restartCode)
		case w := <-last:
			if w.Attempt == want.Attempt && over(w) {
				fmt.Println(w.State)
				return end(overCode)
			}
		case <-time.After(time.Minute):
			fmt.Fprintf(os.Stderr, "nothing for a minute: %+v\n", u.Status())
			return brokenCode
		}
	}
}

// TestKills kills a real process at any moment of updates, one after the other, good and bad: what
// is there afterwards is whole and starts, the record is never lost, and each update ends.
// It runs alone: between fork and exec a child holds the locks of the files of its parent, for
// which boards in simulated time beside it would wait in vain.
func TestKills(t *testing.T) {
	rounds := 200
	if os.Getenv("FULMAR_SOAK") != "" {
		rounds = 10_000
	}
	dir := memory(t)
	s := &site{t: t, root: filepath.Join(dir, "board"), away: filepath.Join(dir, "away"), disk: disk.OS{}}
	s.seed()
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 4))
	want := task{Boot: 1}
	next := func() {
		want.Attempt++
		want.Version, want.Bad = fmt.Sprintf("2.%d", want.Attempt), r.IntN(3) == 0
	}
	next()
	before, killed, ends := "1.0", 0, map[string]int{}
	for i := range rounds {
		b, err := json.Marshal(want)
		if err == nil {
			err = os.WriteFile(filepath.Join(s.away, "task"), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		patience := time.Duration(r.IntN(60_000)) * time.Microsecond
		if r.IntN(8) == 0 {
			patience = 3 * time.Second // one that may get through its trial
		}
		out, code, err := life(dir, patience)
		if err != nil {
			t.Fatalf("round %d: %v\n%s", i, err, out)
		}
		switch code {
		case -1:
			killed++
		case overCode:
			word := string(out[:max(0, len(out)-1)])
			ends[word]++
			runs := before
			if word == words.Committed {
				runs = want.Version
			}
			if err := s.whole(runs); err != nil || want.Bad && word == words.Committed {
				t.Fatalf("round %d: %s of %+v: %v", i, word, want, err)
			}
			before = runs
			next()
		case restartCode:
		default:
			t.Fatalf("round %d: ends with %d\n%s", i, code, out)
		}
		if r.IntN(5) == 0 {
			want.Boot++
		}
		s.look(i)
	}
	t.Logf("%d rounds, %d killed, %d updates ended: %v", rounds, killed, want.Attempt-1, ends)
	if ends[words.Committed] == 0 || ends[words.RolledBack] == 0 || killed < rounds/4 {
		t.Error("it proves little")
	}
}

// life starts the program and kills it after a while; code -1: it was killed.
func life(dir string, patience time.Duration) (out []byte, code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	exe, err := os.Executable()
	if err != nil {
		return nil, 0, err
	}
	cmd := exec.CommandContext(ctx, exe)
	cmd.Env = append(os.Environ(), childOf+"="+dir)
	out, err = cmd.CombinedOutput()
	if cmd.Process == nil && ctx.Err() != nil {
		return nil, -1, nil // before it began
	}
	var exit *exec.ExitError
	if err == nil || !errors.As(err, &exit) {
		return out, 0, errors.Join(err, errors.New("it ended without a code"), context.Cause(ctx))
	}
	if st := exit.Sys().(syscall.WaitStatus); st.Signaled() {
		return out, -1, nil
	}
	return out, exit.ExitCode(), nil
}

// look holds what lies there between two lives.
func (s *site) look(round int) {
	s.t.Helper()
	st, note, err := s.store().State()
	if err == nil && note == "" {
		err = s.store().Verify(st.Current)
	}
	if err != nil || note != "" {
		s.t.Fatalf("round %d: %+v, %s, %v", round, st, note, err)
	}
	data := filepath.Join(s.root, "data", "ota")
	if _, err := os.Stat(filepath.Join(data, "record.a")); err != nil {
		return // killed before there was one
	}
	_, r, note, err := record.Open(disk.OS{}, data)
	if err != nil || r.Lost {
		s.t.Fatalf("round %d: the record: %+v, %s, %v", round, r, note, err)
	}
	ents, _ := os.ReadDir(filepath.Join(data, "manifests"))
	if len(ents) > 3 {
		s.t.Fatalf("round %d: %s manifests are left", round, strconv.Itoa(len(ents)))
	}
}
