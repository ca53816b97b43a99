// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fulmar/inference/engines/cache"
)

// roleEnv makes the test binary play a build. Its last argument says which.
const roleEnv = "FULMAR_BUILD_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) != "build" {
		os.Exit(m.Run())
	}
	dir := os.Args[slices.Index(os.Args, "--cache")+1]
	os.Exit(play(os.Args[len(os.Args)-1], dir))
}

// play is a build that goes as its name says; it leaves a mark for each start.
func play(role, dir string) int {
	mark(dir, "start")
	line := func(s string) { fmt.Println(s) }
	switch role {
	case "good":
		line("a library's own words")
		line("{ not ours")
		line(`{"progress":{"phase":"a","percent":40,"elapsed_s":120,"left_s":180}}`)
		line(strings.Repeat("x", 2*maxLine)) // over all bounds
		return 0
	case "refused":
		line(`{"error":"network refused: no op Foo","code":3}`)
		return ExitRefused
	case "library":
		line(`{"error":"no TensorRT","code":4}`)
		return ExitLibrary
	case "second":
		if starts(dir) == 1 {
			line(`{"error":"not enough memory","code":6}`)
			return ExitMemory
		}
		return 0
	case "memory":
		line(`{"error":"not enough memory","code":6}`)
		return ExitMemory
	case "full":
		if starts(dir) == 1 {
			line(`{"error":"disk is full","code":7}`)
			return ExitDisk
		}
		return 0
	case "crash":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		time.Sleep(time.Minute)
	case "hang":
		signal.Ignore(syscall.SIGTERM)
		line(`{"progress":{"phase":"a","percent":1,"elapsed_s":1,"left_s":-1}}`)
		time.Sleep(time.Minute)
	case "polite":
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		line(`{"progress":{"phase":"a","percent":1,"elapsed_s":1,"left_s":-1}}`)
		<-ctx.Done()
		mark(dir, "told")
		return ExitCancelled
	case "orphan":
		// A worker that is killed: its children plays one and dies.
		c := NewChildren([]string{os.Args[0]}, slog.New(slog.DiscardHandler))
		go func() {
			for !exists(filepath.Join(dir, "reading")) {
				time.Sleep(time.Millisecond)
			}
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}()
		_ = c.Build(context.Background(), Job{Path: "m", Variant: "reader", Cache: dir}, func() int64 { return 0 }, func(string) {})
	case "reader":
		signal.Ignore(syscall.SIGTERM) // it must notice by its input alone
		mark(dir, "reading")
		_, _ = io.Copy(io.Discard, os.Stdin)
		mark(dir, "input ended")
	}
	return 1
}

func mark(dir, name string) {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintln(f, os.Getpid())
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(99)
	}
	f.Close()
}

func pids(dir, name string) []string {
	b, _ := os.ReadFile(filepath.Join(dir, name))
	return strings.Fields(string(b))
}

func starts(dir string) int { return len(pids(dir, "start")) }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// said collects what a status would show.
type said struct {
	mu    sync.Mutex
	texts []string
	heard func(string)
}

func (s *said) say(text string) {
	s.mu.Lock()
	s.texts = append(s.texts, text)
	heard := s.heard
	s.mu.Unlock()
	if heard != nil {
		heard(text)
	}
}

func (s *said) all() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.texts, "\n")
}

func newChildren(t *testing.T) *Children {
	t.Helper()
	t.Setenv(roleEnv, "build")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := NewChildren([]string{self}, slog.New(slog.NewTextHandler(t.Output(), nil)))
	c.Waits = []time.Duration{10 * time.Millisecond, 20 * time.Millisecond}
	c.grace, c.space = 300*time.Millisecond, 10*time.Millisecond
	return c
}

func gone(pid string) bool {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	_, after, _ := strings.Cut(string(b), ") ")
	return err != nil || strings.HasPrefix(after, "Z")
}

