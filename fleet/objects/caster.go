// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/bits"
	"sync"
	"time"

	"fulmar/internal/bucket"
	"fulmar/internal/run"
	"fulmar/ota/release"
	"fulmar/schema/ota"
)

// Defaults and bounds of a caster.
const (
	// defaultMany is from how many boards on an object is cast: for two boards a pass saves
	// little, and each of them waits for it.
	defaultMany   = 4
	defaultLinger = time.Second
	// defaultCast is the pace of a pass, in bytes a second: what a board of a slow site can
	// take. A board that cannot gets the rest on its own.
	defaultCast = 2 << 20
	// maxTransfers bounds what is on its way: an object to a board, some hundred bytes each
	// and four for each piece asked for. Beyond it boards are told to come back.
	maxTransfers = 1 << 16
	// maxOwn is how many objects one board is given at a time.
	maxOwn = 2
	// maxAsked bounds the pieces that one board has asked for of one object and not got.
	maxAsked = 2 * ota.MaxCredit
	// maxPasses is how many objects are cast at a time; more wait for their turn.
	maxPasses = 4
	// burst is how much of a rate may go at once.
	burst = 500 * time.Millisecond
	// notYet is when a board asks again for what the fleet does not have (yet).
	notYet = 30 * time.Second
	// tellAfter is from what wait on a board is told of it, so that it does not take it for a
	// loss and ask again.
	tellAfter = 200 * time.Millisecond
	// aloneFor is how long a board is served on its own after it waited for others in vain.
	aloneFor = time.Minute
	// sweepEvery is how often boards and sites are forgotten that nothing goes to.
	sweepEvery = time.Minute
)

// Gate is how pieces get to boards: gateway/pieces.Hall, whose errors and rules hold.
type Gate interface {
	SendPiece(tenant, board string, payload []byte) error
	Hearing(tenant, tree string) (all, busy int)
	Cast(tenant, tree string, payload []byte, may func(board string) bool) (sent, left int, err error)
}

// Rates are bounds in bytes a second; 0 is none.
type Rates struct {
	Board int64
	Site  int64
	Fleet int64
	Cast  int64 // of a pass, at each board; 0: 2 MiB
}

// Config shapes a caster.
type Config struct {
	Store *Store
	Gate  Gate
	// Tell sends a board a word that is no piece.
	Tell func(tenant, board string, d *ota.Down) error
	// Entitled tells whether an assignment gives a board the object, and its size. It is
	// asked for each word of a board and each board of a piece that is cast, so it answers
	// from memory.
	Entitled func(tenant, board string, tree release.Hash) (size int64, ok bool)
	// Site names the site of a board; nil or "": it is on none, and no rate of a site holds.
	Site   func(tenant, board string) string
	Rates  Rates
	Many   int           // boards from which on there is a pass; 0: 4; below 0: none ever
	Linger time.Duration // how long boards are waited for before a pass; 0: 1 s
	Log    *slog.Logger
}

// Stats are counters since the start.
type Stats struct {
	Wants     uint64 // words of boards
	Refused   uint64 // of them refused
	Held      uint64 // boards told to wait
	Passes    uint64
	Cast      uint64 // pieces handed to the gateway once for all who hear them
	Sent      uint64 // pieces handed to it for one board
	Bytes     uint64 // of both
	Web       uint64 // bytes over HTTPS
	Transfers int    // on their way now
}

// Caster gives objects to boards. Make one with [NewCaster]. Want, Hears and Room may be
// called from any goroutine.
type Caster struct {
	cfg   Config
	wake  chan struct{}
	ready chan struct{} // a gathering may have become due
	cache cache
	fleet *bucket.Bucket

	mu        sync.Mutex
	stats     Stats
	queue     turns
	transfers map[target]*transfer
	boards    map[boardKey]*board
	sites     map[boardKey]*bucket.Bucket // Board is the site
	gathering map[group]*gathering
	rates     Rates
	swept     time.Time
}

type boardKey struct{ tenant, board string }

