// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"

	"fulmar/fleet/ingest/book"
	"fulmar/fleet/ingest/clocks"
	"fulmar/fleet/ingest/losses"
	"fulmar/fleet/ingest/reports"
	"fulmar/fleet/ingest/rows"

	"fulmar/fleet/store/live"
	"fulmar/schema"
)

// rowOverhead is what a row costs beside its payload, in bytes, for the sums that
// retention goes by.
const rowOverhead = 100

// records applies a message: each record that has not arrived before takes effect.
func (x *txn) records(key BoardKey, topic string, m *schema.Message, recs []decoded) error {
	b, err := x.board(key)
	if err != nil {
		return err
	}
	if err := x.note(b, m, recs); err != nil {
		return err
	}
	for i := range recs {
		d := &recs[i]
		// Asked for each record: a gap before it may have folded this very epoch.
		e, err := x.cache.shelf.Book(x, b.id, m.Class, m.Epoch, x.now)
		if err != nil {
			return err
		}
		if d.bad != nil {
			if err := x.refuse(key, topic, d.size, d.bad); err != nil {
				return err
			}
			if d.seq <= book.MaxSeq { // else no board can have given it out
				if err := x.lose(b, key, m, [2]uint64{d.seq, d.seq}, d.bad); err != nil {
					return err
				}
			}
			continue
		}
		arrival, err := e.Arrive(d.seq)
		if err != nil {
			return err
		}
		if arrival == book.Duplicate {
			x.n.duplicates++
			continue
		}
		x.n.records++
		if arrival == book.Returned {
			x.changed[key] = true
			if err := losses.Returned(x, b.id, m.Class, m.Epoch, d.seq); err != nil {
				return err
			}
		}
		at, err := x.effect(b, key, m, d)
		e.Made(d.seq, at)
		if err != nil {
			return fmt.Errorf("keep record %d of class %s: %w", d.seq, m.Class, err)
		}
	}
	b.seen(x.now)
	if m.Class == schema.ClassAlarm {
		return x.freed(b)
	}
	return nil
}

// effect writes what the record says, and gives the moment it was made.
func (x *txn) effect(b *boardState, key BoardKey, m *schema.Message, d *decoded) (int64, error) {
	w := x.place(b, d.rec.Time)
	switch r := d.rec; r.Kind {
	case schema.KindSamples:
		return w.At, x.samples(b, m, r.Samples, w)
	case schema.KindEvent:
		return w.At, x.event(b, m, d.seq, r.Event, w)
	case schema.KindAnchor:
		return w.At, rows.Anchor(x, b.id, r.Anchor, w, x.now) // note has used it already
	case schema.KindGap:
		return w.At, x.gap(b, r.Gap, r.Time, w.At)
	case schema.KindSnapshot:
		return w.At, x.snapshot(b, key, r.Snapshot, d.picture, w.At)
	case schema.KindReport:
		return w.At, reports.Put(x, b.id, r.Report, w.At, x.now)
	}
	return w.At, fmt.Errorf("kind %s has no effect", d.rec.Kind) // Validate knows the kinds
}

func (x *txn) samples(b *boardState, m *schema.Message, s *schema.Samples, w rows.When) error {
	raw, err := schema.Encode(s)
	if err != nil {
		return err
	}
	if !m.Replay && s.Over == nil {
		for i, name := range s.Series {
			q := schema.QualityGood
			if s.Quality != nil {
				q = s.Quality[i]
			}
			b.now.Take(name, live.Reading{Value: s.Value[i], Quality: q, At: w.At}, x.now)
		}
	}
	err = x.exec(`INSERT INTO telemetry (board, at, arrived, payload, boot, mono, timed, open) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		b.id, w.At, x.now, raw, int64(w.Boot), w.Mono, w.Grade, w.Open)
	if err != nil {
		return err
	}
	return x.use("telemetry", int64(len(raw))+rowOverhead, 1)
}

func (x *txn) event(b *boardState, m *schema.Message, seq uint64, e *schema.Event, w rows.When) error {
	size, err := rows.Event(x, b.id, m, seq, e, w, x.now)
	if err != nil {
		return err
	}
	return x.use("event", int64(size)+2*rowOverhead, 1)
}

func (x *txn) gap(b *boardState, g *schema.Gap, t schema.Time, at int64) error {
	e, err := x.cache.shelf.Book(x, b.id, g.Class, g.Epoch, x.now)
	if err != nil {
		return err
	}
	told := *g
	told.FromWall, told.ToWall = clocks.Span(g.FromWall, g.ToWall, t.Wall, at)
	return losses.Told(x, e, b.id, told, at)
}

func (x *txn) snapshot(b *boardState, key BoardKey, s *schema.Snapshot, whole bool, at int64) error {
	if !whole {
		x.n.noPicture++
	}
	// A name given twice replaces the first: the file on disk is the newest.
	var oldSize, oldHas int64
	err := x.row(`SELECT coalesce(max(size), 0), coalesce(max(has), 0) FROM snapshot WHERE board = ? AND name = ?`, []any{b.id, s.Name}, &oldSize, &oldHas)
	if err != nil {
		return err
	}
	err = x.exec(`INSERT INTO snapshot (board, name, size, sha256, media, source, frame, at, arrived, has) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (board, name) DO UPDATE SET size = excluded.size, sha256 = excluded.sha256, media = excluded.media, source = excluded.source,
  frame = excluded.frame, at = excluded.at, arrived = excluded.arrived, has = excluded.has`,
		b.id, s.Name, s.Size, s.SHA256[:], s.Media, s.Source, int64(s.Frame&book.MaxSeq), at, x.now, whole)
	if err != nil {
		return err
	}
	grown := -oldSize * oldHas
	if whole {
		grown += s.Size
	}
	b.pictures += grown
	b.sums = true
	if err := x.use("picture", grown, 1); err != nil {
		return err
	}
	return x.evict(b, key)
}

// evict removes the board's oldest pictures until it is within its share.
func (x *txn) evict(b *boardState, key BoardKey) error {
	for b.pictures > x.in.cfg.BoardPictures {
		var id, size int64
		var name string
		err := x.row(`SELECT id, size, name FROM snapshot WHERE board = ? AND has = 1 ORDER BY id LIMIT 1`, []any{b.id}, &id, &size, &name)
		if err != nil {
			return fmt.Errorf("find oldest picture: %w", err)
		}
		if err := x.dropPicture(b, key, id, size, name); err != nil {
			return err
		}
	}
	return nil
}

func (x *txn) dropPicture(b *boardState, key BoardKey, id, size int64, name string) error {
	if err := x.exec(`UPDATE snapshot SET has = 0 WHERE id = ?`, id); err != nil {
		return fmt.Errorf("drop picture: %w", err)
	}
	b.pictures -= size
	b.sums = true
	x.remove = append(x.remove, blobFile{key.Tenant, key.Board, name})
	return x.use("picture", -size, 0)
}
