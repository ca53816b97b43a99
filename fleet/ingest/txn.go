// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"fulmar/fleet/ingest/clocks"
	"fulmar/fleet/ingest/fold"
	"fulmar/fleet/ingest/shelf"
	"fulmar/fleet/store/live"
	"fulmar/schema"
)

const (
	// liveEvery is how often newest values and last-seen of a board are written, ms: a
	// crash sets them back by so much, until the board's next message.
	liveEvery = 10_000
)

// boardState is what is held in memory of a board.
type boardState struct {
	id       int64
	now      live.Values
	pictures int64 // bytes of whole pictures
	boot     uint64
	conn     uint64
	online   bool
	live     bool          // now is not yet written
	liveAt   int64         // when they were written last
	sums     bool          // pictures not yet written
	clocks   *clocks.Board // nil: not read yet
	told     bool          // clocks has something to be written now
	// cursors are those of the newest hello, until what they say of losses is booked.
	cursors []schema.Cursor
	worded  int64 // when a newer version was reported, ms
}

type usage struct {
	bytes, count int64
	dirty        bool
}

// cache is the memory of the writer; it never holds what is not in the database
// after a commit, except the coalesced live values.
type cache struct {
	boards map[BoardKey]*boardState
	shelf  *shelf.Shelf
	usage  map[string]*usage
	fold   *fold.Folder
}

func newCache(epochs int) *cache {
	return &cache{boards: map[BoardKey]*boardState{}, shelf: shelf.New(epochs), usage: map[string]*usage{}, fold: fold.New()}
}

// txn is one transaction.
type txn struct {
	in      *Ingest
	now     int64 // ms since 1970
	cache   *cache
	boards  map[BoardKey]*boardState // touched in this transaction
	changed map[BoardKey]bool        // true: more than samples
	opened  map[openBoot]bool        // boots with new open rows
	remove  []blobFile               // pictures to unlink once the commit stands
	n       struct{ messages, records, duplicates, refused, unknown, newer, noPicture, commits uint64 }
}

type blobFile struct{ tenant, board, name string }

// stmt gives a prepared statement of the write connection. The queries are
// constants of this package, so there are few.
func (x *txn) stmt(q string) (*sql.Stmt, error) {
	if s, ok := x.in.stmts[q]; ok {
		return s, nil
	}
	s, err := x.in.conn.PrepareContext(context.Background(), q)
	if err == nil {
		x.in.stmts[q] = s
	}
	return s, err
}

func (x *txn) exec(q string, args ...any) error {
	s, err := x.stmt(q)
	if err != nil {
		return err
	}
	_, err = s.Exec(args...)
	return err
}

func (x *txn) row(q string, args []any, dst ...any) error {
	s, err := x.stmt(q)
	if err != nil {
		return err
	}
	return s.QueryRow(args...).Scan(dst...)
}

// run applies the jobs and writes what they touched.
func (x *txn) run(batch []*job) error {
	x.n.commits++
	for _, j := range batch {
		if err := j.apply(x); err != nil {
			return err
		}
		x.changed[j.key] = x.changed[j.key] || !j.samples
	}
	return x.flush()
}

// committed tells the counters and the listeners.
func (x *txn) committed() {
	c := &x.in.n
	c.commits.Add(x.n.commits)
	c.messages.Add(x.n.messages)
	c.records.Add(x.n.records)
	c.duplicates.Add(x.n.duplicates)
	c.refused.Add(x.n.refused)
	c.unknown.Add(x.n.unknown)
	c.newer.Add(x.n.newer)
	c.noPicture.Add(x.n.noPicture)
	for _, f := range x.remove {
		if err := x.in.blobs.Remove(f.tenant, f.board, f.name); err != nil {
			x.in.log.Warn("picture not removed", "board", f.board, "error", err.Error())
		}
	}
	if len(x.changed) > 0 {
		keys := make([]BoardKey, 0, len(x.changed))
		for k, cold := range x.changed {
			keys = append(keys, k)
			if b := x.cache.boards[k]; b != nil {
				x.in.db.Live.Tell(live.Key(k), b.now.Copy(), cold)
			}
		}
		x.in.cfg.Changed(keys)
	}
	if x.cache.full() {
		for _, b := range x.cache.boards {
			if b.live { // the next tick writes them all
				return
			}
		}
		x.in.cache = newCache(x.in.epochs)
	}
}

