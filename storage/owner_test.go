// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"

	"fulmar/schema"
	"fulmar/storage"
	"fulmar/storage/storagetest"
)

// ownedBy is the config of a spool of a board; no name is one that does not know it.
func ownedBy(dir, board string) storage.Config {
	cfg := small(dir)
	cfg.Owner = board
	return cfg
}

// hostage makes a closed spool of dock-1 with three events and gives its files.
func hostage(t *testing.T) (dir string, files map[string]string) {
	t.Helper()
	dir = t.TempDir()
	s := open(t, ownedBy(dir, "dock-1"))
	fill(t, s, schema.ClassEvent, 1, 3)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, content(t, dir)
}

func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, glob := range []string{"*", "*/*"} {
		paths, err := filepath.Glob(filepath.Join(dir, glob))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			if b, err := os.ReadFile(p); err == nil {
				files[p] = string(b)
			}
		}
	}
	return files
}

func untouched(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	now := content(t, dir)
	for path, b := range now {
		if old, there := files[path]; !there || old != b {
			t.Errorf("%s was changed or made", path)
		}
	}
	if len(now) != len(files) {
		t.Errorf("%d files, there were %d", len(now), len(files))
	}
}

// TestSpoolOfAnotherBoard: it is not sent, not touched and counts as no bad start; the
// board works from memory, says why each time, and takes its own disk when it is there.
func TestSpoolOfAnotherBoard(t *testing.T) {
	t.Parallel()
	dir, files := hostage(t)
	for range 5 { // more than the guard allows to end badly
		s := open(t, ownedBy(dir, "dock-2"))
		why := s.Stats().Memory
		for _, want := range []string{"another board", `"dock-1"`, `"dock-2"`, dir, "fulmar spool export"} {
			if !strings.Contains(why, want) {
				t.Errorf("it works from memory because %q, which does not say %s", why, want)
			}
		}
		if err := s.Claim("dock-2"); err != nil { // what it reads is its own
			t.Error(err)
		}
		if _, err := s.Append(t.Context(), schema.ClassAlarm, []byte("mine")); err != nil {
			t.Error(err)
		}
		if got := storagetest.Drain(t, s, schema.ClassEvent); len(got) != 0 {
			t.Errorf("%d events of dock-1 are given to dock-2", len(got))
		}
		_ = s.Close() // it tells of the alarm that is lost with the memory
	}
	untouched(t, dir, files)
	s := open(t, ownedBy(dir, "dock-2"))
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir + ".away") })
	storage.RetryDisk(t.Context(), s)
	if why := s.Stats().Memory; why != "" {
		t.Errorf("the folder is moved away and the spool stays in memory: %s", why)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if why := open(t, ownedBy(dir, "dock-1")).Stats().Memory; !strings.Contains(why, `"dock-2"`) {
		t.Errorf("the new folder is not dock-2's: %q", why)
	}
	if got := storagetest.Drain(t, open(t, ownedBy(dir+".away", "dock-1")), schema.ClassEvent); len(got) != 3 {
		t.Errorf("dock-1 has %d of its 3 events", len(got))
	}
}

// TestNameComesLater: a spool without an owner is used at once, one with an owner when
// the name is known; with another name it is left alone for good.
func TestNameComesLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, n := range map[string]int{"dock-1": 3, "dock-2": 0} {
			dir, files := hostage(t)
			cfg := ownedBy(dir, "")
			told := make(chan error, 4)
			cfg.OnMemory = func(why error) { told <- why }
			s := start(t, cfg)
			hear := func() error {
				select {
				case why := <-told:
					return why
				case <-time.After(30 * time.Second): // the next try of its own comes after a minute
					t.Fatal("the owner of the spool is told nothing")
				}
				return nil
			}
			if why := s.Stats().Memory; !strings.Contains(why, "no name yet") || !strings.Contains(why, `"dock-1"`) {
				t.Errorf("works from memory because %q", why)
			}
			_ = hear()
			if err := s.Claim(name); err != nil {
				t.Error(err)
			}
			why := hear()
			if got := len(storagetest.Drain(t, s, schema.ClassEvent)); got != n || (why == nil) != (n > 0) || n == 0 && !errors.Is(why, storage.ErrOwner) {
				t.Errorf("%s reads %d events of dock-1, want %d; told %v", name, got, n, why)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if n == 0 {
				untouched(t, dir, files)
			}
		}
	})
}