// How often a build is tried, and what is said of it, by the way it ends.
func TestEndsOfAChild(t *testing.T) {
	for _, c := range []struct {
		role   string
		starts int
		code   int // 0: no error
		final  bool
		text   string // of the error
		said   string
	}{
		{"good", 1, 0, false, "", "building, 40 %, about 3 min left"},
		{"refused", 1, ExitRefused, true, "network refused: no op Foo", ""},
		{"library", 1, ExitLibrary, false, "no TensorRT", ""},
		{"memory", 3, ExitMemory, false, "not enough memory", "build failed, next try in some seconds: not enough memory"},
		{"second", 2, 0, false, "", "build failed"},
		{"crash", 3, -1, false, "signal: killed", ""},
	} {
		dir, s := t.TempDir(), &said{}
		ch := newChildren(t)
		err := ch.Build(t.Context(), Job{Path: "m", Variant: c.role, Cache: dir}, func() int64 { return 0 }, s.say)
		var be *Error
		if (c.code == 0) != (err == nil) || err != nil && (!errors.As(err, &be) || be.Code != c.code || be.Final() != c.final || !strings.Contains(be.Text, c.text)) {
			t.Errorf("%s: %v", c.role, err)
		}
		if n := starts(dir); n != c.starts {
			t.Errorf("%s: %d starts, wants %d", c.role, n, c.starts)
		}
		if !strings.Contains(s.all(), c.said) {
			t.Errorf("%s: it said %q", c.role, s.all())
		}
	}
}

// A silent child is ended, though it does not listen.
func TestHangingChildIsEnded(t *testing.T) {
	ch, dir := newChildren(t), t.TempDir()
	ch.Hang, ch.Waits = 300*time.Millisecond, []time.Duration{}
	err := ch.Build(t.Context(), Job{Path: "m", Variant: "hang", Cache: dir}, func() int64 { return 0 }, func(string) {})
	if err == nil || !strings.Contains(err.Error(), "said nothing for 300ms") {
		t.Errorf("it ended with %v", err)
	}
	if p := pids(dir, "start"); len(p) != 1 || !gone(p[0]) {
		t.Errorf("children %v, or one lives on", p)
	}
}

// The end of the worker, or of the model, ends the child, and does not wait for it.
func TestCancel(t *testing.T) {
	for _, role := range []string{"polite", "hang"} {
		ch, dir := newChildren(t), t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		s := &said{heard: func(text string) {
			if strings.Contains(text, "building, ") {
				cancel()
			}
		}}
		job := Job{Path: "m", Variant: role, Cache: dir}
		err := ch.Build(ctx, job, func() int64 { return 0 }, s.say)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", role, err)
		}
		if told := exists(filepath.Join(dir, "told")); told != (role == "polite") {
			t.Errorf("%s: it was told to end: %v", role, told)
		}
		// The turn comes back when the child is gone, not before.
		second := t.TempDir()
		if err := ch.Build(t.Context(), Job{Path: "m", Variant: "good", Cache: second}, func() int64 { return 0 }, func(string) {}); err != nil {
			t.Error(err)
		}
		if p := pids(dir, "start"); len(p) != 1 || !gone(p[0]) {
			t.Errorf("%s: children %v, or one lives on", role, p)
		}
	}
}

// The child of a worker that was killed ends by itself.
func TestKilledWorkersChild(t *testing.T) {
	ch, dir := newChildren(t), t.TempDir()
	ch.Waits = []time.Duration{}
	err := ch.Build(t.Context(), Job{Path: "m", Variant: "orphan", Cache: dir}, func() int64 { return 0 }, func(string) {})
	if err == nil {
		t.Error("the killed one ended well")
	}
	for end := time.Now().Add(20 * time.Second); !exists(filepath.Join(dir, "input ended")); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the child of the killed one lives on")
		}
	}
}