func (c *cache) full() bool { return c.shelf.Len() > maxCached || len(c.boards) > maxCached }

// board finds or makes the row of a board.
func (x *txn) board(k BoardKey) (*boardState, error) {
	if b := x.cache.boards[k]; b != nil {
		x.boards[k] = b
		return b, nil
	}
	b := &boardState{}
	var boot, conn int64
	err := x.row(`INSERT INTO board (tenant, name) VALUES (?, ?)
ON CONFLICT (tenant, name) DO UPDATE SET name = excluded.name
RETURNING id, picture_bytes, boot, conn, online`, []any{k.Tenant, k.Board}, &b.id, &b.pictures, &boot, &conn, &b.online)
	if err != nil {
		return nil, fmt.Errorf("row of board %s: %w", k.Board, err)
	}
	b.boot, b.conn = uint64(boot), uint64(conn)
	if v, ok := x.in.db.Live.Get(live.Key(k)); ok {
		b.now = v // of this process: no older than what is written
	} else if b.now, err = live.Read(x, b.id); err != nil {
		return nil, err
	}
	x.cache.boards[k], x.boards[k] = b, b
	return b, nil
}

// settleLive writes the newest values of the boards that are due, or of all. It is no part
// of a board's delivery: a PUBACK never waits for it.
func (x *txn) settleLive(all bool) error {
	for _, b := range x.cache.boards {
		if !b.live || !all && x.now-b.liveAt < liveEvery {
			continue
		}
		if err := errors.Join(live.Write(x, b.id, &b.now), x.writeClocks(b)); err != nil {
			return err
		}
		b.live, b.liveAt = false, x.now
	}
	return nil
}

// flush writes books, sums and what else of the boards touched must not be lost.
func (x *txn) flush() error {
	if err := x.cache.shelf.Flush(x, x.now); err != nil {
		return err
	}
	for k := range x.opened {
		if err := fold.Opened(x, k.board, k.boot, x.now, false); err != nil {
			return err
		}
	}
	for kind, u := range x.cache.usage {
		if !u.dirty {
			continue
		}
		err := x.exec(`INSERT INTO usage (kind, bytes, count) VALUES (?, ?, ?)
ON CONFLICT (kind) DO UPDATE SET bytes = excluded.bytes, count = excluded.count`, kind, u.bytes, u.count)
		if err != nil {
			return fmt.Errorf("write usage: %w", err)
		}
		u.dirty = false
	}
	for _, b := range x.boards {
		if b.told {
			if err := x.writeClocks(b); err != nil {
				return err
			}
		}
		if b.sums {
			if err := x.exec(`UPDATE board SET picture_bytes = ? WHERE id = ?`, b.pictures, b.id); err != nil {
				return fmt.Errorf("write sums: %w", err)
			}
			b.sums = false
		}
	}
	return nil
}

// use notes what a pruned table gained or lost.
func (x *txn) use(kind string, bytes, count int64) error {
	u, err := x.usageOf(kind)
	if err != nil {
		return err
	}
	u.bytes += bytes
	u.count += count
	u.dirty = true
	return nil
}

func (x *txn) usageOf(kind string) (*usage, error) {
	u := x.cache.usage[kind]
	if u == nil {
		u = &usage{}
		err := x.row(`SELECT bytes, count FROM usage WHERE kind = ?`, []any{kind}, &u.bytes, &u.count)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, fmt.Errorf("read usage: %w", err)
		}
		x.cache.usage[kind] = u
	}
	return u, nil
}

func factsJSON(f map[string]string) (string, error) {
	if f == nil {
		return "{}", nil
	}
	b, err := json.Marshal(f)
	return string(b), err
}

// seen notes that a message of the board has come.
func (b *boardState) seen(now int64) {
	b.now.Seen(now)
	b.live = true
}
