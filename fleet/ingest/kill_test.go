// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/ingest/book"
	"fulmar/fleet/store"
	"fulmar/schema"
)

// killDir names the variable that makes this test binary the child of TestKills.
const killDir = "FULMAR_INGEST_KILL_DIR"

// TestKilledChild is the child: it takes deliveries for ever and says which were
// stored, one line each, after it was told so.
func TestKilledChild(t *testing.T) {
	dir := os.Getenv(killDir)
	if dir == "" {
		t.Skip("is run by TestKills")
	}
	r := few(t, dir)
	for w := range 4 {
		go func() {
			b := &plainBoard{key: BoardKey{"default", fmt.Sprintf("b%d", w)}, r: rand.New(rand.NewPCG(rand.Uint64(), 5)), streams: map[streamName]*plain{}}
			for {
				topic, p, m := b.message(t)
				if _, _, err := r.Publish(context.Background(), b.key, topic, p); err != nil {
					fmt.Println("failed", err)
					return
				}
				var line strings.Builder
				for _, q := range m.Records {
					if rec, err := schema.DecodeRecord(q.Payload); err == nil && q.Seq <= book.MaxSeq && rec.Kind == schema.KindSamples {
						fmt.Fprintf(&line, " %d", int(rec.Samples.Value[0]))
					}
				}
				fmt.Printf("stored b%d%s\n", w, line.String()) // one write, so no line is torn
			}
		}()
	}
	select {}
}

// TestKills kills a working ingest again and again, in the middle of whatever it
// does. After each kill effects and books agree, and all it had called stored is.
func TestKills(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rnd := rand.New(rand.NewPCG(6, 6))
	told := map[string]bool{} // board and value of each batch called stored
	for kill := range 40 {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestKilledChild$")
		cmd.Env = append(os.Environ(), killDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		n, stop := 0, 1+rnd.IntN(120)
		for lines.Scan() {
			f := strings.Fields(lines.Text())
			if len(f) < 2 || f[0] != "stored" {
				t.Errorf("the child says %q", lines.Text())
				continue
			}
			for _, v := range f[2:] {
				told[f[1]+" "+v] = true
			}
			if n++; n == stop {
				_ = cmd.Process.Kill() // what it had said before is still read
			}
		}
		_ = cmd.Wait()
		cancel()
		if n < stop {
			t.Fatalf("kill %d: the child ended by itself", kill)
		}
		agree(t, dir, told)
		if t.Failed() {
			t.Fatalf("after kill %d", kill)
		}
	}
	t.Logf("%d batches were called stored", len(told))
}

// agree holds the tables of a killed ingest against each other.
func agree(t *testing.T, dir string, told map[string]bool) {
	t.Helper()
	db, err := store.OpenLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	r := &rig{db: db}
	for class, table := range map[schema.Class]string{schema.ClassMetric: "telemetry", schema.ClassEvent: "event", schema.ClassAlarm: "gap WHERE reason < 11"} {
		rows := r.int(t, "SELECT count(*) FROM "+table)
		arrived := r.int(t, "SELECT coalesce((SELECT sum(arrived) FROM stream WHERE class = ?1), 0) + coalesce((SELECT sum(arrived) FROM stream_past WHERE class = ?1), 0)", class)
		if rows != arrived {
			t.Errorf("%d rows in %s, %d arrived by the books", rows, table, arrived)
		}
	}
	for _, table := range []string{"telemetry", "event"} {
		if n, u := r.int(t, "SELECT count(*) FROM "+table), r.int(t, "SELECT coalesce(sum(count), 0) FROM usage WHERE kind = ?", table); n != u {
			t.Errorf("%d rows in %s, usage counts %d", n, table, u)
		}
	}
	if n := r.int(t, "SELECT count(*) FROM stream WHERE heard < arrived + lost"); n != 0 {
		t.Errorf("%d books do not sum up", n)
	}
	have := map[string]int{}
	rows, err := db.Read.Query("SELECT b.name, t.payload FROM telemetry t JOIN board b ON b.id = t.board")
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
		have[fmt.Sprintf("%s %d", name, int(x.Value[0]))]++
	}
	for k, n := range have {
		if n != 1 {
			t.Errorf("batch %s is stored %d times", k, n)
		}
	}
	for k := range told {
		if have[k] == 0 {
			t.Errorf("batch %s was called stored and is not", k)
		}
	}
}