// After a full disk there is no other try until there is more room.
func TestFullDiskWaits(t *testing.T) {
	ch, dir := newChildren(t), t.TempDir()
	asked := 0
	free := func() int64 {
		if asked++; asked < 20 {
			return 5 << 20
		}
		return 5<<20 + spaceStep
	}
	s := &said{}
	if err := ch.Build(t.Context(), Job{Path: "m", Variant: "full", Cache: dir}, free, s.say); err != nil {
		t.Fatal(err)
	}
	if starts(dir) != 2 || asked != 20 {
		t.Errorf("%d starts, room asked for %d times", starts(dir), asked)
	}
	if !strings.Contains(s.all(), "waits for room on the disk (5 MiB free): disk is full") {
		t.Errorf("it said %q", s.all())
	}
}

// One at a time: never are two children there at once.
func TestOneAtATime(t *testing.T) {
	ch, dir := newChildren(t), t.TempDir()
	var wg sync.WaitGroup
	var mu sync.Mutex
	at, most := 0, 0
	for n := range 4 {
		s := &said{heard: func(text string) {
			mu.Lock()
			defer mu.Unlock()
			if text == "build begins" {
				at++
				most = max(most, at)
			}
		}}
		wg.Go(func() {
			if err := ch.Build(t.Context(), Job{Path: "m" + strconv.Itoa(n), Variant: "good", Cache: dir}, func() int64 { return 0 }, func(text string) {
				s.say(text)
				if strings.HasPrefix(text, "building") {
					mu.Lock()
					at--
					mu.Unlock()
				}
			}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most != 1 || starts(dir) != 4 {
		t.Errorf("%d at once, %d in all", most, starts(dir))
	}
}

func TestCommandLines(t *testing.T) {
	t.Parallel()
	j := Job{Path: "/models/m", Variant: "int8", Cache: "/c", Quota: 7, Options: cache.Options{MaxBatch: 4, Level: -1, DLACore: -1}}
	want := "model build --progress=json --child --cache /c --quota 7 --batch 4 --level -1 --dla -1 /models/m int8"
	if got := strings.Join(j.Args(), " "); got != want {
		t.Errorf("job: %s", got)
	}
}

// Phases inside of phases make one figure that never falls and ends near 100.
func TestEstimate(t *testing.T) {
	t.Parallel()
	began := time.Now()
	e := NewEstimate(began, 10*time.Minute)
	at := func(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }
	p := e.Step("outer", 0, 4, at(0))
	if p.Percent != 0 || p.Left != 600 {
		t.Errorf("begin: %+v", p)
	}
	last := 0.0
	now := 0
	for outer := range 4 {
		for inner := range 10 {
			now += 3
			p = e.Step(fmt.Sprint("inner ", outer), inner+1, 10, at(now))
			if p.Percent < last {
				t.Fatalf("it fell: %+v after %v", p, last)
			}
			last = p.Percent
			if want := float64(outer*25) + 2.5*float64(inner+1); p.Percent < want-1 || p.Percent > want {
				t.Errorf("outer %d, inner %d: %v %%, wants %v", outer, inner, p.Percent, want)
			}
		}
		p = e.Step("outer", outer+1, 4, at(now))
	}
	if p.Percent != 99 || p.Left > 3 {
		t.Errorf("end: %+v", p)
	}
	half := NewEstimate(began, 0)
	if p := half.Step("a", 40, 100, at(120)); p.String() != "building, 40 %, about 3 min left" {
		t.Errorf("%v", p)
	}
	if p := NewEstimate(began, 0).Step("a", 0, 100, at(120)); p.String() != "building, 0 %, time left not known yet" {
		t.Errorf("%v", p)
	}
	// Any sequence: in bounds, rising.
	wild := NewEstimate(began, 0)
	last = 0
	for i := range 1000 {
		p := wild.Step(fmt.Sprint(i*7%13), i%5-1, i%3, at(i))
		if p.Percent < last || p.Percent > 99 {
			t.Fatalf("%+v after %v", p, last)
		}
		last = p.Percent
	}
}
