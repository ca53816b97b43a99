// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"fulmar/fleet/store"
	"fulmar/fleet/web"
)

// unpack lays a file of testdata out.
func unpack(t *testing.T, from, to string) {
	t.Helper()
	f, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestLedgersOfBefore opens the ledgers of each schema step but the newest, as the servers
// of then left them: three boards that sent samples, events, pictures and reports for
// eight seconds. All of it is there afterwards, and a new server goes on with it.
func TestLedgersOfBefore(t *testing.T) {
	t.Parallel()
	for step := 1; step < len(store.Migrations()); step++ {
		t.Run(fmt.Sprint(step), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "ledger.db")
			unpack(t, fmt.Sprintf("testdata/ledger-%d.db.gz", step), path)
			before, err := store.OpenFile(path, store.Migrations()[:step]) // opens it as it is
			if err != nil {
				t.Fatal(err)
			}
			count := func(db *store.DB, what string) (n int) {
				if err := db.Read.QueryRow(`SELECT ` + what).Scan(&n); err != nil {
					t.Fatal(what, err)
				}
				return n
			}
			what := []string{
				"count(*) FROM board", "count(*) FROM telemetry", "count(*) FROM event", "count(*) FROM snapshot WHERE has = 1", "count(*) FROM report", "sum(arrived) FROM stream",
			}
			var want []int
			for _, w := range what {
				want = append(want, count(before, w))
			}
			seen := map[string]int64{}
			values := map[string]int{}
			rows, err := before.Read.Query(`SELECT name, last_seen, length(latest) FROM board`)
			if err != nil {
				t.Fatal(err)
			}
			for rows.Next() {
				var name string
				var at int64
				var n int
				if err := rows.Scan(&name, &at, &n); err != nil {
					t.Fatal(err)
				}
				seen[name], values[name] = at, n
			}
			_ = rows.Close()
			if err := before.Close(); err != nil {
				t.Fatal(err)
			}

			db, err := store.OpenLedger(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			for i, w := range what {
				if n := count(db, w); n != want[i] || n == 0 {
					t.Errorf("%s: %d, was %d", w, n, want[i])
				}
			}
			o, err := store.New(db, func(context.Context, string) ([]store.Enrolled, error) { return nil, nil }, nil).Overview(ctx, "default")
			if err != nil || len(o.Boards) != len(seen) {
				t.Fatal(o, err)
			}
			for i := range o.Boards {
				b := &o.Boards[i]
				if b.LastSeen.UnixMilli() != seen[b.Name] || values[b.Name] < 100 || len(b.Latest) != 15 || len(b.Cameras) == 0 || len(b.Reports) == 0 || len(b.Ledger) < 3 {
					t.Errorf("%+v", b)
				}
			}
			d, err := store.New(db, nil, nil).Detections(ctx, web.DetectionQuery{Tenant: "default"})
			if err != nil || len(d) != want[2] {
				t.Errorf("%d detections of %d, %v", len(d), want[2], err)
			}
			var check string
			if err := db.Read.QueryRow("PRAGMA integrity_check").Scan(&check); err != nil || check != "ok" {
				t.Errorf("%s, %v", check, err)
			}
			if n := count(db, "count(*) FROM pragma_foreign_key_check"); n != 0 {
				t.Errorf("%d rows belong to nothing", n)
			}
		})
	}
}
