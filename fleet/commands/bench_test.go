// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"fulmar/command"
	"fulmar/fleet/registry"
	"fulmar/schema/rest"
)

// BenchmarkRoundTrip is one command to one board, from when it is given to when its last
// word is stored: SQLite and the board's journal flush, the link between them costs
// nothing.
func BenchmarkRoundTrip(b *testing.B) {
	dir := b.TempDir()
	reg, err := registry.Open(filepath.Join(dir, "fleet"))
	if err != nil {
		b.Fatal(err)
	}
	defer reg.Close()
	t := new(testing.T)
	w := &world{t: t, dir: dir, r: rand.New(rand.NewPCG(1, 1)), calm: true, reg: reg, boards: map[string]*board{}, log: slog.New(slog.DiscardHandler), direct: true}
	bd := &board{w: w, name: "b1", effects: map[command.ID][]effect{}, final: map[command.ID]command.Result{}, path: filepath.Join(dir, "journal")}
	w.boards["b1"] = bd
	bd.start()
	w.start()
	defer w.kill()
	defer bd.stop()
	bd.plug()
	ctx := context.Background()
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		v, err := w.srv.Give(ctx, person("ann"), rest.CommandSpec{Name: "ping", Boards: []string{"b1"}})
		if err != nil {
			b.Fatal(err)
		}
		for v.Counts[rest.CommandDone] == 0 {
			time.Sleep(200 * time.Microsecond)
			if v, err = w.srv.Get(ctx, "default", v.ID, false, nil); err != nil {
				b.Fatal(err)
			}
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms/p50")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms/p99")
}
