// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/store"
	"fulmar/schema/rest"
	"fulmar/trust"
	"fulmar/trust/chain"
)

// openBook gives a book with a clock of its own.
func openBook(t *testing.T) (*Book, *store.DB, *time.Time) {
	t.Helper()
	db, err := store.OpenFile(filepath.Join(t.TempDir(), "a.db"), []string{Schema, Heads})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	key, err := OpenKey(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, now := NewBook(New(db), key), time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	b.now = func() time.Time { return now }
	return b, db, &now
}

func signedRows(t *testing.T, db *store.DB) (out []int64) {
	t.Helper()
	rows, err := db.Read.Query(`SELECT seq FROM audit_head ORDER BY seq`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			t.Fatal(err)
		}
		out = append(out, n)
	}
	return out
}

// TestSigning: a head is kept at first, after ten minutes with something new, and after
// a thousand rows; nothing is signed twice.
func TestSigning(t *testing.T) {
	t.Parallel()
	b, db, now := openBook(t)
	if err := b.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	step := func(rows int, later time.Duration, want ...int64) {
		t.Helper()
		fill(t, db, rows)
		*now = now.Add(later)
		if err := b.sign(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := signedRows(t, db); !slices.Equal(got, want) {
			t.Errorf("signed %v, wants %v", got, want)
		}
	}
	step(0, time.Hour, 1)       // the row that names the key
	step(1, -2*time.Hour, 1, 2) // a clock that went back does not stop it
	step(4, time.Minute, 1, 2)
	step(0, 10*time.Minute, 1, 2, 6)
	step(signRows-1, 0, 1, 2, 6)
	step(1, 0, 1, 2, 6, 6+signRows)
	h, err := b.Head(t.Context())
	if err != nil || h.Seq != 6+signRows || h.Rows != h.Seq || h.KeyID != b.key.ID {
		t.Fatalf("%+v %v", h, err)
	}
	fill(t, db, 1)
	if h, err = b.Head(t.Context()); err != nil || h.Seq != 7+signRows {
		t.Errorf("%+v %v", h, err)
	}
	if s, err := chain.Open([]byte(h.Signature), []byte(h.Key)); err != nil || s.Seq != h.Seq || fmt.Sprintf("%x", s.Hash) != h.Hash {
		t.Errorf("%+v %v", s, err)
	}
	if got := signedRows(t, db); len(got) != 4 {
		t.Error("a head that somebody asked for is kept: ", got)
	}
}

// TestNothingBrokenIsSigned: what does not follow from the last head gets no signature,
// and a chain that was made anew is found by the heads alone.
func TestNothingBrokenIsSigned(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]string{
		"a row after the head changed": "UPDATE audit SET who = 'nobody' WHERE seq = 7",
		"the row of the head changed":  "UPDATE audit SET hash = zeroblob(32) WHERE seq = 4",
		"a row after it removed":       "DELETE FROM audit WHERE seq = 6",
		"the row of the head removed":  "DELETE FROM audit WHERE seq = 4",
		"the head changed":             "UPDATE audit_head SET envelope = replace(envelope, 'ey', 'eY')",
		"the head's key changed":       "UPDATE audit_head SET key = replace(key, 'MCow', 'MCoW')",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, db, _ := openBook(t)
			fill(t, db, 3)
			if err := b.Begin(t.Context()); err != nil {
				t.Fatal(err)
			}
			fill(t, db, 5)
			if _, err := b.Head(t.Context()); err != nil {
				t.Fatal(err)
			}
			b.newest = nil // as another process
			if _, err := db.Write.Exec(change); err != nil {
				t.Fatal(err)
			}
			if h, err := b.Head(t.Context()); err == nil {
				t.Errorf("signed: %+v", h)
			}
			if _, _, err := b.Verify(t.Context(), Head{}); !errors.Is(err, ErrBroken) {
				t.Error("verified:", err)
			}
			if err := b.check(t.Context()); !errors.Is(err, ErrBroken) || b.broken == "" {
				t.Error("checked: ", err, b.broken)
			}
		})
	}
	b, db, _ := openBook(t)
	fill(t, db, 3)
	if err := b.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Write.Exec("DELETE FROM audit"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Verify(t.Context(), Head{}); !errors.Is(err, ErrBroken) {
		t.Error("a log emptied after it was signed: ", err)
	}
	fill(t, db, 5) // a sound chain of somebody else
	if _, _, err := b.Verify(t.Context(), Head{}); !errors.Is(err, ErrBroken) || !strings.Contains(err.Error(), "row 4 is not the one that was signed") {
		t.Error("a log made anew: ", err)
	}
}

