// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"fulmar/tests/fleet/sim"
	"fulmar/tests/local"
)

// server starts a fleet server of its own.
func server(t *testing.T) *local.Site {
	t.Helper()
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(bin, "fulmar-fleet")); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v; run: make build", err)
		}
		t.Skipf("%v; run: make build", err)
	}
	s, err := local.New(t.TempDir(), bin, "/none")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.StartFleet(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Fleet.Kill()
		if t.Failed() {
			t.Log(s.Fleet.Output())
		}
	})
	return s
}

// start enrols a fleet and lets it live until the test ends, or stop is called.
func start(t *testing.T, s *local.Site, cfg sim.Config) (f *sim.Fleet, stop func()) {
	t.Helper()
	var err error
	if cfg.Token, err = s.JoinTokens(cfg.Boards); err != nil {
		t.Fatal(err)
	}
	if f, err = sim.New(cfg); err != nil {
		t.Fatal(err)
	}
	if err := f.Enrol(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("simulated boards: %v", err)
		}
	}
	t.Cleanup(stop)
	return f, stop
}

// until waits for something of the boards.
func until(t *testing.T, f *sim.Fleet, within time.Duration, what string, ok func(sim.Stats) bool) {
	t.Helper()
	for end := time.Now().Add(within); !ok(f.Stats()); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("within %v not: %s; %+v", within, what, f.Stats())
		}
	}
}
