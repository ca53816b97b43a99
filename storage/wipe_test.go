// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"fulmar/schema"
	"fulmar/storage"
)

// TestWipe: an open spool is left alone, a closed one goes with its keys, and nothing is
// no fault.
func TestWipe(t *testing.T) {
	t.Parallel()
	cfg, _ := encrypted(t)
	cfg.Dir = filepath.Join(cfg.Dir, "spool")
	s := open(t, cfg)
	fill(t, s, schema.ClassEvent, 1, 40)
	if err := storage.Wipe(cfg.Dir); !errors.Is(err, storage.ErrLocked) {
		t.Errorf("an open spool: %v", err)
	}
	if _, err := os.Stat(filepath.Join(cfg.Dir, "keys")); err != nil {
		t.Errorf("the keys of an open spool are gone: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := storage.Wipe(cfg.Dir); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(cfg.Dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the folder: %v", err)
		}
	}
}
