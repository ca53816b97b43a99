// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Command fulmar-launch starts the current slot's programs. It belongs to the package
// alone: no update that is under way touches it, so it can always go back.
//
//	fulmar-launch run fulmard ARGS...       count a start of a slot on trial, go back where it failed, exec
//	fulmar-launch run fulmar-infer ARGS...  exec; writes nothing, as it runs as another user
//	fulmar-launch seed                      bring what the package installed into a slot
//	fulmar-launch status [--json] [--verify]
//	fulmar-launch confirm                   the current slot is good: end its trial
//	fulmar-launch back [REASON]             go back to the slot before
//
// Called fulmard or fulmar-infer, by a link of that name, it execs the current slot's
// program with the same arguments and counts nothing.
//
// Flags come right after the first word: --state DIR (default /var/lib/fulmar), --seed
// DIR (/usr/lib/fulmar/seed; --from is the same).
//
// Exit codes: 0 done, 1 an error that stands on standard error, 2 wrong usage, 3
// nothing could be started. After an exec the code is the program's.
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"fulmar/ota/slot"
)

// release is set by the linker.
var release = "dev"

const (
	stateDir = "/var/lib/fulmar"
	seedDir  = "/usr/lib/fulmar/seed"
	worker   = "fulmar-infer"
)

const (
	exitFailed  = 1
	exitUsage   = 2
	exitNothing = 3
)

const usage = `usage:
  fulmar-launch run [--state DIR] [--seed DIR] fulmard|fulmar-infer ARGS...
  fulmar-launch seed [--from DIR] [--state DIR]
  fulmar-launch status [--json] [--verify] [--state DIR]
  fulmar-launch confirm [--state DIR]
  fulmar-launch back [--state DIR] [REASON]
  fulmar-launch version
`

func main() {
	l := launcher{state: stateDir, seed: seedDir, exec: syscall.Exec, env: os.Environ(), out: os.Stdout, err: os.Stderr}
	os.Exit(l.main(os.Args))
}

// launcher is one call of the program.
type launcher struct {
	state, seed  string
	json, verify bool
	exec         func(path string, args, env []string) error // returns only where it fails
	env          []string
	out, err     io.Writer
}

func (l *launcher) main(args []string) int {
	if len(args) == 0 {
		args = []string{"fulmar-launch"}
	}
	if name := filepath.Base(args[0]); name == slot.Agent || name == worker {
		return l.read(name, args[1:])
	}
	if len(args) < 2 {
		return l.usage()
	}
	word := args[1]
	rest, err := l.flags(args[2:])
	if err != nil {
		l.say("%v", err)
		return l.usage()
	}
	switch {
	case word == "run" && len(rest) > 0 && rest[0] == slot.Agent:
		return l.runAgent(rest[1:])
	case word == "run" && len(rest) > 0 && rest[0] == worker:
		return l.read(worker, rest[1:])
	case word == "seed" && len(rest) == 0:
		did, err := slot.Open(l.state).Seed(l.seed)
		return l.done(did, err)
	case word == "status" && len(rest) == 0:
		return l.status()
	case word == "confirm" && len(rest) == 0:
		return l.confirm()
	case word == "back":
		return l.back(strings.Join(rest, " "))
	case word == "version" && len(rest) == 0:
		return l.done("fulmar-launch "+release, nil)
	}
	return l.usage()
}

// flags takes the flags before the first other word; what follows is not ours to read.
func (l *launcher) flags(args []string) (rest []string, err error) {
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		name, value, has := strings.Cut(strings.TrimLeft(args[0], "-"), "=")
		args = args[1:]
		switch name {
		case "json", "verify":
			l.json, l.verify = l.json || name == "json", l.verify || name == "verify"
			continue
		case "state", "seed", "from":
		default:
			return nil, fmt.Errorf("flag --%s is unknown", name)
		}
		if !has {
			if len(args) == 0 {
				return nil, fmt.Errorf("flag --%s wants a folder", name)
			}
			value, args = args[0], args[1:]
		}
		if name == "state" {
			l.state = value
		} else {
			l.seed = value
		}
	}
	return args, nil
}