// TestExport: what is exported verifies without the server, from where old rows went.
func TestExport(t *testing.T) {
	t.Parallel()
	b, db, _ := openBook(t)
	fill(t, db, 2)
	if err := b.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	fillTo(t, db, 30, 20, 5)
	if _, err := db.Write.Exec(`DELETE FROM audit_head`); err != nil { // as keepHead would: its row is gone
		t.Fatal(err)
	}
	if err := b.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	fill(t, db, 3)
	var f bytes.Buffer
	tip, err := b.Export(t.Context(), &f)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := b.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	r, err := chain.Verify(bytes.NewReader(f.Bytes()), pub, tip, nil)
	if err != nil || r.Last != tip.Seq || r.First < 2 || r.Heads != 2 {
		t.Fatalf("%+v %v", r, err)
	}
	if _, err := db.Write.Exec("UPDATE audit SET why = 'x' WHERE seq = ?", tip.Seq-1); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Export(t.Context(), &f); !errors.Is(err, ErrBroken) {
		t.Error("a broken log is exported: ", err)
	}
}

// TestNewKey: another key says so in the log, which it signs.
func TestNewKey(t *testing.T) {
	t.Parallel()
	b, _, _ := openBook(t)
	if err := b.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	other, err := trust.NewKeyFile(filepath.Join(dir, "k"), trust.P256)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, refFile), []byte("file:"+filepath.Join(dir, "k")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := OpenKey(dir, nil)
	if err != nil || key.ID != other.ID {
		t.Fatal(err)
	}
	b.key, b.newest = key, nil
	if err := b.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	list, err := b.Entries(t.Context(), "", 0, 10, rest.AuditFilter{What: "audit-key"})
	if err != nil || len(list) != 2 || !strings.Contains(list[1].Why, key.ID) {
		t.Errorf("%+v %v", list, err)
	}
	if _, _, err := b.Verify(t.Context(), Head{}); err != nil {
		t.Error(err)
	}
}

func TestKeyFolder(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "audit")
	one, err := OpenKey(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if two, err := OpenKey(dir, nil); err != nil || two.ID != one.ID {
		t.Error(err)
	}
	if err := os.Chmod(filepath.Join(dir, keyFile), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKey(dir, nil); err == nil {
		t.Error("a key that others may read is used")
	}
	if err := os.WriteFile(filepath.Join(dir, refFile), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKey(dir, nil); err == nil {
		t.Error("a reference that is none is passed over")
	}
}

// TestEntries: filters, both directions, pages without holes or repeats, one tenant.
func TestEntries(t *testing.T) {
	t.Parallel()
	l, db := open(t)
	tx, err := db.Write.Begin()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		e := Entry{Who: []string{"kern", "mai"}[i%2], Tenant: []string{"default", "default", "default", "other"}[i%4], Board: fmt.Sprint("b", i%3), What: "revoke"}
		if err := Append(t.Context(), tx, e); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	seqs := func(after int64, limit int, f rest.AuditFilter) (out []int64) {
		t.Helper()
		list, err := l.Entries(t.Context(), "default", after, limit, f)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if e.Tenant != "default" || len(e.Hash) != 64 {
				t.Errorf("%+v", e)
			}
			out = append(out, e.Seq)
		}
		return out
	}
	all := []int64{1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15, 17, 18, 19}
	back := slices.Clone(all)
	slices.Reverse(back)
	for _, newest := range []bool{false, true} {
		want, got, after := all, []int64(nil), int64(0)
		if newest {
			want = back
		}
		for range 20 {
			page := seqs(after, 4, rest.AuditFilter{Newest: newest})
			if len(page) == 0 {
				break
			}
			got, after = append(got, page...), page[len(page)-1]
		}
		if !slices.Equal(got, want) {
			t.Errorf("newest %v: %v, wants %v", newest, got, want)
		}
	}
	if got := seqs(0, 100, rest.AuditFilter{Who: "mai", Board: "b1"}); !slices.Equal(got, []int64{2, 14}) {
		t.Error(got)
	}
	if got := seqs(0, 100, rest.AuditFilter{Who: "' OR 1=1 --"}); got != nil {
		t.Error(got)
	}
	if got := seqs(0, -5, rest.AuditFilter{}); len(got) != 1 {
		t.Error(got)
	}
	if got := seqs(0, 5, rest.AuditFilter{From: time.Now().Add(time.Hour)}); got != nil {
		t.Error(got)
	}
	if got := seqs(0, 100, rest.AuditFilter{To: time.Now().Add(time.Hour), From: time.Now().Add(-time.Hour)}); len(got) != 15 {
		t.Error(got)
	}
}
