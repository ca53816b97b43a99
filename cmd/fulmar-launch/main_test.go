// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"fulmar/ota/slot"
)

// site is a state folder and what a package brought, with a kernel that only notes what
// it is to run.
type site struct {
	t     *testing.T
	dir   string
	ran   []string // path and arguments
	env   []string
	fails map[string]error // of a program by its version
	out   bytes.Buffer
	err   bytes.Buffer
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), fails: map[string]error{}}
	if err := os.Mkdir(s.dir+"/state", 0o755); err != nil {
		t.Fatal(err)
	}
	return s
}

// pack makes the package of a version.
func (s *site) pack(version string) {
	s.t.Helper()
	if err := os.MkdirAll(s.dir+"/seed", 0o755); err != nil {
		s.t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		s.t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"release": []byte(version + "\n"), slot.Agent: append(self[:64:64], version...), worker: append(self[:64:64], version...),
	} {
		if err := os.WriteFile(filepath.Join(s.dir, "seed", name), b, 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
}

// call runs the launcher with these arguments.
func (s *site) call(args ...string) int {
	s.ran, s.env = nil, nil
	s.out.Reset()
	s.err.Reset()
	l := launcher{
		state: s.dir + "/state", seed: s.dir + "/seed", env: []string{"A=b", slot.LaunchEnv + "=1 old"}, out: &s.out, err: &s.err,
		exec: func(path string, args, env []string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			version := string(b[64:])
			if err := s.fails[version]; err != nil {
				return err
			}
			s.ran, s.env = append([]string{version}, args...), env
			panic(started{})
		},
	}
	return l.to(args)
}

type started struct{}

// to is main, where an exec ends it.
func (l *launcher) to(args []string) (code int) {
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(started); !ok {
				panic(p)
			}
			code = 0
		}
	}()
	return l.main(args)
}

func (s *site) must(args ...string) {
	s.t.Helper()
	if code := s.call(args...); code != 0 {
		s.t.Fatalf("%v: %d\n%s", args, code, s.err.String())
	}
}

// upgrade installs versions, each confirmed but the last one.
func (s *site) upgrade(versions ...string) {
	s.t.Helper()
	for i, v := range versions {
		s.pack(v)
		s.must("fulmar-launch", "seed")
		if i < len(versions)-1 {
			s.must("fulmar-launch", "confirm")
		}
	}
}

func (s *site) wantRan(version string, args ...string) {
	s.t.Helper()
	if !slices.Equal(s.ran, append([]string{version}, args...)) {
		s.t.Errorf("ran %v, wants %s %v; said\n%s", s.ran, version, args, s.err.String())
	}
}

