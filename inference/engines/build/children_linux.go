// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package build

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"fulmar/inference/engines/cache"
	"fulmar/internal/linelog"
)

// Exit codes of a build, beside 0, 1 (another error) and 2 (wrong usage).
const (
	ExitRefused   = 3 // the network or the model is refused
	ExitLibrary   = 4 // no TensorRT, no parser or no driver
	ExitDevice    = 5 // the GPU was lost
	ExitMemory    = 6 // not enough memory
	ExitDisk      = 7 // the disk is full
	ExitCancelled = 8
	ExitQuota     = 9 // the engine is larger than the cache may be
)

// The life of a child.
const (
	// hangAfter is how long a build may be silent. One layer's timing may take minutes
	// on the smallest boards.
	hangAfter = 15 * time.Minute
	// endGrace is for a child that was asked to end: it saves its timing cache, and
	// gives up by itself a little earlier.
	endGrace = 30 * time.Second
	// stopWait is how long a stop waits for a child's end.
	stopWait = 500 * time.Millisecond
	// spaceCheck is how often a full disk is looked at again, spaceStep how much room
	// more than before is worth a new try.
	spaceCheck = time.Minute
	spaceStep  = 16 << 20
	maxLine    = 64 << 10
)

// Error is a build that failed in its child.
type Error struct {
	// Code is the child's exit code; -1 if it was killed or never ran.
	Code int
	Text string
}

// Error is one line.
func (e *Error) Error() string { return e.Text }

// Final says that another try would end the same way until the engine's key changes.
func (e *Error) Final() bool { return e.Code == ExitRefused }

// Job is one engine to build.
type Job struct {
	Path, Variant string
	Cache         string
	Quota         int64
	Options       cache.Options
}

// Args are those of fulmar-infer for the job.
func (j *Job) Args() []string {
	a := []string{
		"model", "build", "--progress=json", "--child",
		"--cache", j.Cache, "--quota", fmt.Sprint(j.Quota),
		"--batch", fmt.Sprint(j.Options.MaxBatch), "--level", fmt.Sprint(j.Options.Level),
		"--dla", fmt.Sprint(j.Options.DLACore), j.Path,
	}
	if j.Variant != "" {
		a = append(a, j.Variant)
	}
	return a
}

// Children runs builds as child processes or as units of systemd, one at a time. Make it
// with [NewChildren]; set the fields before the first Build and do not change them.
type Children struct {
	// Command is the program and its first arguments, "fulmar-infer". The job's follow.
	Command []string
	// Socket is where builds are asked for instead, see [Request]; "": Command.
	Socket string
	Log    *slog.Logger
	// Hang is how long a child may be silent, Waits those before further tries; nil and
	// 0 stand for 15 minutes and two tries more after 1 and 10 minutes.
	Hang  time.Duration
	Waits []time.Duration
	// grace and space are endGrace and spaceCheck but for tests.
	grace, space time.Duration

	turn chan struct{} // holds one: who takes it may build
}

// NewChildren makes one whose processes are started by command.
func NewChildren(command []string, log *slog.Logger) *Children {
	b := &Children{Command: command, Log: log, turn: make(chan struct{}, 1), grace: endGrace, space: spaceCheck}
	b.turn <- struct{}{}
	return b
}

// Build builds one engine and waits for it: first for the builds before it, then for
// its child, which is tried again up to three times in all. say gets what a status
// shows. free tells the room on the cache's disk: after a full disk there is no other
// try until it grew. The error is the context's or a [*Error].
func (b *Children) Build(ctx context.Context, j Job, free func() int64, say func(text string)) error {
	waits := b.Waits
	if waits == nil {
		waits = []time.Duration{time.Minute, 10 * time.Minute}
	}
	for try := 0; ; {
		err := b.once(ctx, j, say)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			return nil
		}
		var be *Error
		if errors.As(err, &be) && be.Code == ExitDisk {
			had := free()
			b.Log.Error("engine build stopped: the disk is full", "model", j.Path, "error", err, "free", had)
			say(OneLine(fmt.Sprintf("build waits for room on the disk (%d MiB free): %v", had>>20, err)))
			if !awaitRoom(ctx, b.space, had, free) {
				return ctx.Err()
			}
			continue
		}
		if errors.As(err, &be) && (be.Final() || be.Code == ExitLibrary || be.Code == ExitQuota) || try == len(waits) {
			return err
		}
		b.Log.Warn("engine build failed", "model", j.Path, "error", err, "next_try", waits[try])
		say(OneLine(fmt.Sprintf("build failed, next try in %s: %v", about(waits[try]), err)))
		if !sleep(ctx, waits[try]) {
			return ctx.Err()
		}
		try++
	}
}

