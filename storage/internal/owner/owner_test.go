// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fulmar/schema"
)

func TestReadWrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if board, err := Read(dir); board != "" || err != nil {
		t.Errorf("a folder without the file: %q, %v", board, err)
	}
	for i, board := range []string{"dock-1", strings.Repeat("b", schema.MaxName)} {
		if err := Write(dir, board, i == 0); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(dir); got != board || err != nil {
			t.Errorf("%q, %v; want %q", got, err, board)
		}
	}
	if err := Write(dir, "Dock 1", true); err == nil {
		t.Error("a name that no board may have was taken")
	}
}

// TestFormat pins the file: boards in the field have it.
func TestFormat(t *testing.T) {
	t.Parallel()
	if got := string(encode("dock-1")); got != "dock-1 b807883a\n" {
		t.Errorf("%q", got)
	}
}

func TestDamage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, good := filepath.Join(dir, Name), encode("dock-1")
	put := func(b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if board, err := Read(dir); board != "" || !errors.Is(err, ErrDamaged) {
			t.Errorf("%q reads as %q, %v", b, board, err)
		}
	}
	for i := range good {
		put(good[:i])
		b := append([]byte(nil), good...)
		b[i] ^= 1
		put(b)
	}
	put(append(good, 'x'))
	put([]byte(strings.Repeat("x", 1<<20)))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/hostname", path); err != nil {
		t.Fatal(err)
	}
	if board, err := Read(dir); board != "" || err == nil {
		t.Errorf("a link to elsewhere reads as %q, %v", board, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode("dock-1"))
	f.Add([]byte(" \n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		board, ok := decode(b)
		if ok && (schema.CheckBoard(board) != nil || string(encode(board)) != string(b)) {
			t.Errorf("%q reads as %q", b, board)
		}
	})
}
