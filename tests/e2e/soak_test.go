// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"fulmar/tests/local"
)

// TestSoakKills kills fleet, worker and board at random for FULMAR_SOAK (a
// duration; `make soak` gives an hour) and closes the books at the end.
func TestSoakKills(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv("FULMAR_SOAK"))
	if err != nil {
		t.Skip("a long run: make soak")
	}
	s, api, config, p := site(t)
	arrived(t, api, "event", 10)
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	kills := map[string]int{}
	for begin := time.Now(); time.Since(begin) < length; {
		time.Sleep(time.Duration(2+r.IntN(10)) * time.Second)
		switch r.IntN(3) {
		case 0:
			kills["fleet"]++
			s.Fleet.Kill()
			time.Sleep(time.Duration(r.IntN(20)) * time.Second)
			if err := s.StartFleet(t.Context()); err != nil {
				t.Fatal(err)
			}
		case 1:
			if pid, err := local.WorkerPID(p); err == nil {
				kills["worker"]++
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		case 2:
			kills["board"]++
			p.Kill()
			if p, err = s.StartBoard("dock-1", config); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Kill)
		}
	}
	before := arrived(t, api, "event", 1)
	arrived(t, api, "event", before.Arrived+10)
	b := settled(t, api, p, true)
	t.Logf("killed %v; %+v", kills, b.Ledger)
}
