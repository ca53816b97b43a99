// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ort_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"fulmar/inference/enginetest"
	"fulmar/inference/model"
	"fulmar/inference/ort"
)

// open opens the library once for this test process.
var open = sync.OnceValues(func() (*ort.Runtime, error) { return ort.Open(os.Getenv("FULMAR_TEST_LIBRARY")) })

func library(t testing.TB) *ort.Runtime {
	t.Helper()
	t.Setenv("FULMAR_TEST_LIBRARY", enginetest.Library(t))
	r, err := open()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEngine(t *testing.T) {
	for _, threads := range []int{1, 2} {
		r := library(t)
		enginetest.Run(t, func(network []byte) (model.Engine, error) {
			return r.NewSession(network, ort.Options{Threads: threads})
		})
	}
}

func TestOpenOnce(t *testing.T) {
	r := library(t)
	if r.Version() != ort.Version {
		t.Errorf("version %s, the one pinned is %s", r.Version(), ort.Version)
	}
	if _, err := ort.Open(enginetest.Library(t)); !errors.Is(err, ort.ErrLibrary) || !strings.Contains(err.Error(), "already") {
		t.Errorf("second open: %v", err)
	}
}

func TestThreads(t *testing.T) {
	r := library(t)
	for _, n := range []int{-1, ort.MaxThreads + 1} {
		if _, err := r.NewSession(enginetest.Affine(enginetest.Dims{1}), ort.Options{Threads: n}); err == nil {
			t.Errorf("%d threads were taken", n)
		}
	}
	if _, err := r.NewSession([]byte("no network"), ort.Options{}); !errors.Is(err, ort.ErrModel) {
		t.Errorf("no network: %v, want %v", err, ort.ErrModel)
	}
}

// TestBadLibrary opens in child processes: this one may have the real library open.
func TestBadLibrary(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.so")
	if err := os.WriteFile(text, []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, path, want string }{
		{"missing", filepath.Join(dir, "none.so"), "no such file; run cross/ort/fetch"},
		{"folder", dir, "not a file"},
		{"text", text, "wants ONNX Runtime " + ort.Version},
		{"another library", compile(t, dir, "other", "int answer(void) { return 42; }"), "OrtGetApiBase"},
		{"old version", compile(t, dir, "old", oldRuntime), "wants ONNX Runtime " + ort.Version},
	} {
		t.Run(c.name, func(t *testing.T) {
			child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChildOpens$", "-test.v")
			child.Env = append(os.Environ(), "FULMAR_TEST_OPEN="+c.path)
			out, err := child.CombinedOutput()
			if err != nil {
				t.Fatalf("the process did not live through it: %v\n%s", err, out)
			}
			_, line, _ := strings.Cut(string(out), "refused: ")
			line, _, _ = strings.Cut(line, "\n")
			if !strings.Contains(line, c.want) || !strings.Contains(line, c.path) {
				t.Errorf("it says %q, want it to name the file and %q", line, c.want)
			}
		})
	}
}

// oldRuntime is the border of a library that does not know the API asked for.
const oldRuntime = `
typedef struct { const void *(*get_api)(unsigned); const char *(*get_version)(void); } base;
static const void *get_api(unsigned v) { return (void *)0; }
static const char *get_version(void) { return "1.2.0"; }
static const base b = { get_api, get_version };
const base *OrtGetApiBase(void) { return &b; }
`

func compile(t *testing.T, dir, name, source string) string {
	t.Helper()
	src, lib := filepath.Join(dir, name+".c"), filepath.Join(dir, name+".so")
	if err := os.WriteFile(src, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "cc", "-shared", "-fPIC", "-o", lib, src).CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	return lib
}

func TestChildOpens(t *testing.T) {
	path, ok := os.LookupEnv("FULMAR_TEST_OPEN")
	if !ok {
		t.Skip("only for TestBadLibrary")
	}
	_, err := ort.Open(path)
	if !errors.Is(err, ort.ErrLibrary) {
		t.Fatalf("open: %v, want %v", err, ort.ErrLibrary)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
	t.Logf("refused: %v", err)
}

// The library keeps no account of its uses and so has nothing to send to its makers.
func TestNoTelemetry(t *testing.T) {
	if home := os.Getenv("FULMAR_TEST_HOME"); home != "" { // the process that is looked at
		if _, err := library(t).NewSession(enginetest.Affine(enginetest.Dims{1}), ort.Options{Threads: 1}); err != nil {
			t.Fatal(err)
		}
		return
	}
	enginetest.Library(t) // or skip
	home := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestNoTelemetry$")
	cmd.Env = append(os.Environ(), "FULMAR_TEST_HOME="+home, "HOME="+home, "XDG_CACHE_HOME=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if left, err := os.ReadDir(home); err != nil || len(left) > 0 {
		t.Errorf("the library left %v in the home folder, %v", left, err)
	}
}
