// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"fulmar/fleet/ingest/fold"
	"fulmar/fleet/ingest/wipe"
	"fulmar/fleet/store/live"
	"fulmar/schema"
)

const (
	// pruneStep is how many rows one transaction removes at most: a board never
	// waits longer for its commit because of old rows.
	pruneStep = 500
	// pruneSteps bounds the transactions of one tick; at 500 rows and 10 steps a
	// second, pruning is faster than any input this server takes.
	pruneSteps = 10
	// maxPictureRows bounds the index of pictures that are gone.
	maxPictureRows = 500_000
	// vacuumPages is how many free pages each step gives back to the disk.
	vacuumPages = 256
)

// chunk takes one piece of a picture. It is on disk when this returns; the
// database knows nothing of it before its index record comes.
func (in *Ingest) chunk(key BoardKey, name string, payload []byte) error {
	c := new(schema.Chunk)
	if err := schema.Decode(payload, c); err != nil {
		return errRefused{why: err}
	}
	if err := in.blobs.Write(key.Tenant, key.Board, name, c); err != nil {
		return err
	}
	in.n.chunks.Add(1)
	return nil
}

// maintain writes what has been coalesced and prunes.
func (in *Ingest) maintain(ended bool) {
	err := in.within(func(x *txn) error {
		// All of them before the cache is emptied, see committed.
		return errors.Join(x.settleLive(ended || x.cache.full()), x.flush())
	})
	for range pruneSteps {
		var more bool
		if err != nil {
			break
		}
		err = in.within(func(x *txn) (err error) {
			more, err = x.prune()
			return errors.Join(err, x.flush())
		})
		if !more {
			break
		}
	}
	if err = errors.Join(err, in.background()); err != nil {
		in.log.Error("ledger not maintained", "error", err.Error())
	}
}

// prune removes one step of what is too old or too much.
func (x *txn) prune() (more bool, err error) {
	c := &x.in.cfg
	for _, t := range []struct {
		kind     string
		del      string
		over     int64
		life     time.Duration
		overhead int64
	}{
		{"telemetry", `DELETE FROM telemetry WHERE id IN (SELECT id FROM telemetry WHERE ?1 OR arrived < ?2 ORDER BY id LIMIT ?3) RETURNING length(payload)`, c.TelemetryBytes, c.TelemetryFor, rowOverhead},
		{"event", `DELETE FROM event WHERE id IN (SELECT id FROM event WHERE ?1 OR arrived < ?2 ORDER BY id LIMIT ?3) RETURNING length(payload)`, c.EventsBytes, c.EventsFor, 2 * rowOverhead},
	} {
		u, err := x.usageOf(t.kind)
		if err != nil {
			return false, err
		}
		cut := x.now - t.life.Milliseconds()
		over := u.bytes > t.over
		if !over {
			// Rows are in order of arrival: the first one tells whether any is too old.
			var oldest int64
			err := x.row(`SELECT coalesce((SELECT arrived FROM `+t.kind+` ORDER BY id LIMIT 1), ?)`, []any{x.now}, &oldest)
			if err != nil {
				return false, err
			}
			if oldest >= cut {
				continue
			}
		}
		bytes, n, err := x.deleteRows(t.del, over, cut, pruneStep)
		if err != nil {
			return false, fmt.Errorf("prune %s: %w", t.kind, err)
		}
		if err := x.use(t.kind, -bytes-n*t.overhead, -n); err != nil {
			return false, err
		}
		if err := fold.Emptied(x); err != nil {
			return false, err
		}
		more = more || n == pruneStep || u.bytes > t.over
	}
	m, err := x.prunePictures()
	if more || m {
		if err := x.exec(fmt.Sprintf("PRAGMA incremental_vacuum(%d)", vacuumPages)); err != nil {
			return false, err
		}
	}
	return more || m, err
}

