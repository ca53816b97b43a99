// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package program

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/device/child"
	"fulmar/internal/exetest"
)

// TestMain is fulmard where a program is bounded.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == child.Word {
		os.Exit(child.Become(os.Args[2:], os.Stderr))
	}
	os.Exit(m.Run())
}

// TestProgram: the value goes in by its argument and comes back by the other program.
func TestProgram(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "o-program")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil { // the program's user writes there
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	self, set := filepath.Join(dir, "self"), filepath.Join(dir, "set")
	if err := exetest.Write(self, b, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := exetest.Write(set, []byte("#!/bin/bash\n[ \"$1\" = --to=7 ] && exit 5\n[ \"$1\" = --to=8 ] && sleep 60\necho \"${1#--to=}\" > \"$2\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Set: []string{set, "--to={value}", filepath.Join(dir, "value")}, Get: []string{"/bin/cat", filepath.Join(dir, "value")}, User: "nobody", MemoryMiB: 256}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	o := New("x", cfg, self)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, _, err := o.Get(ctx); err == nil {
		t.Error("a value before there was one")
	}
	for _, v := range []float64{0, 12.5, -3e-7} {
		if err := o.Set(ctx, v); err != nil {
			t.Fatal(err)
		}
		if got, known, err := o.Get(ctx); got != v || !known || err != nil {
			t.Error(got, known, err, "wants", v)
		}
	}
	if err := o.Set(ctx, 7); err == nil || !strings.Contains(err.Error(), "exit status 5") {
		t.Error(err)
	}
	short, stop := context.WithTimeout(ctx, 500*time.Millisecond)
	defer stop()
	if err := o.Set(short, 8); err == nil || !strings.Contains(err.Error(), "deadline") {
		t.Error(err)
	}
	cfg.Get = []string{"/bin/echo", "high"}
	if _, _, err := New("x", cfg, self).Get(ctx); err == nil || !strings.Contains(err.Error(), "wants a number") {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]Config{
		"set: wants": {}, "set: none of": {Set: []string{"/bin/true"}}, "absolute": {Set: []string{"true", Value}},
		"get: wants": {Set: []string{"/bin/true", Value}, Get: []string{"true"}}, "memory_mib": {Set: []string{"/bin/true", Value}, MemoryMiB: -1},
		"user: root": {Set: []string{"/bin/true", Value}, User: "root"},
	} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, wants %q", err, want)
		}
	}
}
