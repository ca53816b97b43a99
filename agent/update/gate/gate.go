// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package gate tells whether a component that is on trial does its work: an [ota.Gate] over
// what a board knows of itself. Each answer has its sentence.
package gate

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"fulmar/inference/worker"
	"fulmar/ota"
	"fulmar/ota/release"
)

const (
	// dip is how long a check that held may fail and still count: a reconnect, a late
	// frame, one look while a disk is slow.
	dip = 10 * time.Second
	// sure is how long what cannot mend itself has to be seen before it is the end: longer
	// than a worker takes to load another model after it has refused one.
	sure = 15 * time.Second
	// quiet is how long the sampler may make no tick, beside what its plan says.
	quiet = 15 * time.Second
	// drained is how many records may wait without being a backlog: two windows of the link.
	drained = 128
	// drainLook is how long the fleet may take no record while a backlog waits.
	drainLook = time.Minute
	// settle is how long frame rates are not looked at after a model came up: they are means
	// over 5 s, and the first frames of a model are its slowest.
	settle = 10 * time.Second
	// memoryRoom is what a new program may take more than the one before it, and memoryLeast
	// what every one may: two and a half times the budget of a busy board.
	memoryRoom, memoryLeast = 24 << 20, 40 << 20
)

// Reading is how a board is at one moment.
type Reading struct {
	Ticks     uint64        // of the sampler
	TickEvery time.Duration // its slowest period
	Boot      uint64        // of the machine
	Linked    bool          // it has a fleet or a broker to speak to
	Up        bool          // and does
	Waiting   uint64        // records that were not acknowledged
	Acked     uint64        // records that were, in this life
	Worker    bool          // one is to run
	Heard     bool          // and spoke lately
	Models    []worker.ModelStatus
	Cameras   []worker.CameraStatus
	// Throttled is how many throttle alerts are on; -1 where that is not known.
	Throttled int
	Memory    int64 // resident bytes of fulmard
}

// Config is what a gate looks at.
type Config struct {
	Read func() Reading
	// Path is the folder of a model's package that is to run, "" where it is not known: what
	// a worker says of another one is of before the switch.
	Path func(model string) string
	Now  func() time.Time // monotonic
}

// Gate judges one component at a time. Safe for use by many goroutines.
type Gate struct {
	cfg Config

	mu        sync.Mutex
	component string
	checks    map[string]*held
	ticks     uint64
	tickAt    time.Time
	acked     uint64
	ackedAt   time.Time
	readyAt   time.Time // the component's models
	badSince  time.Time
}

// held is how one check stood.
type held struct {
	good bool
	last time.Time // when it last held
}

// New makes a gate.
func New(cfg Config) *Gate {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Gate{cfg: cfg}
}

// before is what is compared with, as the machine's record keeps it.
type before struct {
	Up        bool    `json:"up"`
	Boot      uint64  `json:"boot"`
	FPS       float64 `json:"fps"` // of the component's cameras, in all
	Throttled int     `json:"throttled"`
	Memory    int64   `json:"memory"`
}

// Before implements [ota.Gate].
func (g *Gate) Before(component string) []byte {
	r := g.cfg.Read()
	b, err := json.Marshal(before{Up: r.Up, Boot: r.Boot, FPS: rate(r.Cameras), Throttled: r.Throttled, Memory: r.Memory})
	if err != nil {
		return nil
	}
	return b
}

// rate is the frames of all cameras that are looked at in a second. One whose camera failed
// before is no fault of a model.
func rate(all []worker.CameraStatus) (sum float64) {
	for _, c := range all {
		if c.State == "running" {
			sum += c.FPS
		}
	}
	return sum
}

// answer is what one check says.
type answer struct {
	ok      bool
	hard    bool // it does not mend itself
	unknown bool // it cannot be told yet: what held before is of something else
	why     string
}