// awaitRoom waits until the disk has more room than when it was full.
func awaitRoom(ctx context.Context, every time.Duration, had int64, free func() int64) bool {
	for sleep(ctx, every) {
		if free() >= had+spaceStep {
			return true
		}
	}
	return false
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// once waits for its turn and runs one child to its end.
func (b *Children) once(ctx context.Context, j Job, say func(string)) error {
	say("waiting for its turn to be built")
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-b.turn:
	}
	say("build begins")
	ended := make(chan error, 1)
	// A goroutine of its own: child must not give its thread back.
	go func() {
		run := b.child
		if b.Socket != "" {
			run = b.unit
		}
		err := run(ctx, j, say)
		b.turn <- struct{}{}
		ended <- err
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	// It was told to end. What it still saves must not hold up our stop; if this process
	// ends first, it goes on to its own end.
	t := time.NewTimer(stopWait)
	defer t.Stop()
	select {
	case err := <-ended:
		return err
	case <-t.C:
		return ctx.Err()
	}
}

// child must be the only function of its goroutine: the thread it locks ends with it,
// because the kernel signals the child when the thread that made it ends, as it does
// when this process dies.
func (b *Children) child(ctx context.Context, j Job, say func(string)) error {
	runtime.LockOSThread()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lines := linelog.New(b.Log)
	args := append(append([]string{}, b.Command[1:]...), j.Args()...)
	cmd := exec.CommandContext(ctx, b.Command[0], args...)
	cmd.Stderr = lines
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = b.grace
	stdin, err := cmd.StdinPipe() // its end tells the child that we are gone
	if err != nil {
		return &Error{-1, "start build: " + err.Error()}
	}
	defer stdin.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		return &Error{-1, "start build: " + err.Error()}
	}
	if err := cmd.Start(); err != nil {
		return &Error{-1, "start build: " + err.Error()}
	}
	var last Line
	read := make(chan struct{})
	go func() {
		defer close(read)
		last = b.listen(out, cancel, say)
	}()
	// Wait closes the pipe, so the reading ends first; a child that leaves it open
	// though it was told to end is killed by WaitDelay only once Wait is called.
	select {
	case <-read:
	case <-ctx.Done():
	}
	err = cmd.Wait()
	<-read
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left in its group
	lines.Flush()
	if err == nil {
		return nil
	}
	return verdict(ctx, err, last, cmd.ProcessState.ExitCode())
}

// listen says what a build tells, to the end of it; one that is silent for too long is
// cancelled. It gives the last line.
func (b *Children) listen(out io.Reader, cancel context.CancelCauseFunc, say func(string)) Line {
	hang := cmp.Or(b.Hang, hangAfter)
	silent := time.AfterFunc(hang, func() {
		cancel(fmt.Errorf("the build said nothing for %v and was ended", hang))
	})
	defer silent.Stop()
	return follow(out, func(l Line) {
		silent.Reset(hang)
		switch {
		case l.Progress != nil:
			say(l.Progress.String())
		case l.Waiting:
			say("waiting for another build on this board")
		}
	})
}

// verdict makes words of a child's end.
func verdict(ctx context.Context, err error, last Line, code int) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return &Error{-1, cause.Error()}
	}
	if last.Error != "" {
		return &Error{code, last.Error}
	}
	return &Error{code, OneLine("the build ended without a word: " + err.Error())}
}

// follow reads a child's lines to their end and gives the last one that told of it.
func follow(r io.Reader, heard func(Line)) (last Line) {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4096), maxLine)
	for s.Scan() {
		var l Line
		if !strings.HasPrefix(s.Text(), "{") || json.Unmarshal(s.Bytes(), &l) != nil {
			continue // a library wrote to standard output
		}
		heard(l)
		if l.Done != nil || l.Error != "" {
			last = l
		}
	}
	// A line over the bound is no line of ours; the child must not block on the pipe.
	_, _ = io.Copy(io.Discard, r)
	return last
}
