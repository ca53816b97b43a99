// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	"fulmar/fleet/ingest/clocks"
	"fulmar/fleet/ingest/fold"
	"fulmar/fleet/ingest/rows"
	"fulmar/schema"
)

const (
	// foldStep bounds the rows that one transaction adds to rollups or places anew:
	// with forty series, each in a minute of its own, it takes 150 ms here.
	foldStep = 100
	// foldBudget is how much of each second goes into that at most, while boards wait.
	foldBudget = 200 * time.Millisecond
	// foldEvery is how long rows may wait for their rollup when there are few: once
	// a minute, 60 batches of a series are one row written.
	foldEvery = time.Minute
	// foldMany is how many waiting rows are added at once.
	foldMany = 2000
	// rollupBytes is what a rollup takes on disk, its share of the pages included.
	rollupBytes = 64
)

// clocksOf gives what is known of a board's boots.
func (x *txn) clocksOf(b *boardState) (*clocks.Board, error) {
	if b.clocks != nil {
		return b.clocks, nil
	}
	var raw []byte
	err := x.row(`SELECT state FROM clocks WHERE board = ?`, []any{b.id}, &raw)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("read clocks: %w", err)
	}
	c := &clocks.Board{}
	if len(raw) > 0 {
		if err := cbor.Unmarshal(raw, c); err != nil {
			return nil, fmt.Errorf("read clocks: %w", err)
		}
	}
	b.clocks = c
	return c, nil
}

// note takes what a message says about the board's clocks.
func (x *txn) note(b *boardState, m *schema.Message, recs []decoded) error {
	c, err := x.clocksOf(b)
	if err != nil {
		return err
	}
	c.Sent(m.Sent, x.now)
	for i := range recs {
		if recs[i].bad != nil {
			continue
		}
		r := recs[i].rec
		c.Heard(m.Class, m.Epoch, recs[i].seq, r.Time, m.Sent.Boot, x.now)
		if r.Kind == schema.KindAnchor {
			c.Anchor(r.Time, r.Anchor, x.now)
		}
	}
	return x.settle(b, c)
}

// heardFrom takes the time at which a board said something now.
func (x *txn) heardFrom(b *boardState, sent schema.Time) error {
	c, err := x.clocksOf(b)
	if err != nil {
		return err
	}
	c.Sent(sent, x.now)
	return x.settle(b, c)
}

// settle places the boots anew and has the rows moved that this moves.
func (x *txn) settle(b *boardState, c *clocks.Board) error {
	for _, boot := range c.Settle(x.now) {
		if err := fold.Opened(x, b.id, boot, x.now, true); err != nil {
			return err
		}
	}
	b.told = b.told || c.News()
	return nil
}

// place gives a record's moment. A message noted before has made its boot known.
func (x *txn) place(b *boardState, t schema.Time) rows.When {
	w := rows.When{Boot: t.Boot, Mono: t.Mono / int64(time.Millisecond)}
	w.At, w.Grade = b.clocks.Place(t, x.now)
	w.Open = b.clocks.Stored(t.Boot, x.now)
	if w.Open {
		x.opened[openBoot{b.id, t.Boot}] = true
		b.told = b.told || b.clocks.News()
	}
	return w
}

type openBoot struct {
	board int64
	boot  uint64
}

// writeClocks writes what is known of a board's clocks: new boots and better evidence at
// once, the rest with the newest values.
func (x *txn) writeClocks(b *boardState) error {
	if b.clocks == nil {
		return nil
	}
	raw, err := cbor.Marshal(b.clocks)
	if err != nil {
		return fmt.Errorf("encode clocks: %w", err)
	}
	b.told = false
	if err := x.exec(`INSERT INTO clocks (board, state) VALUES (?, ?) ON CONFLICT (board) DO UPDATE SET state = excluded.state`, b.id, raw); err != nil {
		return fmt.Errorf("write clocks: %w", err)
	}
	return nil
}

// Exec, Query and Row make a transaction a fold.DB.
func (x *txn) Exec(q string, args ...any) error { return x.exec(q, args...) }

// Query runs a query; see Exec.
func (x *txn) Query(q string, args ...any) (*sql.Rows, error) {
	s, err := x.stmt(q)
	if err != nil {
		return nil, err
	}
	return s.Query(args...)
}

// Row reads one row; see Exec.
func (x *txn) Row(q string, args []any, dst ...any) error { return x.row(q, args, dst...) }

// background adds telemetry to the rollups and places rows anew, in steps.
func (in *Ingest) background() error {
	var pending int64
	err := in.within(func(x *txn) (err error) {
		pending, err = x.cache.fold.Pending(x)
		if err != nil {
			return err
		}
		c := &in.cfg
		_, err = x.cache.fold.Prune(x, x.now, c.TelemetryFor.Milliseconds(), c.TelemetryBytes/8/rollupBytes, pruneStep)
		return err
	})
	due := pending >= foldMany || time.Since(in.folded) >= foldEvery
	for begin := time.Now(); err == nil && time.Since(begin) < foldBudget; {
		more := false
		err = in.within(func(x *txn) error {
			if due {
				n, err := x.cache.fold.Step(x, x.now, foldStep)
				if err != nil {
					return err
				}
				if more = n == foldStep; !more {
					due, in.folded = false, time.Now()
				}
			}
			moved, err := x.cache.fold.Retime(x, x.clocksByID, x.now, foldStep)
			more = more || moved
			return errors.Join(err, x.flush())
		})
		if !more {
			break
		}
	}
	return err
}

// clocksByID gives what is known of the boots of a board that may be silent.
func (x *txn) clocksByID(id int64) (*clocks.Board, error) {
	var k BoardKey
	if err := x.row(`SELECT tenant, name FROM board WHERE id = ?`, []any{id}, &k.Tenant, &k.Board); err != nil {
		return nil, fmt.Errorf("find board %d: %w", id, err)
	}
	b, err := x.board(k)
	if err != nil {
		return nil, err
	}
	c, err := x.clocksOf(b)
	if err != nil {
		return nil, err
	}
	b.told = true
	return c, x.settle(b, c)
}
