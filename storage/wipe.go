// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"fulmar/internal/atomicfile"
	"fulmar/storage/internal/disk"
	"fulmar/storage/vault"
)

// Wipe removes a spool for good, with what it holds. Its keys go first and are gone
// from the disk before anything else is touched, so that a wipe that is cut off leaves
// nothing to be read. It gives [ErrLocked] while a process has the spool open; where
// there is none it does nothing.
func Wipe(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	lock, err := disk.Lock(filepath.Join(dir, "lock"))
	if err != nil {
		return err
	}
	defer lock.Close() //nolint:errcheck // nothing was written to it
	ents, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("wipe spool: %w", err)
	}
	for _, e := range ents {
		if vault.Owns(e.Name()) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("wipe spool: %w", err)
			}
		}
	}
	if err := atomicfile.SyncDir(dir); err != nil {
		return fmt.Errorf("wipe spool: %w", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("wipe spool: %w", err)
	}
	return nil
}
