// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package output

import (
	"context"
	"slices"
	"testing"
	"time"

	"fulmar/device/output/interlock"
	"fulmar/device/output/kinds"
	"fulmar/schema"
)

// BenchmarkSet is what a bank adds between a command and its device, with two interlocks;
// with restore: last a set also writes its value to the disk.
func BenchmarkSet(b *testing.B) {
	for _, restore := range []string{kinds.RestoreLeave, kinds.RestoreLast} {
		b.Run(restore, func(b *testing.B) {
			cfg := []Config{{Name: "a", Kind: kinds.KindSimulated, Max: 100, Safe: safeAt(0), Restore: restore, Interlocks: []interlock.Config{{When: "safety == 1 or output.a > 1000"}, {When: "output.a < -1"}}}}
			bank, err := Open(cfg, Deps{Dir: b.TempDir(), Clock: schema.NewClock(1, 0)})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan struct{})
			go func() { defer close(done); _ = bank.Run(ctx) }()
			defer func() { cancel(); <-done }()
			if err := bank.Set(ctx, "a", 0, "x"); err != nil {
				b.Fatal(err)
			}
			var took []time.Duration
			n := 0
			for b.Loop() {
				n++
				begun := time.Now()
				if err := bank.Set(ctx, "a", float64(n%100), "x"); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(begun))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
		})
	}
}
