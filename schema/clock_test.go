// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestClockKinds: a clock of the kernel takes what the kernel says at each look,
// also after a suspend that Go's monotonic time does not count; a simulated one
// goes with the bubble.
func TestClockKinds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := NewClock(7, time.Hour)
		time.Sleep(90 * time.Minute)
		if now := c.Now(); now.Boot != 7 || now.Mono != int64(150*time.Minute) {
			t.Errorf("simulated: %+v", now)
		}
		kernel := BootClock(7)
		if kernel.read == nil {
			if _, ok := bootTime(); ok {
				t.Fatal("the kernel tells CLOCK_BOOTTIME and is not asked")
			}
			t.Skip("this kernel does not tell CLOCK_BOOTTIME")
		}
		slept := int64(0)
		kernel.read = func() (int64, bool) { return int64(time.Hour) + slept, true }
		slept = int64(8 * time.Hour) // suspended: no time passes for Go
		if now := kernel.Now(); now.Mono != int64(9*time.Hour) {
			t.Errorf("after a suspend of 8 h: %v", time.Duration(now.Mono))
		}
		kernel.read = func() (int64, bool) { return 0, false }
		kernel.mono = int64(time.Hour)
		if now := kernel.Now(); now.Mono != int64(time.Hour) {
			t.Errorf("where the kernel falls silent: %v", time.Duration(now.Mono))
		}
	})
}

// TestBootClockIsTheKernels: real reads rise and are near what the kernel says.
func TestBootClockIsTheKernels(t *testing.T) {
	t.Parallel()
	before, ok := bootTime()
	if !ok {
		t.Skip("this kernel does not tell CLOCK_BOOTTIME")
	}
	now := BootClock(1).Now()
	after, _ := bootTime()
	if now.Mono < before || now.Mono > after || now.Boot != 1 {
		t.Errorf("%d is not between %d and %d", now.Mono, before, after)
	}
}

func TestWallOffset(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		t    Time
		want int64
	}{{Time{Mono: 5e9, Wall: 1_767_225_600_000}, 1_767_225_595_000}, {Time{Mono: 5e9}, -5000}} {
		if got := c.t.WallOffset(); got != c.want {
			t.Errorf("%+v: %d, want %d", c.t, got, c.want)
		}
	}
}
