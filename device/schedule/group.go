// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schedule

import (
	"context"
	"time"

	"fulmar/device"
	"fulmar/schema"
)

// group is one group of the plan at work. All of it is its loop's goroutine's.
type group struct {
	s     *Scheduler
	plan  Group
	rules []OnChange
	jobs  []*job
	next  time.Time

	out      []device.Reading // used again each tick
	deadline *time.Timer
	mono     int64 // when the tick began, see Latest

	lastUp  time.Duration // at the last tick, see Deps.Uptime; 0 unknown
	lastNow time.Time
}

// loop ticks until ctx ends.
func (g *group) loop(ctx context.Context) error {
	g.deadline = time.NewTimer(time.Hour)
	g.deadline.Stop()
	t := time.NewTimer(time.Until(g.next))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			g.s.mu.Lock()
			g.s.phase[g.plan.Name] = phase{g.plan.Period, g.next}
			g.s.mu.Unlock()
			return nil
		case <-t.C:
		}
		g.slept(time.Now())
		g.tick(ctx)
		g.advance(time.Now())
		t.Reset(time.Until(g.next))
	}
}

// advance moves next to the first moment of the grid that is still to come and
// counts those that were passed over.
func (g *group) advance(now time.Time) {
	g.next = g.next.Add(g.plan.Period)
	if g.next.Before(now) {
		n := now.Sub(g.next)/g.plan.Period + 1
		g.s.missed.Add(uint64(n))
		g.next = g.next.Add(n * g.plan.Period)
	}
}

// slept counts the ticks that a suspend has swallowed since the last one.
func (g *group) slept(now time.Time) {
	if g.s.deps.Uptime == nil {
		return
	}
	up, err := g.s.deps.Uptime()
	if err != nil {
		g.lastUp = 0
		return
	}
	if asleep := up - g.lastUp - now.Sub(g.lastNow); g.lastUp > 0 && asleep >= g.plan.Period {
		g.s.missed.Add(uint64(asleep / g.plan.Period))
	}
	g.lastUp, g.lastNow = up, now
}

// tick reads all sensors of the group once and hands the batch over.
func (g *group) tick(ctx context.Context) {
	at, now := g.s.deps.Clock.Now(), time.Now()
	g.mono = at.Mono
	started := 0
	for _, j := range g.jobs {
		j.started = j.begin()
		if j.started {
			started++
		}
	}
	if started > 0 && !g.await(ctx) {
		return
	}
	g.out = g.out[:0]
	for _, j := range g.jobs {
		g.collect(j, now)
	}
	g.s.ticks.Add(1)
	for rest := g.out; len(rest) > 0; {
		n := cut(rest)
		g.s.records.Add(1)
		g.s.readings.Add(uint64(n))
		g.s.deps.Sink.Samples(at, pack(rest[:n]))
		rest = rest[n:]
	}
}

// await waits for the reads that were started, until the deadline. It tells false
// where ctx ended first.
func (g *group) await(ctx context.Context) bool {
	g.deadline.Reset(g.plan.deadline())
	defer g.deadline.Stop()
	for i, j := range g.jobs {
		if !j.started {
			continue
		}
		select {
		case <-j.done:
			j.finish()
		case <-ctx.Done():
			return false
		case <-g.deadline.C:
			for _, late := range g.jobs[i:] {
				if late.pending {
					late.expire()
				}
			}
			return true
		}
	}
	return true
}

// collect appends what the job has for this tick: its readings, or its known
// series as stale (not answering, or not started because too many are stuck) or
// as errors (panicked).
func (g *group) collect(j *job, now time.Time) {
	if !j.started || j.pending || j.failed {
		q := schema.QualityStale
		if j.started && !j.pending {
			q = schema.QualityError
		}
		if j.pending {
			j.expire() // counts it where it had not begun to run at its deadline
		}
		for i := range j.known {
			g.add(&j.known[i], 0, q, now)
		}
		return
	}
	j.learn(g.rules)
	for i := range j.readings {
		r := &j.readings[i]
		g.add(&j.known[i], r.Value, r.Quality, now)
	}
}

func (g *group) add(k *series, v float64, q schema.Quality, now time.Time) {
	if k.bad {
		g.s.refused.Add(1)
		return
	}
	n := len(g.out)
	g.out = device.Append(g.out, k.name, v, q)
	r := &g.out[n]
	g.s.deps.Latest.Put(k.name, r.Value, r.Quality, g.mono)
	if !k.due(now, r.Value, r.Quality) {
		g.out = g.out[:n]
		return
	}
	if r.Quality == schema.QualityStale {
		g.s.stale.Add(1)
	}
}
