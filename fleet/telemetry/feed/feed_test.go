// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"fulmar/fleet/store"
	"fulmar/fleet/telemetry/points"
	"fulmar/schema"
)

// recorder is a sink that notes what it is asked, in order.
type recorder struct {
	state    string
	calls    []string
	samples  int
	fail     error
	failSync error
}

func (r *recorder) Append(_ context.Context, ps []points.Point) error {
	if r.fail != nil {
		return r.fail
	}
	r.calls = append(r.calls, "append")
	r.samples += len(ps)
	return nil
}

func (r *recorder) Sync() error {
	if _, err := os.Stat(r.state); err == nil {
		r.calls = append(r.calls, "cursor is there")
	}
	r.calls = append(r.calls, "sync")
	return r.failSync
}

func setup(t *testing.T, rows int) (Config, *store.DB) {
	t.Helper()
	db, err := store.OpenLedger(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	raw, err := schema.Encode(&schema.Samples{Series: []string{"load.1m"}, Value: []float64{1}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Write.Exec(`INSERT INTO board (id, tenant, name) VALUES (1, 'a', 'dock-1')`); err != nil {
		t.Fatal(err)
	}
	for i := range rows {
		if _, err := db.Write.Exec(`INSERT INTO telemetry (board, at, arrived, payload) VALUES (1, ?, ?, ?)`, i*1000, i, raw); err != nil {
			t.Fatal(err)
		}
	}
	return Config{Ledger: db.Read, State: filepath.Join(t.TempDir(), "cursor"), Limits: points.Limits{Board: 9, Tenant: 9}, Log: slog.New(slog.DiscardHandler)}, db
}

func drained(t *testing.T, cfg Config, r *recorder) error {
	t.Helper()
	r.state = cfg.State
	f, err := New(cfg, r)
	if err != nil {
		t.Fatal(err)
	}
	return f.Drain(t.Context())
}

// The cursor is written after what it stands for is durable, and not where it is not.
func TestCursorComesLast(t *testing.T) {
	t.Parallel()
	cfg, _ := setup(t, 3)
	broken := errors.New("disk")
	r := &recorder{failSync: broken}
	if err := drained(t, cfg, r); !errors.Is(err, broken) {
		t.Fatalf("%v", err)
	}
	if _, err := os.Stat(cfg.State); err == nil {
		t.Fatal("a cursor for what is not durable")
	}
	r = &recorder{}
	if err := drained(t, cfg, r); err != nil || !slices.Equal(r.calls, []string{"append", "sync"}) || r.samples != 3 {
		t.Fatalf("%v %v %d", err, r.calls, r.samples)
	}
	r = &recorder{}
	if err := drained(t, cfg, r); err != nil || r.samples != 0 {
		t.Fatalf("%v, %d given again after a clean end", err, r.samples)
	}
}

// What a sink did not take is given again; what cannot be read holds up nothing.
func TestFailures(t *testing.T) {
	t.Parallel()
	cfg, db := setup(t, 2)
	if _, err := db.Write.Exec(`INSERT INTO telemetry (board, at, arrived, payload) VALUES (1, 5, 5, x'ff'), (99, 5, 5, x'ff')`); err != nil {
		t.Fatal(err)
	}
	r := &recorder{fail: errors.New("full")}
	if err := drained(t, cfg, r); !errors.Is(err, r.fail) {
		t.Fatalf("%v", err)
	}
	r = &recorder{}
	if err := drained(t, cfg, r); err != nil || r.samples != 2 {
		t.Fatalf("%v, %d", err, r.samples)
	}
}

// Rows that retention took before they were read are counted.
func TestMissed(t *testing.T) {
	t.Parallel()
	cfg, db := setup(t, 10)
	if err := drained(t, cfg, &recorder{}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := db.Write.Exec(`INSERT INTO telemetry (board, at, arrived, payload) SELECT board, at + 100000, arrived + 100, payload FROM telemetry`); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Write.Exec(`DELETE FROM telemetry WHERE id <= 15`); err != nil {
		t.Fatal(err)
	}
	f, err := New(cfg, &recorder{})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Drain(t.Context()); err != nil || f.Stats().Missed != 5 || f.Stats().Rows != 25 {
		t.Fatalf("%v %+v", err, f.Stats())
	}
}

// A cursor that is broken begins anew, one of a newer program is left alone.
func TestBrokenCursor(t *testing.T) {
	t.Parallel()
	cfg, _ := setup(t, 1)
	if err := os.WriteFile(cfg.State, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &recorder{}
	if err := drained(t, cfg, r); err != nil || r.samples != 1 {
		t.Fatalf("%v, %d", err, r.samples)
	}
	if err := os.WriteFile(cfg.State, []byte{0xa1, 1, 2}, 0o600); err != nil { // {1: 2}
		t.Fatal(err)
	}
	if _, err := New(cfg, r); err == nil {
		t.Fatal("a newer cursor is taken")
	}
}

func FuzzCursor(f *testing.F) {
	f.Add([]byte{0xa1, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "cursor")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		x, err := New(Config{State: path, Log: slog.New(slog.DiscardHandler)}, nil)
		if err == nil && (!x.st.Telemetry.sane() || !x.st.Event.sane()) {
			t.Fatalf("%+v", x.st)
		}
	})
}
