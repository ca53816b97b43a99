// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/store"
	"fulmar/fleet/web"
	"fulmar/tests/local"
)

// bin is the folder of the programs, which make test builds.
func bin(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"fulmar", "fulmard", "fulmar-fleet"} {
		if _, err := os.Stat(filepath.Join(dir, p)); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%v; run: make build", err)
			}
			t.Skipf("%v; run: make build", err)
		}
	}
	return dir
}

// run runs a program to its end and gives all it said.
func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(program), strings.Join(args, " "), err, out)
	}
	return string(out)
}

// metric waits until the books of a board's metrics fit.
func metric(t *testing.T, api *local.API, board, what string, fits func(web.Ledger) bool) web.Ledger {
	t.Helper()
	var l web.Ledger
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		b, err := api.Board(t.Context(), board)
		if err != nil {
			continue
		}
		for _, x := range b.Ledger {
			if x.Class == "metric" {
				l = x
			}
		}
		if fits(l) {
			return l
		}
	}
	t.Fatalf("board %s: %s does not come: %+v", board, what, l)
	return l
}

// stored counts the metrics of a board in the data folder of a server that does not run.
func stored(t *testing.T, dir, board string) uint64 {
	t.Helper()
	db, err := store.OpenLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	src := store.New(db, func(context.Context, string) ([]store.Enrolled, error) { return []store.Enrolled{{Name: board}}, nil }, nil)
	o, err := src.Overview(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range o.Boards {
		for _, l := range b.Ledger {
			if b.Name == board && l.Class == "metric" {
				return l.Arrived
			}
		}
	}
	t.Fatalf("no books of board %s in %s", board, dir)
	return 0
}

// TestServerLost: a server with two boards is backed up while it runs, goes on, and is
// lost with its disk. Restored in another folder at the same address, its boards come
// back by themselves with the identity they had, and what they let go of after the
// backup is in the books as lost, record by record.
func TestServerLost(t *testing.T) {
	t.Parallel()
	dir := bin(t)
	s, err := local.New(t.TempDir(), dir, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.StartFleet(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Fleet.Kill() })
	boards := map[string]*local.Proc{"dock-1": nil, "dock-2": nil}
	identity := map[string]string{}
	for name := range boards {
		config, err := s.PrepareBoard(local.Board{Name: name, NoInfer: true})
		if err != nil {
			t.Fatal(err)
		}
		if boards[name], err = s.StartBoard(name, config); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(boards[name].Kill)
	}
	api, err := s.API()
	if err != nil {
		t.Fatal(err)
	}
	more := func(n uint64) func(web.Ledger) bool { return func(l web.Ledger) bool { return l.Arrived >= n } }
	for name := range boards {
		metric(t, api, name, "a first record", more(2))
		b, err := os.ReadFile(filepath.Join(s.BoardDir(name), "identity", "identity.json"))
		if err != nil {
			t.Fatal(err)
		}
		identity[name] = string(b)
	}

	out := filepath.Join(t.TempDir(), "fleet.backup")
	keys := t.TempDir()
	run(t, filepath.Join(dir, "fulmar"), "recovery", "new", "--out", keys)
	said := run(t, filepath.Join(dir, "fulmar-fleet"), "backup", "--data", filepath.Join(s.Dir, "fleet"), "--out", out, "--recovery-key", filepath.Join(keys, "fulmar-recovery-public.pem"))
	if !strings.Contains(said, "sealed to recovery key") {
		t.Errorf("the backup said %s", said)
	}
	// The server goes on: the boards deliver, and let go of it.
	for name := range boards {
		b := metric(t, api, name, "a record", more(1))
		metric(t, api, name, "records after the backup", more(b.Arrived+3))
	}
	s.Fleet.Kill()
	after := map[string]uint64{}
	for name := range boards {
		after[name] = stored(t, filepath.Join(s.Dir, "fleet"), name)
	}
	if err := os.RemoveAll(filepath.Join(s.Dir, "fleet")); err != nil {
		t.Fatal(err)
	}

	// Another machine, in all but the address.
	other := &local.Site{Dir: t.TempDir(), Bin: dir, HTTPS: s.HTTPS, MQTT: s.MQTT}
	to := filepath.Join(other.Dir, "fleet")
	said = run(t, filepath.Join(dir, "fulmar-fleet"), "restore", "--from", out, "--data", to, "--recovery-key", filepath.Join(keys, "fulmar-recovery-private.pem"))
	if !strings.Contains(said, ": 2 boards") || !strings.Contains(said, "revoke those boards again") {
		t.Errorf("the restore said %s", said)
	}
	gone := map[string]uint64{}
	for name := range boards {
		gone[name] = after[name] - stored(t, to, name)
	}
	if err := other.StartFleet(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Fleet.Kill() })
	if api, err = other.API(); err != nil {
		t.Fatal(err)
	}
	for name, p := range boards {
		l := metric(t, api, name, "the hole in the books and records after it", func(l web.Ledger) bool {
			return l.Reasons["acknowledged, not here"] > 0 && l.Made >= after[name]+2
		})
		t.Logf("board %s: %d had arrived when the server was lost, %d of them since the backup; now %d made, %d arrived, %d lost: %v", name, after[name], gone[name], l.Made, l.Arrived, l.Lost, l.Reasons)
		if _, err := p.Stop(); err != nil {
			t.Fatal(err)
		}
		b, err := api.Books(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range b.Ledger {
			if l.Waiting != 0 || l.Made != l.Arrived+l.Lost {
				t.Errorf("board %s, class %s: %d made, %d arrived, %d lost, %d waiting", name, l.Class, l.Made, l.Arrived, l.Lost, l.Waiting)
			}
			// All that is lost is what the lost server had stored since the backup. The
			// board may not have heard of the last ones: those came once more.
			hole := l.Reasons["acknowledged, not here"]
			if l.Lost != hole || l.Class == "metric" && (hole < 3 || hole > gone[name]) {
				t.Errorf("board %s, class %s: %d lost, %d gone with the server (%v)", name, l.Class, l.Lost, gone[name], l.Reasons)
			}
		}
		now, err := os.ReadFile(filepath.Join(s.BoardDir(name), "identity", "identity.json"))
		if err != nil || string(now) != identity[name] {
			t.Errorf("board %s enrolled anew (%v)", name, err)
		}
	}
}
