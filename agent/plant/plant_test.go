// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package plant

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/device/output/kinds"
	"fulmar/device/output/simulated"
	"fulmar/device/schedule"
	"fulmar/schema"
)

// TestPlant: a shutdown and an output that fails are told, and a stop ends in order.
func TestPlant(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var said []string
		zero := 0.0
		cfg := []kinds.Config{
			{Name: "valve", Kind: kinds.KindSimulated, Max: 100, Safe: &zero},
			{Name: "lamp", Kind: kinds.KindSimulated, Max: 1, Safe: &zero, Simulated: &simulated.Config{Fault: simulated.FaultRefuse}},
		}
		p, err := Open(cfg, dir, "", schedule.NewLatest(schema.NewClock(1, 0)), schema.NewClock(1, 0), slog.New(slog.DiscardHandler), func(subject, state string, _ schema.Severity, _ string) {
			mu.Lock()
			defer mu.Unlock()
			if s := fmt.Sprint(subject, " ", state); !slices.Contains(said, s) {
				said = append(said, s)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		time.Sleep(time.Second)
		_ = p.Bank.Shutdown(t.Context(), "test")
		time.Sleep(time.Second)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for _, want := range []string{"safety released", "safety active", "output/valve ok", "output/lamp failed"} {
			if !slices.Contains(said, want) {
				t.Errorf("said %q, wants %q", said, want)
			}
		}
	})
	var none *Plant
	if p, err := Open(nil, dir, "", nil, schema.Clock{}, nil, nil); p != nil || err != nil || none.Run(t.Context()) != nil {
		t.Error("a board without outputs has a plant", p, err)
	}
}