func (x *txn) deleteRows(q string, args ...any) (bytes, n int64, err error) {
	s, err := x.stmt(q)
	if err != nil {
		return 0, 0, err
	}
	rows, err := s.Query(args...)
	if err != nil {
		return 0, 0, err
	}
	defer rows.Close() //nolint:errcheck // Err tells
	for rows.Next() {
		var l int64
		if err := rows.Scan(&l); err != nil {
			return 0, 0, err
		}
		bytes += l
		n++
	}
	return bytes, n, rows.Err()
}

// prunePictures keeps the pictures of all boards within their quota and the index
// of those gone bounded.
func (x *txn) prunePictures() (more bool, err error) {
	u, err := x.usageOf("picture")
	if err != nil {
		return false, err
	}
	for range pruneStep {
		if u.bytes <= x.in.cfg.PicturesBytes {
			break
		}
		var id, size int64
		var name string
		var k BoardKey
		err := x.row(`SELECT s.id, s.size, s.name, b.tenant, b.name FROM snapshot s JOIN board b ON b.id = s.board WHERE s.has = 1 ORDER BY s.id LIMIT 1`,
			nil, &id, &size, &name, &k.Tenant, &k.Board)
		if errors.Is(err, sql.ErrNoRows) {
			break
		}
		if err != nil {
			return false, fmt.Errorf("find oldest picture: %w", err)
		}
		b, err := x.board(k)
		if err != nil {
			return false, err
		}
		if err := x.dropPicture(b, k, id, size, name); err != nil {
			return false, err
		}
	}
	if u.count > maxPictureRows {
		_, n, err := x.deleteRows(`DELETE FROM snapshot WHERE id IN (SELECT id FROM snapshot WHERE has = 0 ORDER BY id LIMIT ?) RETURNING 0`, pruneStep)
		if err != nil {
			return false, fmt.Errorf("prune pictures: %w", err)
		}
		if err := x.use("picture", 0, -n); err != nil {
			return false, err
		}
		more = n == pruneStep
	}
	return more || u.bytes > x.in.cfg.PicturesBytes, nil
}

// sweep removes files that the database does not know as whole pictures: the
// process died between the two. It runs before the first message is taken, so no
// board is in between now.
func (in *Ingest) sweep(ctx context.Context) error {
	err := in.blobs.Sweep(func(tenant, board, name string) (bool, error) {
		var n int
		err := in.conn.QueryRowContext(ctx, `SELECT count(*) FROM snapshot s JOIN board b ON b.id = s.board
WHERE b.tenant = ? AND b.name = ? AND s.name = ? AND s.has = 1`, tenant, board, name).Scan(&n)
		return n == 0, err
	})
	if err != nil {
		return fmt.Errorf("sweep pictures: %w", err)
	}
	return nil
}

// Wipe removes all that is kept of a board: readings, events, books, pictures. The board
// must not be connected: what it sends afterwards is kept again.
func (in *Ingest) Wipe(ctx context.Context, key BoardKey) error {
	for more := true; more; {
		if err := in.submit(ctx, key, func(x *txn) (err error) { more, err = x.wipe(key); return err }); err != nil {
			return err
		}
	}
	return in.blobs.RemoveBoard(key.Tenant, key.Board)
}

func (x *txn) wipe(key BoardKey) (more bool, err error) {
	var id int64
	err = x.row(`SELECT coalesce((SELECT id FROM board WHERE tenant = ? AND name = ?), 0)`, []any{key.Tenant, key.Board}, &id)
	if err != nil || id == 0 {
		return false, err
	}
	freed, more, err := wipe.Step(x, id, pruneStep, rowOverhead)
	for _, f := range freed {
		err = errors.Join(err, x.use(f.Kind, -f.Bytes, -f.Rows))
	}
	if !more { // its number may be given anew
		x.in.db.Live.Gone(live.Key(key))
		delete(x.cache.boards, key)
		delete(x.boards, key)
		x.cache.shelf.Forget(id)
		x.cache.fold.Forget(id)
	}
	return more, errors.Join(err, fold.Emptied(x))
}
