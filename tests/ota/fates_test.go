// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ota

import (
	"math/rand/v2"
	"slices"
	"time"

	"fulmar/ota"
	"fulmar/ota/release"
)

// What a release turns out to be.
const (
	good    = iota
	sick    // a check says no after a minute
	hangs   // it never gets healthy
	flaky   // healthy for 20 s at a time
	crashes // it ends 20 s after each start
)

const (
	never    = 1000 * time.Hour
	deadline = 24 * time.Hour
	// minimum is how long a board has to be on, reachable, with space and with nothing in the way,
	// in all and before its deadline, for the promise that it is updated; the transfer is at
	// most 2 MiB.
	minimum = 45 * time.Minute
	// quiet is how many kills the promise bears: the launcher goes back after three starts on
	// trial, whoever ended them.
	quiet = 2
)

type kill struct {
	at    time.Duration
	power bool          // the whole board
	off   time.Duration // and how long it stays so
}

// fate is all that will happen to an update, drawn before it begins.
type fate struct {
	seed       uint64
	component  string
	kind       ota.Restart
	act        string
	release    int
	warmUp     time.Duration
	loss       float64
	partitions [][2]time.Duration
	kills      []kill
	fullUntil  time.Duration
	windowAt   time.Duration
	busyUntil  time.Duration
	clock      time.Duration // of the wall clock; -1: 1970
	needs      bool          // are unmet
	delta      int           // 0 none, 1 of what runs, 2 of something else
	badPatch   bool
	abortAt    time.Duration // 0 not
	undoAt     time.Duration // 0 not; after it has committed, or midway
	size       int
	epoch      uint64 // of the release; the board's floor is 3
}

func (f *fate) unmet(*release.Component) []string {
	if f.needs {
		return []string{"needs L4T 36.4 or later, has 35.4.1"}
	}
	return nil
}

// fateOf draws a fate. The shares are fixed: see the table of docs/updates.md.
func fateOf(seed uint64) fate {
	r := rand.New(rand.NewPCG(seed, 0x07a))
	chance := func(p float64) bool { return r.Float64() < p }
	span := func(a, b time.Duration) time.Duration { return a + time.Duration(r.Int64N(int64(b-a))) }
	f := fate{seed: seed, act: release.ActInstall, loss: 0.2 * r.Float64(), warmUp: span(0, 3*time.Minute), size: 40_000 + r.IntN(1_600_000), epoch: 7}
	switch r.IntN(10) {
	case 0, 1, 2:
		f.component, f.kind = "model/parcels", ota.RestartNone
		if chance(0.15) {
			f.act = release.ActShadow
		}
	case 3, 4:
		f.component, f.kind = "rootfs", ota.RestartMachine
	default:
		f.component, f.kind = "agent", ota.RestartProgram
	}
	if chance(0.2) {
		f.release = []int{sick, hangs, flaky, crashes, crashes}[r.IntN(5)]
	}
	switch {
	case chance(0.05):
		f.partitions = [][2]time.Duration{{span(0, time.Minute), never}}
	case chance(0.4):
		for range 1 + r.IntN(4) {
			at := span(0, 4*time.Hour)
			f.partitions = append(f.partitions, [2]time.Duration{at, at + span(5*time.Minute, 6*time.Hour)})
		}
	}
	if chance(0.5) {
		for range 1 + r.IntN(4) {
			k := kill{at: time.Duration(r.ExpFloat64() * float64(6*time.Minute)), power: chance(0.5)}
			if k.power {
				k.off = span(10*time.Second, 2*time.Hour)
			}
			f.kills = append(f.kills, k)
		}
		slices.SortFunc(f.kills, func(a, b kill) int { return int(a.at - b.at) })
	}
	blocked := func(p, ever float64, max time.Duration) time.Duration {
		switch {
		case chance(ever):
			return never
		case chance(p):
			return span(time.Minute, max)
		}
		return 0
	}
	f.fullUntil = blocked(0.1, 0.03, 6*time.Hour)
	f.windowAt = blocked(0.2, 0.02, 8*time.Hour)
	f.busyUntil = blocked(0.1, 0.01, 3*time.Hour)
	f.clock = []time.Duration{0, -1, 30 * 365 * 24 * time.Hour}[r.IntN(3)]
	f.needs = chance(0.03)
	f.delta = r.IntN(3)
	f.badPatch = chance(0.15)
	if chance(0.03) {
		f.abortAt = time.Duration(r.ExpFloat64() * float64(5*time.Minute))
	}
	switch {
	case chance(0.04):
		f.undoAt = time.Duration(r.ExpFloat64() * float64(5*time.Minute))
	case chance(0.1):
		f.undoAt = deadline + 6*time.Hour
		if chance(0.7) {
			f.epoch = 3 // else nobody goes back below it
		}
	}
	return f
}

// class is what may become of an update, by its fate alone.
type class struct {
	name    string
	outcome []string // words and reasons that may be its last; idle: the order never reached it
}

// classOf sorts a fate. The first that fits counts.
func classOf(f *fate) class {
	late := []string{"failed deadline", "failed no-space", "failed window", "failed busy"}
	with := func(more ...string) []string { return append(more, late...) }
	free := f.clearMinutes()
	switch {
	case f.partitions != nil && f.partitions[0][1] == never:
		return class{"unreachable from the first minute on", with("idle", "failed needs", "failed aborted", "failed undone", "rolled-back aborted", "rolled-back undone", "committed", "rolled-back health", "rolled-back launcher")}
	case f.needs:
		return class{"needs are not met", []string{"failed needs", "failed aborted", "failed undone"}}
	case f.abortAt > 0 || f.undoAt > 0 && f.undoAt < deadline:
		return class{"aborted, or taken back midway", with("idle", "committed", "failed aborted", "failed undone", "rolled-back aborted", "rolled-back undone", "rolled-back health", "rolled-back launcher", "failed loop")}
	case f.fullUntil == never:
		return class{"the disk is full for ever", []string{"failed no-space", "failed window"}}
	case f.windowAt == never || f.busyUntil == never:
		return class{"its hours never come, or work never ends", late}
	case free < minimum:
		return class{"less than the minimum reachable and free", with("committed", "rolled-back health", "rolled-back launcher", "failed loop")}
	case f.release != good && f.act == release.ActInstall:
		return class{"the release is bad", []string{"rolled-back health", "rolled-back launcher"}}
	case len(f.kills) > quiet:
		return class{"killed three or four times", []string{"committed", "rolled-back launcher", "failed loop"}}
	}
	return class{"promised: reachable, with space, and good", []string{"committed"}}
}

// clearMinutes is how long, before the deadline, the board is reachable with nothing in the way.
func (f *fate) clearMinutes() (sum time.Duration) {
	const step = time.Minute
	for at := time.Duration(0); at < deadline-time.Hour; at += step {
		clear := at >= f.fullUntil && at >= f.windowAt && at >= f.busyUntil
		for _, p := range f.partitions {
			clear = clear && (at < p[0] || at >= p[1])
		}
		for _, k := range f.kills {
			clear = clear && (at < k.at || at >= k.at+k.off)
		}
		if clear {
			sum += step
		}
	}
	return sum
}