func (s *site) state() slot.State {
	s.t.Helper()
	st, _, err := slot.Open(s.dir + "/state").State()
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

func TestRun(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.upgrade("1.0", "2.0")
	s.call("fulmar-launch", "run", "fulmard", "run", "--config", "x")
	s.wantRan("2.0", "fulmard", "run", "--config", "x")
	if want := []string{"A=b", fmt.Sprintf("%s=%d ", slot.LaunchEnv, os.Getpid())}; !slices.Equal(s.env, want) {
		t.Errorf("environment %q, wants %q", s.env, want)
	}
	// Others count nothing.
	for range 5 {
		s.call("fulmar-launch", "run", "fulmar-infer", "--socket", "y")
		s.wantRan("2.0", "fulmar-infer", "--socket", "y")
		s.call("/usr/bin/fulmard", "version")
		s.wantRan("2.0", "fulmard", "version")
		s.call("fulmar-infer")
		s.wantRan("2.0", "fulmar-infer")
	}
	if n := s.state().Tries; n != 1 {
		t.Errorf("%d tries, wants 1", n)
	}
	s.call("fulmar-launch", "run", "fulmard")
	s.call("fulmar-launch", "run", "fulmard")
	s.wantRan("2.0", "fulmard")
	s.call("fulmar-launch", "run", "fulmard")
	s.wantRan("1.0", "fulmard")
	if !strings.Contains(s.err.String(), "went back from slot 2.0-") {
		t.Errorf("said %q", s.err.String())
	}
	s.call("fulmar-infer")
	s.wantRan("1.0", "fulmar-infer")
}

// TestExecFails: what the kernel refuses is gone back from at once.
func TestExecFails(t *testing.T) {
	t.Parallel()
	for _, errno := range []syscall.Errno{syscall.ENOENT, syscall.ENOEXEC, syscall.EACCES, syscall.ETXTBSY, syscall.ENOMEM, syscall.EIO, syscall.E2BIG} {
		s := newSite(t)
		s.upgrade("1.0", "2.0")
		s.fails["2.0"] = errno
		s.call("fulmar-launch", "run", "fulmard")
		s.wantRan("1.0", "fulmard")
		st := s.state()
		if !strings.HasPrefix(st.Current, "1.0-") || st.Trial || st.Fall == nil || !strings.Contains(st.Fall.Reason, errno.Error()) {
			t.Errorf("%v: %+v, %+v", errno, st, st.Fall)
		}
		// By name nothing is changed, and it runs all the same.
		s = newSite(t)
		s.upgrade("1.0", "2.0")
		s.fails["2.0"] = errno
		s.call("fulmard", "version")
		s.wantRan("1.0", "fulmard", "version")
		if st := s.state(); !strings.HasPrefix(st.Current, "2.0-") {
			t.Errorf("%v: a reader changed the choice to %s", errno, st.Current)
		}
	}
}

// TestNoProgram: a slot whose content is what was written, and no program for here.
func TestNoProgram(t *testing.T) {
	t.Parallel()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	other := slices.Clone(self[:80])
	other[18] ^= 0x55
	for name, b := range map[string][]byte{"script": []byte("#!/bin/sh\necho this is a script\n"), "other machine": other, "a byte": {0x7f}} {
		s := newSite(t)
		s.upgrade("1.0")
		s.must("fulmar-launch", "confirm")
		s.pack("2.0")
		if err := os.WriteFile(s.dir+"/seed/fulmard", b, 0o755); err != nil {
			t.Fatal(err)
		}
		s.must("fulmar-launch", "seed")
		s.call("fulmar-launch", "run", "fulmard")
		s.wantRan("1.0", "fulmard")
		if f := s.state().Fall; f == nil || !strings.HasPrefix(f.From, "2.0-") {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// TestLastResort: with a state that cannot be used something is started, and both the
// log and the program are told why.
func TestLastResort(t *testing.T) {
	t.Parallel()
	state := func(s *site) string { return s.dir + "/state" }
	for name, c := range map[string]struct {
		harm func(s *site) error
		runs string
	}{
		"no folder":           {func(s *site) error { return os.RemoveAll(state(s)) }, "seed"},
		"a file in its place": {func(s *site) error { return errors.Join(os.RemoveAll(state(s)), os.WriteFile(state(s), nil, 0o600)) }, "seed"},
		"empty":               {func(s *site) error { return errors.Join(os.RemoveAll(state(s)), os.Mkdir(state(s), 0o755)) }, "seed"},
		"a file for the slots": {func(s *site) error {
			return errors.Join(os.RemoveAll(state(s)+"/slots"), os.WriteFile(state(s)+"/slots", nil, 0o600))
		}, "seed"},
		"launch.json is a folder": {func(s *site) error {
			return errors.Join(os.Remove(state(s)+"/launch.json"), os.Mkdir(state(s)+"/launch.json", 0o755))
		}, "2.0"},
		"the lock is a folder": {func(s *site) error {
			return errors.Join(os.Remove(state(s)+"/.lock"), os.Mkdir(state(s)+"/.lock", 0o755))
		}, "2.0"},
		"every slot damaged": {func(s *site) error { s.fails["1.0"], s.fails["2.0"] = syscall.EIO, syscall.EIO; return nil }, "seed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.upgrade("1.0", "2.0")
			s.pack("seed")
			if err := c.harm(s); err != nil {
				t.Fatal(err)
			}
			s.call("fulmar-launch", "run", "fulmard", "run")
			s.wantRan(c.runs, "fulmard", "run")
			if s.err.Len() == 0 {
				t.Error("nothing was said")
			}
			_, why, _ := strings.Cut(s.env[len(s.env)-1], " ")
			if (why != "") != (c.runs == "seed") {
				t.Errorf("the program was told %q", s.env[len(s.env)-1])
			}
			s.call("fulmar-infer", "x")
			s.wantRan(c.runs, "fulmar-infer", "x")
			if err := os.RemoveAll(s.dir + "/seed"); err != nil {
				t.Fatal(err)
			}
			if code := s.call("fulmar-launch", "run", "fulmard"); s.ran == nil && (code != exitNothing || !strings.Contains(s.err.String(), "reinstall")) {
				t.Errorf("with nothing at all: %d, %s", code, s.err.String())
			}
		})
	}
}

// TestReadOnly: a state folder that cannot be written starts the current slot, uncounted.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.upgrade("1.0", "2.0")
	dir := s.dir + "/state"
	err := syscall.Mount(dir, dir, "", syscall.MS_BIND, "")
	if err == nil {
		t.Cleanup(func() { _ = syscall.Unmount(dir, 0) })
		err = syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, "")
	}
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("mount: %v", err)
	}
	s.call("fulmar-launch", "run", "fulmard")
	s.wantRan("2.0", "fulmard")
	if !strings.Contains(s.err.String(), "no start is counted") {
		t.Errorf("said %q", s.err.String())
	}
	if code := s.call("fulmar-launch", "seed"); code != exitFailed || s.out.Len() > 0 {
		t.Errorf("seed: %d, %s", code, s.out.String())
	}
}

