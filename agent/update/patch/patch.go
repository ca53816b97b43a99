// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package patch makes a file of a patch and its base in another process: bounded in memory
// and time, of low priority, and gone with the one that started it.
package patch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"fulmar/ota/delta"
	"fulmar/ota/release"
)

// Word is the command of fulmard that does it.
const Word = "ota-apply"

const (
	// maxData bounds the child's memory that is not of files, in bytes: delta holds at most 16
	// MiB by a patch's word, and Go's heap twice that before it is collected.
	maxData = 128 << 20
	// memoryLimit and gcPercent keep it small: the goal is 32 MB in all for a program of 15 MB.
	memoryLimit, gcPercent = 20 << 20, 25
	// maxCPU bounds its time on a processor in seconds, should its parent be gone: 16 GiB of
	// zstd on the slowest board take half of it.
	maxCPU   = 30 * 60
	niceness = 10
	maxSaid  = 512
)

// exits are the faults that who asks acts upon, as exit codes.
func exits() map[int]error {
	return map[int]error{
		10: delta.ErrBase, 11: delta.ErrMismatch, 12: delta.ErrPatch, 13: delta.ErrLimit, 14: delta.ErrCodec,
		15: syscall.ENOSPC, 16: syscall.EDQUOT, 17: syscall.EIO,
	}
}

// Apply has program, fulmard's own executable, make the file want at out, which must not
// exist, of a patch and its base ("" for a codec that has none). What is left after an
// error is nothing.
func Apply(ctx context.Context, program, codec, base, patch, out string, want release.Object) error {
	if program == "" {
		return errors.New("apply a patch: fulmard's own program was not found at its start")
	}
	// The kernel tells a child of the end of the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, program, Word, codec, base, patch, out, strconv.FormatInt(want.Size, 10), want.SHA256.String())
	cmd.Env = []string{}
	said := &head{}
	cmd.Stderr = said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if err == nil {
		return nil
	}
	gone := os.Remove(out)
	if errors.Is(gone, fs.ErrNotExist) {
		gone = nil
	}
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), gone)
	}
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		if known := exits()[ended.ExitCode()]; known != nil {
			err = known
		}
	}
	return errors.Join(fmt.Errorf("apply a patch (%s): %w: %s", codec, err, bytes.TrimSpace(said.b)), gone)
}

// head keeps the first bytes of what is written.
type head struct{ b []byte }

func (h *head) Write(p []byte) (int, error) {
	h.b = append(h.b, p[:min(len(p), maxSaid-len(h.b))]...)
	return len(p), nil
}

// Child is what that other process does; args are what Apply gave it, without the word.
func Child(ctx context.Context, args []string, stderr io.Writer) int {
	err := child(ctx, args)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, err)
	for code, known := range exits() {
		if errors.Is(err, known) {
			return code
		}
	}
	return 1
}

// bound sets what the process may use, for good.
func bound() error {
	for what, most := range map[int]uint64{unix.RLIMIT_DATA: maxData, unix.RLIMIT_CPU: maxCPU, unix.RLIMIT_CORE: 0} {
		if err := unix.Setrlimit(what, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return fmt.Errorf("a patch wants a bound: %w", err)
		}
	}
	// To Linux the priority is each thread's own; those that come later have that of who
	// started them. Twice: one may have come meanwhile. A sandbox may forbid it: then others
	// are slower meanwhile, and that is all.
	for range 2 {
		threads, _ := os.ReadDir("/proc/self/task")
		for _, t := range threads {
			if id, err := strconv.Atoi(t.Name()); err == nil {
				_ = unix.Setpriority(unix.PRIO_PROCESS, id, niceness)
			}
		}
	}
	debug.SetMemoryLimit(memoryLimit)
	debug.SetGCPercent(gcPercent)
	return nil
}

func child(ctx context.Context, args []string) (err error) {
	if len(args) != 6 {
		return fmt.Errorf("%s wants CODEC BASE PATCH OUT SIZE SHA256", Word)
	}
	if err := bound(); err != nil {
		return err
	}
	size, err := strconv.ParseInt(args[4], 10, 64)
	if err != nil {
		return err
	}
	sha, err := release.ParseHash(args[5])
	if err != nil {
		return err
	}
	patch, done, err := section(args[2])
	if err != nil {
		return err
	}
	defer done()
	var base *io.SectionReader
	if args[1] != "" {
		b, done, err := section(args[1])
		if err != nil {
			return err
		}
		defer done()
		base = b
	}
	out, err := os.OpenFile(args[3], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = delta.Apply(ctx, args[0], base, patch, delta.Target{Size: size, SHA256: sha}, delta.Limits{Size: release.MaxSize}, out)
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

func section(path string) (*io.SectionReader, func(), error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return io.NewSectionReader(f, 0, st.Size()), func() { _ = f.Close() }, nil
}
