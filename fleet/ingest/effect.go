// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"database/sql"
	"errors"
	"fmt"

	"fulmar/fleet/ingest/book"
	"fulmar/fleet/ingest/clocks"

	"fulmar/fleet/store"
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
			e.Hear(d.seq) // it was given out: the ledger shows it as waiting
			if err := x.refuse(key, topic, d.size, d.bad); err != nil {
				return err
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
			if err := x.returned(b, m, d.seq); err != nil {
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
	return nil
}

// returned takes a number out of the gap that had told it as lost, and out of the
// sum of that reason. A gap too old to be kept leaves the sum as it is.
func (x *txn) returned(b *boardState, m *schema.Message, seq uint64) error {
	var reason schema.Reason
	err := x.row(`UPDATE gap SET count = count - 1 WHERE id = (
  SELECT id FROM gap WHERE board = ?1 AND class = ?2 AND epoch = ?3 AND first <= ?4 AND last >= ?4 AND count > 0 ORDER BY id LIMIT 1) RETURNING reason`,
		[]any{b.id, m.Class, int64(m.Epoch), int64(seq)}, &reason)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("book a returned record: %w", err)
	}
	return x.exec(`UPDATE loss SET count = count - 1 WHERE board = ? AND class = ? AND reason = ?`, b.id, m.Class, reason)
}

// effect writes what the record says, and gives the moment it was made.
func (x *txn) effect(b *boardState, key BoardKey, m *schema.Message, d *decoded) (int64, error) {
	w := x.place(b, d.rec.Time)
	switch r := d.rec; r.Kind {
	case schema.KindSamples:
		return w.at, x.samples(b, m, r.Samples, w)
	case schema.KindEvent:
		return w.at, x.event(b, m, d.seq, r.Event, w)
	case schema.KindAnchor:
		return w.at, x.anchor(b, r.Anchor, w)
	case schema.KindGap:
		return w.at, x.gap(b, r.Gap, r.Time, w.at)
	case schema.KindSnapshot:
		return w.at, x.snapshot(b, key, r.Snapshot, d.picture, w.at)
	case schema.KindReport:
		return w.at, x.report(b, r.Report, w.at)
	}
	return w.at, fmt.Errorf("kind %s has no effect", d.rec.Kind) // Validate knows the kinds
}

func (x *txn) samples(b *boardState, m *schema.Message, s *schema.Samples, w when) error {
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
			old, known := b.latest[name]
			if (known && old.At > w.at && old.At <= x.now) || (!known && len(b.latest) >= maxLatest) {
				continue
			}
			b.latest[name] = store.Reading{Value: s.Value[i], Quality: q, At: w.at}
		}
	}
	err = x.exec(`INSERT INTO telemetry (board, at, arrived, payload, boot, mono, timed, open) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		b.id, w.at, x.now, raw, int64(w.boot), w.mono, w.grade, w.open)
	if err != nil {
		return err
	}
	return x.use("telemetry", int64(len(raw))+rowOverhead, 1)
}

func (x *txn) event(b *boardState, m *schema.Message, seq uint64, e *schema.Event, w when) error {
	raw, err := schema.Encode(e)
	if err != nil {
		return err
	}
	var right, wrong, missed int
	known := len(e.Truth) > 0
	for _, box := range e.Boxes {
		switch box.Match {
		case schema.MatchTrue:
			right++
		case schema.MatchFalse:
			wrong++
		}
		known = known || box.Match != schema.MatchUnknown
	}
	for _, box := range e.Truth {
		if box.Match == schema.MatchMissed {
			missed++
		}
	}
	err = x.exec(`INSERT INTO event (board, class, epoch, seq, at, arrived, replayed, source, model, engine, snapshot,
  boxes, known, n_true, n_false, n_missed, payload, boot, mono, timed, open) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		b.id, m.Class, int64(m.Epoch), int64(seq), w.at, x.now, m.Replay, e.Source, e.Model, e.Engine, e.Snapshot,
		len(e.Boxes), known, right, wrong, missed, raw, int64(w.boot), w.mono, w.grade, w.open)
	if err != nil {
		return err
	}
	err = x.exec(`INSERT INTO camera (board, name, model, engine, last) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (board, name) DO UPDATE SET model = excluded.model, engine = excluded.engine, last = excluded.last WHERE excluded.last >= last`,
		b.id, e.Source, e.Model, e.Engine, w.at)
	if err != nil {
		return err
	}
	err = x.exec(`DELETE FROM camera WHERE board = ?1 AND name NOT IN (SELECT name FROM camera WHERE board = ?1 ORDER BY last DESC LIMIT ?2)`, b.id, maxSources)
	if err != nil {
		return err
	}
	return x.use("event", int64(len(raw))+2*rowOverhead, 1)
}

func (x *txn) gap(b *boardState, g *schema.Gap, t schema.Time, at int64) error {
	e, err := x.cache.shelf.Book(x, b.id, g.Class, g.Epoch, x.now)
	if err != nil {
		return err
	}
	lost, err := e.Lose(g.First, g.Last)
	if err != nil {
		return err
	}
	from, to := clocks.Span(g.FromWall, g.ToWall, t.Wall, at)
	err = x.exec(`INSERT INTO gap (board, class, epoch, first, last, reason, from_ms, to_ms, at, count) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		b.id, g.Class, int64(g.Epoch), int64(g.First), int64(g.Last), g.Reason, from, to, at, int64(lost))
	if err != nil {
		return err
	}
	err = x.exec(`INSERT INTO loss (board, class, reason, count) VALUES (?, ?, ?, ?)
ON CONFLICT (board, class, reason) DO UPDATE SET count = count + excluded.count`, b.id, g.Class, g.Reason, int64(lost))
	if err != nil {
		return err
	}
	return x.exec(`DELETE FROM gap WHERE board = ?1 AND id <= (SELECT id FROM gap WHERE board = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)`, b.id, maxGaps)
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

func (x *txn) report(b *boardState, r *schema.Report, at int64) error {
	// The newest word of a subject stands; `since` is when its state began.
	err := x.exec(`INSERT INTO report (board, subject, state, severity, text, at, arrived, since) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?6)
ON CONFLICT (board, subject) DO UPDATE SET
  since = CASE WHEN state = excluded.state AND severity = excluded.severity THEN since ELSE excluded.at END,
  state = excluded.state, severity = excluded.severity, text = excluded.text, at = excluded.at, arrived = excluded.arrived
WHERE excluded.at >= at`, b.id, r.Subject, r.State, min(r.Severity, schema.SeverityAlarm), r.Text, at, x.now)
	if err != nil {
		return err
	}
	return x.exec(`DELETE FROM report WHERE board = ?1 AND subject NOT IN (SELECT subject FROM report WHERE board = ?1 ORDER BY at DESC LIMIT ?2)`,
		b.id, maxReports)
}
