// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"context"
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"

	"fulmar/schema"
)

// TestWipe: of a wiped board nothing is left in any table, file or memory, the sums stay
// right, and no other board is touched.
func TestWipe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := start(t, dir, Config{})
	other, key := BoardKey{"default", "b0"}, testKey
	body := []byte("picture")
	deliver := func(key BoardKey) {
		t.Helper()
		for i := range 3 {
			var recs []schema.SeqRecord
			for n := range 300 {
				recs = append(recs, schema.SeqRecord{Seq: uint64(300*i + n + 1), Payload: samples(t, 1)})
			}
			r.send(t, key, schema.ClassMetric, 1, recs...)
		}
		r.send(t, key, schema.ClassEvent, 1, schema.SeqRecord{Seq: 1, Payload: record(t, schema.Record{Kind: schema.KindEvent, Event: &schema.Event{Source: "cam0"}})})
		c := &schema.Chunk{V: 1, Total: int64(len(body)), Data: body}
		for _, name := range []string{"a.jpg", "half.jpg"} {
			if _, refused, err := r.Publish(context.Background(), key, "f/v1/default/"+key.Board+"/blob/"+name, encode(t, c)); err != nil || refused {
				t.Fatal(refused, err)
			}
		}
		r.send(t, key, schema.ClassSnapshot, 1, schema.SeqRecord{Seq: 1, Payload: record(t, schema.Record{
			Kind: schema.KindSnapshot, Snapshot: &schema.Snapshot{Name: "a.jpg", Size: int64(len(body)), SHA256: sha256.Sum256(body), Media: "image/jpeg", Source: "cam0"},
		})})
		if _, _, err := r.Publish(context.Background(), key, "f/v1/default/"+key.Board+"/t/host", []byte("noise")); err != nil {
			t.Fatal(err)
		}
	}
	deliver(other)
	deliver(key)
	id := r.int(t, "SELECT id FROM board WHERE name = 'b1'")
	if id != r.int(t, "SELECT max(id) FROM board") || r.int(t, "SELECT count(*) FROM refused WHERE board = 'b1'") == 0 {
		t.Fatal("the test does not test what it should")
	}
	if err := r.Wipe(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	rows, err := r.db.Read.Query(`SELECT m.name FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND c.name = 'board' AND c.type = 'INTEGER'`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	tables := 0
	for rows.Next() {
		var table string
		if err := rows.Scan(&table); err != nil {
			t.Fatal(err)
		}
		tables++
		if n := r.int(t, "SELECT count(*) FROM "+table+" WHERE board = ?", id); n != 0 {
			t.Errorf("%d rows of %s are left", n, table)
		}
	}
	if tables < 12 || r.int(t, "SELECT count(*) FROM board WHERE name = 'b1'") != 0 || r.int(t, "SELECT count(*) FROM refused WHERE board = 'b1'") != 0 {
		t.Errorf("looked into %d tables; the board is left", tables)
	}
	check := func() {
		t.Helper()
		for kind, q := range map[string]string{
			"telemetry": "SELECT coalesce(sum(length(payload) + 100), 0) FROM telemetry", "event": "SELECT coalesce(sum(length(payload) + 200), 0) FROM event",
			"picture": "SELECT coalesce(sum(size), 0) FROM snapshot WHERE has = 1",
		} {
			if n, u := r.int(t, q), r.int(t, "SELECT bytes FROM usage WHERE kind = ?", kind); n != u {
				t.Errorf("%s: %d bytes are there, %d booked", kind, n, u)
			}
		}
	}
	check()
	err = filepath.WalkDir(filepath.Join(dir, "pictures"), func(path string, d os.DirEntry, err error) error {
		if d != nil && d.Name() == "b1" {
			t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if n := r.int(t, "SELECT arrived FROM stream s JOIN board b ON b.id = s.board WHERE b.name = 'b0' AND class = 2"); n != 900 {
		t.Errorf("the other board has %d records, wants 900", n)
	}
	// Its number goes to the next new board, of which nothing is known.
	deliver(BoardKey{"default", "b7"})
	if r.int(t, "SELECT id FROM board WHERE name = 'b7'") != id || r.int(t, "SELECT arrived FROM stream WHERE board = ? AND class = 2", id) != 900 || r.Stats().Duplicates != 0 {
		t.Errorf("records of a new board count as those of the wiped one: %d duplicates", r.Stats().Duplicates)
	}
	check()
	if err := r.Wipe(t.Context(), BoardKey{"default", "nobody"}); err != nil {
		t.Error(err)
	}
}
