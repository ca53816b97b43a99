// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/fleet/store"
	"fulmar/fleet/web"
	"fulmar/schema"
)

// oneSeed replays one world, FULMAR_SIM_TRACE names a file for all that it did.
var oneSeed = flag.Int("seed", -1, "replay this seed of TestRandomFaults alone")

// seeds is how many there are: in a soak thousands, said by FULMAR_SIM_SEEDS.
func seeds() int {
	if n, err := strconv.Atoi(os.Getenv("FULMAR_SIM_SEEDS")); err == nil && n > 0 {
		return n
	}
	if testing.Short() {
		return 20
	}
	return 100
}

// TestRandomFaults lets boards and their fleet run through lost, late and doubled
// acknowledgements, cut and half-open connections, words that overtake each other,
// brokers that die and are replaced, restarts of everything, crashes of boards, and
// wall clocks that are turned by decades, as the seed says. When the faults stop,
// everything the spools took is at the fleet, once, or is in the ledger.
func TestRandomFaults(t *testing.T) {
	t.Parallel()
	if *oneSeed >= 0 {
		synctest.Test(t, func(t *testing.T) { randomFaults(t, uint64(*oneSeed)) })
		return
	}
	for seed := range seeds() {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { randomFaults(t, uint64(seed)) })
		})
	}
}

func randomFaults(t *testing.T, seed uint64) {
	w := newWorld(t, seed, traitsOf(seed))
	t.Cleanup(func() { // not after the run: a Fatal ends it
		if t.Failed() || *oneSeed >= 0 {
			t.Logf("%+v; trace %016x of %d steps", w.traits, w.trace.sum, w.trace.count)
		}
		if t.Failed() {
			t.Logf("replay with: go test ./tests/sim -run 'TestRandomFaults$' -seed %d -count 20", seed)
		}
	})
	if path := os.Getenv("FULMAR_SIM_TRACE"); path != "" {
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		w.trace.to = f
	}
	w.run()
}

// run lets the faults come, and then sees everything settle.
func (w *world) run() {
	w.openBroker()
	for range 40 + w.rng.IntN(40) {
		for _, b := range w.boards {
			b.make()
			if w.turning && w.rng.IntN(4) == 0 {
				b.turn()
			}
		}
		w.fault()
		time.Sleep(time.Duration(w.rng.IntN(8000)) * time.Millisecond)
	}
	w.quiet.Store(true)
	if w.broker.Load() == nil {
		w.openBroker()
	}
	w.broker.Load().SetCut(false)
	w.settle()
	w.end()
}

// fault lets one come, or mends one.
func (w *world) fault() {
	n, b := w.rng.IntN(100), w.boards[w.rng.IntN(len(w.boards))]
	up := w.broker.Load() != nil
	switch {
	case n < 12 && up:
		w.broker.Load().SetCut(true)
	case n < 30 && up:
		w.broker.Load().SetCut(false)
	case n < 30:
		w.openBroker()
	case n < 36 && up:
		w.broker.Load().Freeze()
	case n >= 36 && n < 40:
		w.stopFleet()
		w.startFleet()
	case n >= 40 && n < 44:
		b.end()
		b.start()
	case n >= 44 && n < 49:
		b.crash()
	case n >= 49 && n < 52: // another broker takes its place at once, or later
		w.killBroker()
		if n == 49 {
			w.openBroker()
		}
	case n == 52: // a power cut in the server room
		w.killBroker()
		w.stopFleet()
		w.startFleet()
	}
}

func (w *world) end() {
	for _, b := range w.boards {
		b.end()
	}
	w.stopFleet()
	time.Sleep(time.Minute) // what the MQTT client left behind ends by its own timeouts
}

