// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package lean keeps a small process small: it lets go of the memory and of the pages of its
// own program that were needed only once.
package lean

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// settle is when start, enrolment and the first connection are over.
	settle = 15 * time.Second
	// every is how often it is done again: a reconnect or a config reload touches a
	// few hundred pages. What is still in use comes back by minor faults, some
	// milliseconds in all.
	every = 10 * time.Minute
)

// Keep drops such pages until the context ends. It returns nil.
func Keep(ctx context.Context) error {
	t := time.NewTimer(settle)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			// The start's garbage first: the collector would keep its pages for growth that does
			// not come, and its own code is dropped after it.
			debug.FreeOSMemory()
			// Only memory is at stake: where the kernel does not play along nothing is lost.
			_, _ = Drop()
			t.Reset(every)
		}
	}
}

// Drop unmaps the resident pages of the program's code and constants from this
// process and gives their number of bytes as mapped. They are clean copies of the
// program's file: the kernel maps each again when it is used.
func Drop() (bytes uintptr, err error) {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return 0, fmt.Errorf("own program: %w", err)
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return 0, fmt.Errorf("own memory map: %w", err)
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		from, to, ok := readOnly(sc.Text(), exe)
		if !ok {
			continue
		}
		// Not writable and of our own file: a dropped page reads the same again.
		if err := unix.Madvise(unsafe.Slice((*byte)(pointer(from)), to-from), unix.MADV_DONTNEED); err != nil {
			return bytes, fmt.Errorf("drop pages of the program: %w", err)
		}
		bytes += to - from
	}
	return bytes, sc.Err()
}

// pointer makes a pointer of an address outside Go's heap.
func pointer(addr uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&addr)) }

// readOnly reads a line of /proc/self/maps; ok: it is a private mapping of exe that
// cannot be written.
func readOnly(line, exe string) (from, to uintptr, ok bool) {
	// 00400000-00e2c000 r-xp 00000000 08:01 1234  /usr/bin/fulmard
	f := strings.Fields(line)
	if len(f) < 6 || f[5] != exe || f[1] != "r-xp" && f[1] != "r--p" {
		return 0, 0, false
	}
	a, b, _ := strings.Cut(f[0], "-")
	x, err1 := strconv.ParseUint(a, 16, 64)
	y, err2 := strconv.ParseUint(b, 16, 64)
	return uintptr(x), uintptr(y), err1 == nil && err2 == nil && y > x
}
