// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package storagetest is what every engine of a spool must pass. It says nothing
// of files: an engine on another base runs the same suite. [LoopSegment] is of the
// engine at hand.
package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"fulmar/schema"
	"fulmar/storage"
)

// Spool is what the suite drives: the methods of [storage.Spool].
type Spool interface {
	Claim(board string) error
	Append(ctx context.Context, c schema.Class, payload []byte) (uint64, error)
	Read(c schema.Class, from uint64, maxRecords, maxBytes int) ([]schema.Stored, error)
	Ack(c schema.Class, epoch, first, last uint64) error
	Cursors() []schema.Cursor
	Wake() <-chan struct{}
	Flush() error
	Close() error
}

// Run runs the suite. open opens the spool of a folder, small enough in its
// segments that a few hundred records make several; the suite closes it.
func Run(t *testing.T, open func(t *testing.T, dir string) Spool) {
	t.Run("order", func(t *testing.T) { t.Parallel(); testOrder(t, open) })
	t.Run("limits", func(t *testing.T) { t.Parallel(); testLimits(t, open) })
	t.Run("refusals", func(t *testing.T) { t.Parallel(); testRefusals(t, open) })
	t.Run("reopen", func(t *testing.T) { t.Parallel(); testReopen(t, open) })
	t.Run("wake", func(t *testing.T) { t.Parallel(); testWake(t, open) })
	t.Run("concurrent", func(t *testing.T) { t.Parallel(); testConcurrent(t, open) })
	t.Run("owner", func(t *testing.T) { t.Parallel(); testOwner(t, open) })
	t.Run("model", func(t *testing.T) { t.Parallel(); testModel(t, open) })
}

// Payload is the n-th payload of a class: a size of its own and content that
// tells it from all others.
func Payload(c schema.Class, n uint64) []byte {
	rng := rand.New(rand.NewPCG(n, uint64(c)))
	b := []byte(fmt.Sprintf("%s %d ", c, n))
	for len(b) < 20+int(n*37%400) {
		b = append(b, byte(rng.Uint32()))
	}
	return b
}

// Epoch is the epoch of a class.
func Epoch(t *testing.T, s Spool, c schema.Class) uint64 { return Cursor(t, s, c).Epoch }

// Cursor is the cursor of a class.
func Cursor(t *testing.T, s Spool, c schema.Class) schema.Cursor {
	t.Helper()
	for _, cur := range s.Cursors() {
		if cur.Class == c {
			return cur
		}
	}
	t.Fatalf("no cursor of class %s", c)
	return schema.Cursor{}
}

// Drain reads all that is not settled, in small reads.
func Drain(t *testing.T, s Spool, c schema.Class) []schema.Stored {
	t.Helper()
	var all []schema.Stored
	from := uint64(0)
	for {
		recs, err := s.Read(c, from, 7, 4<<10)
		if err != nil {
			t.Fatal(err)
		}
		if len(recs) == 0 {
			return all
		}
		all = append(all, recs...)
		from = recs[len(recs)-1].Seq + 1
	}
}