// settle waits until nothing waits any more, and holds the books to what was made.
func (w *world) settle() {
	var enrolled []store.Enrolled
	for _, b := range w.boards {
		enrolled = append(enrolled, store.Enrolled{Name: b.key.Board, KeyMode: "software", At: time.Now()})
	}
	s := store.New(w.ledger, func(context.Context, string) ([]store.Enrolled, error) { return enrolled, nil }, nil)
	end := time.Now().Add(30 * time.Minute)
	for w.held() > 0 && time.Now().Before(end) {
		time.Sleep(5 * time.Second)
	}
	var all []store.Check
	for {
		var err error
		if all, err = s.Check(context.Background(), "default"); err != nil || len(all) != len(w.boards) {
			w.t.Fatalf("check: %v, %d boards", err, len(all))
		}
		waiting := uint64(0)
		for i := range all {
			for _, l := range all[i].Ledger {
				waiting += l.Waiting
			}
		}
		if waiting == 0 && w.held() == 0 {
			break
		}
		if time.Now().After(end) {
			w.t.Errorf("half an hour after the last fault %d records wait and %d are on the boards", waiting, w.held())
			break // not Fatal: all that runs has to end
		}
		time.Sleep(5 * time.Second)
	}
	for i, b := range w.boards {
		b.settled(&all[i])
	}
}

// held counts what is still on the boards.
func (w *world) held() (n uint64) {
	for _, b := range w.boards {
		for _, st := range b.spool.Stats().Classes {
			n += st.Outstanding + uint64(st.Queued)
		}
	}
	return n
}

// settled holds a board's books to what it made.
func (b *board) settled(c *store.Check) {
	t, w := b.w.t, b.w
	if c.Board != b.key.Board {
		t.Fatalf("the books of %s stand where those of %s should", c.Board, b.key.Board)
	}
	sums := map[string]*web.Ledger{"event": {}, "metric": {}, "alarm": {}, "snapshot": {}}
	for _, l := range c.Ledger {
		sum := sums[l.Class]
		sum.Made, sum.Arrived, sum.Lost = sum.Made+l.Made, sum.Arrived+l.Arrived, sum.Lost+l.Lost
		if l.Made != l.Arrived+l.Lost+l.Waiting {
			t.Errorf("%s: the books of %s do not add up: %+v", c.Board, l.Class, l)
		}
	}
	events, metrics, alarms, snapshots := sums["event"], sums["metric"], sums["alarm"], sums["snapshot"]
	if !w.small && events.Lost != 0 || events.Arrived+events.Lost != b.taken[schema.ClassEvent] || c.Events != events.Arrived {
		t.Errorf("%s: %d events taken by the spool; %+v, %d rows", c.Board, b.taken[schema.ClassEvent], events, c.Events)
	}
	// The spool adds an alarm of its own for each gap.
	gaps := w.number(`SELECT count(*) FROM gap WHERE board = (SELECT id FROM board WHERE name = ?)`, c.Board)
	if alarms.Lost != 0 || alarms.Arrived != b.taken[schema.ClassAlarm]+gaps {
		t.Errorf("%s: %d alarms taken by the spool and %d gaps; %+v", c.Board, b.taken[schema.ClassAlarm], gaps, alarms)
	}
	// Of metrics a crash may lose what was in memory, and tells more than that.
	if metrics.Arrived > b.taken[schema.ClassMetric] || metrics.Arrived+metrics.Lost < b.taken[schema.ClassMetric] ||
		b.crashes == 0 && !w.small && metrics.Lost != 0 || c.Batches != metrics.Arrived {
		t.Errorf("%s: %d metrics taken, %d crashes; %+v, %d rows", c.Board, b.taken[schema.ClassMetric], b.crashes, metrics, c.Batches)
	}
	if snapshots.Lost != 0 || snapshots.Arrived != b.taken[schema.ClassSnapshot] || c.Pictures != snapshots.Arrived {
		t.Errorf("%s: %d pictures taken; %+v, %d are whole", c.Board, b.taken[schema.ClassSnapshot], snapshots, c.Pictures)
	}
	// Whatever the wall clock said, what was made later in a boot stands later; but the
	// fleet does not place rows anew for less than two seconds.
	if n := w.number(`SELECT count(*) FROM event a JOIN event b ON b.board = a.board AND b.class = a.class AND b.epoch = a.epoch AND b.seq = a.seq + 1
WHERE a.board = (SELECT id FROM board WHERE name = ?) AND a.boot = b.boot AND b.at < a.at - 2000`, c.Board); n != 0 {
		t.Errorf("%s: %d events stand before the one that was made before them", c.Board, n)
	}
}

// number asks the ledger for one.
func (w *world) number(query string, args ...any) (n uint64) {
	if err := w.ledger.Read.QueryRowContext(context.Background(), query, args...).Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}
