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
	"maps"

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
	// maxRanges bounds the ranges kept of a folded epoch, bytes: some hundred holes.
	// With more its numbers are settled, what was waited for as lost.
	maxRanges = 512
)

// DB is one transaction.
type DB interface {
	Exec(q string, args ...any) error
	Row(q string, args []any, dst ...any) error
}

// key finds a book.
type key struct {
	stream
	epoch uint64
}

// stream is all epochs of one class of a board.
type stream struct {
	board int64
	class schema.Class
}

// Shelf is the memory of the books. It is made anew after a transaction that failed.
type Shelf struct {
	epochs  int
	books   map[key]*book.Book
	touched map[stream]map[uint64]*book.Book // in this transaction, by epoch
}

// New makes a shelf that keeps the ranges of so many epochs of each class.
func New(epochs int) *Shelf {
	return &Shelf{epochs: epochs, books: map[key]*book.Book{}, touched: map[stream]map[uint64]*book.Book{}}
}

// Len is how many books are in memory.
func (s *Shelf) Len() int { return len(s.books) }

// Forget lets the books of a board go, whose rows were removed.
func (s *Shelf) Forget(board int64) {
	maps.DeleteFunc(s.books, func(k key, _ *book.Book) bool { return k.board == board })
	maps.DeleteFunc(s.touched, func(k stream, _ map[uint64]*book.Book) bool { return k.board == board })
}

// Book finds or makes the book of a stream. It is good until another one is asked
// for: that may fold this one.
func (s *Shelf) Book(db DB, board int64, c schema.Class, epoch uint64, now int64) (*book.Book, error) {
	k := key{stream{board, c}, epoch}
	if e := s.books[k]; e != nil {
		s.touch(k, e)
		return e, nil
	}
	bk, err := open(db, "SELECT %s, floor_at FROM stream WHERE board = ? AND class = ? AND epoch = ?", k)
	if bk == nil && err == nil {
		if err = s.fold(db, k.stream, now); err == nil {
			bk, err = unfold(db, k)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read book of board %d class %s: %w", board, c, err)
	}
	s.books[k] = bk
	s.touch(k, bk)
	return bk, nil
}

func (s *Shelf) touch(k key, b *book.Book) {
	m := s.touched[k.stream]
	if m == nil {
		m = map[uint64]*book.Book{}
		s.touched[k.stream] = m
	}
	m[k.epoch] = b
}

// fold makes room for one more epoch of a class: the one untouched for longest is
// added to the sums of the past, what it still waits for as lost until it comes.
func (s *Shelf) fold(db DB, st stream, now int64) error {
	// Its books that this transaction touched may not be in the table yet. Those of other
	// streams do not matter here, and are many where many boards come at once.
	if err := write(db, st, s.touched[st], now); err != nil {
		return err
	}
	board, c := st.board, st.class
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
	err = db.Exec(`INSERT INTO stream_folded (board, class, epoch, heard, floor, spans, gaps, arrived, closed, dups)
SELECT board, class, epoch, heard, iif(long, heard, floor), iif(long, x'', spans), iif(long, x'', gaps), arrived, iif(long, heard - arrived, closed), dups
FROM (SELECT *, length(spans) + length(gaps) > ?4 AS long FROM stream WHERE board = ?1 AND class = ?2 AND epoch = ?3)`, board, c, epoch, maxRanges)
	if err != nil {
		return fmt.Errorf("fold epochs: %w", err)
	}
	err = db.Exec(`DELETE FROM stream_folded WHERE board = ?1 AND class = ?2 AND id <= (
  SELECT id FROM stream_folded WHERE board = ?1 AND class = ?2 ORDER BY id DESC LIMIT 1 OFFSET ?3)`, board, c, maxFolded)
	if err != nil {
		return fmt.Errorf("fold epochs: %w", err)
	}
	delete(s.books, key{st, uint64(epoch)})
	delete(s.touched[st], uint64(epoch))
	return db.Exec(`DELETE FROM stream WHERE board = ? AND class = ? AND epoch = ?`, board, c, epoch)
}

// unfold takes an epoch out of the sums of the past again, now that a word of it
// came. An epoch never heard of gives an empty book.
func unfold(db DB, k key) (*book.Book, error) {
	b, err := open(db, "DELETE FROM stream_folded WHERE board = ? AND class = ? AND epoch = ? RETURNING %s, 0", k)
	if err != nil {
		return nil, err
	}
	if b == nil {
		return &book.Book{}, nil
	}
	err = db.Exec(`UPDATE stream_past SET epochs = epochs - 1, heard = heard - ?1, arrived = arrived - ?2, lost = lost - (?1 - ?2), dups = dups - ?3
WHERE board = ?4 AND class = ?5`, int64(b.Heard), int64(b.Arrived), int64(b.Dups), k.board, k.class)
	return b, err
}

// open reads a book by a query for its columns; nil where there is none.
func open(db DB, q string, k key) (*book.Book, error) {
	var n [6]int64
	var spans, gaps []byte
	err := db.Row(fmt.Sprintf(q, "heard, floor, arrived, closed, dups, spans, gaps"), []any{k.board, k.class, int64(k.epoch)},
		&n[0], &n[1], &n[2], &n[3], &n[4], &spans, &gaps, &n[5])
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b, err := book.Open(uint64(n[0]), uint64(n[1]), uint64(n[2]), uint64(n[3]), uint64(n[4]), spans, gaps)
	if err == nil {
		b.FloorAt = n[5]
	}
	return b, err
}

// write writes books of a stream.
func write(db DB, st stream, books map[uint64]*book.Book, now int64) error {
	for epoch, e := range books {
		spans, gaps := e.Packed()
		err := db.Exec(`INSERT INTO stream (board, class, epoch, heard, floor, spans, gaps, arrived, lost, closed, dups, floor_at, touched)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (board, class, epoch) DO UPDATE SET heard = excluded.heard, floor = excluded.floor, spans = excluded.spans,
  gaps = excluded.gaps, arrived = excluded.arrived, lost = excluded.lost, closed = excluded.closed, dups = excluded.dups, floor_at = excluded.floor_at,
  touched = excluded.touched`,
			st.board, st.class, int64(epoch), int64(e.Heard), int64(e.Floor), spans, gaps,
			int64(e.Arrived), int64(e.Lost()), int64(e.Closed), int64(e.Dups), e.FloorAt, now)
		if err != nil {
			return fmt.Errorf("write book: %w", err)
		}
	}
	return nil
}

// Flush writes the books that this transaction touched.
func (s *Shelf) Flush(db DB, now int64) (err error) {
	for st, books := range s.touched {
		if err = write(db, st, books, now); err != nil {
			break
		}
	}
	clear(s.touched)
	return err
}
