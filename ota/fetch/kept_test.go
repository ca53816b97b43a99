// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"fulmar/ota/release"
)

// TestKept: what is dropped stays for others within its bytes, the newest first, and is
// taken back without a word to anybody.
func TestKept(t *testing.T) {
	t.Parallel()
	const size = 3*release.Piece + 9
	var objs []release.Object
	var want [][]byte
	dir := t.TempDir()
	src := new(swap)
	f, err := New(Config{Dir: dir, Sources: []Source{src}, Keep: 2*size + 1000})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		b, o, tree := content(byte(40+i), size)
		src.Source = (&server{data: b, tree: tree}).source(t)
		if _, err := f.Fetch(within(t, time.Minute), o, nil); err != nil {
			t.Fatal(err)
		}
		if err := f.Drop(o); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(Paths(dir, o.Tree)[0]); err == nil {
			t.Error("a dropped object is still in use")
		}
		objs, want = append(objs, o), append(want, b)
		time.Sleep(10 * time.Millisecond) // by their times
	}
	for i, o := range objs {
		_, err := os.Stat(Paths(dir, o.Tree)[1])
		_, leaves := os.Stat(Paths(dir, o.Tree)[1] + LeavesSuffix)
		if (err == nil) != (i > 0) || i > 0 && leaves != nil {
			t.Errorf("object %d: %v, %v", i, err, leaves)
		}
	}
	src.Source = nil // whoever asks now panics
	path, err := f.Fetch(within(t, time.Minute), objs[2], nil)
	if err != nil {
		t.Fatal(err)
	}
	same(t, path, want[2])
	if err := f.Clear(); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, keptDir, "*")); len(left) > 0 {
		t.Errorf("cleared: %v", left)
	}
	if err := f.Drop(objs[2]); err != nil {
		t.Fatal(err)
	}
	// One that is to keep nothing removes what another kept.
	if _, err := New(Config{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, keptDir, "*")); len(left) > 0 {
		t.Errorf("kept for nobody: %v", left)
	}
}

// TestNotKept: a folder that cannot be used costs what was kept, not the object's end nor the
// start of a board.
func TestNotKept(t *testing.T) {
	t.Parallel()
	b, o, tree := content(50, release.Piece+9)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, keptDir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := New(Config{Dir: dir, Sources: []Source{(&server{data: b, tree: tree}).source(t)}, Keep: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Fetch(within(t, time.Minute), o, nil); err != nil {
		t.Fatal(err)
	}
	if err := f.Drop(o); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, o.Tree.String()+"*")); len(left) > 0 {
		t.Errorf("dropped: %v", left)
	}
}

type swap struct{ Source }

func (*swap) Name() string { return "swap" }
