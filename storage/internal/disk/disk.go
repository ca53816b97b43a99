// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package disk holds what the spool needs of the file system besides its own
// files: a reserve for when it is full, a lock, sizes and errors.
package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLocked says that another process holds the lock.
var ErrLocked = errors.New("spool is in use by another process")

const (
	// lockWait bounds the wait for another process to let go of the lock: long
	// enough for the end of a restarting fulmard's fsync, short for an operator.
	lockWait = 1500 * time.Millisecond
	// balloonBytes is enough for thousands of gap records.
	balloonBytes = 1 << 20
	// balloonStep is what one commit of a few alarms or gaps takes.
	balloonStep = 64 << 10
	// balloonFree is how much must be free before the balloon is blown up again:
	// taking the last room at once would only bring the next ENOSPC.
	balloonFree = 4 * balloonBytes
	// lowBytes and lowShare say when a disk is low: journals, updates and a person
	// who logs in need some room, too.
	lowBytes, lowShare = 64 << 20, 20
)

// Balloon is a file whose only use is to be given up when the disk is full, step by
// step: what one commit does not use of a step, others on the board may take.
type Balloon struct {
	Path string
	mu   sync.Mutex
	left int64 // bytes that the file takes
}

// Refill makes the file whole unless the disk has too little room.
func (b *Balloon) Refill() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left == balloonBytes {
		return nil
	}
	f, err := os.OpenFile(b.Path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("balloon: %w", err)
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("balloon: %w", err)
	}
	fi, err := f.Stat()
	if err != nil {
		return fmt.Errorf("balloon: %w", err)
	}
	if b.left = min(Bytes(fi), balloonBytes); b.left < balloonBytes && st.Bavail*uint64(st.Bsize) >= balloonFree {
		return b.fill(f, balloonBytes)
	}
	return nil
}

// fill makes the file take so many bytes.
func (b *Balloon) fill(f *os.File, bytes int64) error {
	if err := unix.Fallocate(int(f.Fd()), 0, 0, bytes); err != nil {
		return fmt.Errorf("balloon: %w", err)
	}
	b.left = bytes
	return nil
}

// Return puts back up to so many bytes of what was released, on a disk where they were
// just made free.
func (b *Balloon) Return(bytes int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if bytes = min(bytes, balloonBytes-b.left); bytes <= 0 {
		return nil
	}
	f, err := os.OpenFile(b.Path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("balloon: %w", err)
	}
	defer f.Close()
	return b.fill(f, b.left+bytes)
}

// Release gives a step of the room back and tells whether there was any. half: only
// down to the half, which is for gap records: where none can be written, nothing can
// give way.
func (b *Balloon) Release(half bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left == 0 || half && b.left <= balloonBytes/2 {
		return false
	}
	b.left = max(0, b.left-balloonStep)
	return os.Truncate(b.Path, b.left) == nil
}

// Held tells whether any of the reserve is there.
func (b *Balloon) Held() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.left > 0
}

// Low tells whether the disk has less room left than the rest of the board should
// have: 64 MiB, or a twentieth of a small one.
func Low(dir string) bool {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return false // whoever writes next will hear of it
	}
	size := uint64(st.Bsize)
	return st.Bavail*size < min(lowBytes, st.Blocks*size/lowShare)
}

// Bytes is what a file takes on disk; bbolt's grow ahead of their content.
func Bytes(fi fs.FileInfo) int64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return min(fi.Size(), st.Blocks*512)
	}
	return fi.Size()
}

// Lock takes the spool for this process.
func Lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("spool lock: %w", err)
	}
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if errors.Is(err, unix.EWOULDBLOCK) && time.Since(start) < lockWait {
			continue
		}
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s is held; stop the other fulmard first", ErrLocked, path)
		}
		return nil, fmt.Errorf("spool lock %s: %w", path, err)
	}
}

// Full tells whether the error is that of a full disk. bbolt turns some of
// them into text.
func Full(err error) bool {
	return err != nil && (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) ||
		strings.Contains(err.Error(), unix.ENOSPC.Error()))
}

// Failed tells whether the error is that of a disk that takes or gives nothing any
// more: read only, broken, gone. bbolt turns some of them into text.
func Failed(err error) bool {
	if err == nil || Full(err) {
		return false
	}
	for _, no := range []unix.Errno{unix.EIO, unix.EROFS, unix.ENODEV, unix.ENXIO, unix.ENOMEDIUM, unix.EUCLEAN, unix.ESHUTDOWN} {
		if errors.Is(err, no) || strings.Contains(err.Error(), no.Error()) {
			return true
		}
	}
	return strings.Contains(err.Error(), "isn't correctly mapped") // bbolt, after a failed mmap
}
