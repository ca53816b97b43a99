// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// putAll writes files below a folder.
func putAll(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUpdates: drop-ins that came over the air go over the file and under those beside it, and
// may not say which board this is.
func TestUpdates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, air := filepath.Join(dir, "fulmard.yaml"), filepath.Join(dir, "data", "config")
	putAll(t, dir, map[string]string{
		"fulmard.yaml":         "data: " + filepath.Join(dir, "data") + "\nboard: b1\nlog: {level: warn}\ninfer: {threads: 1}\n",
		"fulmard.d/local.yaml": "infer: {threads: 3}\n",
	})
	putAll(t, air, map[string]string{
		"1.0-0123456789abcdef/all.yaml": "log: {level: debug}\ninfer: {threads: 2, max_batch: 4}\n", "2.0-0123456789abcdef/all.yaml": "log: {level: error}\n",
	})
	if UpdateDir(path) != filepath.Join(air, "current") {
		t.Fatal(UpdateDir(path))
	}
	want := func(level string, batch int) {
		t.Helper()
		c, err := Load(path)
		if err != nil || c.Log.Level != level || c.Infer.Threads != 3 || c.Infer.MaxBatch != batch || c.Board != "b1" {
			t.Fatalf("%v, %+v", err, c)
		}
	}
	want("warn", Default().Infer.MaxBatch)
	if err := os.Symlink("1.0-0123456789abcdef", filepath.Join(air, "current")); err != nil {
		t.Fatal(err)
	}
	want("debug", 4)
	if files, err := Files(path); err != nil || len(files) != 3 || filepath.Base(files[1]) != "all.yaml" {
		t.Errorf("%v, %v", files, err)
	}
	next, err := With(path, filepath.Join(air, "2.0-0123456789abcdef"))
	if err != nil || next.Log.Level != "error" || next.Infer.MaxBatch != Default().Infer.MaxBatch {
		t.Errorf("%v, %+v", err, next)
	}
	if none, err := With(path, ""); err != nil || none.Log.Level != "warn" {
		t.Errorf("%v, %+v", err, none)
	}
	if err := KeepLastGood(path, mustLoad(t, path)); err != nil {
		t.Error(err)
	}
	for name, text := range map[string]string{
		"board": "board: b2\n", "data": "data: /tmp\n", "key": "key: {kind: file}\n", "tpm": "{tpm: {}}\n", "<<": "<<: {board: x}\n",
		"unknown key": "bored: b2\n", "line 2": "log:\n  - no\n", "threads": "infer: {threads: 900}\nboard_: 1\n",
	} {
		bad := filepath.Join(air, "bad")
		putAll(t, bad, map[string]string{"x.yaml": text})
		if _, err := With(path, bad); err == nil || name != "threads" && !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "x.yaml") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func mustLoad(t *testing.T, path string) *Config {
	t.Helper()
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
