// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fulmar/internal/run"
	"fulmar/internal/sdnotify"
)

// roleEnv makes the test binary play a worker or a fulmard.
const roleEnv = "FULMAR_WORKER_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "worker":
		playWorker(os.Args[1])
	case "deaf":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("deaf and", os.Getpid())
		select {}
	case "gpu":
		os.Exit(ExitDeviceLost)
	case "error":
		os.Exit(1)
	case "itself":
		os.Exit(0)
	case "signal":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "fulmard":
		c := &Child{Path: os.Args[0], Args: []string{os.Args[1]}, Env: []string{roleEnv + "=worker"}, Socket: os.Args[1], Log: quiet()}
		_ = c.Run(context.Background())
	default:
		os.Exit(m.Run())
	}
}

// playWorker serves the border with one result each 5 ms, its process id as the
// frame's width cannot be, so as the frame's number.
func playWorker(path string) {
	ln, err := sdnotify.Listen(path)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	s := NewServer("child", ln, &backend{setups: make(chan Setup, 64)}, quiet())
	g := run.New(context.Background())
	g.Go("serve", s.Run)
	for {
		r := result(uint64(os.Getpid()))
		r.Event.Width, _ = syscall.Getpriority(syscall.PRIO_PROCESS, 0)
		s.Send(r)
		time.Sleep(5 * time.Millisecond)
	}
}

func newChild(t *testing.T, role string, log *slog.Logger) *Child {
	dir, err := os.MkdirTemp("", "fw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(dir, "w.sock")
	return &Child{Path: self, Args: []string{sock}, Env: []string{roleEnv + "=" + role}, Socket: sock, Log: log}
}

func gone(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(b), ") ")
	return strings.HasPrefix(after, "Z")
}

// A worker that is killed twenty times is back, with a result, within two seconds
// each time, and nothing of it is left at the end.
func TestKilledChildIsBack(t *testing.T) {
	c := newChild(t, "worker", quiet())
	c.stable = 50 * time.Millisecond // else the waits double, as they should
	stop := background(t, c.Run)
	k := newKeeper()
	background(t, NewClient("v1", c.Dial, k, quiet()).Run)
	drainUntil := func(old uint64) uint64 {
		for {
			if f := k.next(t); f != old {
				return f
			}
		}
	}
	pid := drainUntil(0)
	var worst time.Duration
	for range 20 {
		for end := time.Now().Add(60 * time.Millisecond); time.Now().Before(end); {
			k.next(t) // it lives long enough to count as stable
		}
		start := time.Now()
		if err := syscall.Kill(int(pid), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		pid = drainUntil(pid)
		worst = max(worst, time.Since(start))
	}
	t.Logf("worst time from SIGKILL to the next result: %v", worst)
	if worst > 2*time.Second {
		t.Errorf("back after %v", worst)
	}
	if n := c.Restarts(); n != 20 {
		t.Errorf("%d restarts counted, want 20", n)
	}
	if !strings.Contains(c.LastExit(), "killed") {
		t.Errorf("last exit %q", c.LastExit())
	}
	stop()
	if !gone(int(pid)) {
		t.Errorf("process %d is left", pid)
	}
}

func TestChildIsNicer(t *testing.T) {
	c := newChild(t, "worker", quiet())
	c.Nice = 7
	background(t, c.Run)
	seen := make(chan int, 1024)
	background(t, NewClient("v1", c.Dial, niceKeeper(seen), quiet()).Run)
	select {
	case raw := <-seen:
		if nice := 20 - raw; nice != 7 { // the system call gives 20 - nice
			t.Errorf("the child runs at niceness %d, want 7", nice)
		}
	case <-time.After(waitLong):
		t.Fatal("no result came")
	}
	if raw, _ := syscall.Getpriority(syscall.PRIO_PROCESS, os.Getpid()); 20-raw == 7 {
		t.Error("our own priority was lowered")
	}
}

type niceKeeper chan int

func (n niceKeeper) Result(_ context.Context, r *Result) {
	select {
	case n <- r.Event.Width:
	default:
	}
}
func (n niceKeeper) Status(context.Context, *Status) {}

func TestDyingChildIsNotStartedInALoop(t *testing.T) {
	c := &Child{Path: "/bin/false", Log: quiet()}
	stop := background(t, c.Run)
	waitFor(t, "four starts", func() bool { return c.Restarts() >= 3 })
	time.Sleep(500 * time.Millisecond) // the next are due after 200 and 400 ms
	stop()
	if n := c.Restarts(); n > 5 {
		t.Errorf("%d restarts in little over half a second", n)
	}
	c = &Child{Path: "/nonexistent/fulmar-infer", Log: quiet()}
	background(t, c.Run)
	waitFor(t, "the reason", func() bool { return strings.Contains(c.LastExit(), "/nonexistent/fulmar-infer") })
}

func TestDeafChildIsKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("waits 3 seconds for a child that ignores SIGTERM")
	}
	t.Parallel()
	lines := &captured{}
	c := newChild(t, "deaf", slog.New(slog.NewTextHandler(lines, nil)))
	stop := background(t, c.Run)
	waitFor(t, "its line in the log", func() bool { return strings.Contains(lines.String(), "deaf and") })
	pid := c.PID()
	stop()
	if !gone(pid) {
		t.Errorf("process %d is left", pid)
	}
}

// A fulmard that is killed takes its worker along.
func TestOrphanDies(t *testing.T) {
	t.Parallel()
	outer := newChild(t, "fulmard", quiet())
	k := newKeeper()
	stop := background(t, outer.Run)
	background(t, NewClient("v1", outer.Dial, k, quiet()).Run)
	grandchild := int(k.next(t))
	if gone(grandchild) {
		t.Fatal("no grandchild")
	}
	// Only the fulmard, not its group: what a crash or the kernel's OOM killer does.
	if err := syscall.Kill(outer.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the orphan to end", func() bool { return gone(grandchild) })
	stop()
}

type captured struct {
	mu sync.Mutex
	b  strings.Builder
}

func (c *captured) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.Write(p)
}

func (c *captured) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.String()
}

// The agent tells a lost GPU from other ends by what the supervisor counts.
func TestEndsByCause(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		role string
		want End
		text string
	}{
		{"gpu", EndDeviceLost, "lost the GPU"},
		{"error", EndFailed, "exit status 1"},
		{"itself", EndItself, "ended by itself"},
		{"signal", EndKilled, "signal: killed"},
		{"none", EndFailed, "no such file"},
	} {
		child := newChild(t, c.role, quiet())
		if c.role == "none" {
			child.Path = filepath.Join(t.TempDir(), "none")
		}
		stop := background(t, child.Run)
		waitFor(t, "two ends of "+c.role, func() bool { return child.Ends()[c.want] >= 2 })
		stop()
		if ends := child.Ends(); len(ends) != 1 || child.LastEnd() != c.want || !strings.Contains(child.LastExit(), c.text) {
			t.Errorf("%s: %v, last %s: %s", c.role, ends, child.LastEnd(), child.LastExit())
		}
	}
}
