// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/fleet/ingest"
	"fulmar/fleet/ingest/pictures"
	"fulmar/fleet/store"
	"fulmar/fleet/web"
	"fulmar/internal/run"
	"fulmar/link"
	"fulmar/link/linktest"
	"fulmar/schema"
	"fulmar/storage"
)

// A seed fixes what is made, which faults come and when. It does not fix the order of
// goroutines within an instant nor the link's own jitter: replay more than once.
var oneSeed = flag.Int("seed", -1, "replay this seed of TestRandomFaults alone")

// seeds is how many there are: in a soak thousands, said by FULMAR_SIM_SEEDS.
func seeds(t *testing.T) int {
	if n, err := strconv.Atoi(os.Getenv("FULMAR_SIM_SEEDS")); err == nil && n > 0 {
		return n
	}
	if testing.Short() {
		return 20
	}
	return 100
}

// TestRandomFaults lets a board and its fleet run through lost and doubled
// acknowledgements, cut and half-open connections, restarts of either, and crashes of
// the board, as the seed says. When the faults stop, everything the spool took is at
// the fleet, once, or is in the ledger.
func TestRandomFaults(t *testing.T) {
	t.Parallel()
	if *oneSeed >= 0 {
		synctest.Test(t, func(t *testing.T) { newWorld(t, uint64(*oneSeed), 2*time.Second).run() })
		return
	}
	n := seeds(t)
	for seed := range n {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			t.Cleanup(func() { // not after Run: it returns as soon as the subtest is parallel
				if t.Failed() {
					t.Logf("replay with: go test ./tests/sim -run TestRandomFaults -seed %d -count 20", seed)
				}
			})
			synctest.Test(t, func(t *testing.T) { newWorld(t, uint64(seed), 2*time.Second).run() })
		})
	}
}

// world is one board, one broker and one fleet.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	broker atomic.Pointer[linktest.Broker]

	fateMu sync.Mutex // the broker asks from goroutines of its own
	fates  *rand.Rand

	// the fleet
	dir    string
	ledger *store.DB
	in     *ingest.Ingest
	fleet  *run.Group
	calm   bool // no more faults of the fleet
	small  bool // the classes are too small for all

	// the board
	spoolDir string
	window   time.Duration
	boot     uint64
	clock    schema.Clock
	spool    *storage.Spool
	parts    *run.Group
	stop     context.CancelFunc
	taken    [schema.NumClasses]uint64 // records whose Append returned nil
	frame    uint64
	crashes  int
}

var errLost = errors.New("the acknowledgement is lost")

// newWorld makes one whose board comes back within window.
func newWorld(t *testing.T, seed uint64, window time.Duration) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 77)), fates: rand.New(rand.NewPCG(seed, 78)), dir: t.TempDir(), spoolDir: t.TempDir(), window: window}
	w.startFleet()
	w.startBoard()
	return w
}

// openBroker begins the network; before that there is none.
func (w *world) openBroker() {
	b := linktest.New(w.t)
	b.Take = w.take
	w.broker.Store(b)
}

func (w *world) dial(ctx context.Context) (net.Conn, error) {
	if b := w.broker.Load(); b != nil {
		return b.Dial(ctx)
	}
	return nil, linktest.ErrCut
}

