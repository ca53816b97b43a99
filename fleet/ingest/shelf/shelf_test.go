// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package shelf

import (
	"database/sql"
	"testing"

	"fulmar/fleet/store"
	"fulmar/schema"
)

// counted is one transaction, and how many statements it ran.
type counted struct {
	*sql.Tx
	n int
}

func (c *counted) Exec(q string, args ...any) error {
	c.n++
	_, err := c.Tx.Exec(q, args...)
	return err
}

func (c *counted) Row(q string, args []any, dst ...any) error {
	c.n++
	return c.QueryRow(q, args...).Scan(dst...)
}

// TestManyNewBoards: what a new board costs does not grow with how many others are new in
// the same transaction. It once wrote the books of all of them for each of its own, and a
// server to which thousands came at once did nothing else any more.
func TestManyNewBoards(t *testing.T) {
	t.Parallel()
	db, err := store.OpenLedger(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.Write.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	x, s := &counted{Tx: tx}, New(MaxEpochs)
	const boards = 200
	for i := range int64(boards) {
		if _, err := tx.Exec(`INSERT INTO board (id, tenant, name) VALUES (?, 't', ?)`, i+1, i); err != nil {
			t.Fatal(err)
		}
		for c := range schema.Class(schema.NumClasses) {
			if b, err := s.Book(x, i+1, c, 7, 1); err != nil {
				t.Fatal(err)
			} else {
				b.Hear(5)
			}
		}
	}
	if err := s.Flush(x, 1); err != nil {
		t.Fatal(err)
	}
	books := boards * schema.NumClasses
	if each := float64(x.n) / float64(books); each > 6 {
		t.Errorf("%d statements for %d new books, %.0f for each", x.n, books, each)
	}
	var n int
	if err := tx.QueryRow(`SELECT count(*) FROM stream WHERE heard = 5`).Scan(&n); err != nil || n != books {
		t.Errorf("%d of %d books are written, %v", n, books, err)
	}
}