// TestNotTheOwner: root writes nothing into a folder of another user.
func TestNotTheOwner(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("only root can give a folder away, and CI runs as root")
		}
		t.Skip("only root can give a folder away")
	}
	s := newSite(t)
	s.upgrade("1.0", "2.0")
	if err := os.Chown(s.dir+"/state", 65534, 65534); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"seed"}, {"confirm"}, {"back"}} {
		s.pack("3.0")
		if code := s.call(append([]string{"fulmar-launch"}, args...)...); code != exitFailed || !strings.Contains(s.err.String(), "runuser") {
			t.Errorf("%v: %d, %s", args, code, s.err.String())
		}
	}
	s.call("fulmar-launch", "run", "fulmard")
	s.wantRan("2.0", "fulmard")
	if st := s.state(); st.Tries != 0 || !st.Trial {
		t.Errorf("%+v", st)
	}
}

// TestItself: the launcher in a slot does not start itself for ever.
func TestItself(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.upgrade("1.0")
	var out bytes.Buffer
	l := launcher{
		state: s.dir + "/state", seed: s.dir + "/seed", out: &out, err: &out,
		env:  []string{fmt.Sprintf("%s=%d ", slot.LaunchEnv, os.Getpid())},
		exec: func(string, []string, []string) error { t.Error("started"); return nil },
	}
	if code := l.main([]string{"fulmard"}); code != exitNothing || !strings.Contains(out.String(), "itself") {
		t.Errorf("%d, %s", code, out.String())
	}
}

func TestWords(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.upgrade("1.0", "2.0")
	s.must("fulmar-launch", "status", "--json", "--verify")
	var r report
	if err := json.Unmarshal(s.out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(r.Current, "2.0-") || !r.Trial || len(r.Slots) != 2 || !r.Slots[1].Whole || r.Slots[1].Version != "1.0" || r.Slots[1].Origin != "deb" {
		t.Errorf("%+v", r)
	}
	s.must("fulmar-launch", "back", "it", "smokes")
	s.must("fulmar-launch", "status")
	for _, want := range []string{"current, confirmed", "went back from 2.0-", "it smokes"} {
		if !strings.Contains(s.out.String(), want) {
			t.Errorf("%q is not in\n%s", want, s.out.String())
		}
	}
	for _, bad := range [][]string{{}, {"run"}, {"run", "sh"}, {"walk"}, {"status", "x"}, {"seed", "--state"}, {"seed", "--what", "x"}, {"confirm", "x"}} {
		if code := s.call(append([]string{"fulmar-launch"}, bad...)...); code != exitUsage || !strings.Contains(s.err.String(), "usage:") {
			t.Errorf("%v: %d", bad, code)
		}
	}
	if code := s.call("fulmar-launch", "seed", "--from", s.dir+"/nothing"); code != exitFailed {
		t.Errorf("a seed that is not there: %d", code)
	}
	s.must("fulmar-launch", "status", "--state="+s.dir+"/nothing")
}

// TestSmall: static, the standard library and ours alone, 2,556,066 bytes when it was
// written (Go 1.26, arm64; the linker rounds to 64 KiB).
func TestSmall(t *testing.T) {
	t.Parallel()
	const most = 5 << 19
	path := filepath.Join(t.TempDir(), "launch")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, ".")
	cmd.Env = append(os.Environ(), "GOARCH=arm64", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Size() > most {
		t.Errorf("%d bytes, %v; at most %d", fi.Size(), err, most)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("it is not static")
		}
	}
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dep := range strings.FieldsSeq(string(out)) {
		if !strings.HasPrefix(dep, "fulmar/") {
			t.Errorf("it links %s", dep)
		}
	}
}