func (w *world) startFleet() {
	ledger, err := store.OpenLedger(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	blobs, err := pictures.New(filepath.Join(w.dir, "pictures"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.ledger, w.in = ledger, ingest.New(ingest.Config{}, ledger, blobs, slog.New(slog.DiscardHandler))
	w.fleet = run.New(context.Background())
	w.fleet.Go("ingest", w.in.Run)
}

func (w *world) stopFleet() {
	w.fleet.Stop()
	if err := w.fleet.Wait(10 * time.Second); err != nil {
		w.t.Error(err)
	}
	if err := w.ledger.Close(); err != nil {
		w.t.Error(err)
	}
}

// take is the fleet's end of each message, with faults: refused before it had an
// effect, or taken and the acknowledgement lost.
func (w *world) take(tp schema.Topic, payload []byte) error {
	if tp.Channel == schema.ChanPresence {
		return nil
	}
	w.fateMu.Lock()
	fate := w.fates.IntN(100)
	w.fateMu.Unlock()
	if w.calm {
		fate = 99
	}
	if fate < 3 {
		return errors.New("the fleet has a bad moment")
	}
	ctx := context.Background()
	if tp.Channel == schema.ChanHello {
		var h schema.Hello
		if err := schema.Decode(payload, &h); err != nil {
			return err
		}
		return w.in.Hello(ctx, key, &h)
	}
	_, refused, err := w.in.Publish(ctx, key, tp.String(), payload)
	if refused {
		w.t.Errorf("the fleet refused a message on %s", tp)
	}
	if err == nil && fate < 8 {
		return errLost
	}
	return err
}

func (w *world) startBoard() {
	w.boot++
	w.clock = schema.NewClock(w.boot, time.Minute)
	cfg := storage.Config{Dir: w.spoolDir, Clock: w.clock, NoSync: true}
	for i := range cfg.Classes {
		cfg.Classes[i] = storage.ClassConfig{QuotaBytes: 1 << 20, SegmentBytes: 64 << 10}
	}
	spool, err := storage.Open(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.spool = spool
	session, err := link.New(link.Config{
		Tenant: key.Tenant, Board: key.Board, Dial: w.dial, Clock: w.clock, ReconnectWindow: w.window,
	}, spool, &boardSide{})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	w.stop, w.parts = stop, run.New(ctx)
	w.parts.Go("spool", spool.Run)
	w.parts.Go("link", session.Run)
}

// endBoard stops the board in order; what it had not told is on its disk.
func (w *world) endBoard() {
	w.stop()
	if err := w.parts.Wait(20 * time.Second); err != nil {
		w.t.Error(err)
	}
	if err := w.spool.Close(); err != nil {
		w.t.Error(err)
	}
}

// crashBoard goes on from a copy of its disk as it is at this moment.
func (w *world) crashBoard() {
	synctest.Wait() // nobody writes
	after := w.t.TempDir()
	if err := os.CopyFS(after, os.DirFS(w.spoolDir)); err != nil {
		w.t.Fatal(err)
	}
	w.endBoard() // the old one may still hear and say a last word, as packets on their way do
	w.spoolDir = after
	w.crashes++
	w.startBoard()
}

// add appends a record.
func (w *world) add(c schema.Class, r *schema.Record) {
	r.Time = w.clock.Now()
	b, err := schema.EncodeRecord(r)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.spool.Append(context.Background(), c, b); err != nil {
		w.t.Errorf("append to %s: %v", c, err)
		return
	}
	w.taken[c]++
}

// make appends some records.
func (w *world) make() {
	for range w.rng.IntN(40) {
		switch n := w.rng.IntN(10); {
		case n < 6:
			w.add(schema.ClassMetric, &schema.Record{Kind: schema.KindSamples, Samples: &schema.Samples{Series: []string{"a", "b"}, Value: []float64{1, 2}}})
		case n < 9:
			w.frame++
			w.add(schema.ClassEvent, &schema.Record{Kind: schema.KindEvent, Event: &schema.Event{Source: "cam0", Frame: w.frame, Boxes: []schema.Box{{Score: 0.5}}}})
		default:
			w.add(schema.ClassAlarm, &schema.Record{Kind: schema.KindReport, Report: &schema.Report{Subject: fmt.Sprintf("s%d", w.rng.IntN(3)), State: "ok"}})
		}
	}
}

func (w *world) run() {
	w.openBroker()
	for range 40 + w.rng.IntN(40) {
		w.make()
		switch n := w.rng.IntN(100); {
		case n < 12:
			w.broker.Load().SetCut(true)
		case n < 30:
			w.broker.Load().SetCut(false)
		case n < 36:
			w.broker.Load().Freeze()
		case n < 40:
			w.stopFleet()
			w.startFleet()
		case n < 44:
			w.endBoard()
			w.startBoard()
		case n < 49:
			w.crashBoard()
		}
		time.Sleep(time.Duration(w.rng.IntN(8000)) * time.Millisecond)
	}
	w.calm = true
	w.broker.Load().SetCut(false)
	w.settle()
	w.end()
}

func (w *world) end() {
	w.endBoard()
	w.stopFleet()
	time.Sleep(time.Minute) // what the MQTT client left behind ends by its own timeouts
}

// settle waits until nothing waits any more, and holds the books to what was made.
func (w *world) settle() {
	s := store.New(w.ledger, func(context.Context, string) ([]store.Enrolled, error) {
		return []store.Enrolled{{Name: boardName, KeyMode: "software", At: time.Now()}}, nil
	}, nil)
	var c store.Check
	for end := time.Now().Add(30 * time.Minute); ; time.Sleep(5 * time.Second) {
		all, err := s.Check(context.Background(), key.Tenant)
		if err != nil || len(all) != 1 {
			w.t.Fatalf("check: %v, %d boards", err, len(all))
		}
		c = all[0]
		waiting := uint64(0)
		for _, l := range c.Ledger {
			waiting += l.Waiting
		}
		held := uint64(0)
		for _, st := range w.spool.Stats().Classes {
			held += st.Outstanding + uint64(st.Queued)
		}
		if waiting == 0 && held == 0 {
			break
		}
		if time.Now().After(end) {
			w.t.Fatalf("half an hour after the last fault %d records wait and %d are on the board: %+v", waiting, held, c.Ledger)
		}
	}
	var events, metrics, alarms web.Ledger
	for _, l := range c.Ledger {
		sum := &web.Ledger{}
		switch l.Class {
		case "event":
			sum = &events
		case "metric":
			sum = &metrics
		case "alarm":
			sum = &alarms
		}
		sum.Made, sum.Arrived, sum.Lost = sum.Made+l.Made, sum.Arrived+l.Arrived, sum.Lost+l.Lost
		if l.Made != l.Arrived+l.Lost+l.Waiting {
			w.t.Errorf("the books of %s do not add up: %+v", l.Class, l)
		}
	}
	if !w.small && events.Lost != 0 || events.Arrived+events.Lost != w.taken[schema.ClassEvent] || c.Events != events.Arrived {
		w.t.Errorf("%d events taken by the spool; %+v, %d rows", w.taken[schema.ClassEvent], events, c.Events)
	}
	// The spool adds an alarm of its own for each gap.
	var gaps uint64
	if err := w.ledger.Read.QueryRowContext(context.Background(), `SELECT count(*) FROM gap`).Scan(&gaps); err != nil {
		w.t.Fatal(err)
	}
	if alarms.Lost != 0 || alarms.Arrived != w.taken[schema.ClassAlarm]+gaps {
		w.t.Errorf("%d alarms taken by the spool and %d gaps; %+v", w.taken[schema.ClassAlarm], gaps, alarms)
	}
	// Of metrics a crash may lose what was in memory, and tells more than that.
	if metrics.Arrived > w.taken[schema.ClassMetric] || metrics.Arrived+metrics.Lost < w.taken[schema.ClassMetric] ||
		w.crashes == 0 && !w.small && metrics.Lost != 0 || c.Batches != metrics.Arrived {
		w.t.Errorf("%d metrics taken, %d crashes; %+v, %d rows", w.taken[schema.ClassMetric], w.crashes, metrics, c.Batches)
	}
}
