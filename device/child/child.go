// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package child runs a program of the user's for a while: no shell, an empty environment,
// bounds on its time, memory, files and what it says, and an end for the whole of its
// process group.
//
// # How bounds get there
//
// Limits of a process are inherited, so somebody has to have them before the program
// begins: fulmard starts itself with [Word], which sets them and becomes the program
// ([Become]). So not one instruction of it runs without them.
package child

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Word is the command of fulmard that bounds itself and becomes a program.
const Word = "bounded"

// Bounds of a program.
const (
	MaxArgs  = 64
	maxArg   = 4 << 10  // bytes
	maxIn    = 64 << 10 // bytes of standard input
	maxSaid  = 1 << 10  // bytes of standard error that are kept
	maxFile  = 16 << 20 // bytes of a file that it writes
	maxOpen  = 64       // files
	endGrace = time.Second
)

// Limits bound what a program may use; each is at least 1.
type Limits struct {
	MemoryMiB int // of address space
	CPUs      int // seconds on a processor
	Output    int // bytes of standard output
}

// Program is one run.
type Program struct {
	Self   string // fulmard's own executable, see the package
	Path   string // absolute
	Args   []string
	Stdin  []byte
	Limits Limits
	// User is whose rights it gets where fulmard is root; "" is then an error: a program is
	// never run as root. Where fulmard is somebody else it runs as the same.
	User string
}

// ErrTooMuch: it said more than it may.
var ErrTooMuch = errors.New("it said more than it may")

// Run runs it until it ends or the context does, and gives what it said. An exit code that
// is not 0 is an *exec.ExitError, with the end of its standard error in the text.
func (p *Program) Run(ctx context.Context) ([]byte, error) {
	cred, err := p.credential()
	if err != nil {
		return nil, err
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out, said := capped{most: p.Limits.Output, over: cancel}, capped{most: maxSaid} // more than it may is its end
	cmd := exec.CommandContext(ctx, p.Self, append([]string{Word, strconv.Itoa(p.Limits.MemoryMiB), strconv.Itoa(p.Limits.CPUs), p.Path}, p.Args...)...)
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"}
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(p.Stdin), &out, &said
	// A process group of its own: its children end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: cred}
	cmd.Cancel = func() error { return killGroup(cmd.Process.Pid) }
	cmd.WaitDelay = endGrace // pipes that a child in another group keeps open
	err = cmd.Run()
	if cmd.Process != nil {
		_ = killGroup(cmd.Process.Pid) // what it left behind
	}
	if errors.Is(err, exec.ErrWaitDelay) { // it ended well, and left somebody with its output
		err = nil
	}
	switch {
	case out.cut:
		return nil, fmt.Errorf("%s: %w: %d bytes", p.Path, ErrTooMuch, p.Limits.Output)
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s was ended: %w", p.Path, context.Cause(ctx))
	case err != nil && len(said.b) > 0:
		return nil, fmt.Errorf("%s: %w: %s", p.Path, err, bytes.TrimSpace(said.b))
	case err != nil:
		return nil, fmt.Errorf("%s: %w", p.Path, err)
	}
	return out.b, nil
}

func (p *Program) check() error {
	if !filepath.IsAbs(p.Path) || p.Self == "" {
		return fmt.Errorf("run %q: wants an absolute path, and the path of fulmard (%q) to bound it", p.Path, p.Self)
	}
	if len(p.Args) > MaxArgs || len(p.Stdin) > maxIn {
		return fmt.Errorf("run %s: %d arguments and %d bytes of input, at most %d and %d", p.Path, len(p.Args), len(p.Stdin), MaxArgs, maxIn)
	}
	for _, a := range p.Args {
		if len(a) > maxArg {
			return fmt.Errorf("run %s: an argument of %d bytes, at most %d", p.Path, len(a), maxArg)
		}
	}
	if p.Limits.MemoryMiB < 1 || p.Limits.CPUs < 1 || p.Limits.Output < 1 {
		return fmt.Errorf("run %s: limits %+v, each wants 1 or more", p.Path, p.Limits)
	}
	return nil
}

// credential is whose rights it gets: nil is fulmard's own.
func (p *Program) credential() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	if p.User == "" {
		return nil, fmt.Errorf("run %s: fulmard is root, and a program is never run as root; name a user for it", p.Path)
	}
	u, err := user.Lookup(p.User)
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", p.Path, err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil || err2 != nil || uid == 0 {
		return nil, fmt.Errorf("run %s: user %s is root or has no number", p.Path, p.User)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

func killGroup(pid int) error {
	if err := unix.Kill(-pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// capped keeps the first bytes of what is written.
type capped struct {
	b    []byte
	most int
	cut  bool
	over func()
}

func (c *capped) Write(p []byte) (int, error) {
	room := c.most - len(c.b)
	if len(p) > room && !c.cut {
		c.cut = true
		if c.over != nil {
			c.over()
		}
	}
	c.b = append(c.b, p[:min(len(p), max(room, 0))]...)
	return len(p), nil
}

// Become is what fulmard does with [Word]: args are the memory in MiB, the seconds on a
// processor, the program and its arguments. It comes back only with an error.
func Become(args []string, stderr io.Writer) int {
	if err := become(args); err != nil {
		fmt.Fprintln(stderr, "fulmard:", err)
	}
	return 126 // as a shell says of a program that cannot be run
}

func become(args []string) error {
	if len(args) < 3 {
		return fmt.Errorf("%s wants MIB SECONDS PROGRAM", Word)
	}
	mib, err := strconv.ParseUint(args[0], 10, 31)
	sec, err2 := strconv.ParseUint(args[1], 10, 31)
	if err != nil || err2 != nil {
		return errors.Join(err, err2)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("bound %s: %w", args[2], err)
	}
	env := os.Environ()
	// Memory last: our own counts too, until the program takes our place.
	for _, l := range []struct {
		what int
		most uint64
	}{
		{unix.RLIMIT_CPU, sec},
		{unix.RLIMIT_CORE, 0},
		{unix.RLIMIT_FSIZE, maxFile},
		{unix.RLIMIT_NOFILE, maxOpen},
		{unix.RLIMIT_AS, mib << 20},
	} {
		if err := unix.Setrlimit(l.what, &unix.Rlimit{Cur: l.most, Max: l.most}); err != nil {
			return fmt.Errorf("bound %s: %w", args[2], err)
		}
	}
	return fmt.Errorf("run %s: %w", args[2], unix.Exec(args[2], args[2:], env))
}
