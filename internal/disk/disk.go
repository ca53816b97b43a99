// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package disk is everything that changes a folder, step by step, so that a test can stand
// between the steps and cut the power: what has to survive that (slots, the record of an
// update) writes through a [Disk]. Reading goes past it, by package os.
package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"fulmar/internal/atomicfile"
)

// Disk changes a folder. Nothing is durable before the Sync of its file and the SyncDir of
// the folder that holds its name.
type Disk interface {
	Mkdir(path string) error
	Create(path string, mode fs.FileMode) (File, error) // must not exist
	Open(path string) (File, error)                     // to change in place; must exist
	Rename(from, to string) error                       // within a folder
	Symlink(to, path string) error
	Link(from, to string) error // a second name for a file
	RemoveAll(path string) error
	SyncDir(path string) error
}

// File is one that is being written. Sync makes its content durable, not its name.
type File interface {
	io.WriteCloser
	io.WriterAt
	Sync() error
}

// OS is the disk of the machine.
type OS struct{}

// Mkdir implements [Disk]: mode 0755 whatever the umask, as the worker's user reads there.
func (OS) Mkdir(path string) error {
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	return os.Chmod(path, 0o755)
}

// Create implements [Disk]; the mode holds whatever the umask.
func (OS) Create(path string, mode fs.FileMode) (File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(mode); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Open implements [Disk]. Its Sync is an fdatasync, which is all that a change in place wants.
func (OS) Open(path string) (File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	return inPlace{f}, nil
}

// Rename implements [Disk].
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Symlink implements [Disk].
func (OS) Symlink(to, path string) error { return os.Symlink(to, path) }

// Link implements [Disk].
func (OS) Link(from, to string) error { return os.Link(from, to) }

// RemoveAll implements [Disk].
func (OS) RemoveAll(path string) error { return os.RemoveAll(path) }

// SyncDir implements [Disk].
func (OS) SyncDir(path string) error { return atomicfile.SyncDir(path) }

type inPlace struct{ *os.File }

// Sync implements [File].
func (f inPlace) Sync() error { return datasync(f.File) }

// Put writes a small file whole and makes its content durable, not its name. What was there
// under the name is gone first: to replace a file, put another name and rename it.
func Put(d Disk, path string, mode fs.FileMode, b []byte) error {
	if err := d.RemoveAll(path); err != nil {
		return err
	}
	f, err := d.Create(path, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Replace writes a small file so that there is the old one or the new one, whole, and
// durable when it returns. One writer at a time: the file beside it has one name.
func Replace(d Disk, path string, mode fs.FileMode, b []byte) error {
	dir, base := filepath.Split(filepath.Clean(path))
	tmp := filepath.Join(dir, "."+base+".new")
	if err := Put(d, tmp, mode, b); err != nil {
		return err
	}
	if err := d.Rename(tmp, path); err != nil {
		return err
	}
	return d.SyncDir(filepath.Dir(path))
}

// Free tells the bytes and files that whoever is not root may still write under dir, and
// the size of a block. files is negative where the file system has no bound of its own.
func Free(dir string) (bytes, files, block int64, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, 0, 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	block = max(int64(st.Bsize), 1)
	bytes = int64(min(st.Bavail, uint64(1)<<62/uint64(block))) * block
	if files = -1; st.Files > 0 {
		files = int64(min(st.Ffree, uint64(1)<<62))
	}
	return bytes, files, block, nil
}
