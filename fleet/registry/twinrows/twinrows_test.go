// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package twinrows

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"fulmar/fleet/store"
)

// TestHistoryBounds: of one board the newest events stay, of all the newest too.
func TestHistoryBounds(t *testing.T) {
	t.Parallel()
	db, err := store.OpenFile(filepath.Join(t.TempDir(), "r.db"), []string{`CREATE TABLE tenant (name TEXT PRIMARY KEY) WITHOUT ROWID; INSERT INTO tenant VALUES ('default');` + Schema})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	x := New(db)
	within := func(fn func(tx *sql.Tx) error) {
		t.Helper()
		tx, err := x.Begin(t.Context())
		if err == nil {
			err = fn(tx)
		}
		if err == nil {
			err = tx.Commit()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for board := range 3 {
		for part := range 5 {
			c := &Change{Key: Key{"default", fmt.Sprint("b", board)}, Head: Head{Life: "f1"}, Body: []byte{1}, At: time.UnixMilli(int64(part))}
			for n := range 50 {
				c.Events = append(c.Events, fmt.Appendf(nil, "%d", part*50+n))
			}
			within(func(tx *sql.Tx) error { return x.Put(t.Context(), tx, c) })
		}
	}
	list, err := x.History(t.Context(), Key{"default", "b1"}, 0, 1000)
	if err != nil || len(list) != boardEvents || string(list[0].Body) != "249" || string(list[boardEvents-1].Body) != "50" {
		t.Fatalf("%d, %v", len(list), err)
	}
	if next, err := x.History(t.Context(), Key{"default", "b1"}, list[9].ID, 2); err != nil || len(next) != 2 || string(next[0].Body) != "239" {
		t.Errorf("%+v, %v", next, err)
	}
	within(func(tx *sql.Tx) error { return prune(t.Context(), tx, 250) })
	for board, want := range []int{0, 50, 200} {
		if list, err := x.History(t.Context(), Key{"default", fmt.Sprint("b", board)}, 0, 1000); err != nil || len(list) != want {
			t.Errorf("b%d: %d, %v", board, len(list), err)
		}
	}
	within(func(tx *sql.Tx) error { return x.Forget(t.Context(), tx, Key{"default", "b2"}) })
	if n, err := x.Count(t.Context()); err != nil || n != 2 {
		t.Errorf("%d, %v", n, err)
	}
	if list, err := x.History(t.Context(), Key{"default", "b2"}, 0, 1000); err != nil || len(list) != 0 {
		t.Errorf("%d, %v", len(list), err)
	}
}
