// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"fulmar/internal/linelog"
	"fulmar/internal/peercred"
)

// Supervisor keeps a worker running, or waits for one that somebody else keeps.
type Supervisor interface {
	// Run keeps the worker running until the context ends.
	Run(ctx context.Context) error
	// Dial connects to it.
	Dial(ctx context.Context) (net.Conn, error)
	// Restarts counts the starts after the first.
	Restarts() uint64
}

// The waits before a restart: none for the first death, then doubling, so that one
// crash costs a frame or two and a worker that dies at once costs no CPU.
const (
	restartFirst = 50 * time.Millisecond
	restartMax   = 30 * time.Second
	stableAfter  = time.Minute // a child that lived this long is forgiven its past
	termGrace    = 3 * time.Second
	defaultNice  = 5 // sampling goes before seeing when the CPU is full
)

// Child is a worker that runs as a child process: under make run, where no
// systemd unit keeps it. Set the fields before Run and do not change them.
type Child struct {
	Path   string   // of fulmar-infer
	Args   []string // without the program's name
	Env    []string // "K=V"; all the child gets
	Socket string   // where it listens
	Nice   int      // the child's niceness, 1 to 19; 0 means 5
	Log    *slog.Logger

	stable   time.Duration // stableAfter but for tests
	starts   atomic.Uint64
	pid      atomic.Int64
	mu       sync.Mutex
	lastExit string
	lastEnd  End
	ends     map[End]uint64
}

// End is why a child ended, as far as it can be told from outside.
type End string

// The ends of a child.
const (
	EndDeviceLost End = "gpu_lost" // exit code ExitDeviceLost
	EndKilled     End = "signal"   // crashed, or killed by somebody or for its memory
	EndFailed     End = "error"    // another exit code, or it could not be started
	EndItself     End = "itself"   // in order, though nobody asked for it
)

// Run starts the child and starts it again whenever it ends, until the context
// ends; then it asks it to stop, and kills it after 3 seconds. The error is the
// context's: a child that cannot be started is tried again, with a line in the log.
func (c *Child) Run(ctx context.Context) error {
	stable := cmp.Or(c.stable, stableAfter)
	c.mu.Lock()
	c.ends = map[End]uint64{}
	c.mu.Unlock()
	var wait time.Duration
	for ctx.Err() == nil {
		began := time.Now()
		// A goroutine of its own: once must not give its thread back.
		ended := make(chan error, 1)
		go func() { ended <- c.once(ctx) }()
		err := <-ended
		if ctx.Err() != nil {
			break
		}
		lived := time.Since(began)
		if lived >= stable {
			wait = 0
		}
		c.ended(err)
		c.Log.Warn("worker ended, starting it again", "error", err, "lived", lived, "wait", wait)
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
		wait = min(max(wait*2, restartFirst), restartMax)
	}
	return ctx.Err()
}

// Dial connects to the child's socket.
func (c *Child) Dial(ctx context.Context) (net.Conn, error) { return peercred.Dial(ctx, c.Socket) }

// Restarts counts the starts after the first.
func (c *Child) Restarts() uint64 { return max(c.starts.Load(), 1) - 1 }

// PID tells the running child's process id, 0 when none runs.
func (c *Child) PID() int { return int(c.pid.Load()) }

// LastExit tells how the last child ended, "" if none did.
func (c *Child) LastExit() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lastExit
}

// LastEnd tells why the last child ended, "" if none did.
func (c *Child) LastEnd() End {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lastEnd
}

// Ends counts the children that ended, by why.
func (c *Child) Ends() map[End]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.ends)
}

var errItself = errors.New("worker ended by itself")

// ended takes in why a child ended.
func (c *Child) ended(err error) {
	end, text := EndFailed, err.Error()
	var exit *exec.ExitError
	switch {
	case errors.Is(err, errItself):
		end = EndItself
	case !errors.As(err, &exit): // never started
	case exit.ExitCode() == ExitDeviceLost:
		end, text = EndDeviceLost, "worker: it lost the GPU and needs a new process to get it back"
	case exit.ExitCode() < 0:
		end = EndKilled
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastExit, c.lastEnd = text, end
	c.ends[end]++
}

// once runs one child to its end. It must be the only function of its goroutine:
// the thread it locks is given up with it, because it carries the child's niceness
// (which an unprivileged thread cannot take back) and because the kernel kills the
// child when the thread that made it ends.
func (c *Child) once(ctx context.Context) error {
	runtime.LockOSThread()
	nice := c.Nice
	if nice == 0 {
		nice = defaultNice
	}
	// PRIO_PROCESS with 0 is the calling thread on Linux; the child inherits it.
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, nice); err != nil {
		c.Log.Warn("worker keeps our priority", "error", err)
	}
	// The child reads its standard input to learn that we are gone, should the
	// kernel not have told it.
	lines := linelog.New(c.Log)
	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	cmd.Env = append([]string{}, c.Env...)
	cmd.Stdout, cmd.Stderr = lines, lines
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = termGrace
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start worker: %w", err)
	}
	defer stdin.Close()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start worker %s: %w", c.Path, err)
	}
	c.starts.Add(1)
	c.pid.Store(int64(cmd.Process.Pid))
	err = cmd.Wait()
	c.pid.Store(0)
	// What the child left running in its group (it should leave nothing) goes too.
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	lines.Flush()
	switch {
	case err == nil:
		return errItself
	case errors.Is(err, exec.ErrWaitDelay):
		return errors.New("worker did not stop in time and was killed")
	}
	return fmt.Errorf("worker: %w", err)
}

// Unit is a worker that its own systemd unit keeps: there is only a socket.
type Unit struct {
	Socket string
}

// Run waits for the context to end.
func (u *Unit) Run(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// Dial connects to the unit's socket.
func (u *Unit) Dial(ctx context.Context) (net.Conn, error) { return peercred.Dial(ctx, u.Socket) }

// Restarts is 0: systemd counts them.
func (u *Unit) Restarts() uint64 { return 0 }
