// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package twins

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"time"

	"fulmar/fleet/registry/twinrows"
	"fulmar/fleet/twins/told"
	"fulmar/schema"
	"fulmar/twin"
	"fulmar/twin/wire"
)

// Up takes a board's word on its twin. It returns once that is stored, with the answer,
// nil where there is none. What is wrong with a part of the word is logged and no error:
// an error means that nothing was stored, and the board says it again.
func (x *Twins) Up(ctx context.Context, tenant, board string, u wire.Up) (*wire.Down, error) {
	k := twinrows.Key{Tenant: tenant, Board: board}
	x.n.messages.Add(1)
	e := x.hold(k)
	defer x.release(e)
	switch {
	case u.Want&wire.WantHead != 0, e.conn == 0:
		e.conn = u.Conn
	case u.Conn != e.conn: // a connection that is over, or two boards with one identity
		x.n.late.Add(1)
		return nil, nil
	}
	x.spokeNow(k)
	said := digest(&u.Head)
	if u.Reported == nil && u.Desired == nil && u.Override == nil && u.Want&^wire.WantHead == 0 {
		if err := x.look(ctx, k, e); err != nil {
			return nil, err
		}
		if e.row && bytes.Equal(e.head.Agreed, said) {
			x.n.same.Add(1)
			e.sure = true
			return bare(&u), nil
		}
	}
	return x.take(ctx, k, e, &u, said)
}

// bare answers a board that has what the fleet has: what it said, and that is all.
func bare(u *wire.Up) *wire.Down {
	if u.Want == 0 {
		return nil
	}
	h := u.Head
	h.Reported = nil
	return &wire.Down{V: schema.Version, Conn: u.Conn, Head: h}
}

// digest is that of what a board says it has.
func digest(h *wire.Head) []byte {
	b, err := schema.Encode(h)
	if err != nil {
		return nil // of no head that is taken: it agrees with nothing
	}
	sum := sha256.Sum256(b)
	return sum[:]
}

// take lets the twin receive the message, and stores what it changed; e is held.
func (x *Twins) take(ctx context.Context, k twinrows.Key, e *entry, u *wire.Up, said []byte) (*wire.Down, error) {
	f, err := x.open(ctx, k, e, u.Desired != nil)
	if err != nil {
		return nil, err
	}
	f.Connect(e.conn)
	was := told.Of(f)
	d, wrong := f.Receive(u)
	if wrong != nil {
		x.n.refused.Add(1)
		if now := time.Now(); now.Sub(e.warn) >= warnEvery {
			e.warn = now
			x.cfg.Log.Warn("a part of a board's word on its twin was not taken", "tenant", k.Tenant, "board", k.Board, "error", wrong.Error())
		}
	}
	if d, err = x.fresh(k, f, d); err != nil {
		return nil, err
	}
	now := told.Of(f)
	if !e.row && now.Empty() {
		return d, nil // nobody has said anything yet: nothing is kept
	}
	agreed := said
	if wrong != nil || d != nil && (d.Want != 0 || d.Desired != nil || d.Override != nil) {
		agreed = nil
	}
	c, err := change(k, e.head, f, &was, &now)
	if err != nil {
		return nil, err
	}
	c.Agreed = agreed
	if err := x.put(ctx, e, c); err != nil {
		return nil, err
	}
	x.n.stored.Add(1)
	e.sure = e.sure || d == nil || d.Want&wire.WantDesired == 0
	switch {
	case d != nil && d.Desired != nil:
		x.awaits(k) // and sent again, if the board does not say that it has it
	case c.Applied >= c.Version:
		x.has(k)
	}
	return d, nil
}

// fresh gives an answer whose desired section is signed with a key that boards take: where
// the key was dropped since, a new version is.
func (x *Twins) fresh(k twinrows.Key, f *twin.Fleet, d *wire.Down) (*wire.Down, error) {
	if d == nil || d.Desired == nil || x.cfg.Takes == nil || x.cfg.Takes(d.Desired.Envelope) {
		return d, nil
	}
	if _, err := f.Edit("fleet", "signed anew", nil); err != nil {
		return nil, fmt.Errorf("sign the twin of %s anew: %w", k.Board, err)
	}
	x.n.edits.Add(1)
	anew := f.Push()
	if anew == nil {
		return d, nil // the board is asked first, and hears it then
	}
	anew.Want, anew.Override = d.Want, d.Override
	return anew, nil
}

// change makes what is written of a twin that was was and is now.
func change(k twinrows.Key, h twinrows.Head, f *twin.Fleet, was, now *told.State) (*twinrows.Change, error) {
	at := time.Now().UTC()
	c := &twinrows.Change{Key: k, Head: h, At: at}
	c.Version, c.Applied, c.Conflicts = now.Version, now.Applied, len(now.Held)
	for _, e := range append(told.Own(f.Events()), told.Between(was, now)...) {
		b, err := told.Encode(&e)
		if err != nil {
			return nil, fmt.Errorf("history of the twin of %s: %w", k.Board, err)
		}
		c.Events = append(c.Events, b)
	}
	f.Confirm(len(f.Events()))
	var err error
	if c.Settle, c.Held, err = told.Conflicts(k, was, now, at); err != nil {
		return nil, err
	}
	c.Body, err = f.Save()
	return c, err
}

// put stores a change of one twin and makes e agree with it; e is held.
func (x *Twins) put(ctx context.Context, e *entry, c *twinrows.Change) error {
	e.read = false // until it is known to stand
	err := x.commit(ctx, func(ctx context.Context, tx *sql.Tx) error { return x.cfg.Rows.Put(ctx, tx, c) })
	if err != nil {
		return err
	}
	x.stands(e, c)
	return nil
}

// stands notes that a change is committed.
func (x *Twins) stands(e *entry, c *twinrows.Change) {
	if !e.row {
		x.rows.Add(1)
	}
	e.mine = e.mine || c.Life != e.life
	e.life = c.Life
	e.head, e.row, e.read = c.Head, true, true
	x.changed(c.Key)
}

func (x *Twins) spokeNow(k twinrows.Key) {
	now := time.Now().UTC()
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, ok := x.spoke[k]; ok || len(x.spoke) < maxTwins {
		x.spoke[k] = now
	}
}