// Look implements [ota.Gate]. A check that held and fails is borne for dip; what does not
// mend itself ends the trial after sure; all else is waited for, as long as the machine does.
func (g *Gate) Look(component string, h release.Health, notes []byte) (ota.Verdict, string) {
	h = h.With(component)
	var was before
	if err := json.Unmarshal(notes, &was); err != nil {
		was = before{Throttled: -1} // a record without notes: nothing is compared
	}
	r, now := g.cfg.Read(), g.cfg.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.component != component {
		g.component, g.checks = component, map[string]*held{}
		g.tickAt, g.ackedAt, g.readyAt, g.badSince = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	}
	g.note(&r, now)
	var waits []string
	hard := ""
	for _, check := range h.Checks {
		a := g.check(check, component, &h, &was, &r, now)
		c := g.checks[check]
		if c == nil {
			c = &held{}
			g.checks[check] = c
		}
		switch {
		case a.ok:
			c.good, c.last = true, now
		case a.hard:
			hard = join(hard, a.why)
			c.good = false
		case c.good && !a.unknown && now.Sub(c.last) < dip:
		default:
			c.good = false
			waits = append(waits, a.why)
		}
	}
	a := g.memory(&was, &r) // of every component: fulmard is what all hangs on
	if !a.ok {
		hard = join(hard, a.why)
	}
	if hard == "" {
		g.badSince = time.Time{}
	} else if g.badSince.IsZero() {
		g.badSince = now
	}
	switch {
	case hard != "" && (now.Sub(g.badSince) >= sure || !a.ok && r.Memory > 2*most(&was)):
		return ota.Bad, hard
	case hard != "":
		return ota.Wait, hard
	case len(waits) > 0:
		return ota.Wait, strings.Join(waits, "; ")
	}
	return ota.Good, "all of " + strings.Join(h.Checks, ", ") + " hold"
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// note follows what moves.
func (g *Gate) note(r *Reading, now time.Time) {
	if r.Ticks != g.ticks || g.tickAt.IsZero() {
		g.ticks, g.tickAt = r.Ticks, now
	}
	if r.Acked != g.acked || g.ackedAt.IsZero() {
		g.acked, g.ackedAt = r.Acked, now
	}
}

func (g *Gate) check(name, component string, h *release.Health, was *before, r *Reading, now time.Time) answer {
	switch name {
	case release.CheckProcess:
		if late := now.Sub(g.tickAt); late > max(quiet, 2*r.TickEvery) || r.Ticks == 0 {
			return answer{why: fmt.Sprintf("the sampler has made no tick for %v", late.Round(time.Second))}
		}
	case release.CheckLink:
		if was.Up && !r.Up {
			return answer{why: "the link, which was up before, is down"}
		}
	case release.CheckDrain:
		if was.Up && r.Waiting > drained && now.Sub(g.ackedAt) > drainLook {
			return answer{why: fmt.Sprintf("%d records wait and the fleet has taken none for %v", r.Waiting, now.Sub(g.ackedAt).Round(time.Second))}
		}
		if was.Up && !r.Up {
			return answer{why: fmt.Sprintf("%d records wait for the link", r.Waiting)}
		}
	case release.CheckGolden:
		return g.golden(component, r, now)
	case release.CheckRate:
		return g.rate(h, was, r, now)
	case release.CheckThrottle:
		if old := max(was.Throttled, 0); r.Throttled > old {
			return answer{why: fmt.Sprintf("the board throttles: %d alerts, %d before", r.Throttled, old)}
		}
	case release.CheckBoot:
		if was.Boot != 0 && r.Boot == was.Boot {
			return answer{why: "the machine has not started anew"}
		}
	default:
		return answer{why: fmt.Sprintf("this program does not know the check %s", name)}
	}
	return answer{ok: true}
}

// golden holds where the component's models have passed their golden pictures and the gate
// of accuracy, which a worker sees to before it calls one ready.
func (g *Gate) golden(component string, r *Reading, now time.Time) answer {
	model, one := strings.CutPrefix(component, "model/")
	if !r.Worker {
		return answer{why: "no inference worker runs on this board, so nothing proves the model"}
	}
	if !r.Heard {
		return answer{why: "the inference worker is not heard of"}
	}
	found := false
	for _, m := range r.Models {
		if one && m.Name != model {
			continue
		}
		if path := g.cfg.Path; one && path != nil && m.Path != "" && path(model) != "" && m.Path != path(model) {
			continue // it still tells of the package before
		}
		found = true
		switch m.State {
		case "ready":
		case "refused":
			g.readyAt = time.Time{}
			return answer{hard: true, why: "model " + m.Name + " was refused: " + m.Error}
		default:
			g.readyAt = time.Time{}
			return answer{unknown: true, why: "model " + m.Name + " is " + m.State}
		}
	}
	if one && !found {
		g.readyAt = time.Time{}
		return answer{unknown: true, why: "the inference worker does not tell of model " + model + " yet; is it in the board's config?"}
	}
	if g.readyAt.IsZero() {
		g.readyAt = now
	}
	return answer{ok: true}
}

// rate holds where as many frames are looked at as before, by the share that the release
// asks for.
func (g *Gate) rate(h *release.Health, was *before, r *Reading, now time.Time) answer {
	if was.FPS <= 0 {
		return answer{ok: true} // nothing was looked at
	}
	if proven := slices.Contains(h.Checks, release.CheckGolden); proven && now.Sub(g.readyAt) < settle || proven && g.readyAt.IsZero() {
		return answer{unknown: true, why: "the frame rate is not known yet"}
	}
	if fps := rate(r.Cameras); fps < h.RateMin*was.FPS {
		return answer{why: fmt.Sprintf("%.1f frames a second, %.1f before: wants at least %.0f %%", fps, was.FPS, 100*h.RateMin)}
	}
	return answer{ok: true}
}

// memory holds where fulmard does not grow without bound.
func (g *Gate) memory(was *before, r *Reading) answer {
	if r.Memory > most(was) {
		return answer{hard: true, why: fmt.Sprintf("fulmard takes %d MiB of memory, %d before, wants at most %d", r.Memory>>20, was.Memory>>20, most(was)>>20)}
	}
	return answer{ok: true}
}

// most is the memory that fulmard may take. At twice of it nothing is waited for: the
// kernel's bound is near, and what it kills tells no reason.
func most(was *before) int64 { return max(was.Memory+memoryRoom, memoryLeast) }

// Resident is the memory of this process in bytes, 0 where it is not known.
func Resident() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if f := strings.Fields(string(b)); err == nil && len(f) > 1 {
		n, _ := strconv.ParseInt(f[1], 10, 64) // of the kernel
		return n * int64(os.Getpagesize())
	}
	return 0
}