func fill(t *testing.T, s Spool, c schema.Class, first, last uint64) {
	t.Helper()
	for n := first; n <= last; n++ {
		seq, err := s.Append(t.Context(), c, Payload(c, n))
		if err != nil || seq != n {
			t.Fatalf("append %d to %s: number %d, %v", n, c, seq, err)
		}
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testOrder(t *testing.T, open func(*testing.T, string) Spool) {
	s := open(t, t.TempDir())
	for _, c := range schema.Classes() {
		fill(t, s, c, 1, 300)
		epoch := Epoch(t, s, c)
		got := Drain(t, s, c)
		if len(got) != 300 || epoch == 0 {
			t.Fatalf("%s: %d records of epoch %x, want 300", c, len(got), epoch)
		}
		for i, r := range got {
			if r.Seq != uint64(i+1) || r.Class != c || r.Epoch != epoch || !bytes.Equal(r.Payload, Payload(c, r.Seq)) {
				t.Fatalf("%s: record %d is %v %x %d", c, i, r.Class, r.Epoch, r.Seq)
			}
		}
		if cur := Cursor(t, s, c); cur.Acked != 0 || cur.Last != 300 {
			t.Fatalf("cursor %+v, want 0 and 300", cur)
		}
	}
	must(t, s.Close())
}

func testLimits(t *testing.T, open func(*testing.T, string) Spool) {
	s := open(t, t.TempDir())
	defer s.Close()
	big := bytes.Repeat([]byte("x"), schema.MaxRecord)
	for range 3 {
		if _, err := s.Append(t.Context(), schema.ClassEvent, big); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range []struct{ records, bytes, want int }{
		{0, 1 << 20, 0}, {1, 1 << 20, 1}, {100, 2 * schema.MaxRecord, 2}, {100, 2*schema.MaxRecord - 1, 1}, {100, 1, 1}, {100, 0, 1},
	} {
		recs, err := s.Read(schema.ClassEvent, 1, k.records, k.bytes)
		if err != nil || len(recs) != k.want {
			t.Errorf("read of at most %d records and %d bytes: %d, %v; want %d", k.records, k.bytes, len(recs), err, k.want)
		}
	}
	for _, bad := range [][]byte{nil, {}, bytes.Repeat([]byte("x"), schema.MaxRecord+1)} {
		if _, err := s.Append(t.Context(), schema.ClassEvent, bad); err == nil {
			t.Errorf("a record of %d bytes was taken", len(bad))
		}
	}
	if cur := Cursor(t, s, schema.ClassEvent); cur.Last != 3 {
		t.Errorf("refused records used numbers: %+v", cur)
	}
}

func testRefusals(t *testing.T, open func(*testing.T, string) Spool) {
	s := open(t, t.TempDir())
	c := schema.ClassEvent
	fill(t, s, c, 1, 20)
	epoch := Epoch(t, s, c)
	for _, k := range []struct{ epoch, first, last uint64 }{
		{epoch + 1, 1, 5}, {0, 1, 5}, {epoch, 0, 5}, {epoch, 5, 4}, {epoch, 1, 21}, {epoch, 15, 1 << 60}, {epoch, 21, 21},
	} {
		if err := s.Ack(c, k.epoch, k.first, k.last); !errors.Is(err, storage.ErrUnknown) {
			t.Errorf("ack of %d to %d: %v, want ErrUnknown", k.first, k.last, err)
		}
	}
	if err := s.Ack(schema.NumClasses, epoch, 1, 1); err == nil {
		t.Error("ack of a class that is not there")
	}
	if got := Drain(t, s, c); len(got) != 20 {
		t.Errorf("%d records left after refused acks, want 20", len(got))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Append(ctx, c, []byte("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("append with an ended context: %v", err)
	}
	must(t, s.Close())
	must(t, s.Close())
	if _, err := s.Append(t.Context(), c, []byte("x")); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("append after Close: %v", err)
	}
	if _, err := s.Read(c, 1, 1, 1); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("read after Close: %v", err)
	}
	if err := s.Ack(c, epoch, 1, 1); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("ack after Close: %v", err)
	}
}

// testReopen: a clean stop loses nothing, forgets no acknowledgement, wastes no
// number and tells no gap.
func testReopen(t *testing.T, open func(*testing.T, string) Spool) {
	dir := t.TempDir()
	last := map[schema.Class]uint64{}
	epoch := map[schema.Class]uint64{}
	for round := range uint64(4) {
		s := open(t, dir)
		for _, c := range schema.Classes() {
			cur := Cursor(t, s, c)
			if cur.Last != last[c] || round > 0 && cur.Epoch != epoch[c] {
				t.Fatalf("round %d, %s: cursor %+v, want last %d and epoch %x", round, c, cur, last[c], epoch[c])
			}
			epoch[c] = cur.Epoch
			fill(t, s, c, last[c]+1, last[c]+150)
			last[c] += 150
			must(t, s.Ack(c, cur.Epoch, last[c]-100, last[c]-51)) // and 1-50 of each round stay
		}
		must(t, s.Close())
	}
	s := open(t, dir)
	defer s.Close()
	for _, c := range schema.Classes() {
		got := Drain(t, s, c)
		if len(got) != 4*100 {
			t.Errorf("%s: %d records left, want 400", c, len(got))
		}
		for _, r := range got {
			if n := (r.Seq - 1) % 150; n >= 49 && n < 99 || !bytes.Equal(r.Payload, Payload(c, r.Seq)) {
				t.Fatalf("%s: record %d should be gone or is another", c, r.Seq)
			}
		}
	}
}

// testOwner: a spool is one board's, in one process and in the next, whatever is in it.
func testOwner(t *testing.T, open func(*testing.T, string) Spool) {
	dir := t.TempDir()
	s := open(t, dir)
	fill(t, s, schema.ClassEvent, 1, 3)
	must(t, s.Claim("dock-1"))
	must(t, s.Claim("dock-1"))
	if err := s.Claim("dock-2"); !errors.Is(err, storage.ErrOwner) || !strings.Contains(err.Error(), `"dock-1"`) || !strings.Contains(err.Error(), `"dock-2"`) {
		t.Errorf("claimed for another board: %v, want ErrOwner with both names", err)
	}
	if err := s.Claim("Dock 1"); err == nil || errors.Is(err, storage.ErrOwner) {
		t.Errorf("claimed for a name that no board may have: %v", err)
	}
	must(t, s.Claim("dock-1"))
	if got := Drain(t, s, schema.ClassEvent); len(got) != 3 {
		t.Errorf("%d of 3 records after the claims", len(got))
	}
	must(t, s.Close())
	if err := s.Claim("dock-1"); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("claimed after Close: %v", err)
	}
	s = open(t, dir) // without a name
	// What is made before the name is known is nobody else's, and can be read.
	if _, err := s.Append(t.Context(), schema.ClassEvent, []byte("x")); err != nil {
		t.Error(err)
	}
	epoch := Epoch(t, s, schema.ClassEvent)
	recs, err := s.Read(schema.ClassEvent, 1, 10, 1<<20)
	if err != nil || len(recs) != 1 || recs[0].Epoch != epoch || string(recs[0].Payload) != "x" {
		t.Errorf("an owned spool gives %d records to who has no name, %v", len(recs), err)
	}
	must(t, s.Claim("dock-2"))
	if recs, err = s.Read(schema.ClassEvent, 1, 10, 1<<20); err != nil || len(recs) != 1 {
		t.Errorf("another board reads %d records, %v; want its own one", len(recs), err)
	}
	must(t, s.Ack(schema.ClassEvent, epoch, 1, 1))
	must(t, s.Close())
}

func testWake(t *testing.T, open func(*testing.T, string) Spool) {
	s := open(t, t.TempDir())
	defer s.Close()
	select {
	case <-s.Wake():
		t.Error("woken by nothing")
	default:
	}
	fill(t, s, schema.ClassAlarm, 1, 3)
	select {
	case <-s.Wake():
	default:
		t.Error("not woken by a durable record")
	}
	select {
	case <-s.Wake():
		t.Error("woken twice by what was there at the first wake")
	default:
	}
}

// testConcurrent: appenders of all classes, a reader and an acknowledger at once.
func testConcurrent(t *testing.T, open func(*testing.T, string) Spool) {
	s := open(t, t.TempDir())
	defer s.Close()
	const each, writers = 60, 4
	var wg sync.WaitGroup
	for _, c := range schema.Classes() {
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					if _, err := s.Append(t.Context(), c, fmt.Appendf(nil, "%d/%d", w, i)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Go(func() {
			seen := map[string]bool{}
			epoch := Epoch(t, s, c)
			for len(seen) < each*writers && !t.Failed() {
				_ = s.Flush()
				recs, err := s.Read(c, 1, 16, 1<<20)
				if err != nil {
					t.Error(err)
				}
				for _, r := range recs {
					if seen[string(r.Payload)] {
						t.Errorf("%s: %s came again after its acknowledgement", c, r.Payload)
					}
					seen[string(r.Payload)] = true
					if err := s.Ack(c, epoch, r.Seq, r.Seq); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	for _, cur := range s.Cursors() {
		if cur.Last != each*writers || cur.Acked != cur.Last {
			t.Errorf("cursor %+v, want all %d acknowledged", cur, each*writers)
		}
	}
}

// testModel: thousands of random steps against a map.
func testModel(t *testing.T, open func(*testing.T, string) Spool) {
	const seed = 20261121
	rng := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	s := open(t, dir)
	type state struct {
		last    uint64
		settled map[uint64]bool
	}
	var model [schema.NumClasses]state
	for i := range model {
		model[i].settled = map[uint64]bool{}
	}
	for step := range 6000 {
		c := schema.Class(rng.IntN(schema.NumClasses))
		m := &model[c]
		switch k := rng.IntN(100); {
		case k < 45:
			n := uint64(1 + rng.IntN(6))
			fill(t, s, c, m.last+1, m.last+n)
			m.last += n
		case k < 75 && m.last > 0:
			first := 1 + rng.Uint64N(m.last)
			if rng.IntN(50) > 0 { // near the front, as a link does: what is far ahead may be forgotten
				first = min(m.last, Cursor(t, s, c).Acked+1+rng.Uint64N(40))
			}
			last := min(m.last, first+rng.Uint64N(20))
			must(t, s.Ack(c, Epoch(t, s, c), first, last))
			for n := first; n <= last; n++ {
				m.settled[n] = true
			}
		case k == 99 && step%3 == 0:
			must(t, s.Close())
			s = open(t, dir)
		default:
			checkRead(t, s, c, rng, m.last, m.settled)
		}
	}
	for _, c := range schema.Classes() {
		m := &model[c]
		if got, want := len(Drain(t, s, c)), int(m.last)-len(m.settled); got != want {
			t.Errorf("%s: %d records left, want %d", c, got, want)
		}
	}
	must(t, s.Close())
}

func checkRead(t *testing.T, s Spool, c schema.Class, rng *rand.Rand, last uint64, settled map[uint64]bool) {
	t.Helper()
	from, most := rng.Uint64N(last+3), 1+rng.IntN(30)
	got, err := s.Read(c, from, most, 1<<20)
	must(t, err)
	i := 0
	for n := max(from, 1); n <= last && i < most; n++ {
		if settled[n] {
			continue
		}
		if i >= len(got) || got[i].Seq != n || !bytes.Equal(got[i].Payload, Payload(c, n)) {
			t.Fatalf("%s: read from %d of at most %d gave %d records; at %d record %d should stand, not %v", c, from, most, len(got), i, n, seqs(got))
		}
		i++
	}
	if i != len(got) {
		t.Fatalf("%s: read from %d gave %d records, want %d", c, from, len(got), i)
	}
}

func seqs(recs []schema.Stored) (out []uint64) {
	for _, r := range recs {
		out = append(out, r.Seq)
	}
	return out
}
