// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"fulmar/fleet/store"
	"fulmar/schema"
	"fulmar/tests/fleet/sim"
)

// acked is what boards were told to be stored.
type acked struct {
	mu sync.Mutex
	by map[schema.ID]bool
}

func (a *acked) add(id schema.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.by[id] = true
}

func (a *acked) len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.by)
}

// TestKilledServer kills the real server under load, again and again, at moments that
// nobody chose. Boards speak MQTT over mutual TLS and free a record on its PUBACK alone.
// In the end every record that was acknowledged is there, once, and so is every one that
// was made.
func TestKilledServer(t *testing.T) {
	t.Parallel()
	s := server(t)
	told := &acked{by: map[schema.ID]bool{}}
	f, stop := start(t, s, sim.Config{
		Boards: 60, Sites: 6, Seed: 2, Every: 20 * time.Millisecond, EventEvery: 60 * time.Millisecond, PictureEvery: 500 * time.Millisecond,
		Ramp: time.Second, Numbered: true, Acked: told.add,
	})
	kills := 6
	for kill := range kills {
		until(t, f, time.Minute, "records of 40 boards since the start of the server", func() func(sim.Stats) bool {
			first := f.Stats()
			return func(n sim.Stats) bool { return n.Connected >= 40 && n.Records > first.Records+2000 }
		}())
		time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
		s.Fleet.Kill()
		t.Logf("kill %d after %d acknowledged records, %d wait", kill, told.len(), f.Stats().Waiting)
		if err := s.StartFleet(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	until(t, f, time.Minute, "all boards are back", func(n sim.Stats) bool { return n.Connected == 60 })
	stop() // sends what is left
	if n := f.Stats(); n.Waiting > 0 || n.Dropped > 0 {
		t.Errorf("not all was sent: %+v", n)
	}
	if _, err := s.Fleet.Stop(); err != nil {
		t.Fatal(err)
	}
	if told.len() < kills*2000 {
		t.Fatalf("only %d records: this proves little", told.len())
	}
	compare(t, s.Dir, told)
	if err := s.StartFleet(t.Context()); err != nil { // for the cleanup, and as it must start
		t.Fatal(err)
	}
}

// compare holds the ledger's tables against what was acknowledged.
func compare(t *testing.T, dir string, told *acked) {
	t.Helper()
	db, err := store.OpenLedger(filepath.Join(dir, "fleet"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	events := map[schema.ID]int{}
	rows, err := db.Read.Query(`SELECT b.name, e.class, e.epoch, e.seq FROM event e JOIN board b ON b.id = e.board`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id schema.ID
		var epoch int64
		if err := rows.Scan(&id.Board, &id.Class, &epoch, &id.Seq); err != nil {
			t.Fatal(err)
		}
		id.Epoch = uint64(epoch)
		events[id]++
	}
	for id, n := range events {
		if n != 1 {
			t.Errorf("%s is stored %d times", id, n)
		}
	}
	batches := countBatches(t, db)
	last := map[string]uint64{} // of each board's samples: numbers have no holes
	for id := range told.by {
		switch id.Class {
		case schema.ClassEvent:
			if events[id] == 0 {
				t.Errorf("%s was acknowledged and is not there", id)
			}
		case schema.ClassMetric: // a board's n-th batch is its n-th record
			if batches[batchOf(id.Board, id.Seq)] != 1 {
				t.Errorf("%s was acknowledged and is there %d times", id, batches[batchOf(id.Board, id.Seq)])
			}
			last[id.Board] = max(last[id.Board], id.Seq)
		}
	}
	for board, n := range last {
		for seq := range n {
			if batches[batchOf(board, seq+1)] != 1 {
				t.Errorf("batch %d of %s is there %d times", seq+1, board, batches[batchOf(board, seq+1)])
			}
		}
	}
	var open int
	if err := db.Read.QueryRow(`SELECT count(*) FROM stream WHERE heard <> arrived + lost OR lost > 0`).Scan(&open); err != nil || open != 0 {
		t.Errorf("%d books have numbers that did not arrive, %v", open, err)
	}
	var check string
	if err := db.Read.QueryRow("PRAGMA integrity_check").Scan(&check); err != nil || check != "ok" {
		t.Errorf("%s, %v", check, err)
	}
	t.Logf("%d acknowledged, %d events, %d batches", len(told.by), len(events), len(batches))
}

func batchOf(board string, n uint64) string { return fmt.Sprint(board, " ", n) }

func countBatches(t *testing.T, db *store.DB) map[string]int {
	t.Helper()
	out := map[string]int{}
	rows, err := db.Read.Query(`SELECT b.name, t.payload FROM telemetry t JOIN board b ON b.id = t.board`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var raw []byte
		var x schema.Samples
		if err := rows.Scan(&name, &raw); err != nil || schema.Decode(raw, &x) != nil {
			t.Fatal("a row that cannot be read", err)
		}
		out[batchOf(name, uint64(x.Value[len(x.Value)-1]))]++
	}
	return out
}
