// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package build

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

const (
	niceness = 10
	// ioprioIdle is the idle class of ioprio_set(2): class 3 in the upper bits.
	ioprioIdle       = 3 << 13
	ioprioWhoProcess = 1
	// firstToGo is near the top of the kernel's scale of 1000: when the board runs out
	// of memory the build goes, not the worker or fulmard.
	firstToGo = 900
	// leastMemory is what a build needs at all.
	leastMemory = 1 << 30
)

// Humble makes this process low in priority for CPU and disk, the first to be killed
// when memory runs out, and bounds its memory; 0 stands for [Memory]. It is to be
// called first thing, before libraries are opened.
//
// The bound is RLIMIT_DATA: it counts what is private and writable, so heaps of C, C++
// and Go, and makes an allocation fail in the one process that asks too much.
// RLIMIT_AS would count address space, of which CUDA and Go reserve far more than they
// use. Memory that the GPU driver hands out is in neither; the workspace option bounds
// that.
func Humble(memory int64) error {
	if memory <= 0 {
		memory = Memory()
	}
	limit := syscall.Rlimit{Cur: uint64(memory), Max: uint64(memory)}
	return errors.Join(
		lower(),
		wrap("be first when memory runs out", os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(firstToGo)), 0)),
		wrap("bound memory", syscall.Setrlimit(syscall.RLIMIT_DATA, &limit)),
	)
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// lower sets the priorities of all threads there are. Both belong to a thread on
// Linux, and one made later has its maker's, so it is done until there is no news.
func lower() error {
	done := map[string]bool{}
	for news := true; news; {
		news = false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return wrap("lower priority", err)
		}
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil || done[t.Name()] {
				continue
			}
			done[t.Name()], news = true, true
			err = syscall.Setpriority(syscall.PRIO_PROCESS, tid, niceness)
			// EACCES or EPERM: we are nicer already, by our parent's choice.
			if err != nil && !errors.Is(err, syscall.ESRCH) && !errors.Is(err, syscall.EACCES) && !errors.Is(err, syscall.EPERM) {
				return wrap("lower priority", err)
			}
			_, _, errno := syscall.Syscall(syscall.SYS_IOPRIO_SET, ioprioWhoProcess, uintptr(tid), ioprioIdle)
			if errno != 0 && errno != syscall.ESRCH {
				return wrap("lower priority for the disk", errno)
			}
		}
	}
	return nil
}

// Memory is what a build may take: three quarters of what is free now, at least 1 GiB.
func Memory() int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return leastMemory
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), "MemAvailable:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			if err == nil {
				return max(leastMemory, kib<<10/4*3)
			}
		}
	}
	return leastMemory
}
