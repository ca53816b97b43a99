// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"fulmar/fleet/ingest/book"
	"fulmar/fleet/ingest/pictures"
	"fulmar/fleet/store"
	"fulmar/schema"
)

// streamName names a stream of one board.
type streamName struct {
	class schema.Class
	epoch uint64
}

// plain is the book of a stream as sets.
type plain struct {
	heard         uint64
	arrived, lost map[uint64]bool
	dups          uint64
}

// plainBoard is all of a board as sets, and what it could send.
type plainBoard struct {
	key     BoardKey
	r       *rand.Rand
	streams map[streamName]*plain
	gapRows int // gap records that took effect
	sent    [][2]any
}

func (b *plainBoard) stream(n streamName) *plain {
	if b.streams[n] == nil {
		b.streams[n] = &plain{arrived: map[uint64]bool{}, lost: map[uint64]bool{}}
	}
	return b.streams[n]
}

// deliver takes a message as the fleet should.
func (b *plainBoard) deliver(m *schema.Message) {
	s := b.stream(streamName{m.Class, m.Epoch})
	for _, q := range m.Records {
		r, err := schema.DecodeRecord(q.Payload)
		if q.Seq > book.MaxSeq {
			continue // refused
		}
		s.heard = max(s.heard, q.Seq)
		if err != nil || r.Gap != nil && r.Gap.Last > book.MaxSeq {
			if !s.arrived[q.Seq] {
				s.lost[q.Seq] = true // it came, and nobody can read it
			}
			continue
		}
		if s.arrived[q.Seq] {
			s.dups++
			continue
		}
		s.arrived[q.Seq] = true
		delete(s.lost, q.Seq)
		if g := r.Gap; g != nil {
			b.gapRows++
			of := b.stream(streamName{g.Class, g.Epoch})
			of.heard = max(of.heard, g.Last)
			for n := g.First; n <= g.Last; n++ {
				if !of.arrived[n] {
					of.lost[n] = true
				}
			}
		}
	}
}

// payload makes the record that the number stands for: the same one each time.
func (b *plainBoard) payload(t *testing.T, c schema.Class, epoch, seq uint64) []byte {
	rnd := rand.New(rand.NewPCG(epoch<<8|uint64(c), seq))
	id := float64(epoch*1_000_000 + seq)
	switch {
	case rnd.IntN(40) == 0:
		return []byte{0xff, byte(seq)} // never to be understood
	case c == schema.ClassMetric:
		return samples(t, id)
	case c == schema.ClassEvent:
		return record(t, schema.Record{Kind: schema.KindEvent, Event: &schema.Event{Source: "cam0", Frame: uint64(id)}})
	}
	// An alarm is a gap: before or after its records, of a stream never heard of,
	// over an older gap, over what arrived, or a lie.
	g := &schema.Gap{Class: schema.Class(rnd.IntN(schema.NumClasses)), Epoch: 1 + rnd.Uint64N(9), Reason: schema.Reason(1 + rnd.IntN(8))}
	g.First = 1 + rnd.Uint64N(120)
	g.Last = g.First + rnd.Uint64N(20)
	if rnd.IntN(30) == 0 {
		g.Last = book.MaxSeq + 1 + rnd.Uint64N(1000)
	}
	return record(t, schema.Record{Kind: schema.KindGap, Gap: g})
}

// message makes a random message, or repeats one.
func (b *plainBoard) message(t *testing.T) (string, []byte, *schema.Message) {
	if n := len(b.sent); n > 0 && b.r.IntN(6) == 0 {
		old := b.sent[b.r.IntN(n)]
		m := old[0].(*schema.Message)
		return schema.MessageTopic(b.key.Tenant, b.key.Board, m.Class).String(), old[1].([]byte), m
	}
	m := &schema.Message{V: 1, Board: b.key.Board, Class: schema.Class(b.r.IntN(3)), Epoch: 1 + b.r.Uint64N(6), Sent: now()}
	for seq := 1 + b.r.Uint64N(120); len(m.Records) < 1+b.r.IntN(12); seq += 1 + b.r.Uint64N(3) {
		m.Records = append(m.Records, schema.SeqRecord{Seq: seq, Payload: b.payload(t, m.Class, m.Epoch, seq)})
	}
	if b.r.IntN(50) == 0 { // a number no board could have given out
		m.Records = append(m.Records, schema.SeqRecord{Seq: book.MaxSeq + 1 + b.r.Uint64N(1<<40), Payload: samples(t, 1)})
	}
	p := encode(t, m)
	b.sent = append(b.sent, [2]any{m, p})
	return schema.MessageTopic(b.key.Tenant, b.key.Board, m.Class).String(), p, m
}

