// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"fulmar/fleet/store"
)

func open(t *testing.T) (*Log, *store.DB) {
	t.Helper()
	db, err := store.OpenFile(filepath.Join(t.TempDir(), "a.db"), []string{Schema})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return New(db), db
}

func fill(t *testing.T, db *store.DB, n int) { t.Helper(); fillTo(t, db, n, keep, drop) }

func fillTo(t *testing.T, db *store.DB, n int, keep, drop int64) {
	t.Helper()
	tx, err := db.Write.Begin()
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := add(t.Context(), tx, Entry{Who: "admin", Tenant: "default", Board: fmt.Sprint("b", i), What: "revoke", Why: "x" + strings.Repeat("é", 400)}, keep, drop); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

// TestChain: what was written verifies, and every kind of change to it does not.
func TestChain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change string
		broken bool
	}{
		"untouched":             {"SELECT 1", false},
		"a word changed":        {"UPDATE audit SET who = 'nobody' WHERE seq = 3", true},
		"a time changed":        {"UPDATE audit SET at = at + 1 WHERE seq = 5", true},
		"words moved over":      {"UPDATE audit SET who = 'adm', tenant = 'indefault' WHERE seq = 2", true},
		"a row taken out":       {"DELETE FROM audit WHERE seq = 2", true},
		"the first taken out":   {"DELETE FROM audit WHERE seq = 1", true},
		"the newest taken out":  {"DELETE FROM audit WHERE seq = 5", true},
		"all taken out":         {"DELETE FROM audit", true},
		"a row put in":          {"INSERT INTO audit SELECT 6, at, who, tenant, board, what, why, hash FROM audit WHERE seq = 5", true},
		"the beginning changed": {"UPDATE audit_base SET hash = zeroblob(31)", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, db := open(t)
			fill(t, db, 5)
			tip, rows, err := l.Verify(t.Context(), Head{})
			if err != nil || rows != 5 || tip.Seq != 5 {
				t.Fatal(tip, rows, err)
			}
			if _, err := db.Write.Exec(c.change); err != nil {
				t.Fatal(err)
			}
			if _, _, err := l.Verify(t.Context(), tip); errors.Is(err, ErrBroken) != c.broken {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestNotedHead finds a chain that was made anew as a whole.
func TestNotedHead(t *testing.T) {
	t.Parallel()
	l, db := open(t)
	fill(t, db, 3)
	noted, _, err := l.Verify(t.Context(), Head{})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, db, 2)
	if _, _, err := l.Verify(t.Context(), noted); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Write.Exec("DELETE FROM audit"); err != nil {
		t.Fatal(err)
	}
	fill(t, db, 5)
	if _, _, err := l.Verify(t.Context(), Head{}); err != nil {
		t.Fatal("a sound chain of somebody else:", err)
	}
	if _, _, err := l.Verify(t.Context(), noted); !errors.Is(err, ErrBroken) {
		t.Errorf("a chain made anew passes: %v", err)
	}
}

// TestBound: old rows go, the chain holds from where it begins, and texts are clipped
// to what the row holds.
func TestBound(t *testing.T) {
	t.Parallel()
	l, db := open(t)
	fill(t, db, 1)
	first, _, err := l.Verify(t.Context(), Head{})
	if err != nil {
		t.Fatal(err)
	}
	fillTo(t, db, 20, 20, 5)
	tip, rows, err := l.Verify(t.Context(), Head{})
	if err != nil || tip.Seq != 21 || rows != 16 {
		t.Fatal(tip.Seq, rows, err)
	}
	if _, _, err := l.Verify(t.Context(), first); err == nil || errors.Is(err, ErrBroken) {
		t.Errorf("a head older than all rows: %v", err)
	}
	n := 0
	err = l.Each(t.Context(), 20, func(e Entry) error {
		n++
		if len(e.Why) > maxWhy || len(e.Why) < maxWhy-2 || e.Seq != 21 {
			t.Errorf("row %d with %d bytes", e.Seq, len(e.Why))
		}
		return nil
	})
	if err != nil || n != 1 {
		t.Error(n, err)
	}
}

// TestNoActWithoutItsRow: the row goes with the transaction of the act.
func TestNoActWithoutItsRow(t *testing.T) {
	t.Parallel()
	l, db := open(t)
	tx, err := db.Write.BeginTx(t.Context(), &sql.TxOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := Append(t.Context(), tx, Entry{What: "revoke"}); err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if _, rows, err := l.Verify(t.Context(), Head{}); rows != 0 || err != nil {
		t.Error(rows, err)
	}
}
