// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

var _ Floor = (*FileFloor)(nil)

func openFloor(t *testing.T, dir string) *FileFloor {
	t.Helper()
	f, err := OpenFileFloor(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func at(t *testing.T, f *FileFloor, want uint64) {
	t.Helper()
	if n, err := f.Floor(); err != nil || n != want {
		t.Fatalf("floor %d %v, wants %d", n, err, want)
	}
}

func TestFloorRises(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "floor")
	f := openFloor(t, dir)
	at(t, f, 0)
	for _, n := range []uint64{3, 3, 1 << 63} {
		if err := f.Raise(n); err != nil {
			t.Fatal(err)
		}
		at(t, f, n)
		at(t, openFloor(t, dir), n)
	}
	if err := f.Raise(7); !errors.Is(err, ErrRollback) {
		t.Errorf("lowered: %v", err)
	}
	at(t, openFloor(t, dir), 1<<63)
	for _, name := range []string{floorFile, floorKey} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, st.Mode(), err)
		}
	}
}

// TestFloorPowerCuts: whatever part of a raise reached the disk, the floor is the old
// one or the new one, and never below the one before.
func TestFloorPowerCuts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := openFloor(t, dir)
	if err := f.Raise(4); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, floorFile)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Raise(5); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	order := []int{0, floorSlot}
	for cut := range 2 * floorBytes {
		image := append([]byte{}, before...)
		first, second := order[0], order[1]
		n := min(cut, floorBytes)
		copy(image[first:first+n], after[first:])
		if cut > floorBytes {
			copy(image[second:second+cut-floorBytes], after[second:])
		}
		if err := os.WriteFile(path, image, 0o600); err != nil {
			t.Fatal(err)
		}
		f := openFloor(t, dir)
		got, err := f.Floor()
		want := uint64(4)
		if cut >= floorBytes {
			want = 5
		}
		// A slot whose MAC is not whole yet does not count. One byte of a record may be
		// what it was before.
		if err != nil || got != want && !(cut < floorBytes && got == 5) {
			t.Fatalf("cut after %d bytes: %d %v, wants %d", cut, got, err, want)
		}
		// Opening has mended the other slot.
		mended, err := os.ReadFile(path)
		if err != nil || string(mended[:floorBytes]) != string(mended[floorSlot:floorSlot+floorBytes]) {
			t.Fatalf("cut after %d bytes: the slots differ after opening: %v", cut, err)
		}
	}
}

func TestFloorDamage(t *testing.T) {
	t.Parallel()
	make5 := func(t *testing.T) string {
		dir := t.TempDir()
		if err := openFloor(t, dir).Raise(5); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	flip := func(t *testing.T, dir, name string, at int) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		b[at] ^= 1
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(t *testing.T, dir, name string) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		do   func(t *testing.T, dir string)
		want error
	}{
		"one slot":    {func(t *testing.T, dir string) { flip(t, dir, floorFile, 10) }, nil},
		"other slot":  {func(t *testing.T, dir string) { flip(t, dir, floorFile, floorSlot+20) }, nil},
		"both slots":  {func(t *testing.T, dir string) { flip(t, dir, floorFile, 10); flip(t, dir, floorFile, floorSlot+20) }, ErrTampered},
		"key":         {func(t *testing.T, dir string) { flip(t, dir, floorKey, 0) }, ErrTampered},
		"short key":   {func(t *testing.T, dir string) { _ = os.Truncate(filepath.Join(dir, floorKey), 31) }, ErrTampered},
		"no key":      {func(t *testing.T, dir string) { remove(t, dir, floorKey) }, ErrTampered},
		"no record":   {func(t *testing.T, dir string) { remove(t, dir, floorFile) }, ErrTampered},
		"cut":         {func(t *testing.T, dir string) { _ = os.Truncate(filepath.Join(dir, floorFile), 100) }, nil},
		"cut to zero": {func(t *testing.T, dir string) { _ = os.Truncate(filepath.Join(dir, floorFile), 0) }, ErrTampered},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := make5(t)
			f := openFloor(t, dir)
			c.do(t, dir)
			again, err := OpenFileFloor(dir)
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, wants %v", err, c.want)
			}
			if c.want == nil {
				at(t, again, 5)
			} else if name != "no key" && name != "key" && name != "short key" { // an open one has its key
				if err := f.Raise(6); !errors.Is(err, ErrTampered) {
					t.Errorf("raised all the same: %v", err)
				}
			}
		})
	}
	// A creation that was cut before its key is made anew.
	dir := t.TempDir()
	openFloor(t, dir)
	remove(t, dir, floorKey)
	at(t, openFloor(t, dir), 0)
}