// compare holds the tables against the sets.
func (b *plainBoard) compare(t *testing.T, r *rig) {
	t.Helper()
	id := r.int(t, "SELECT id FROM board WHERE name = ?", b.key.Board)
	effects, lost := map[schema.Class]int64{}, map[schema.Class]int64{}
	for n, s := range b.streams {
		where := " FROM stream WHERE board = ? AND class = ? AND epoch = ?"
		args := []any{id, n.class, int64(n.epoch)}
		got := [4]int64{}
		for i, col := range []string{"heard", "arrived", "lost", "dups"} {
			got[i] = r.int(t, "SELECT "+col+where, args...)
		}
		if want := [4]int64{int64(s.heard), int64(len(s.arrived)), int64(len(s.lost)), int64(s.dups)}; got != want {
			t.Errorf("%s: class %s epoch %d: heard, arrived, lost, duplicates %v, want %v", b.key.Board, n.class, n.epoch, got, want)
		}
		if counted := r.int(t, "SELECT coalesce(sum(count), 0) FROM gap WHERE board = ? AND class = ? AND epoch = ?", args...); counted != int64(len(s.lost)) {
			t.Errorf("%s: class %s epoch %d: gaps count %d, lost are %d", b.key.Board, n.class, n.epoch, counted, len(s.lost))
		}
		lost[n.class] += int64(len(s.lost))
		effects[n.class] += int64(len(s.arrived))
	}
	for c, n := range lost {
		if sum := r.int(t, "SELECT coalesce(sum(count), 0) FROM loss WHERE board = ? AND class = ?", id, c); sum != n {
			t.Errorf("%s: reasons of class %s sum up to %d, lost are %d", b.key.Board, c, sum, n)
		}
	}
	rows := map[schema.Class]int64{
		schema.ClassMetric: r.int(t, "SELECT count(DISTINCT payload) FROM telemetry WHERE board = ?", id),
		schema.ClassEvent:  r.int(t, "SELECT count(DISTINCT payload) FROM event WHERE board = ?", id),
		schema.ClassAlarm:  r.int(t, "SELECT count(*) FROM gap WHERE board = ? AND reason < ?", id, schema.ReasonUnreadable),
	}
	for c, n := range rows {
		if n != effects[c] {
			t.Errorf("%s: %d effects of class %s, %d numbers have arrived", b.key.Board, n, c, effects[c])
		}
	}
	if a, d := r.int(t, "SELECT count(*) FROM telemetry WHERE board = ?", id), rows[schema.ClassMetric]; a != d {
		t.Errorf("%s: %d rows of telemetry, %d different", b.key.Board, a, d)
	}
}

// TestAnyDelivery sends thousands of random deliveries: duplicates, any order,
// holes, gaps before and after their records and twice, records that return from a
// gap, gaps of epochs never heard of, many epochs at once, numbers that lie, bad
// records, restarts. Each number has one effect and each book is that of plain sets.
func TestAnyDelivery(t *testing.T) {
	t.Parallel()
	const boards, rounds, each = 6, 3, 150
	dir := t.TempDir()
	all := make([]*plainBoard, boards)
	for i := range all {
		all[i] = &plainBoard{key: BoardKey{"default", fmt.Sprintf("b%d", i)}, r: rand.New(rand.NewPCG(uint64(i), 21)), streams: map[streamName]*plain{}}
	}
	for range rounds {
		r := start(t, dir, Config{})
		var wg sync.WaitGroup
		for _, b := range all {
			wg.Go(func() {
				for range each {
					topic, p, m := b.message(t)
					if _, refused, err := r.Publish(context.Background(), b.key, topic, p); err != nil || refused {
						t.Errorf("refused %v, %v", refused, err)
						return
					}
					b.deliver(m)
				}
			})
		}
		wg.Wait()
		for _, b := range all {
			b.compare(t, r)
		}
		r.stop()
	}
}

