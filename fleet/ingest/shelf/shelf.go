// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package shelf keeps the books of all streams in the database: it reads a book
// when it is asked for, writes those that a transaction touched, and folds the
// epochs that were untouched for longest into sums, without forgetting their names.
package shelf

import (
	"database/sql"
	"errors"
	"fmt"

	"fulmar/fleet/ingest/book"
	"fulmar/schema"
)

const (
	// MaxEpochs bounds the epochs of one class whose ranges are kept; of older ones
	// the sums are. A board that loses its disk daily fills two months.
	MaxEpochs = 64
	// maxFolded bounds the epochs of one class that are summed up and still known by
	// name; a board that loses its disk daily fills eleven years.
	maxFolded = 4096
)

// DB is one transaction.
type DB interface {
	Exec(q string, args ...any) error
	Row(q string, args []any, dst ...any) error
}

// key finds a book.
type key struct {
	board int64
	class schema.Class
	epoch uint64
}

// Shelf is the memory of the books. It is made anew after a transaction that failed.
type Shelf struct {
	epochs  int
	books   map[key]*book.Book
	touched map[key]*book.Book // in this transaction
}

// New makes a shelf that keeps the ranges of so many epochs of each class.
func New(epochs int) *Shelf {
	return &Shelf{epochs: epochs, books: map[key]*book.Book{}, touched: map[key]*book.Book{}}
}

// Len is how many books are in memory.
func (s *Shelf) Len() int { return len(s.books) }

// Book finds or makes the book of a stream. It is good until another one is asked
// for: that may fold this one.
func (s *Shelf) Book(db DB, board int64, c schema.Class, epoch uint64, now int64) (*book.Book, error) {
	k := key{board, c, epoch}
	if e := s.books[k]; e != nil {
		s.touched[k] = e
		return e, nil
	}
	var heard, floor, arrived, closed, dups int64
	var spans, gaps []byte
	err := db.Row(`SELECT heard, floor, arrived, closed, dups, spans, gaps FROM stream WHERE board = ? AND class = ? AND epoch = ?`,
		[]any{board, c, int64(epoch)}, &heard, &floor, &arrived, &closed, &dups, &spans, &gaps)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		if err := s.fold(db, board, c, now); err != nil {
			return nil, err
		}
		if heard, arrived, dups, err = unfold(db, k); err != nil {
			return nil, err
		}
		floor, closed = heard, heard-arrived
	case err != nil:
		return nil, fmt.Errorf("read book: %w", err)
	}
	bk, err := book.Open(uint64(heard), uint64(floor), uint64(arrived), uint64(closed), uint64(dups), spans, gaps)
	if err != nil {
		return nil, fmt.Errorf("read book of board %d class %s: %w", board, c, err)
	}
	s.books[k], s.touched[k] = bk, bk
	return bk, nil
}

// fold makes room for one more epoch of a class: the one untouched for
// longest is added to the sums of the past, what it still waited for as lost.
func (s *Shelf) fold(db DB, board int64, c schema.Class, now int64) error {
	// Books touched in this transaction may not be in the table yet.
	if err := s.write(db, now); err != nil {
		return err
	}
	var n, epoch int64
	if err := db.Row(`SELECT count(*) FROM stream WHERE board = ? AND class = ?`, []any{board, c}, &n); err != nil {
		return err
	}
	if n < int64(s.epochs) {
		return nil
	}
	err := db.Row(`SELECT epoch FROM stream WHERE board = ? AND class = ? ORDER BY touched, epoch LIMIT 1`, []any{board, c}, &epoch)
	if err != nil {
		return fmt.Errorf("fold epochs: %w", err)
	}
	err = db.Exec(`INSERT INTO stream_past (board, class, epochs, heard, arrived, lost, dups)
SELECT board, class, 1, heard, arrived, heard - arrived, dups FROM stream WHERE board = ? AND class = ? AND epoch = ?
ON CONFLICT (board, class) DO UPDATE SET epochs = epochs + 1, heard = heard + excluded.heard,
  arrived = arrived + excluded.arrived, lost = lost + excluded.lost, dups = dups + excluded.dups`, board, c, epoch)
	if err != nil {
		return fmt.Errorf("fold epochs: %w", err)
	}
	err = db.Exec(`INSERT INTO stream_folded (board, class, epoch, heard, arrived, dups)
SELECT board, class, epoch, heard, arrived, dups FROM stream WHERE board = ? AND class = ? AND epoch = ?`, board, c, epoch)
	if err != nil {
		return fmt.Errorf("fold epochs: %w", err)
	}
	err = db.Exec(`DELETE FROM stream_folded WHERE board = ?1 AND class = ?2 AND id <= (
  SELECT id FROM stream_folded WHERE board = ?1 AND class = ?2 ORDER BY id DESC LIMIT 1 OFFSET ?3)`, board, c, maxFolded)
	if err != nil {
		return fmt.Errorf("fold epochs: %w", err)
	}
	k := key{board, c, uint64(epoch)}
	delete(s.books, k)
	delete(s.touched, k)
	return db.Exec(`DELETE FROM stream WHERE board = ? AND class = ? AND epoch = ?`, board, c, epoch)
}

// unfold takes an epoch out of the sums of the past again, should a word of it
// come: its numbers are settled, so what comes of them now is turned away and the
// sums stay right. An epoch never heard of gives zeros.
func unfold(db DB, k key) (heard, arrived, dups int64, err error) {
	err = db.Row(`DELETE FROM stream_folded WHERE board = ? AND class = ? AND epoch = ? RETURNING heard, arrived, dups`,
		[]any{k.board, k.class, int64(k.epoch)}, &heard, &arrived, &dups)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, 0, 0, nil
	}
	if err == nil {
		err = db.Exec(`UPDATE stream_past SET epochs = epochs - 1, heard = heard - ?1, arrived = arrived - ?2, lost = lost - (?1 - ?2), dups = dups - ?3
WHERE board = ?4 AND class = ?5`, heard, arrived, dups, k.board, k.class)
	}
	if err != nil {
		return 0, 0, 0, fmt.Errorf("unfold an epoch: %w", err)
	}
	return heard, arrived, dups, nil
}

// write writes the books touched since the last Flush.
func (s *Shelf) write(db DB, now int64) error {
	for k, e := range s.touched {
		spans, gaps := e.Packed()
		err := db.Exec(`INSERT INTO stream (board, class, epoch, heard, floor, spans, gaps, arrived, lost, closed, dups, touched)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (board, class, epoch) DO UPDATE SET heard = excluded.heard, floor = excluded.floor, spans = excluded.spans,
  gaps = excluded.gaps, arrived = excluded.arrived, lost = excluded.lost, closed = excluded.closed, dups = excluded.dups, touched = excluded.touched`,
			k.board, k.class, int64(k.epoch), int64(e.Heard), int64(e.Floor), spans, gaps,
			int64(e.Arrived), int64(e.Lost()), int64(e.Closed), int64(e.Dups), now)
		if err != nil {
			return fmt.Errorf("write book: %w", err)
		}
	}
	return nil
}

// Flush writes the books that this transaction touched.
func (s *Shelf) Flush(db DB, now int64) error {
	err := s.write(db, now)
	clear(s.touched)
	return err
}
