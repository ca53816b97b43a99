// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"fulmar/internal/disk"
)

// lockWait bounds how long a start waits for a change that is going on: changes of the
// state take milliseconds, and a board that does not start helps nobody.
const (
	lockWait  = 2 * time.Second
	lockCheck = 10 * time.Millisecond
)

// lock takes one of the folder's lock files; the returned function gives it back. The
// kernel gives it back if the process dies.
func (s *Store) lock(name string, wait time.Duration) (unlock func(), err error) {
	path := filepath.Join(s.dir, name)
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the slots: %w", err)
	}
	for end := time.Now().Add(wait); ; time.Sleep(lockCheck) {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) || time.Now().After(end) {
			return nil, errors.Join(fmt.Errorf("lock the slots: %s is held by another process: %w", path, err), f.Close())
		}
	}
}

// NoSpaceError says that a slot does not fit.
type NoSpaceError struct {
	Dir     string
	Missing int64 // bytes
	Inodes  bool  // it is the number of files that is used up, not the bytes
}

func (e *NoSpaceError) Error() string {
	if e.Inodes {
		return fmt.Sprintf("no space for a slot in %s: the disk can take no more files; remove some and try again", e.Dir)
	}
	return fmt.Sprintf("no space for a slot in %s: %d KiB more are needed; free them and try again", e.Dir, (e.Missing+1023)/1024)
}

// Unwrap makes it an ENOSPC for errors.Is.
func (e *NoSpaceError) Unwrap() error { return syscall.ENOSPC }

// Reserve is what stays free beside a new slot: the state has to be written after it,
// and the spool of the same disk is not to run into its end by an update.
const Reserve = 4 << 20

// space checks that so many bytes in so many files fit under dir.
func space(dir string, bytes int64, files int) error {
	free, inodes, block, err := disk.Free(dir)
	if err != nil {
		return err
	}
	if need := bytes + int64(files)*block + Reserve; need > free {
		return &NoSpaceError{Dir: dir, Missing: need - free}
	}
	if inodes >= 0 && inodes < int64(files) {
		return &NoSpaceError{Dir: dir, Inodes: true}
	}
	return nil
}

// ownerOf is the user id of a file's owner, -1 where the system has none.
func ownerOf(fi fs.FileInfo) int {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return -1
	}
	return int(st.Uid)
}
