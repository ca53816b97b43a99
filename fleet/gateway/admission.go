// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"runtime"
	"sync"
	"time"

	"fulmar/fleet/ingest"
)

const (
	// perCore is how many boards a second and core may become sessions. A mutual TLS
	// handshake costs 0.4 ms, so this is not for the handshake: hello and presence are
	// commits, and each board that comes back brings a backlog, which one core takes
	// from some tens at a time.
	perCore = 50
	// patience is how far beyond its pace the door lets boards in at once: a site whose
	// network came back.
	patience = 2 * time.Second
	// maxAway bounds how long a board is asked to stay away; boards obey no more.
	maxAway = 15 * time.Minute
	// maxPromised bounds the boards that were given a time to come back.
	maxPromised = maxClients
	// minWindow and maxWindow bound the time over which boards spread reconnects.
	minWindow = 2 * time.Second
	maxWindow = time.Hour
	// censusEvery is how often the boards are counted.
	censusEvery = time.Minute
	// boardRate and boardBurst bound the messages of one board. A board of ours packs
	// up to 512 records into one, so this is 256,000 records a second; more is a fault
	// or an attack, and is slowed down by not being read.
	boardRate  = 500 // a second
	boardBurst = 1000
)

// Census is an [Admitter] that can count the boards it would let in.
type Census interface {
	Known(ctx context.Context) (int, error)
}

// meter lets events through at a rate, with a burst (a leaky bucket kept as the time
// at which it would be empty).
type meter struct {
	every time.Duration // between two events
	burst time.Duration // by how much they may be early
	empty time.Time
}

// take counts an event and tells how long it is early.
func (m *meter) take(now time.Time) time.Duration {
	if m.empty.Before(now) {
		m.empty = now
	}
	m.empty = m.empty.Add(m.every)
	return max(0, m.empty.Sub(now)-m.burst)
}

// door lets boards in at a pace; who comes too early is given a time of its own, so
// that thousands that come at once come back one after another.
type door struct {
	mu       sync.Mutex
	meter    meter
	promised map[ingest.BoardKey]time.Time
}

func newDoor() *door {
	rate := perCore * runtime.GOMAXPROCS(0)
	return &door{
		meter:    meter{every: time.Second / time.Duration(rate), burst: patience},
		promised: map[ingest.BoardKey]time.Time{},
	}
}

// ask gives how long the board should stay away; 0 lets it in.
func (d *door) ask(key ingest.BoardKey, now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at, ok := d.promised[key]; ok {
		if now.Before(at) {
			return at.Sub(now)
		}
		delete(d.promised, key) // its place was counted when it was promised
		return 0
	}
	wait := min(d.meter.take(now), maxAway)
	if wait == 0 {
		return 0
	}
	if len(d.promised) >= maxPromised {
		for k, at := range d.promised { // who did not come in time will be counted anew
			if at.Add(maxAway).Before(now) {
				delete(d.promised, k)
			}
		}
	}
	if len(d.promised) < maxPromised {
		d.promised[key] = now.Add(wait)
	}
	return wait
}

// window is the time over which the boards known should spread their reconnects, so
// that they come no faster than the door lets them in.
func (g *Gateway) window() time.Duration {
	boards := max(g.known(), int(g.n.connected.Load()))
	w := time.Duration(boards) * time.Second / time.Duration(perCore*runtime.GOMAXPROCS(0))
	return min(max(w, minWindow), maxWindow)
}

// known counts the boards that may connect, once in a while; after a restart none of
// them is connected, and all of them come.
func (g *Gateway) known() int {
	c, ok := g.admit.(Census)
	if !ok {
		return 0
	}
	g.mu.Lock()
	n, due := g.census.boards, time.Since(g.census.at) >= censusEvery
	if due {
		g.census.at = time.Now()
	}
	g.mu.Unlock()
	if !due {
		return n
	}
	ctx, cancel := context.WithTimeout(g.ctx, ingestTimeout)
	defer cancel()
	n, err := c.Known(ctx)
	if err != nil {
		g.log.Warn("boards not counted", "error", err.Error())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err == nil {
		g.census.boards = n
	}
	return g.census.boards
}

// slow makes a board that sends faster than its share wait; false when the gateway
// stops meanwhile. Its connection is not read from in that time, and no other's is
// concerned.
func (s *session) slow(ctx context.Context) bool {
	wait := s.rate.take(time.Now()) // packets of one connection come one after another
	if wait == 0 {
		return true
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
