// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import "time"

// Clock tells [Time]. Mono is CLOCK_BOOTTIME at the clock's making plus Go's
// monotonic time since, so a step of the wall clock never moves it and simulated
// time in tests drives it. The zero Clock is of boot 0 and counts from 1970.
type Clock struct {
	boot  uint64
	mono  int64
	start time.Time
}

// NewClock makes a clock for the given boot (first 8 bytes of the kernel's boot
// id) whose Mono is mono nanoseconds now.
func NewClock(boot uint64, mono time.Duration) Clock {
	return Clock{boot: boot, mono: int64(mono), start: time.Now()}
}

// Now tells the time.
func (c Clock) Now() Time {
	now := time.Now()
	return Time{Boot: c.boot, Mono: c.mono + int64(now.Sub(c.start)), Wall: now.UnixMilli()}
}

// Boot tells the boot the clock belongs to.
func (c Clock) Boot() uint64 { return c.boot }
