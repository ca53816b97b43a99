// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package atomicfile replaces a file so that after a power loss there is either
// the old content or the new one, whole. It writes a temporary file in the same
// folder, fsyncs it, renames it and fsyncs the folder; without the last step the
// rename itself may be lost.
package atomicfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// WriteFile puts data at path with the given permissions (whatever the umask).
// When it returns nil, the content is on disk. When it returns an error, path
// holds what it held before, or, if only the last fsync failed, the new content.
func WriteFile(path string, data []byte, perm os.FileMode) error {
	return WriteFileGroup(path, data, perm, -1)
}

// WriteFileGroup is [WriteFile] for a file of a group, which root alone may give away:
// nobody sees the file without it. -1 leaves the writer's own.
func WriteFileGroup(path string, data []byte, perm os.FileMode, gid int) (err error) {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	f, err := os.CreateTemp(dir, "."+base+".tmp-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	tmp := f.Name()
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write %s: %w", path, err), ignoreGone(os.Remove(tmp)))
		}
	}()
	_, err = f.Write(data)
	if err == nil && gid >= 0 {
		err = f.Chown(-1, gid)
	}
	if err == nil {
		err = f.Chmod(perm) // after the change of group, which clears bits
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// SyncDir makes the names in a folder durable: what was created, renamed or
// removed there before the call survives a power loss after it.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("fsync folder: %w", err)
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("fsync folder %s: %w", dir, err)
	}
	return nil
}

func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