// few starts an ingest that keeps the ranges of two epochs only, so that each third
// one folds another.
func few(t *testing.T, dir string) *rig {
	t.Helper()
	db, err := store.OpenLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := pictures.New(dir + "/pictures")
	if err != nil {
		t.Fatal(err)
	}
	in := New(Config{}, db, blobs, quiet())
	in.epochs = 2
	in.cache = newCache(2)
	return run(t, in, db)
}

// TestFoldedEpochs: with epochs folded and unfolded all the time, often within the
// transaction and the very message that touches them, each number has one effect and
// the sums are those of plain sets; what a folded epoch waits for stands as lost.
func TestFoldedEpochs(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		r := few(t, t.TempDir())
		b := &plainBoard{key: testKey, r: rand.New(rand.NewPCG(seed, 22)), streams: map[streamName]*plain{}}
		for range 150 {
			topic, p, m := b.message(t)
			if _, _, err := r.Publish(context.Background(), b.key, topic, p); err != nil {
				t.Fatal(err)
			}
			b.deliver(m)
			if r.int(t, "SELECT count(*) FROM stream s WHERE (SELECT count(*) FROM stream x WHERE x.class = s.class) > 2") > 0 {
				t.Fatal("more epochs are kept than the bound")
			}
		}
		sums := func(col string, c schema.Class) int64 {
			return r.int(t, "SELECT coalesce((SELECT sum("+col+") FROM stream WHERE class = ?1), 0) + coalesce((SELECT sum("+col+") FROM stream_past WHERE class = ?1), 0)", c)
		}
		for _, c := range schema.Classes() {
			var made, could, gone int64
			for _, n := range slices.Collect(maps.Keys(b.streams)) {
				if n.class == c {
					made += int64(b.streams[n].heard)
					could += int64(len(b.streams[n].arrived))
					gone += int64(len(b.streams[n].lost))
				}
			}
			heard, arrived, lost := sums("heard", c), sums("arrived", c), sums("lost", c)
			if heard != made || arrived != could || lost < gone || lost+arrived > heard {
				t.Errorf("seed %d class %s: heard %d of %d made, arrived %d of %d sent, lost %d of at least %d", seed, c, heard, made, arrived, could, lost, gone)
			}
			rows := map[schema.Class]string{schema.ClassMetric: "SELECT count(*) FROM telemetry", schema.ClassEvent: "SELECT count(*) FROM event", schema.ClassAlarm: "SELECT count(*) FROM gap WHERE reason < 11"}[c]
			if rows == "" {
				continue
			}
			if n := r.int(t, rows); n != arrived {
				t.Errorf("seed %d class %s: %d rows, %d arrived", seed, c, n, arrived)
			}
		}
		if n := r.int(t, "SELECT count(*) - count(DISTINCT payload) FROM telemetry"); n != 0 {
			t.Errorf("seed %d: %d rows of telemetry are there twice", seed, n)
		}
		past := r.int(t, "SELECT coalesce(sum(epochs), 0) FROM stream_past")
		if n := r.int(t, "SELECT count(*) FROM stream_folded"); n != past || n == 0 {
			t.Errorf("seed %d: %d epochs are known by name, %d summed up", seed, n, past)
		}
		r.stop()
	}
}