// target is an object to a board.
type target struct {
	boardKey
	tree release.Hash
}

// group is an object to all boards of a tenant.
type group struct {
	tenant string
	tree   release.Hash
}

// board is one that something goes to.
type board struct {
	rate *bucket.Bucket
	site *bucket.Bucket // nil: none
	own  []*transfer
	http int // answers under way
	// waited has the objects for a pass over which it waited in vain, a few: it is served on
	// its own for a while.
	waited map[release.Hash]time.Time
}

// NewCaster makes one. It does nothing before [Caster.Run].
func NewCaster(cfg Config) *Caster {
	cfg.Many = cmp.Or(cfg.Many, defaultMany)
	cfg.Linger = cmp.Or(cfg.Linger, defaultLinger)
	if cfg.Site == nil {
		cfg.Site = func(string, string) string { return "" }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Rates.Cast = cmp.Or(cfg.Rates.Cast, defaultCast)
	return &Caster{
		cfg: cfg, rates: cfg.Rates, wake: make(chan struct{}, 1), ready: make(chan struct{}, 1), fleet: bucket.New(cfg.Rates.Fleet, burst),
		transfers: map[target]*transfer{}, boards: map[boardKey]*board{}, sites: map[boardKey]*bucket.Bucket{}, gathering: map[group]*gathering{},
	}
}

// Run gives until the context ends.
func (c *Caster) Run(ctx context.Context) error {
	g := run.New(ctx)
	g.Go("turns", c.turns)
	g.Go("passes", func(ctx context.Context) error { return c.passes(ctx, g) })
	return g.Wait(time.Second)
}

// SetRates changes the bounds from now on.
func (c *Caster) SetRates(r Rates) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.Cast = cmp.Or(r.Cast, defaultCast)
	c.rates = r
	c.fleet.SetRate(r.Fleet)
	for _, b := range c.boards {
		b.rate.SetRate(r.Board)
	}
	for _, s := range c.sites {
		s.SetRate(r.Site)
	}
}

// Stats tells the counters.
func (c *Caster) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Transfers = len(c.transfers)
	return s
}

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Hears tells whether a board may hear the topic of an object.
func (c *Caster) Hears(tenant, board, tree string) bool {
	h, err := release.ParseHash(tree)
	if err != nil {
		return false
	}
	_, ok := c.cfg.Entitled(tenant, board, h)
	return ok
}

// Want takes what a board asks for. A word without an object is somebody else's.
func (c *Caster) Want(tenant, name string, w *ota.Want) {
	if len(w.Object) == 0 {
		return
	}
	key := target{boardKey{tenant, name}, release.Hash(w.Object)}
	c.count(func(s *Stats) { s.Wants++ })
	size, ok := c.cfg.Entitled(tenant, name, key.tree)
	switch {
	case !ok:
		c.refuse(key, "no assignment of this board names this object")
		return
	case w.Size != size:
		c.refuse(key, "the object has another size")
		return
	case w.Credit == 0:
		c.end(key)
		return
	case !c.cfg.Store.Has(key.tree):
		c.hold(key, notYet, w.ID)
		return
	}
	asked, missing := pick(w, size)
	if len(asked) == 0 {
		return
	}
	if w.Cast && c.cfg.Many > 0 && c.gather(key, w, size, missing) {
		return
	}
	if !c.add(key, asked, w.ID) {
		c.hold(key, notYet, w.ID)
	}
}

// pick gives the pieces that a word asks for, and how many are missing in all.
func pick(w *ota.Want, size int64) (asked []uint32, missing int) {
	o := release.Object{Size: size}
	for at, b := range w.Missing {
		for b != 0 {
			i := int64(w.From) + int64(at)*8 + int64(bits.TrailingZeros8(b))
			b &= b - 1
			if i >= int64(o.Pieces()) {
				return asked, missing
			}
			if missing++; len(asked) < int(w.Credit) {
				asked = append(asked, uint32(i))
			}
		}
	}
	return asked, missing
}

