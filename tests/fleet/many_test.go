// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"fulmar/fleet/web"
	"fulmar/tests/fleet/sim"
	"fulmar/tests/local"
)

const (
	// perCore is how many boards a second and core the gateway lets in, see
	// fleet/gateway/admission.go; the server has as many cores as this test.
	perCore = 50
	// spare is how many files the test and the server have open beside the connections.
	spare = 500
)

// howMany is FULMAR_BOARDS, "max" for as many as the limit of open files lets, or 2,000.
func howMany(t *testing.T) int {
	t.Helper()
	text := os.Getenv("FULMAR_BOARDS")
	if text == "" {
		if testing.Short() {
			return 200
		}
		return 2000
	}
	if text == "max" {
		var l syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
			t.Fatal(err)
		}
		return int(min(l.Max, sim.MaxBoards)) - spare
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("FULMAR_BOARDS: %v", err)
	}
	return n
}

// TestThousands lets thousands of boards connect by mutual TLS, restarts the server under
// them, and sees them all come back: within the time that the gateway's pace needs, and no
// faster than it lets them in. What they made meanwhile arrives.
func TestThousands(t *testing.T) {
	boards := howMany(t)
	s := server(t)
	f, _ := start(t, s, sim.Config{Boards: boards, Sites: min(boards/10, 100), Seed: 7, Every: 10 * time.Second, EventEvery: time.Minute, PictureEvery: -1, Spread: true})
	begin := time.Now()
	pace := perCore * runtime.GOMAXPROCS(0)
	// Each gets a time of its own if it comes too early: twice as long as the pace needs.
	whole := 2*time.Duration(boards)*time.Second/time.Duration(pace) + 30*time.Second
	until(t, f, whole, "all are connected", func(n sim.Stats) bool { return n.Connected == int64(boards) })
	report(t, s, f, "all connected", begin)

	s.Fleet.Kill()
	until(t, f, 30*time.Second, "all see that the server is gone", func(n sim.Stats) bool { return n.Connected == 0 })
	was := f.Stats()
	begin = time.Now()
	if err := s.StartFleet(t.Context()); err != nil {
		t.Fatal(err)
	}
	up := time.Now()
	worst := 0.0
	until(t, f, whole, "all are back", func(n sim.Stats) bool {
		if since := time.Since(up).Seconds(); since > 5 { // the door's patience is 2 s of its pace
			worst = max(worst, float64(n.Connected)/(since+2))
		}
		return n.Connected == int64(boards)
	})
	report(t, s, f, "all back", begin)
	now := f.Stats()
	t.Logf("%d connections, %d of them told to come later, %d failed; at most %.0f boards a second came in, the gateway's pace is %d",
		now.Connects-was.Connects, now.SentAway-was.SentAway, now.Failed-was.Failed, worst, pace)
	if worst > 1.1*float64(pace) {
		t.Errorf("%.0f boards a second were let in, the pace is %d", worst, pace)
	}
	until(t, f, time.Minute, "the backlog has arrived", func(n sim.Stats) bool { return n.Waiting < int64(boards)/10+10 })

	api, err := s.API()
	if err != nil {
		t.Fatal(err)
	}
	o, err := api.Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	states := map[web.State]int{}
	for i := range o.Boards {
		states[o.Boards[i].State]++
	}
	if len(o.Boards) != boards || states[web.StateHealthy] != boards {
		t.Errorf("of %d boards: %v", boards, states)
	}
}

// report says what the server takes.
func report(t *testing.T, s *local.Site, f *sim.Fleet, what string, since time.Time) {
	t.Helper()
	u, err := local.UsageOf(s.Fleet.PID())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s after %.1f s: server %.0f MB RSS, %.1f s CPU; %+v", what, time.Since(since).Seconds(), float64(u.RSS)/1e6, u.CPU.Seconds(), f.Stats())
}