func (l *launcher) usage() int {
	fmt.Fprint(l.err, usage)
	return exitUsage
}

// done ends a command: with what it did, or with its error.
func (l *launcher) done(did string, err error) int {
	if err != nil {
		l.say("%v", err)
		return exitFailed
	}
	fmt.Fprintln(l.out, did)
	return 0
}

func (l *launcher) say(format string, a ...any) {
	fmt.Fprintf(l.err, "fulmar-launch: "+format+"\n", a...)
}

// runAgent starts the agent as its service does.
func (l *launcher) runAgent(args []string) int {
	if l.again() {
		return exitNothing
	}
	store := slot.Open(l.state)
	for range slot.MaxSlots {
		st, err := store.Begin()
		if err != nil {
			l.say("no start is counted: %v", err)
			break
		}
		if st.Current == "" {
			break
		}
		if st.Fall != nil && !st.Fall.Told {
			l.say("went back from slot %s to %s: %s", st.Fall.From, st.Fall.To, st.Fall.Reason)
		}
		err = l.start(store.Path(st.Current, slot.Agent), args, "")
		l.say("%v", err)
		if _, err = store.Back(st.Current, err.Error()); err != nil {
			l.say("%v", err)
			break
		}
	}
	return l.read(slot.Agent, args)
}

// read starts a program and writes nothing. Where the first choice cannot be started,
// the program is told what it runs instead of.
func (l *launcher) read(name string, args []string) int {
	if l.again() {
		return exitNothing
	}
	store := slot.Open(l.state)
	why := ""
	for _, id := range store.Order() {
		_, err := store.Get(id)
		if err == nil {
			err = l.start(store.Path(id, name), args, why)
		}
		why = err.Error()
		l.say("%s", why)
	}
	if why == "" {
		why = "there is no slot in " + l.state
	}
	l.say("%s: starting what the package brought, %s", why, l.seed)
	err := l.start(filepath.Join(l.seed, name), args, why)
	l.say("%v", err)
	l.say("nothing can be started: install the package fulmar-agent again (apt-get install --reinstall fulmar-agent)")
	return exitNothing
}

// start execs a program; it returns only where it cannot.
func (l *launcher) start(path string, args []string, why string) error {
	if err := program(path); err != nil {
		return err
	}
	env := slices.DeleteFunc(slices.Clone(l.env), func(v string) bool { return strings.HasPrefix(v, slot.LaunchEnv+"=") })
	env = append(env, fmt.Sprintf("%s=%d %s", slot.LaunchEnv, os.Getpid(), why))
	err := l.exec(path, append([]string{filepath.Base(path)}, args...), env)
	return fmt.Errorf("exec %s: %w", path, err)
}

// again tells that the launcher was started by itself: somebody put it into a slot.
func (l *launcher) again() bool {
	me := fmt.Sprintf("%s=%d ", slot.LaunchEnv, os.Getpid())
	if !slices.ContainsFunc(l.env, func(v string) bool { return strings.HasPrefix(v, me) }) {
		return false
	}
	l.say("the program of the slot is fulmar-launch itself: install the package fulmar-agent again")
	return true
}

// elfHead is how far an ELF file tells its machine: identification and e_machine.
const elfHead = 20

// program checks that a file is a program for this machine: a header of ELF with the
// same class and machine as the launcher's own. The kernel would run a script too, and
// with binfmt_misc another machine's program.
func program(path string) error {
	self, err := head("/proc/self/exe")
	if err != nil {
		return nil // no /proc: exec decides
	}
	got, err := head(path)
	switch {
	case err != nil:
		return err
	case string(got[:4]) != "\x7fELF":
		return fmt.Errorf("%s is no program (no ELF header)", path)
	case got[4] != self[4] || got[18] != self[18] || got[19] != self[19]:
		return fmt.Errorf("%s is a program for another machine", path)
	}
	return nil
}

func head(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, elfHead)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("%s is no program: %w", path, err)
	}
	return b, nil
}
