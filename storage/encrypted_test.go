// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"fulmar/schema"
	"fulmar/storage"
	"fulmar/storage/storagetest"
	"fulmar/storage/vault"
)

func encrypted(t *testing.T) (storage.Config, string) {
	t.Helper()
	key := filepath.Join(t.TempDir(), "spool.key")
	cfg := small(t.TempDir())
	return withKey(t, cfg, key), key
}

func withKey(t *testing.T, cfg storage.Config, key string) storage.Config {
	t.Helper()
	h, err := vault.OpenKeyFile(key)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Holder = h
	return cfg
}

// TestConformanceEncrypted: a spool with keys keeps all that one without does.
func TestConformanceEncrypted(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "spool.key")
	storagetest.Run(t, func(t *testing.T, dir string) storagetest.Spool {
		return open(t, withKey(t, small(dir), key))
	})
}

// TestNothingInClear looks for records in all bytes of the disk.
func TestNothingInClear(t *testing.T) {
	t.Parallel()
	secret := []byte("the recipe of the house")
	find := func(cfg storage.Config) (n int) {
		s := open(t, cfg)
		for _, c := range schema.Classes() {
			for range 50 {
				if _, err := s.Append(t.Context(), c, secret); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		err := filepath.WalkDir(cfg.Dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			n += bytes.Count(b, secret[:10])
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := find(small(t.TempDir())); n < 200 {
		t.Fatalf("the search finds %d of 200 records in a plain spool", n)
	}
	cfg, _ := encrypted(t)
	if n := find(cfg); n != 0 {
		t.Errorf("%d records lie in the clear", n)
	}
}

// TestKeyLost: the board goes on with a new key, and what the old one encrypted is
// told as lost by that name.
func TestKeyLost(t *testing.T) {
	t.Parallel()
	cfg, key := encrypted(t)
	s := open(t, cfg)
	for _, c := range schema.Classes() {
		fill(t, s, c, 1, 40)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	s = open(t, withKey(t, cfg, key))
	if st := s.Stats().Keys; st == nil || len(st.Lost) != 1 {
		t.Errorf("the lost key is not told: %+v", st)
	}
	var a account
	a.take(t, s)
	a.complete(t, s)
	for _, c := range []schema.Class{schema.ClassEvent, schema.ClassMetric, schema.ClassSnapshot} {
		g := a.gap(c, 40)
		if g == nil || g.Reason != schema.ReasonKeyLost || len(a.records[c]) != 0 {
			t.Errorf("%s: %d records, the last one is told as %+v", c, len(a.records[c]), g)
		}
	}
	if _, err := s.Append(t.Context(), schema.ClassEvent, []byte("new")); err != nil {
		t.Error(err)
	}
	if got := storagetest.Drain(t, s, schema.ClassEvent); len(got) != 1 {
		t.Errorf("%d events after it", len(got))
	}
}

// TestFromPlainToEncrypted: a spool that lay in the clear is read on, and what is
// new is encrypted.
func TestFromPlainToEncrypted(t *testing.T) {
	t.Parallel()
	cfg := small(t.TempDir())
	s := open(t, cfg)
	fill(t, s, schema.ClassEvent, 1, 40)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, withKey(t, cfg, filepath.Join(t.TempDir(), "k")))
	fill(t, s, schema.ClassEvent, 41, 80)
	if got := storagetest.Drain(t, s, schema.ClassEvent); len(got) != 80 {
		t.Errorf("%d events, want 80", len(got))
	}
}