// TestFoldWithin: one message whose gaps touch the epoch that is folded for
// another of its gaps. What the first gap said must be in the sums.
func TestFoldWithin(t *testing.T) {
	t.Parallel()
	r := few(t, t.TempDir())
	gap := func(c schema.Class, epoch, last uint64) []byte {
		return record(t, schema.Record{Kind: schema.KindGap, Gap: &schema.Gap{Class: c, Epoch: epoch, First: 1, Last: last, Reason: schema.ReasonCrash}})
	}
	for e := uint64(1); e <= 2; e++ {
		r.send(t, testKey, schema.ClassMetric, e, schema.SeqRecord{Seq: 1, Payload: samples(t, 1)})
	}
	// Epoch 1 of metrics is the one to be folded; epoch 1 of alarms is this message's own.
	r.send(t, testKey, schema.ClassAlarm, 1,
		schema.SeqRecord{Seq: 1, Payload: gap(schema.ClassMetric, 1, 10)}, schema.SeqRecord{Seq: 2, Payload: gap(schema.ClassMetric, 3, 100)},
		schema.SeqRecord{Seq: 3, Payload: gap(schema.ClassAlarm, 2, 5)}, schema.SeqRecord{Seq: 4, Payload: gap(schema.ClassAlarm, 3, 5)},
		schema.SeqRecord{Seq: 5, Payload: gap(schema.ClassAlarm, 4, 5)}, schema.SeqRecord{Seq: 6, Payload: gap(schema.ClassMetric, 4, 7)})
	sums := func(col string, c schema.Class) int64 {
		return r.int(t, "SELECT (SELECT sum("+col+") FROM stream WHERE class = ?1) + (SELECT sum("+col+") FROM stream_past WHERE class = ?1)", c)
	}
	for c, want := range map[schema.Class][3]int64{schema.ClassMetric: {10 + 1 + 100 + 7, 2, 9 + 100 + 7}, schema.ClassAlarm: {6 + 5 + 5 + 5, 6, 15}} {
		if got := [3]int64{sums("heard", c), sums("arrived", c), sums("lost", c)}; got != want {
			t.Errorf("class %s: heard, arrived, lost %v, want %v", c, got, want)
		}
	}
}

// TestEpochsOfMemory: a board whose disk died works from memory under epochs of
// their own. Its hello tells several of a class, and its gaps may name one that
// never sent anything; all are in the books.
func TestEpochsOfMemory(t *testing.T) {
	t.Parallel()
	r := start(t, t.TempDir(), Config{})
	gap := func(epoch, first, last uint64) []byte {
		return record(t, schema.Record{Kind: schema.KindGap, Gap: &schema.Gap{Class: schema.ClassMetric, Epoch: epoch, First: first, Last: last, Reason: schema.ReasonUnsavable}})
	}
	r.send(t, testKey, schema.ClassMetric, 1, schema.SeqRecord{Seq: 1, Payload: samples(t, 1)})
	r.send(t, testKey, schema.ClassMetric, 2, schema.SeqRecord{Seq: 3, Payload: samples(t, 2)})
	hello := &schema.Hello{V: 1, Board: "b1", Now: now(), Cursors: []schema.Cursor{
		{Class: schema.ClassMetric, Epoch: 1, Acked: 1, Last: 5}, {Class: schema.ClassMetric, Epoch: 2, Last: 7}, {Class: schema.ClassMetric, Epoch: 3, Last: 4},
	}}
	if err := r.Hello(context.Background(), testKey, hello); err != nil {
		t.Fatal(err)
	}
	r.send(t, testKey, schema.ClassAlarm, 9, schema.SeqRecord{Seq: 1, Payload: gap(2, 4, 7)}, schema.SeqRecord{Seq: 2, Payload: gap(4, 1, 20)})
	for epoch, want := range map[int64][3]int64{1: {5, 1, 0}, 2: {7, 1, 4}, 3: {4, 0, 0}, 4: {20, 0, 20}} {
		got := [3]int64{}
		for i, col := range []string{"heard", "arrived", "lost"} {
			got[i] = r.int(t, "SELECT "+col+" FROM stream WHERE class = 2 AND epoch = ?", epoch)
		}
		if got != want {
			t.Errorf("epoch %d: heard, arrived, lost %v, want %v", epoch, got, want)
		}
	}
	if n := r.int(t, "SELECT count FROM loss WHERE class = 2 AND reason = ?", schema.ReasonUnsavable); n != 24 {
		t.Errorf("%d lost by the disk, want 24", n)
	}
}
