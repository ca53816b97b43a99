// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"fulmar/fleet/web"
	"fulmar/tests/local"
)

// outage is how long a killed server stays away.
const outage = 20 * time.Second

// site starts a fleet and one board with a scene camera.
func site(t *testing.T) (*local.Site, *local.API, string, *local.Proc) {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	lib := filepath.Join(root, ".cache/onnxruntime/1.30.0/linux-"+map[string]string{"amd64": "x64"}[runtime.GOARCH], "libonnxruntime.so.1")
	for _, p := range []string{lib, filepath.Join(root, "bin/fulmard"), filepath.Join(root, "bin/fulmar-fleet"), filepath.Join(root, "bin/fulmar-infer")} {
		if _, err := os.Stat(p); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%v; run: make build ort", err)
			}
			t.Skipf("%v; run: make build ort", err)
		}
	}
	s, err := local.New(t.TempDir(), filepath.Join(root, "bin"), lib)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.StartFleet(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Fleet.Kill() })
	config, err := s.PrepareBoard(local.Board{Name: "dock-1", Extra: local.SceneYAML})
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.StartBoard("dock-1", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	t.Cleanup(func() { keepLogs(t, s) })
	api, err := s.API()
	if err != nil {
		t.Fatal(err)
	}
	return s, api, config, p
}

// keepLogs leaves the programs' logs where CI collects them, if the test failed.
func keepLogs(t *testing.T, s *local.Site) {
	dir := os.Getenv("FULMAR_ARTIFACTS")
	if !t.Failed() || dir == "" {
		return
	}
	for _, n := range []string{"fleet.log", "dock-1.log"} {
		if b, err := os.ReadFile(filepath.Join(s.Dir, n)); err == nil {
			_ = os.WriteFile(filepath.Join(dir, t.Name()+"-"+n), b, 0o600)
		}
	}
}

// arrived waits until a class has so many records at the fleet.
func arrived(t *testing.T, api *local.API, class string, n uint64) web.Ledger {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	var l web.Ledger
	for {
		if b, err := api.Board(ctx, "dock-1"); err == nil {
			for _, x := range b.Ledger {
				if x.Class == class {
					l = x
				}
			}
			if l.Arrived >= n {
				return l
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("class %s: %+v, wants %d arrived", class, l, n)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// drained waits until the backlog of an outage is at the fleet: what is left is
// only what was made in the last moments.
func drained(t *testing.T, api *local.API) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		waiting := uint64(0)
		b, err := api.Board(t.Context(), "dock-1")
		if err == nil {
			for _, l := range b.Ledger {
				waiting += l.Waiting
			}
			if waiting <= 3 {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("60 s after the outage %d records are still waiting (%v): %+v", waiting, err, b)
		}
	}
}

// settled stops the board in order and holds the books to their sum.
func settled(t *testing.T, api *local.API, p *local.Proc, lossAllowed bool) *local.Books {
	t.Helper()
	drained(t, api)
	took, err := p.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if took > 5*time.Second {
		t.Errorf("the stop took %v, wants at most 5 s", took)
	}
	b, err := api.Books(t.Context(), "dock-1")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range b.Ledger {
		if l.Waiting != 0 || l.Made != l.Arrived+l.Lost {
			t.Errorf("class %s: %d made, %d arrived, %d lost, %d waiting", l.Class, l.Made, l.Arrived, l.Lost, l.Waiting)
		}
		if l.Lost > 0 && !lossAllowed {
			t.Errorf("class %s: %d lost", l.Class, l.Lost)
		}
		if l.Class == "event" && b.Events != l.Arrived || l.Class == "metric" && b.Batches != l.Arrived {
			t.Errorf("class %s: %d arrived, but %d events and %d batches are stored: an effect is there twice or not at all",
				l.Class, l.Arrived, b.Events, b.Batches)
		}
	}
	return b
}

func TestFleetKilled(t *testing.T) {
	s, api, _, p := site(t)
	before := arrived(t, api, "event", 10)
	s.Fleet.Kill()
	time.Sleep(outage)
	if err := s.StartFleet(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The camera went on: 5 events a second were kept and now arrive.
	arrived(t, api, "event", before.Arrived+60)
	settled(t, api, p, false)
}

func TestWorkerKilled(t *testing.T) {
	_, api, _, p := site(t)
	arrived(t, api, "metric", 1)
	start := time.Now()
	arrived(t, api, "event", 10)
	for range 3 {
		pid, err := local.WorkerPID(p)
		if err != nil {
			t.Fatal(err)
		}
		before := arrived(t, api, "event", 1)
		begin := time.Now()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		arrived(t, api, "event", before.Arrived+8)
		t.Logf("8 further events %v after the worker was killed", time.Since(begin).Round(10*time.Millisecond))
	}
	b := settled(t, api, p, false)
	// The first reading of a load has no span yet, and the last tick may be cut off.
	if took, n := time.Since(start).Seconds(), float64(b.Samples["cpu.load_percent"]); n < took-6 {
		t.Errorf("%.0f s of sampling gave %.0f samples: some were missed while the worker was away", took, n)
	}
}

// TestBoardKilled: fulmard dies without a word; what it had promised is there,
// what it had not is a gap with its reason.
func TestBoardKilled(t *testing.T) {
	s, api, config, p := site(t)
	arrived(t, api, "event", 10)
	for range 2 { // after a third one it would leave its files alone for ten minutes
		p.Kill()
		var err error
		if p, err = s.StartBoard("dock-1", config); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
		before := arrived(t, api, "event", 1)
		arrived(t, api, "event", before.Arrived+10)
	}
	b := settled(t, api, p, true)
	for _, l := range b.Ledger {
		if l.Class != "metric" && l.Lost > 0 || l.Class == "metric" && l.Lost > 2*512 {
			t.Errorf("class %s: %d numbers lost in two crashes, more than were reserved", l.Class, l.Lost)
		}
	}
	board, err := api.Board(t.Context(), "dock-1")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range board.Gaps {
		if g.Reason != "crash" {
			t.Errorf("gap %+v, wants the reason crash", g)
		}
	}
}

// TestBoardInACrashLoop: after three starts that ended badly the fourth comes up
// without its files, and what it sees arrives all the same, with an alarm that says so.
func TestBoardInACrashLoop(t *testing.T) {
	s, api, config, p := site(t)
	arrived(t, api, "event", 5)
	for range 3 {
		p.Kill()
		var err error
		if p, err = s.StartBoard("dock-1", config); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
		select { // long enough to open the spool
		case <-p.Done():
			t.Fatal(p.Output())
		case <-time.After(time.Second):
		}
	}
	events := func(b *web.Board) (n uint64) {
		for _, l := range b.Ledger {
			if l.Class == "event" {
				n += l.Arrived
			}
		}
		return n
	}
	first := uint64(0)
	for end := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		b, err := api.Board(t.Context(), "dock-1")
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(b.Reports, func(r web.Report) bool { return r.Subject == "spool" && r.State == "memory" })
		if i >= 0 && first == 0 {
			first = events(b)
		}
		if i >= 0 && events(b) >= first+10 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("reports %+v; %d events, %d when the alarm came\n%s", b.Reports, events(b), first, p.Output())
		}
	}
}
