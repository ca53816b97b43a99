// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package idem

import (
	"bytes"
	"errors"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"fulmar/fleet/store"
)

func table(t *testing.T) *Table {
	t.Helper()
	db, err := store.OpenFile(filepath.Join(t.TempDir(), "r.db"), []string{Schema})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return New(db)
}

// TestOnce: a request is done once; the key stands for it alone, for its caller alone.
func TestOnce(t *testing.T) {
	t.Parallel()
	x, ctx := table(t), t.Context()
	k := Key{Tenant: "default", Who: "m.kern", Key: "k1", Request: [32]byte{1}}
	begin := func(k Key, want error) *Answer {
		t.Helper()
		a, err := x.Begin(ctx, k)
		if !errors.Is(err, want) {
			t.Errorf("%s of %s: %v, wants %v", k.Key, k.Who, err, want)
		}
		return a
	}
	begin(k, nil)
	begin(k, ErrInFlight)
	if err := x.End(ctx, k, Answer{Status: 201, Head: "h", Body: []byte("done")}); err != nil {
		t.Fatal(err)
	}
	if a := begin(k, nil); a == nil || a.Status != 201 || a.Head != "h" || string(a.Body) != "done" {
		t.Errorf("the answer is %+v", a)
	}
	other := k
	other.Request[5] = 1
	begin(other, ErrOther)
	for _, who := range []Key{{"default", "m.kernk1", "", k.Request}, {"other", "m.kern", "k1", k.Request}, {"default", "m.ker", "nk1", k.Request}} {
		if a := begin(who, nil); a != nil {
			t.Errorf("%+v got the answer of another", who)
		}
	}
	// What changed nothing may be sent again.
	gone := Key{Who: "a", Key: "gone"}
	begin(gone, nil)
	if err := x.Drop(ctx, gone); err != nil {
		t.Fatal(err)
	}
	begin(gone, nil)
	// An answer that is not kept, or is too long to be.
	for i, body := range [][]byte{nil, bytes.Repeat([]byte("x"), MaxAnswer+1)} {
		k := Key{Who: "a", Key: strconv.Itoa(i)}
		begin(k, nil)
		if err := x.End(ctx, k, Answer{Status: 200, Body: body}); err != nil {
			t.Fatal(err)
		}
		begin(k, ErrSpent)
	}
	empty := Key{Who: "a", Key: "empty"}
	begin(empty, nil)
	if err := x.End(ctx, empty, Answer{Status: 204, Body: []byte{}}); err != nil {
		t.Fatal(err)
	}
	if a := begin(empty, nil); a == nil || a.Status != 204 || len(a.Body) != 0 {
		t.Errorf("an empty answer is %+v", a)
	}
	// The next start of the server does not know how it ended.
	cut := Key{Who: "a", Key: "cut"}
	begin(cut, nil)
	x = New(x.db)
	begin(cut, ErrSpent)
	// After a day the key is free.
	x.now = func() time.Time { return time.Now().Add(Life + time.Minute) }
	begin(cut, nil)
	begin(other, nil)
}

// TestBounds: a caller fills its own share, not that of others.
func TestBounds(t *testing.T) {
	t.Parallel()
	x, ctx := table(t), t.Context()
	tx, err := x.db.Write.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range MaxKeys {
		k := Key{Who: "a", Key: strconv.Itoa(i)}
		if _, err := tx.ExecContext(ctx, `INSERT INTO api_request VALUES (?, ?, ?, '', ?, 200, 1, '', '')`, k.id(), k.caller(), k.Request[:], time.Now().UnixMilli()); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Begin(ctx, Key{Who: "a", Key: "one more"}); !errors.Is(err, ErrFull) {
		t.Errorf("one more: %v", err)
	}
	if _, err := x.Begin(ctx, Key{Who: "b", Key: "one more"}); err != nil {
		t.Errorf("another caller: %v", err)
	}
}
