// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"context"
	"math/bits"
	"time"

	"fulmar/internal/bucket"
	"fulmar/internal/run"
	"fulmar/ota/release"
	"fulmar/schema"
	"fulmar/schema/ota"
)

const (
	// A pass waits at a piece while more than one board in slowShare has not taken those
	// before: as long as they get fewer (it is this server that is slow) within patience,
	// and maxPatience in all. One slow board does not slow the others.
	patience    = 500 * time.Millisecond
	maxPatience = 10 * time.Second
	slowShare   = 20
	lookAgain   = 2 * time.Millisecond
	// maxLinger is how many lingers a pass is put off at most while boards still come.
	maxLinger = 5
	// mostMissing: boards that have more than half of an object get no pass over it.
	mostMissing = 2
	// spreadEach and maxSpread are over what time boards ask for what they miss when a pass
	// is over.
	spreadEach = time.Millisecond
	maxSpread  = 5 * time.Second
	// slack is what is added to the time that a board is told to wait: it hears when the
	// pass is over.
	slack = time.Second
)

// gathering is boards that want the same, before and during a pass over it.
type gathering struct {
	group
	size    int64
	begins  time.Time // put off with each board that comes
	latest  time.Time // but no further
	running bool
	until   time.Time       // when it is over, as far as can be told
	boards  map[string]bool // nil while it runs
	missing []uint64        // pieces that one of them misses
}

// gather has a board wait for a pass; false where there is none for it.
func (c *Caster) gather(key target, w *ota.Want, size int64, missing int) bool {
	k := group{key.tenant, key.tree}
	o := release.Object{Size: size}
	now := time.Now()
	c.mu.Lock()
	g := c.gathering[k]
	if g != nil && g.running {
		wait := max(g.until.Sub(now), 0) + slack
		c.mu.Unlock()
		c.hold(key, wait, w.ID)
		return true
	}
	if missing*mostMissing <= o.Pieces() || now.Sub(c.board(key.boardKey).waited[key.tree]) < aloneFor {
		c.mu.Unlock()
		return false
	}
	if g == nil {
		g = &gathering{group: k, size: size, latest: now.Add(maxLinger * c.cfg.Linger), boards: map[string]bool{}, missing: make([]uint64, (o.Pieces()+63)/64)}
		c.gathering[k] = g
		poke(c.ready)
	}
	if g.begins = now.Add(c.cfg.Linger); g.begins.After(g.latest) {
		g.begins = g.latest
	}
	g.boards[key.board] = true
	for at, b := range w.Missing {
		for ; b != 0; b &= b - 1 {
			if i := int(w.From) + at*8 + bits.TrailingZeros8(b); i < o.Pieces() {
				g.missing[i/64] |= 1 << (i % 64)
			}
		}
	}
	wait := max(g.begins.Sub(now), 0) + slack
	c.mu.Unlock()
	c.hold(key, wait, w.ID)
	return true
}

// passes begins the passes that are due.
func (c *Caster) passes(ctx context.Context, group *run.Group) error {
	slots := make(chan struct{}, maxPasses)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		g, wait := c.due(time.Now())
		if g == nil {
			timer.Reset(wait)
			select {
			case <-ctx.Done():
				return nil
			case <-c.ready:
			case <-timer.C:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case slots <- struct{}{}:
		}
		if !c.begin(g) {
			<-slots
			continue
		}
		group.Go("pass", func(ctx context.Context) error {
			defer func() { <-slots }()
			c.pass(ctx, g)
			return nil
		})
	}
}

// due gives a gathering whose time has come, or how long there is none.
func (c *Caster) due(now time.Time) (*gathering, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wait := time.Hour
	for _, g := range c.gathering {
		if g.running {
			continue
		}
		left := g.begins.Sub(now)
		if left <= 0 {
			return g, 0
		}
		wait = min(wait, left)
	}
	return nil, wait
}

