// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"fulmar/fleet/ingest/clocks"
	"fulmar/fleet/ingest/fold"
	"fulmar/fleet/ingest/shelf"
	"fulmar/fleet/store"
	"fulmar/schema"
)

const (
	// maxLatest bounds the series of one board whose newest value is kept.
	maxLatest = 2 * schema.MaxSeries
	// maxPeriod is the longest time between messages taken for a period and not for
	// an outage, ms.
	maxPeriod = 10 * 60 * 1000
	// liveEvery is how often newest values and last-seen of a board are written, ms.
	liveEvery = 1000
)

// boardState is what is held in memory of a board.
type boardState struct {
	id       int64
	lastSeen int64
	period   int64 // smoothed time between live messages, ms
	latest   map[string]store.Reading
	pictures int64 // bytes of whole pictures
	boot     uint64
	conn     uint64
	online   bool
	live     bool          // lastSeen or latest not yet written
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
	changed map[BoardKey]bool
	opened  map[openBoot]bool // boots with new open rows
	remove  []blobFile        // pictures to unlink once the commit stands
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
		x.changed[j.key] = true
	}
	return x.flush(false)
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
		for k := range x.changed {
			keys = append(keys, k)
		}
		x.in.cfg.Changed(keys)
	}
	if x.cache.shelf.Len() > maxCached || len(x.cache.boards) > maxCached {
		live := false
		for _, b := range x.cache.boards {
			live = live || b.live
		}
		if !live {
			x.in.cache = newCache(x.in.epochs)
		}
	}
}

// board finds or makes the row of a board.
func (x *txn) board(k BoardKey) (*boardState, error) {
	if b := x.cache.boards[k]; b != nil {
		x.boards[k] = b
		return b, nil
	}
	b := &boardState{latest: map[string]store.Reading{}}
	var latest []byte
	var boot, conn int64
	err := x.row(`INSERT INTO board (tenant, name) VALUES (?, ?)
ON CONFLICT (tenant, name) DO UPDATE SET name = excluded.name
RETURNING id, last_seen, period, latest, picture_bytes, boot, conn, online`, []any{k.Tenant, k.Board},
		&b.id, &b.lastSeen, &b.period, &latest, &b.pictures, &boot, &conn, &b.online)
	if err != nil {
		return nil, fmt.Errorf("row of board %s: %w", k.Board, err)
	}
	b.boot, b.conn = uint64(boot), uint64(conn)
	if len(latest) > 0 {
		if err := cbor.Unmarshal(latest, &b.latest); err != nil {
			b.latest = map[string]store.Reading{} // newest values come again by themselves
		}
	}
	x.cache.boards[k], x.boards[k] = b, b
	return b, nil
}

// flush writes books, sums and, of the boards touched, live values that are due;
// with all, the live values of every board.
func (x *txn) flush(all bool) error {
	boards := x.boards
	if all {
		boards = x.cache.boards
	}
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
	for k, b := range boards {
		if err := x.writeClocks(b); err != nil {
			return err
		}
		if !b.sums && (!b.live || (!all && x.now-b.liveAt < liveEvery)) {
			continue
		}
		latest, err := cbor.Marshal(b.latest)
		if err != nil {
			return fmt.Errorf("encode newest values: %w", err)
		}
		err = x.exec(`UPDATE board SET last_seen = ?, period = ?, latest = ?, picture_bytes = ? WHERE id = ?`, b.lastSeen, b.period, latest, b.pictures, b.id)
		if err != nil {
			return fmt.Errorf("write live values: %w", err)
		}
		b.live, b.sums, b.liveAt = false, false, x.now
		x.changed[k] = true
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
	if since := now - b.lastSeen; b.lastSeen > 0 && since < maxPeriod {
		b.period += (since - b.period) / 8
	}
	b.lastSeen, b.live = now, true
}
