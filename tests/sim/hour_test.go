// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/fleet/ingest/pictures"

	"fulmar/device"
	"fulmar/device/schedule"
	"fulmar/device/sensor"
	"fulmar/fleet/ingest"
	"fulmar/fleet/store"
	"fulmar/fleet/web"
	"fulmar/internal/run"
	"fulmar/link"
	"fulmar/link/linktest"
	"fulmar/schema"
	"fulmar/storage"
)

const boardName = "dock-1"

var key = ingest.BoardKey{Tenant: "default", Board: boardName}

// fleetSide is ingest and its database behind a broker.
type fleetSide struct {
	broker *linktest.Broker
	in     *ingest.Ingest
	store  *store.Store
}

func newFleet(t *testing.T, ctx context.Context, g *run.Group) *fleetSide {
	t.Helper()
	dir := t.TempDir()
	ledger, err := store.OpenLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ledger.Close() })
	blobs, err := pictures.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := &fleetSide{broker: linktest.New(t)}
	f.in = ingest.New(ingest.Config{}, ledger, blobs, slog.New(slog.DiscardHandler))
	f.store = store.New(ledger, func(context.Context, string) ([]store.Enrolled, error) {
		return []store.Enrolled{{Name: boardName, KeyMode: "software", At: time.Now()}}, nil
	}, func(tenant, board, name string) (*os.File, error) { return blobs.Open(tenant, board, name) })
	g.Go("ingest", f.in.Run)
	f.broker.Take = func(tp schema.Topic, payload []byte) error {
		switch tp.Channel {
		case schema.ChanHello:
			var h schema.Hello
			if err := schema.Decode(payload, &h); err != nil {
				return err
			}
			return f.in.Hello(ctx, key, &h)
		case schema.ChanPresence:
			return nil
		}
		_, refused, err := f.in.Publish(ctx, key, tp.String(), payload)
		if refused {
			t.Errorf("the fleet refused a message on %s", tp)
		}
		return err
	}
	return f
}

// boardSide is a spool fed by the real scheduler, and a link.
type boardSide struct {
	spool *storage.Spool
	link  *link.Session
	made  [schema.NumClasses]uint64
}

func (b *boardSide) Samples(at schema.Time, s *schema.Samples) {
	b.append(schema.ClassMetric, &schema.Record{Kind: schema.KindSamples, Time: at, Samples: s})
}

func (b *boardSide) append(c schema.Class, r *schema.Record) {
	p, err := schema.EncodeRecord(r)
	if err != nil {
		panic(err)
	}
	if _, err := b.spool.Append(context.Background(), c, p); err == nil {
		b.made[c]++
	}
}

func (b *boardSide) OpenBlob(string) (link.Blob, error) { return nil, link.ErrBlobGone }
func (b *boardSide) RemoveBlob(string) error            { return nil }

// TestAnHourWithA17MinuteCut: five series a second and an event every five; the
// network is gone from minute 20 to 37. At the end every number is at the fleet,
// each once, none lost.
func TestAnHourWithA17MinuteCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		g := run.New(ctx)
		f := newFleet(t, ctx, g)
		clock := schema.NewClock(7, time.Hour)
		spool, err := storage.Open(storage.Config{Dir: t.TempDir(), Clock: clock})
		if err != nil {
			t.Fatal(err)
		}
		b := &boardSide{spool: spool}
		sch, err := schedule.New(schedule.Plan{Groups: []schedule.Group{{Name: "all", Period: time.Second, Sensors: []string{"*"}}}},
			[]device.Sensor{sensor.NewSynthetic(5)}, schedule.Deps{Clock: clock, Sink: b})
		if err != nil {
			t.Fatal(err)
		}
		if b.link, err = link.New(link.Config{Tenant: key.Tenant, Board: key.Board, Dial: f.broker.Dial, Clock: clock}, spool, b); err != nil {
			t.Fatal(err)
		}
		board := run.New(ctx)
		board.Go("spool", spool.Run)
		board.Go("schedule", sch.Run)
		g.Go("link", b.link.Run)
		hour(f, b, clock)
		boardStop(t, board, cancel, func() {
			time.Sleep(20 * time.Second)
			check(t, f, b)
		})
		if err := g.Wait(10 * time.Second); err != nil {
			t.Error(err)
		}
		if err := spool.Close(); err != nil {
			t.Error(err)
		}
	})
}

func hour(f *fleetSide, b *boardSide, clock schema.Clock) {
	for i := range 720 { // every 5 s
		switch i {
		case 20 * 12:
			f.broker.SetCut(true)
		case 37 * 12:
			f.broker.SetCut(false)
		}
		b.append(schema.ClassEvent, &schema.Record{Kind: schema.KindEvent, Time: clock.Now(), Event: &schema.Event{
			Source: "cam0", Model: "parcels@1", Frame: uint64(i), Width: 640, Height: 384, Boxes: []schema.Box{{Class: 1, Score: 0.9, X1: 10, Y1: 10}},
		}})
		time.Sleep(5 * time.Second)
	}
}

// boardStop lets what is queued drain, looks, and ends everything.
func boardStop(t *testing.T, board *run.Group, cancel context.CancelFunc, look func()) {
	t.Helper()
	look()
	cancel()
	if err := board.Wait(10 * time.Second); err != nil {
		t.Error(err)
	}
}

func check(t *testing.T, f *fleetSide, b *boardSide) {
	t.Helper()
	all, err := f.store.Check(context.Background(), key.Tenant)
	if err != nil || len(all) != 1 {
		t.Fatalf("check: %v, %d boards", err, len(all))
	}
	c := all[0]
	byClass := map[string]web.Ledger{}
	for _, l := range c.Ledger {
		byClass[l.Class] = l
		if l.Lost != 0 || l.Made != l.Arrived+l.Waiting {
			t.Errorf("class %s: %+v", l.Class, l)
		}
	}
	if l := byClass["event"]; l.Arrived != b.made[schema.ClassEvent] || l.Arrived != 720 || c.Events != 720 || l.Waiting != 0 {
		t.Errorf("events: %d made, ledger %+v, %d rows", b.made[schema.ClassEvent], l, c.Events)
	}
	// The newest seconds may still be in the linger of the spool.
	if l := byClass["metric"]; l.Arrived < 3600 || l.Waiting > 3 || c.Batches != l.Arrived {
		t.Errorf("metrics: %d made, ledger %+v, %d rows", b.made[schema.ClassMetric], l, c.Batches)
	}
	if st := b.link.Status(); !st.Up() || st.Generation < 2 {
		t.Errorf("link %+v", st)
	}
}
