// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing/synctest"
	"time"

	"fulmar/fleet/ingest"
	"fulmar/internal/run"
	"fulmar/link"
	"fulmar/schema"
	"fulmar/storage"
)

// board is one board of a world: a spool, a folder of pictures and a link.
type board struct {
	w       *world
	key     ingest.BoardKey
	dir     string
	boot    uint64
	clock   schema.Clock
	wrong   atomic.Int64 // nanoseconds that its wall clock is ahead
	spool   *storage.Spool
	blobs   *storage.Blobs
	session *link.Session
	calls   atomic.Int64 // of the link to the spool
	parts   *run.Group
	stop    context.CancelFunc

	taken   [schema.NumClasses]uint64 // records whose Append returned nil
	frame   uint64
	crashes int
}

func newBoard(w *world, name string) *board {
	b := &board{w: w, key: ingest.BoardKey{Tenant: "default", Board: name}, dir: memoryDir(w.t)}
	b.start()
	return b
}

func (b *board) start() {
	b.boot++
	b.clock = schema.NewClock(b.boot, time.Minute).WithWall(func() time.Time { return time.Now().Add(time.Duration(b.wrong.Load())) })
	cfg := storage.Config{Dir: filepath.Join(b.dir, "spool"), Clock: b.clock, NoSync: true}
	for i := range cfg.Classes {
		cfg.Classes[i] = storage.ClassConfig{QuotaBytes: 1 << 20, SegmentBytes: 64 << 10}
	}
	var err error
	if b.spool, err = storage.Open(cfg); err != nil {
		b.w.t.Fatal(err)
	}
	if b.blobs, err = storage.OpenBlobs(filepath.Join(b.dir, "blobs"), 64<<20); err != nil {
		b.w.t.Fatal(err)
	}
	name := fnv.New64a()
	_, _ = name.Write([]byte(b.key.Board))
	jitter := rand.New(rand.NewPCG(b.w.seed^name.Sum64(), b.boot))
	b.session, err = link.New(link.Config{
		Tenant: b.key.Tenant, Board: b.key.Board, Clock: b.clock, ReconnectWindow: b.w.window, Jitter: jitter.Float64,
		Dial: func(ctx context.Context) (net.Conn, error) { return b.w.dial(ctx, b.key.Board) },
	}, outbox{b.spool, &b.calls}, pictureFolder{b.blobs})
	if err != nil {
		b.w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	b.stop, b.parts = stop, run.New(ctx)
	b.parts.Go("spool", b.spool.Run)
	b.parts.Go("link", b.session.Run)
}

// outbox is the spool as the link sees it, counted.
type outbox struct {
	*storage.Spool
	calls *atomic.Int64
}

func (o outbox) ReadEpoch(c schema.Class, epoch, from uint64, records, bytes int) ([]schema.Stored, error) {
	o.calls.Add(1)
	return o.Spool.ReadEpoch(c, epoch, from, records, bytes)
}

func (o outbox) Cursors() []schema.Cursor {
	o.calls.Add(1)
	return o.Spool.Cursors()
}

// pictureFolder is the board's pictures as its link sees them.
type pictureFolder struct{ blobs *storage.Blobs }

func (p pictureFolder) OpenBlob(name string) (link.Blob, error) {
	b, err := p.blobs.Open(name)
	if errors.Is(err, storage.ErrBlobGone) {
		return nil, fmt.Errorf("%w: %w", link.ErrBlobGone, err)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

func (p pictureFolder) RemoveBlob(name string) error { return p.blobs.Remove(name) }

// end stops the board in order; what it had not told is on its disk.
func (b *board) end() {
	b.stop()
	if err := b.parts.Wait(20 * time.Second); err != nil {
		b.w.t.Error(err)
	}
	if err := b.spool.Close(); err != nil {
		b.w.t.Error(err)
	}
	// Nothing here acknowledges what was not sent, so none of it may be called so.
	if n := b.session.Status().FalseAcks; n != 0 {
		b.w.t.Errorf("%s calls %d words of the fleet false", b.key.Board, n)
	}
}

// crash goes on from a copy of the disk as it is at this moment.
func (b *board) crash() {
	synctest.Wait() // nobody writes
	after := memoryDir(b.w.t)
	if err := os.CopyFS(after, os.DirFS(b.dir)); err != nil {
		b.w.t.Fatal(err)
	}
	b.end() // the old one may still hear and say a last word, as packets on their way do
	b.dir = after
	b.crashes++
	b.start()
}

// turn sets the wall clock to some time within 50 years of the right one.
func (b *board) turn() {
	const most = 50 * 365 * 24 * time.Hour
	off := []time.Duration{most, -most, 0, time.Duration(b.w.rng.Int64N(int64(2*most))) - most}[b.w.rng.IntN(4)]
	b.wrong.Store(int64(off))
	b.w.trace.note("turn", b.key.Board, off)
}

// add appends a record.
func (b *board) add(c schema.Class, r *schema.Record) {
	r.Time = b.clock.Now()
	p, err := schema.EncodeRecord(r)
	if err != nil {
		b.w.t.Fatal(err)
	}
	if _, err := b.spool.Append(context.Background(), c, p); err != nil {
		b.w.t.Errorf("append to %s: %v", c, err)
		return
	}
	b.taken[c]++
	if b.w.stepwise {
		synctest.Wait()
	}
}

// make appends some records.
func (b *board) make() {
	rng := b.w.rng
	for range rng.IntN(40) {
		switch n := rng.IntN(10); {
		case n < 6:
			b.add(schema.ClassMetric, &schema.Record{Kind: schema.KindSamples, Samples: &schema.Samples{Series: []string{"a", "b"}, Value: []float64{1, 2}}})
		case n < 9:
			b.frame++
			b.add(schema.ClassEvent, &schema.Record{Kind: schema.KindEvent, Event: &schema.Event{Source: "cam0", Frame: b.frame, Boxes: []schema.Box{{Score: 0.5}}}})
		default:
			b.add(schema.ClassAlarm, &schema.Record{Kind: schema.KindReport, Report: &schema.Report{Subject: fmt.Sprintf("s%d", rng.IntN(3)), State: "ok"}})
		}
	}
	if b.w.pictures && rng.IntN(5) == 0 {
		b.picture(1 + rng.IntN(3*schema.MaxChunk))
	}
}

// picture puts one into the folder, and its index into the spool.
func (b *board) picture(size int) {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i * (size + i>>8))
	}
	b.frame++
	s := &schema.Snapshot{Name: fmt.Sprintf("cam0-%d.jpg", b.frame), Size: int64(size), Media: "image/jpeg", Source: "cam0", Frame: b.frame}
	var err error
	if s.SHA256, err = b.blobs.Put(s.Name, data); err != nil {
		b.w.t.Fatal(err)
	}
	b.add(schema.ClassSnapshot, &schema.Record{Kind: schema.KindSnapshot, Snapshot: s})
}
