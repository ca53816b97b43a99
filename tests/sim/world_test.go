// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"fulmar/fleet/gateway/foreign"
	"fulmar/fleet/ingest"
	"fulmar/fleet/ingest/pictures"
	"fulmar/fleet/store"
	"fulmar/internal/run"
	"fulmar/link/linktest"
	"fulmar/schema"
)

// dawn is how long after the begin of simulated time, which is the year 2000, a world
// begins: at the end of 2025. No fleet believes a board that speaks of 2000; and files
// carry the real clock's times, which must not lie in the past, as half-sent pictures
// are thrown away that are old.
const dawn = 26 * 365 * 24 * time.Hour

// traits are what kind of world a seed makes.
type traits struct {
	boards   int
	window   time.Duration // over which reconnects spread
	foreign  bool          // somebody else's broker stands between, and the fleet acknowledges by its own word
	turning  bool          // the wall clocks of the boards are set to other decades while they run
	pictures bool
	stepwise bool // nothing else moves while a record is made: such a world replays nearly the same
	small    bool // the classes of the spool are too small for all
	calm     bool // no faults of the fleet
}

func traitsOf(seed uint64) traits {
	tr := traits{boards: 1, window: 2 * time.Second, foreign: seed%3 == 2, turning: seed%2 == 1, pictures: seed%3 != 0, stepwise: seed/6%2 == 0}
	if tr.foreign {
		tr.boards = 2 // their words cross on the way to the fleet
	}
	return tr
}

// world is boards, one broker and one fleet.
type world struct {
	traits
	t      *testing.T
	seed   uint64
	rng    *rand.Rand // of the one goroutine that makes records and faults
	jitter *rand.Rand // of the fleet
	fates  *fates
	trace  *trace
	broker atomic.Pointer[linktest.Broker]
	quiet  atomic.Bool // no more faults of the fleet, nor of the way to it

	// the fleet
	dir    string
	ledger *store.DB
	door   atomic.Pointer[door]
	fleet  *run.Group

	boards []*board
}

func newWorld(t *testing.T, seed uint64, tr traits) *world {
	time.Sleep(dawn)
	w := &world{
		traits: tr, t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 77)), jitter: rand.New(rand.NewPCG(seed, 79)), fates: newFates(seed), trace: newTrace(),
		dir: memoryDir(t),
	}
	w.quiet.Store(tr.calm)
	w.startFleet()
	for i := range tr.boards {
		w.boards = append(w.boards, newBoard(w, fmt.Sprintf("dock-%d", i+1)))
	}
	return w
}

// memoryDir is a folder for files in memory, where there is one: what a disk does is
// shown elsewhere, and a third of a world's time would be file systems.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "fulmar-sim-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// openBroker begins the network; before that there is none. Of a broker that was there
// before nothing is left.
func (w *world) openBroker() {
	b := linktest.New(w.t)
	b.Take = w.take
	if w.foreign {
		b.Hello = nil // the fleet answers by itself
		b.Post = newOffice(w, b).post
	}
	w.broker.Store(b)
}

// killBroker ends the broker as a crash does.
func (w *world) killBroker() {
	if b := w.broker.Swap(nil); b != nil {
		b.Kill()
	}
}

// dial connects a board or the fleet to the broker of the moment.
func (w *world) dial(ctx context.Context, who string) (net.Conn, error) {
	w.trace.note("dial", who)
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
	log := slog.New(slog.DiscardHandler)
	in := ingest.New(ingest.Config{}, ledger, blobs, log)
	d := &door{w: w, in: in}
	w.ledger, w.fleet = ledger, run.New(context.Background())
	w.fleet.Go("ingest", in.Run)
	w.door.Store(d)
	if !w.foreign {
		return
	}
	f, err := foreign.New(foreign.Config{
		Address: "broker", Pictures: blobs,
		Dial:   func(ctx context.Context, _, _ string) (net.Conn, error) { return w.dial(ctx, "fleet") },
		Jitter: w.jitter.Float64,
	}, d, log)
	if err != nil {
		w.t.Fatal(err)
	}
	w.fleet.Go("foreign", f.Run)
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

// take is the broker's end of each message. Of our own broker, the gateway, it stores;
// of a foreign one it only sees what passes.
func (w *world) take(tp schema.Topic, payload []byte) error {
	w.trace.message(w.t, tp, payload)
	if w.foreign || tp.Channel == schema.ChanPresence {
		return nil
	}
	d, key, ctx := w.door.Load(), ingest.BoardKey{Tenant: tp.Tenant, Board: tp.Board}, context.Background()
	if tp.Channel == schema.ChanHello {
		var h schema.Hello
		if err := schema.Decode(payload, &h); err != nil {
			return err
		}
		return d.Hello(ctx, key, &h)
	}
	_, _, err := d.Publish(ctx, key, tp.String(), payload)
	return err
}

// door is the way into ingest, with the faults of a fleet: refused before it had an
// effect, taken and the acknowledgement lost, or late.
type door struct {
	w  *world
	in *ingest.Ingest
}

var (
	errMoment = errors.New("the fleet has a bad moment")
	errLost   = errors.New("the acknowledgement is lost")
)

// Publish stores records.
//
// A message may be held up here for seconds, while its connection is given up and the
// next one delivers what was made after it: that is how far two connections of a board
// can overtake each other at a gateway. Within one TCP keeps the order, and one that is
// taken over is read no more. A PUBACK cannot come before an older one either.
func (d *door) Publish(ctx context.Context, key ingest.BoardKey, topic string, payload []byte) (*schema.Ack, bool, error) {
	refuse, lose, late := 3, 5, 2 // of 100
	if d.w.foreign {
		refuse, lose, late = 1, 1, 1 // each costs the board its patience of 45 s
	}
	fate := 100
	if !d.w.quiet.Load() {
		fate = d.w.fates.draw(100, "door", topic, payload)
	}
	switch {
	case fate < refuse:
		return nil, false, errMoment
	case fate >= 100-late && fate < 100:
		select {
		case <-time.After(time.Duration(d.w.fates.draw(20_000, "late", topic, payload)) * time.Millisecond):
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
	ack, refused, err := d.in.Publish(ctx, key, topic, payload)
	if refused {
		d.w.t.Errorf("the fleet refused a message on %s", topic)
	}
	if err == nil && fate < refuse+lose {
		return nil, false, errLost
	}
	return ack, refused, err
}

// Hello stores what a board says of itself.
func (d *door) Hello(ctx context.Context, key ingest.BoardKey, h *schema.Hello) error {
	if !d.w.quiet.Load() && d.w.fates.draw(100, "hello", key.Board, nil) < 3 {
		return errMoment
	}
	return d.in.Hello(ctx, key, h)
}

// Presence stores whether a board is there.
func (d *door) Presence(ctx context.Context, key ingest.BoardKey, p schema.Presence) error {
	return d.in.Presence(ctx, key, p)
}

// Newer is for boards of a newer version, of which there are none here.
func (d *door) Newer(_ context.Context, key ingest.BoardKey, version uint8) error {
	d.w.t.Errorf("%s speaks version %d", key.Board, version)
	return ingest.ErrNewer
}
