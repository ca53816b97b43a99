// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"fulmar/tests/local"
)

// badStarts is how many starts of one boot may end badly in a row while the next one
// still uses its disk; after a third one the spool leaves it alone for ten minutes
// (see TestBoardInACrashLoop), and a soak that did not know would kill a board that
// has nothing on disk.
const badStarts = 2

// soak is a site under random kills, and what came of them.
type soak struct {
	t       *testing.T
	s       *local.Site
	api     *local.API
	config  string
	board   *local.Proc
	r       *rand.Rand
	bad     int // starts of the board in a row that ended badly
	ends    map[string]int
	longest map[string]time.Duration
}

// TestSoakKills ends fleet, worker and board at random for FULMAR_SOAK (a duration;
// `make soak` gives an hour) and closes the books at the end. The board is killed,
// but stopped in order before the guard of its spool would turn to memory: each kill
// meets a spool on disk, some of them with an outage's backlog that is nowhere else.
func TestSoakKills(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv("FULMAR_SOAK"))
	if err != nil {
		t.Skip("a long run: make soak")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	k := &soak{t: t, r: rand.New(rand.NewPCG(seed, 0)), ends: map[string]int{}, longest: map[string]time.Duration{}}
	k.s, k.api, k.config, k.board = site(t)
	arrived(t, k.api, "event", 10)
	begin := time.Now()
	for time.Since(begin) < length {
		k.pause(2, 12)
		switch k.r.IntN(4) {
		case 0:
			k.fleet(false)
		case 1:
			k.worker()
		case 2:
			k.boardAlone()
		case 3:
			k.fleet(true)
		}
	}
	before := arrived(t, k.api, "event", 1)
	arrived(t, k.api, "event", before.Arrived+10)
	k.judge(time.Since(begin))
}

// pause waits a random time between so many seconds.
func (k *soak) pause(least, most int) {
	time.Sleep(time.Duration(1000*least+k.r.IntN(1000*(most-least))) * time.Millisecond)
}

// fleet kills the server and keeps it away for a while; with board, that ends
// meanwhile, too, so what it kept comes from its disk or not at all.
func (k *soak) fleet(board bool) {
	before, away := arrived(k.t, k.api, "event", 1).Arrived, time.Now()
	k.ends["fleet: kill"]++
	k.s.Fleet.Kill()
	k.pause(1, 20)
	kept := uint64(2 * time.Since(away).Seconds()) // the camera makes 5 a second
	if board {
		k.endBoard(", fleet away")
		k.startBoard()
		k.pause(0, 5)
	}
	again := time.Now()
	if err := k.s.StartFleet(k.t.Context()); err != nil {
		k.t.Fatal(err)
	}
	arrived(k.t, k.api, "event", before+kept+5)
	k.back("fleet", again)
}

func (k *soak) worker() {
	pid, err := local.WorkerPID(k.board)
	if err != nil {
		return // it is being started
	}
	before, gone := arrived(k.t, k.api, "event", 1).Arrived, time.Now()
	k.ends["worker: kill"]++
	_ = syscall.Kill(pid, syscall.SIGKILL)
	arrived(k.t, k.api, "event", before+8) // some were on their way
	k.back("worker", gone)
}

// boardAlone ends the board, at times twice within a moment: in the middle of a start.
func (k *soak) boardAlone() {
	gone := time.Now()
	k.endBoard("")
	if k.bad == 1 && k.r.IntN(3) == 0 {
		k.startBoard()
		k.pause(0, 2)
		k.kill(", at its start")
		gone = time.Now()
	}
	before := arrived(k.t, k.api, "event", 1).Arrived
	k.startBoard()
	arrived(k.t, k.api, "event", before+5)
	k.back("board", gone)
}

// endBoard kills the board, or stops it in order where one more kill would keep the
// next starts off the disk; a board that is not killed in rows stops now and then, too.
func (k *soak) endBoard(how string) {
	if k.bad < badStarts && k.r.IntN(4) > 0 {
		k.kill(how)
		return
	}
	k.ends["board: stop"+how]++
	took, err := k.board.Stop()
	if err != nil {
		k.t.Fatal(err)
	}
	if took > 5*time.Second {
		k.t.Errorf("the stop took %v, wants at most 5 s", took)
	}
	k.bad = 0
}

func (k *soak) kill(how string) {
	k.ends["board: kill"+how]++
	k.board.Kill()
	k.bad++
}

func (k *soak) startBoard() {
	var err error
	if k.board, err = k.s.StartBoard("dock-1", k.config); err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(k.board.Kill)
}

func (k *soak) back(program string, since time.Time) {
	k.longest[program] = max(k.longest[program], time.Since(since))
}

// judge closes the books, prints them, and holds the run to what makes it worth
// something: one epoch a class says that no start worked from memory.
func (k *soak) judge(length time.Duration) {
	t := k.t
	b := settled(t, k.api, k.board, true)
	var table strings.Builder
	fmt.Fprintf(&table, "\n%v\n%-28s %6s\n", length.Round(time.Second), "ended", "times")
	for _, how := range slices.Sorted(maps.Keys(k.ends)) {
		fmt.Fprintf(&table, "%-28s %6d\n", how, k.ends[how])
	}
	fmt.Fprintf(&table, "%-28s %6s\n", "back after, longest", "s")
	for _, program := range slices.Sorted(maps.Keys(k.longest)) {
		fmt.Fprintf(&table, "%-28s %6.1f\n", program, k.longest[program].Seconds())
	}
	fmt.Fprintf(&table, "%-10s %8s %8s %6s %8s %7s  %s\n", "class", "made", "arrived", "lost", "repeats", "epochs", "lost by reason")
	for _, l := range b.Ledger {
		fmt.Fprintf(&table, "%-10s %8d %8d %6d %8d %7d  %v\n", l.Class, l.Made, l.Arrived, l.Lost, l.Duplicates, l.Epochs, l.Reasons)
	}
	t.Log(table.String())
	for _, l := range b.Ledger {
		if l.Epochs != 1 {
			t.Errorf("class %s: %d epochs, wants 1: starts worked from memory and the kills met no disk", l.Class, l.Epochs)
		}
		// A crash may take numbers of metrics that were reserved, and nothing else.
		if l.Class != "metric" && l.Lost > 0 || l.Lost != l.Reasons["crash"] {
			t.Errorf("class %s: %d lost: %v", l.Class, l.Lost, l.Reasons)
		}
	}
	if n := k.ends["board: kill"] + k.ends["board: kill, fleet away"]; n == 0 {
		t.Error("the board was never killed: give FULMAR_SOAK some minutes")
	}
}