// TestOldSpoolIsTaken: one that names nobody, or nobody any more, is this board's.
func TestOldSpoolIsTaken(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(path string) error{
		"no owner":        os.Remove,
		"a damaged owner": func(path string) error { return os.WriteFile(path, []byte("dock-3 00000000\n"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, _ := hostage(t)
			if err := spoil(filepath.Join(dir, "owner")); err != nil {
				t.Fatal(err)
			}
			s := open(t, ownedBy(dir, "dock-2"))
			if got := storagetest.Drain(t, s, schema.ClassEvent); len(got) != 3 || s.Stats().Foreign != 0 {
				t.Errorf("%d of 3 events, %d foreign files", len(got), s.Stats().Foreign)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if why := open(t, ownedBy(dir, "dock-1")).Stats().Memory; !strings.Contains(why, `"dock-2"`) {
				t.Errorf("it is not dock-2's: %q", why)
			}
		})
	}
}

// TestOwnerThatCannotBe is a fault of the config, not of the disk.
func TestOwnerThatCannotBe(t *testing.T) {
	t.Parallel()
	if _, err := storage.Open(ownedBy(t.TempDir(), "Dock 1")); err == nil {
		t.Error("a name that no board may have was taken")
	}
}

// newer makes a file's version one that is not known, with the sum that fits.
func newer(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	ofVersion(b, 8)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// ofVersion puts an unknown version at b[at], and makes the CRC at the end fit.
func ofVersion(b []byte, at int) {
	b[at] = 99
	binary.LittleEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[:len(b)-4], crc32.MakeTable(crc32.Castagnoli)))
}

// newerSegment does the same to the newest segment of the events alone.
func newerSegment(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "event", "*.db"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	db, err := bolt.Open(files[len(files)-1], 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		h := tx.Bucket([]byte("h"))
		b := slices.Clone(h.Get([]byte("h")))
		ofVersion(b, 0)
		return h.Put([]byte("h"), b)
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestNewerSpoolIsNoBadStart: however often an old program is started on it, a newer
// spool is refused as what it is, and its count of starts stays.
func TestNewerSpoolIsNoBadStart(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(t *testing.T, dir string){
		"meta":    func(t *testing.T, dir string) { newer(t, filepath.Join(dir, "metric", "meta.b")) },
		"keyring": func(t *testing.T, dir string) { newer(t, filepath.Join(dir, "keys")) },
		"segment": newerSegment,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, _ := encrypted(t)
			s := open(t, cfg)
			fill(t, s, schema.ClassEvent, 1, 3)
			cfg.Dir = crashed(t, cfg.Dir) // one bad start
			spoil(t, cfg.Dir)
			before, err := os.ReadFile(filepath.Join(cfg.Dir, "starts"))
			if err != nil {
				t.Fatal(err)
			}
			for n := range 5 {
				if _, err := storage.Open(cfg); !errors.Is(err, storage.ErrNewer) {
					t.Fatalf("start %d: %v, want ErrNewer", n+1, err)
				}
			}
			if now, err := os.ReadFile(filepath.Join(cfg.Dir, "starts")); err != nil || string(now) != string(before) {
				t.Errorf("starts say %q, before them %q", now, before)
			}
			// Also where the last starts did end badly.
			if err := os.WriteFile(filepath.Join(cfg.Dir, "starts"), []byte("7 3"), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err = storage.Open(cfg)
			if name != "segment" {
				if !errors.Is(err, storage.ErrNewer) {
					t.Errorf("after bad starts: %v, want ErrNewer", err)
				}
				return
			}
			if err != nil { // the guard does not let anybody look into it now
				t.Fatal(err)
			}
			storage.RetryDisk(t.Context(), s)
			if why := s.Stats().Memory; !strings.Contains(why, "newer version") {
				t.Errorf("works from memory because %q", why)
			}
		})
	}
}
