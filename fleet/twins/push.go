// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package twins

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"fulmar/fleet/registry/twinrows"
	"fulmar/twin"
)

const (
	// pushEvery is how often it is looked who has not said that they have it.
	pushEvery = time.Second
	// firstAgain is after what time a message is sent again that was not answered, and
	// doubles to lastAgain: a board on a slow line needs seconds for 24 KB.
	firstAgain = 5 * time.Second
	lastAgain  = time.Minute
	// maxAgain is how often that is done: half an hour. Then the board's next word, or
	// its next connection, brings it.
	maxAgain = 32
	// againAtOnce bounds the messages of one look, so that a change of a whole fleet
	// that is not answered does not hold up people's edits.
	againAtOnce = 200
)

// awaited is a board that was sent something and has not said that it has it.
type awaited struct {
	next  time.Time
	tries int
}

// push sends a board what it has not, if it is connected; e is held, f as it is stored.
func (x *Twins) push(k twinrows.Key, e *entry, f *twin.Fleet) {
	if newest, applied := f.Version(); e.conn == 0 || applied >= newest {
		x.has(k)
		return // a board that is not here is asked when it comes
	}
	f.Connect(e.conn)
	d := f.Push()
	if d == nil {
		x.has(k)
		return // the board's own word is awaited first: the database was put back
	}
	err := x.cfg.Courier.SendTwin(k.Tenant, k.Board, d)
	if errors.Is(err, ErrAway) {
		x.has(k)
		return
	}
	if err != nil {
		x.cfg.Log.Warn("twin not sent; it is tried again", "tenant", k.Tenant, "board", k.Board, "error", err.Error())
	} else {
		x.n.pushed.Add(1)
	}
	x.awaits(k)
}

// has notes that nothing is sent to a board by itself any more.
func (x *Twins) has(k twinrows.Key) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.await, k)
}

// awaits notes that a board was sent something.
func (x *Twins) awaits(k twinrows.Key) {
	x.mu.Lock()
	defer x.mu.Unlock()
	a := x.await[k]
	if a == nil {
		if len(x.await) >= maxTwins {
			return
		}
		a = new(awaited)
		x.await[k] = a
	}
	if a.tries++; a.tries > maxAgain {
		delete(x.await, k)
		return
	}
	a.next = time.Now().Add(min(firstAgain<<min(a.tries-1, 8), lastAgain))
}

// keepPushing sends again what was not answered.
func (x *Twins) keepPushing(ctx context.Context) {
	t := time.NewTicker(pushEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			for _, k := range x.due(now) {
				if err := x.again(ctx, k); err != nil && ctx.Err() == nil {
					x.cfg.Log.Warn("twin not sent again", "tenant", k.Tenant, "board", k.Board, "error", err.Error())
					x.awaits(k)
				}
			}
		}
	}
}

// due gives the boards that are to be sent something again, the longest due first.
func (x *Twins) due(now time.Time) []twinrows.Key {
	type one struct {
		k  twinrows.Key
		at time.Time
	}
	var all []one
	x.mu.Lock()
	for k, a := range x.await {
		if !a.next.After(now) {
			all = append(all, one{k, a.next})
		}
	}
	x.mu.Unlock()
	slices.SortFunc(all, func(a, b one) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.k.Board, b.k.Board)) })
	var out []twinrows.Key
	for _, o := range all[:min(len(all), againAtOnce)] {
		out = append(out, o.k)
	}
	return out
}

func (x *Twins) again(ctx context.Context, k twinrows.Key) error {
	e := x.hold(k)
	defer x.release(e)
	f, err := x.open(ctx, k, e, false)
	if err != nil {
		return err
	}
	x.push(k, e, f)
	return nil
}
