// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package rows writes what records say into the tables that a person looks at. It
// knows nothing of duplicates or of clocks: ingest does.
package rows

import (
	"fulmar/fleet/ingest/clocks"
	"fulmar/schema"
)

const (
	maxSources = 128 // cameras and rules of one board
	maxAnchors = 256 // anchors kept of one board; they have done their work
)

// DB is one transaction.
type DB interface {
	Exec(q string, args ...any) error
}

// When is a moment of a board on the fleet's clock.
type When struct {
	At    int64 // ms since 1970
	Grade clocks.Grade
	Boot  uint64
	Mono  int64 // ms
	Open  bool  // may be placed anew
}

// Event writes record seq of the message, and gives the bytes of its payload.
func Event(db DB, board int64, m *schema.Message, seq uint64, e *schema.Event, w When, now int64) (size int, err error) {
	raw, err := schema.Encode(e)
	if err != nil {
		return 0, err
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
	err = db.Exec(`INSERT INTO event (board, class, epoch, seq, at, arrived, replayed, source, model, engine, snapshot,
  boxes, known, n_true, n_false, n_missed, payload, boot, mono, timed, open) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		board, m.Class, int64(m.Epoch), int64(seq), w.At, now, m.Replay, e.Source, e.Model, e.Engine, e.Snapshot,
		len(e.Boxes), known, right, wrong, missed, raw, int64(w.Boot), w.Mono, w.Grade, w.Open)
	if err != nil {
		return 0, err
	}
	err = db.Exec(`INSERT INTO camera (board, name, model, engine, last) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (board, name) DO UPDATE SET model = excluded.model, engine = excluded.engine, last = excluded.last WHERE excluded.last >= last`,
		board, e.Source, e.Model, e.Engine, w.At)
	if err != nil {
		return 0, err
	}
	return len(raw), db.Exec(`DELETE FROM camera WHERE board = ?1 AND name NOT IN (SELECT name FROM camera WHERE board = ?1 ORDER BY last DESC LIMIT ?2)`, board, maxSources)
}

// Anchor keeps an anchor for a person to look at.
func Anchor(db DB, board int64, a *schema.Anchor, w When, now int64) error {
	err := db.Exec(`INSERT INTO anchor (board, boot, mono, old, new, synced, start, at, arrived) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		board, int64(w.Boot), w.Mono, a.Old, a.New, a.Synced, a.Start, w.At, now)
	if err != nil {
		return err
	}
	return db.Exec(`DELETE FROM anchor WHERE board = ?1 AND id <= (SELECT id FROM anchor WHERE board = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)`, board, maxAnchors)
}