// add has pieces sent to a board; false where too much is on its way.
func (c *Caster) add(key target, asked []uint32, id uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.transfers[key]
	if t == nil {
		b := c.board(key.boardKey)
		if len(b.own) >= maxOwn {
			c.forget(b.own[0]) // a board that asks for a third has given up the first
		}
		if len(c.transfers) >= maxTransfers {
			return false
		}
		t = &transfer{target: key, board: b, asked: map[uint32]bool{}, place: -1}
		c.queue.served(t)
		c.transfers[key] = t
		b.own = append(b.own, t)
	}
	t.id = id
	for _, i := range asked {
		if !t.asked[i] && len(t.asked) < maxAsked {
			t.asked[i] = true
			t.queue = append(t.queue, i)
		}
	}
	if t.place < 0 && len(t.queue) > 0 {
		c.queue.add(t, time.Now())
		poke(c.wake)
	}
	return true
}

// board gives what is known of one. The caller holds the mutex.
func (c *Caster) board(key boardKey) *board {
	c.sweep(time.Now())
	b := c.boards[key]
	if b == nil {
		b = &board{rate: bucket.New(c.rates.Board, burst)}
		if site := c.cfg.Site(key.tenant, key.board); site != "" {
			k := boardKey{key.tenant, site}
			if c.sites[k] == nil {
				c.sites[k] = bucket.New(c.rates.Site, burst)
			}
			b.site = c.sites[k]
		}
		c.boards[key] = b
	}
	return b
}

// sweep forgets boards to which nothing goes and who owe nothing, and then sites, once in
// a while.
func (c *Caster) sweep(now time.Time) {
	if now.Sub(c.swept) < sweepEvery {
		return
	}
	c.swept = now
	used := map[*bucket.Bucket]bool{}
	for k, b := range c.boards {
		if len(b.own) == 0 && b.http == 0 && b.rate.Wait(now) == 0 {
			delete(c.boards, k)
		} else {
			used[b.site] = true
		}
	}
	for k, s := range c.sites {
		if !used[s] && s.Wait(now) == 0 {
			delete(c.sites, k)
		}
	}
}

// end stops what goes to a board of an object.
func (c *Caster) end(key target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.transfers[key]; t != nil {
		c.forget(t)
	}
	if g := c.gathering[group{key.tenant, key.tree}]; g != nil {
		delete(g.boards, key.board)
	}
}

// forget takes a transfer away. The caller holds the mutex.
func (c *Caster) forget(t *transfer) {
	c.queue.remove(t)
	delete(c.transfers, t.target)
	own := t.board.own[:0]
	for _, o := range t.board.own {
		if o != t {
			own = append(own, o)
		}
	}
	clear(t.board.own[len(own):])
	t.board.own, t.over = own, true
}

// Room is told that a board takes pieces again.
func (c *Caster) Room(tenant, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.boards[boardKey{tenant, name}]
	if b == nil {
		return
	}
	for _, t := range b.own {
		t.room = true
		if t.busy && t.place >= 0 {
			c.queue.add(t, time.Now())
			poke(c.wake)
		}
	}
}

func (c *Caster) count(change func(*Stats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.stats)
}

func (c *Caster) refuse(key target, why string) {
	c.count(func(s *Stats) { s.Refused++ })
	c.tell(key, &ota.Hold{Object: key.tree[:], Refused: why})
}

// hold has a board wait; nothing more comes for its words up to done.
func (c *Caster) hold(key target, d time.Duration, done uint32) {
	c.count(func(s *Stats) { s.Held++ })
	c.tell(key, &ota.Hold{Object: key.tree[:], ForMs: uint32(max(d, time.Millisecond).Milliseconds()), Done: done})
}

// tell sends a word. One that does not get through is not missed: the board has timers.
func (c *Caster) tell(key target, h *ota.Hold) {
	if err := c.cfg.Tell(key.tenant, key.board, &ota.Down{V: 1, Hold: h}); err != nil && !errors.Is(err, context.Canceled) {
		c.cfg.Log.Debug("word on an object not sent", "board", key.board, "err", err)
	}
}
