// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package floor

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/agent/chip"
	"fulmar/tpm/tpmtest"
)

func keepers(t *testing.T) map[string]func() *Keeper {
	dir := t.TempDir()
	path := tpmtest.Start(t).Path()
	c := chip.New(path, dir, func() time.Duration { return time.Hour }, slog.New(slog.DiscardHandler))
	t.Cleanup(c.Close)
	return map[string]func() *Keeper{
		"tpm":  func() *Keeper { return New(c, filepath.Join(dir, "a"), func() bool { return true }) },
		"file": func() *Keeper { return New(c, filepath.Join(dir, "b"), func() bool { return false }) },
	}
}

func wants(t *testing.T, k *Keeper, want uint64) {
	t.Helper()
	if v, err := k.Floor(); err != nil || v != want {
		t.Errorf("%d, %v; wants %d", v, err, want)
	}
	if v, known, err := k.Known(); !known || err != nil || v != want {
		t.Errorf("known: %d, %v, %v; wants %d", v, known, err, want)
	}
}

// TestRises: by a commit and by what the fleet remembers, never down, over restarts.
func TestRises(t *testing.T) {
	for name, open := range keepers(t) {
		t.Run(name, func(t *testing.T) {
			k := open()
			wants(t, k, 0)
			for _, to := range []uint64{3, 3, 2, 7} {
				if err := k.Raise(to); err != nil {
					t.Fatal(to, err)
				}
			}
			wants(t, k, 7)
			wants(t, open(), 7)
		})
	}
}

// TestLost: a folder that is gone, or an older one, gives no floor and says what to do; a
// person's repair sets what the fleet remembers.
func TestLost(t *testing.T) {
	for name, open := range keepers(t) {
		t.Run(name, func(t *testing.T) {
			k := open()
			if err := k.Raise(3); err != nil {
				t.Fatal(err)
			}
			old := k.dir + ".old"
			if err := os.CopyFS(old, os.DirFS(k.dir)); err != nil {
				t.Fatal(err)
			}
			if err := k.Raise(5); err != nil {
				t.Fatal(err)
			}
			lost := func(what string) {
				t.Helper()
				if _, err := open().Floor(); !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), "repair-floor") {
					t.Errorf("%s: %v", what, err)
				}
				if err := open().Raise(9); !errors.Is(err, ErrLost) {
					t.Errorf("%s: raised: %v", what, err)
				}
			}
			if name == "tpm" { // of a file nothing can tell
				if err := errors.Join(os.Rename(k.dir, k.dir+".x"), os.Rename(old, k.dir)); err != nil {
					t.Fatal(err)
				}
				lost("an older folder")
				if err := os.RemoveAll(k.dir); err != nil {
					t.Fatal(err)
				}
				lost("no folder")
			} else {
				if err := os.WriteFile(filepath.Join(k.dir, "floor"), []byte("x"), 0o600); err != nil {
					t.Fatal(err)
				}
				lost("a damaged file")
			}
			k = open()
			if err := k.Repair(5); err != nil {
				t.Fatal(err)
			}
			wants(t, k, 5)
			wants(t, open(), 5)
		})
	}
}

// TestCut: a making that was cut at any file is finished, or made again.
func TestCut(t *testing.T) {
	dir := t.TempDir()
	c := chip.New(tpmtest.Start(t).Path(), dir, func() time.Duration { return time.Hour }, slog.New(slog.DiscardHandler))
	t.Cleanup(c.Close)
	k := New(c, filepath.Join(dir, "f"), func() bool { return true })
	if err := os.MkdirAll(k.begunDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	wants(t, k, 0) // begun, and no counter
	if err := os.Rename(k.tpmDir(), k.begunDir()); err != nil {
		t.Fatal(err)
	}
	wants(t, k, 0) // all but the name
}

// TestIntoTPM: a board whose key comes into a TPM keeps its floor.
func TestIntoTPM(t *testing.T) {
	k := keepers(t)["tpm"]()
	k.inTPM = func() bool { return false }
	if err := k.Raise(4); err != nil {
		t.Fatal(err)
	}
	k.inTPM = func() bool { return true }
	wants(t, k, 4)
}

// TestMoved: who takes the TPM out of the config does not get a new floor.
func TestMoved(t *testing.T) {
	all := keepers(t)
	k := all["tpm"]()
	if err := k.Raise(4); err != nil {
		t.Fatal(err)
	}
	k.inTPM = func() bool { return false }
	if _, err := k.Floor(); !errors.Is(err, ErrLost) {
		t.Error(err)
	}
}
