// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package child

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"fulmar/internal/exetest"
)

// TestMain is fulmard where the test runs itself as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Word {
		os.Exit(Become(os.Args[2:], os.Stderr))
	}
	os.Exit(m.Run())
}

// script is a program in a folder that its user may enter.
func script(t *testing.T, text string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "o-child")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "program")
	if err := exetest.Write(path, []byte("#!/bin/bash\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// self is the test's own program, where nobody may read it too.
func self(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	path := script(t, "")
	if err := exetest.Write(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func runIt(t *testing.T, text, stdin string, timeout time.Duration, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	p := Program{Self: self(t), Path: script(t, text), Args: args, Stdin: []byte(stdin), Limits: Limits{MemoryMiB: 256, CPUs: 1, Output: 1000}, User: "nobody"}
	out, err := p.Run(ctx)
	return string(out), err
}

func TestWhatItSees(t *testing.T) {
	t.Parallel()
	out, err := runIt(t, "cat; echo \"$# $1 $2\"; ulimit -v; ulimit -t; ulimit -n; ulimit -c; id -un; grep NoNewPrivs /proc/self/status; pwd; env | grep -vE '^(PWD|SHLVL|_)=' | sort", "in\n", 10*time.Second, "a b", "$(id);*")
	want := "in\n2 a b $(id);*\n262144\n1\n64\n0\nnobody\nNoNewPrivs:\t1\n/\nLANG=C.UTF-8\nPATH=/usr/local/bin:/usr/bin:/bin\n"
	if os.Geteuid() != 0 {
		want = strings.Replace(want, "nobody", os.Getenv("USER"), 1)
	}
	if err != nil || out != want {
		t.Errorf("%v\n%s\nwants\n%s", err, out, want)
	}
}

func TestEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		want string
	}{
		"code":   {"echo no valve here >&2; exit 3", "exit status 3: no valve here"},
		"silent": {"exit 1", "exit status 1"},
		"time":   {"sleep 60", "was ended"},
		"said":   {"for i in {1..1000}; do echo too much of it; done; sleep 60", "said more than it may"},
		"cpu":    {"while :; do :; done", "signal: killed"},
		"memory": {"tail -n 1 /dev/zero", "exit status"}, // one line without an end: hundredths of a second
		"file":   {"head -c 40000000 /dev/zero > /tmp/o-child-$$; r=$?; rm -f /tmp/o-child-$$; exit $r", "exit status"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun := time.Now()
			limit := 30 * time.Second // a busy machine gives a second of its processor slowly
			if name == "time" {
				limit = time.Second
			}
			_, err := runIt(t, c.text, "", limit)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, wants %q", err, c.want)
			}
			if took := time.Since(begun); name == "time" && took > 10*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestNothingLeft: what a program leaves running ends with it, and does not hold it up.
func TestNothingLeft(t *testing.T) {
	t.Parallel()
	out, err := runIt(t, "sleep 300 & echo $!", "", 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if errors.Is(err, os.ErrNotExist) || strings.Contains(string(b), ") Z ") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d goes on: %s", pid, b)
		}
	}
}

func TestNeverRoot(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("wants root, and CI runs as root")
		}
		t.Skip("wants root")
	}
	for _, user := range []string{"", "root", "nobody-of-this-name"} {
		p := Program{Self: self(t), Path: "/bin/true", Limits: Limits{256, 1, 10}, User: user}
		if _, err := p.Run(t.Context()); err == nil {
			t.Errorf("ran as %q", user)
		}
	}
}
