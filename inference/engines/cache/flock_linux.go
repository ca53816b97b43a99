// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// errHeld says that somebody else holds a lock.
var errHeld = errors.New("held by another process")

// flock opens a file or folder and locks it; the lock ends with the file or the
// process. With LOCK_NB it gives errHeld instead of waiting.
func flock(path string, flags int, how int) (*os.File, error) {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = errHeld
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

// lockPoll is how often a lock that may be held for minutes is tried.
const lockPoll = 200 * time.Millisecond

// flockWait waits for an exclusive lock until the context ends. waiting (may be nil)
// is called once if it has to wait.
func flockWait(ctx context.Context, path string, waiting func()) (*os.File, error) {
	for {
		f, err := flock(path, os.O_RDWR|os.O_CREATE, syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil || !errors.Is(err, errHeld) {
			return f, err
		}
		if waiting != nil {
			waiting()
			waiting = nil
		}
		t := time.NewTimer(lockPoll)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		case <-t.C:
		}
	}
}
