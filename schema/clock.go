// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import "time"

// Clock tells [Time]. A step of the wall clock never moves Mono. There are two
// kinds: [BootClock] reads the kernel's CLOCK_BOOTTIME each time and so counts a
// suspend; [NewClock] counts with Go's monotonic time from a given start, which
// simulated time in tests drives. The zero Clock is of boot 0 and counts from 1970.
type Clock struct {
	boot  uint64
	mono  int64 // at start, nanoseconds
	start time.Time
	read  func() (int64, bool) // CLOCK_BOOTTIME; nil: count from start
	wall  func() time.Time     // nil: time.Now
}

// NewClock makes a clock for the given boot (first 8 bytes of the kernel's boot
// id) whose Mono is mono nanoseconds now and goes with Go's monotonic time: it
// stands still while the machine is suspended.
func NewClock(boot uint64, mono time.Duration) Clock {
	return Clock{boot: boot, mono: int64(mono), start: time.Now()}
}

// BootClock makes the clock of the running kernel: Mono is CLOCK_BOOTTIME, read at
// each Now. Where the kernel does not tell it, it counts from 0 at its making.
func BootClock(boot uint64) Clock {
	c := NewClock(boot, 0)
	if mono, ok := bootTime(); ok {
		c.mono, c.read = mono, bootTime
	}
	return c
}

// WithWall gives a clock whose wall time is another's; Mono stays as it was. So a
// test turns the wall clock under parts that run.
func (c Clock) WithWall(wall func() time.Time) Clock {
	c.wall = wall
	return c
}

// Now tells the time.
func (c Clock) Now() Time {
	now := time.Now()
	t := Time{Boot: c.boot, Wall: now.UnixMilli()}
	if c.wall != nil {
		t.Wall = c.wall().UnixMilli()
	}
	if c.read != nil {
		if mono, ok := c.read(); ok {
			t.Mono = mono
			return t
		}
	}
	t.Mono = c.mono + int64(now.Sub(c.start))
	return t
}

// Boot tells the boot the clock belongs to.
func (c Clock) Boot() uint64 { return c.boot }

// WallOffset is the board's wall clock less its monotonic clock, ms: what its
// wall clock says was the moment of boot. It moves only when the wall clock is set.
func (t Time) WallOffset() int64 { return t.Wall - t.Mono/int64(time.Millisecond) }
