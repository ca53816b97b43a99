// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"sync"
	"time"

	"fulmar/fleet/gateway/pieces"
	"fulmar/ota/release"
	"fulmar/schema"
	"fulmar/schema/ota"
)

const (
	// roomAfter is when a board that was busy is tried again where nobody said that it has
	// room.
	roomAfter = time.Second
	// maxCached is how many pieces are kept as they are sent: 8 MiB.
	maxCached = 128
)

// transfer is an object on its way to a board. All of it is under the caster's mutex.
type transfer struct {
	target
	board *board
	queue []uint32 // pieces asked for and not sent, in the order in which they were
	asked map[uint32]bool
	id    uint32    // of the newest word
	told  time.Time // until when the board was told to wait
	busy  bool      // the gateway had no room for it
	room  bool      // it has, since it was tried
	over  bool

	at    time.Time // of its turn
	seq   uint64    // of its newest piece, or of its coming
	place int       // in the heap; -1 not there
}

// turns are the transfers that have something to send, or to say that it was all, by the time of their turn; of
// those of the same time the one first whose newest piece is the longest ago: a wait for a
// rate of its own must not put a board before those who wait for the site's.
type turns struct {
	list []*transfer
	seq  uint64
}

func (q *turns) Len() int { return len(q.list) }

func (q *turns) Less(i, j int) bool {
	a, b := q.list[i], q.list[j]
	if c := a.at.Compare(b.at); c != 0 {
		return c < 0
	}
	return cmp.Less(a.seq, b.seq)
}

func (q *turns) Swap(i, j int) {
	q.list[i], q.list[j] = q.list[j], q.list[i]
	q.list[i].place, q.list[j].place = i, j
}

func (q *turns) Push(x any) {
	t := x.(*transfer)
	t.place = len(q.list)
	q.list = append(q.list, t)
}

func (q *turns) Pop() any {
	last := len(q.list) - 1
	t := q.list[last]
	t.place, q.list[last] = -1, nil
	q.list = q.list[:last]
	return t
}

// served puts a transfer behind the others of its time.
func (q *turns) served(t *transfer) {
	q.seq++
	t.seq = q.seq
}

// add gives a transfer its turn, or another one.
func (q *turns) add(t *transfer, at time.Time) {
	t.at = at
	if t.place >= 0 {
		heap.Fix(q, t.place)
		return
	}
	heap.Push(q, t)
}

func (q *turns) remove(t *transfer) {
	if t.place >= 0 {
		heap.Remove(q, t.place)
	}
}

// turns sends piece after piece, a board after the other.
func (c *Caster) turns(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wait := c.turn()
		if wait == 0 {
			if ctx.Err() != nil {
				return nil
			}
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		case <-timer.C:
		}
	}
}

// turn takes the next turn; it tells how long there is none.
func (c *Caster) turn() (wait time.Duration) {
	now := time.Now()
	c.mu.Lock()
	if c.queue.Len() == 0 {
		c.mu.Unlock()
		return time.Hour
	}
	t := c.queue.list[0]
	if wait = t.at.Sub(now); wait > 0 {
		c.mu.Unlock()
		return wait
	}
	wait = c.fleet.Wait(now)
	own := t.board.rate.Wait(now)
	if t.board.site != nil {
		own = max(own, t.board.site.Wait(now))
	}
	if wait > 0 || own > 0 {
		if own > 0 {
			c.queue.add(t, now.Add(own))
		}
		late := max(wait, own)
		tell := late > tellAfter && now.After(t.told)
		if tell {
			t.told = now.Add(late)
		}
		key := t.target
		c.mu.Unlock()
		if tell {
			c.hold(key, late, 0)
		}
		return min(wait, tellAfter) // nothing of a wait that is this board's alone
	}
	last, id := len(t.queue) == 0, t.id
	i := uint32(0)
	if !last {
		i = t.queue[0]
	}
	t.room, t.busy = false, false
	c.mu.Unlock()

	if last {
		c.emptied(t, id)
		return 0
	}
	payload, err := c.payload(t.tree, int(i))
	if err == nil {
		err = c.cfg.Gate.SendPiece(t.tenant, t.boardKey.board, payload)
	}
	c.sent(t, i, len(payload), err)
	return 0
}

// emptied tells a board, behind all the pieces that it asked for, that those were all: what
// has not come by then was lost, and nobody needs a timer to know.
func (c *Caster) emptied(t *transfer, id uint32) {
	b, err := schema.Encode(&ota.Down{V: schema.Version, Hold: &ota.Hold{Object: t.tree[:], Done: id}})
	if err == nil && id > 0 {
		err = c.cfg.Gate.SendPiece(t.tenant, t.boardKey.board, b)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case t.over:
	case errors.Is(err, pieces.ErrBusy):
		c.busy(t)
	case len(t.queue) > 0: // it asked for more meanwhile
		c.queue.add(t, time.Now())
	default:
		c.forget(t)
	}
}

// busy has a transfer wait for room. The caller holds the mutex.
func (c *Caster) busy(t *transfer) {
	wait := roomAfter
	if t.busy = !t.room; t.room {
		wait = 0 // it was said meanwhile
	}
	c.queue.add(t, time.Now().Add(wait))
}

// sent notes what became of a turn.
func (c *Caster) sent(t *transfer, i uint32, size int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.over {
		return
	}
	now := time.Now()
	switch {
	case err == nil:
		c.stats.Sent++
		c.stats.Bytes += uint64(size)
		c.fleet.Take(size, now)
		t.board.rate.Take(size, now)
		if t.board.site != nil {
			t.board.site.Take(size, now)
		}
		delete(t.asked, i)
		t.queue = t.queue[1:]
		c.queue.served(t)
		c.queue.add(t, now)
	case errors.Is(err, pieces.ErrBusy):
		c.busy(t)
	default:
		if !errors.Is(err, pieces.ErrAway) {
			c.cfg.Log.Error("piece not sent", "board", t.boardKey.board, "err", err)
		}
		c.forget(t)
	}
}

// payload gives a piece as it is sent.
func (c *Caster) payload(tree release.Hash, i int) ([]byte, error) {
	key := cacheKey{tree, i}
	if b := c.cache.get(key); b != nil {
		return b, nil
	}
	o, err := c.cfg.Store.take(tree)
	if err != nil {
		return nil, err
	}
	defer o.use(-1)
	data, path, err := o.piece(i)
	if err != nil {
		return nil, err
	}
	b, err := schema.Encode(&ota.Down{V: schema.Version, Piece: &ota.Piece{Object: tree[:], Index: uint32(i), Data: data, Path: path}})
	if err != nil {
		return nil, err
	}
	c.cache.put(key, b)
	return b, nil
}

// cache has the pieces that were sent last: many boards want the same ones.
type cache struct {
	mu    sync.Mutex
	has   map[cacheKey][]byte
	order []cacheKey
}

type cacheKey struct {
	tree release.Hash
	i    int
}

func (c *cache) get(k cacheKey) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.has[k]
}

func (c *cache) put(k cacheKey, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.has == nil {
		c.has = map[cacheKey][]byte{}
	}
	if c.has[k] == nil {
		c.order = append(c.order, k)
	}
	c.has[k] = b
	if len(c.order) > maxCached {
		delete(c.has, c.order[0])
		c.order = append(c.order[:0:0], c.order[1:]...)
	}
}