// begin begins a pass, or has its boards ask for themselves where they are too few.
func (c *Caster) begin(g *gathering) bool {
	c.mu.Lock()
	few := len(g.boards) < c.cfg.Many
	boards := g.boards
	if g.boards = nil; few {
		delete(c.gathering, g.group)
		for name := range boards {
			b := c.board(boardKey{g.tenant, name})
			if len(b.waited) >= 2*maxOwn || b.waited == nil {
				b.waited = map[release.Hash]time.Time{}
			}
			b.waited[g.tree] = time.Now()
		}
	} else {
		g.running = true
		g.until = time.Now().Add(g.length(c.rates.Cast))
		c.stats.Passes++
	}
	c.mu.Unlock()
	if few {
		for name := range boards {
			c.hold(target{boardKey{g.tenant, name}, g.tree}, 0, 0) // they ask now
		}
	}
	return !few
}

// length is how long a pass takes at its pace.
func (g *gathering) length(rate int64) time.Duration {
	n := 0
	for _, w := range g.missing {
		n += bits.OnesCount64(w)
	}
	return time.Duration(float64(n) * release.Piece / float64(rate) * float64(time.Second))
}

// pass sends each piece that is missing once, to all who hear it, and then says that it is
// over.
func (c *Caster) pass(ctx context.Context, g *gathering) {
	heard := 0
	defer func() {
		c.mu.Lock()
		delete(c.gathering, g.group)
		c.mu.Unlock()
		spread := min(time.Duration(heard)*spreadEach, maxSpread)
		c.castHold(g, max(spread, time.Millisecond))
	}()
	if o, err := c.cfg.Store.take(g.tree); err == nil {
		o.willNeed()
		defer o.use(-1)
	}
	c.mu.Lock()
	pace := bucket.New(c.rates.Cast, burst/4)
	wait := time.Until(g.until)
	c.mu.Unlock()
	c.castHold(g, wait+slack)
	tree := g.tree.String()
	may := func(board string) bool {
		_, ok := c.cfg.Entitled(g.tenant, board, g.tree)
		return ok
	}
	for at, w := range g.missing {
		for ; w != 0; w &= w - 1 {
			payload, err := c.payload(g.tree, at*64+bits.TrailingZeros64(w))
			if err != nil {
				c.cfg.Log.Error("pass over an object ended", "object", tree, "err", err)
				return
			}
			if pace.Sleep(ctx, len(payload)) != nil || c.roomy(ctx, g, tree) != nil || c.fleet.Sleep(ctx, 0) != nil {
				return
			}
			sent, _, err := c.cfg.Gate.Cast(g.tenant, tree, payload, may)
			if err != nil {
				c.cfg.Log.Error("pass over an object ended", "object", tree, "err", err)
				return
			}
			c.fleet.Take(len(payload)*sent, time.Now()) // each board's connection carries it
			heard = max(heard, sent)
			c.count(func(s *Stats) { s.Cast++; s.Bytes += uint64(len(payload)) })
		}
	}
}

// roomy waits, but not long, until nearly all who hear an object have taken what was cast
// before.
func (c *Caster) roomy(ctx context.Context, g *gathering, tree string) error {
	begun := time.Now()
	for better, least := begun, 0; ; {
		all, busy := c.cfg.Gate.Hearing(g.tenant, tree)
		now := time.Now()
		if busy*slowShare <= all || now.Sub(better) > patience || now.Sub(begun) > maxPatience {
			return ctx.Err()
		}
		if busy < least || least == 0 {
			better, least = now, busy
		}
		t := time.NewTimer(lookAgain)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}

// castHold tells all who hear an object for how long not to ask.
func (c *Caster) castHold(g *gathering, d time.Duration) {
	b, err := schema.Encode(&ota.Down{V: schema.Version, Hold: &ota.Hold{Object: g.tree[:], ForMs: uint32(d.Milliseconds())}})
	if err == nil {
		_, _, err = c.cfg.Gate.Cast(g.tenant, g.tree.String(), b, func(string) bool { return true })
	}
	if err != nil {
		c.cfg.Log.Error("end of a pass not told", "object", g.tree, "err", err) // boards have timers
	}
}
