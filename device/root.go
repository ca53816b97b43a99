// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package device

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// MaxKept is how many descriptors the files of one root keep open between
	// reads. A Jetson needs about 80; beyond the bound a file is opened for each
	// read, so an odd board gets slower and never runs out of descriptors.
	MaxKept = 256
	// MaxEntries is how many names of one folder are looked at. /sys/class folders
	// hold tens; the bound keeps a broken driver from filling the memory.
	MaxEntries = 1024
)

// Root is the folder below which the kernel's files are looked for: "/" on a
// board, a fake tree in tests. Paths given to it are always taken from there and
// cannot climb out with "..". Symbolic links are followed by the kernel: the tree
// is trusted, names inside it are not. Make one with [NewRoot].
type Root struct {
	dir  string
	kept *atomic.Int32
}

// NewRoot takes the folder, "" meaning "/".
func NewRoot(dir string) Root {
	if dir == "" {
		dir = "/"
	}
	return Root{dir: filepath.Clean(dir), kept: new(atomic.Int32)}
}

// Path gives the real path of p below the root.
func (r Root) Path(p string) string {
	return filepath.Join(r.dir, path.Clean("/"+p))
}

// Kept tells how many descriptors are open now.
func (r Root) Kept() int { return int(r.kept.Load()) }

// List gives the names in folder p, sorted, at most [MaxEntries]. A folder that
// is not there is an error wrapping fs.ErrNotExist.
func (r Root) List(p string) ([]string, error) {
	// O_DIRECTORY first: a plain open of a FIFO would wait for its writer.
	fd, err := unix.Open(r.Path(p), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", p, err)
	}
	d := os.NewFile(uintptr(fd), p)
	defer d.Close()
	names, err := d.Readdirnames(MaxEntries)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("list %s: %w", p, err)
	}
	slices.Sort(names)
	return names, nil
}

// Link gives where the symbolic link p points, as written in it.
func (r Root) Link(p string) (string, error) { return os.Readlink(r.Path(p)) }

// Exists tells whether p is there, without opening it.
func (r Root) Exists(p string) bool {
	var st unix.Stat_t
	return unix.Stat(r.Path(p), &st) == nil
}

// ReadOnce reads a small file that is needed once, at most limit bytes of it,
// without waiting for it.
func (r Root) ReadOnce(p string, limit int) ([]byte, error) {
	fd, err := unix.Open(r.Path(p), openFlags, 0)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", p, err)
	}
	defer unix.Close(fd)
	buf := make([]byte, limit)
	n := 0
	for n < limit {
		m, err := retryEINTR(func() (int, error) { return unix.Read(fd, buf[n:]) })
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", p, err)
		}
		if m <= 0 {
			break
		}
		n += m
	}
	return buf[:n], nil
}

func retryEINTR(f func() (int, error)) (int, error) {
	for range maxEINTR {
		if n, err := f(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
	return 0, unix.EINTR
}
