// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// balloonBytes is enough for thousands of gap records.
	balloonBytes = 1 << 20
	// balloonFree is how much must be free before the balloon is blown up again:
	// taking the last room at once would only bring the next ENOSPC.
	balloonFree = 4 * balloonBytes
)

// balloon is a file whose only use is to be given up when the disk is full.
type balloon struct {
	path string
	mu   sync.Mutex
	held bool
}

// refill makes the file unless it is there or the disk has too little room.
func (b *balloon) refill() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held {
		return nil
	}
	f, err := os.OpenFile(b.path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
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
	if diskBytes(fi) < balloonBytes {
		if st.Bavail*uint64(st.Bsize) < balloonFree {
			return nil
		}
		if err := unix.Fallocate(int(f.Fd()), 0, 0, balloonBytes); err != nil {
			return fmt.Errorf("balloon: %w", err)
		}
	}
	b.held = true
	return nil
}

// release gives the room back and tells whether there was any.
func (b *balloon) release() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.held {
		return false
	}
	b.held = false
	return os.Truncate(b.path, 0) == nil
}

func (b *balloon) there() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held
}

// diskBytes is what a file takes on disk; bbolt's grow ahead of their content.
func diskBytes(fi fs.FileInfo) int64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return min(fi.Size(), st.Blocks*512)
	}
	return fi.Size()
}

// lockFile takes the spool for this process.
func lockFile(path string) (*os.File, error) {
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
