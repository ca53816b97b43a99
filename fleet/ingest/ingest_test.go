// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"fulmar/fleet/ingest/pictures"
	"fulmar/fleet/ingest/shelf"

	"fulmar/fleet/store"
	"fulmar/schema"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// rig is an ingest that runs.
type rig struct {
	*Ingest
	db   *store.DB
	stop func()
}

func start(t testing.TB, dir string, cfg Config) *rig {
	t.Helper()
	db, err := store.OpenLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := pictures.New(filepath.Join(dir, "pictures"))
	if err != nil {
		t.Fatal(err)
	}
	return run(t, New(cfg, db, blobs, quiet()), db)
}

// run runs an ingest until the test ends.
func run(t testing.TB, in *Ingest, db *store.DB) *rig {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx) }()
	r := &rig{Ingest: in, db: db}
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

func (r *rig) int(t testing.TB, q string, args ...any) int64 {
	t.Helper()
	var n int64
	if err := r.db.Read.QueryRow(q, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

var testKey = BoardKey{"default", "b1"}

func now() schema.Time {
	return schema.Time{Boot: 1, Mono: time.Now().UnixNano(), Wall: time.Now().UnixMilli()}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := schema.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func record(t testing.TB, r schema.Record) []byte {
	t.Helper()
	if r.Time.Boot == 0 {
		r.Time = now()
	}
	b, err := schema.EncodeRecord(&r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func samples(t testing.TB, v float64) []byte {
	return record(t, schema.Record{Kind: schema.KindSamples, Samples: &schema.Samples{Series: []string{"cpu.load_percent", "mem.used_percent"}, Value: []float64{v, v / 2}}})
}

func message(t testing.TB, key BoardKey, c schema.Class, epoch uint64, recs ...schema.SeqRecord) (topic string, payload []byte) {
	t.Helper()
	m := schema.Message{V: schema.Version, Board: key.Board, Class: c, Epoch: epoch, Sent: now(), Records: recs}
	return schema.MessageTopic(key.Tenant, key.Board, c).String(), encode(t, &m)
}

// send publishes records and fails the test where they were not taken.
func (r *rig) send(t testing.TB, key BoardKey, c schema.Class, epoch uint64, recs ...schema.SeqRecord) {
	t.Helper()
	topic, p := message(t, key, c, epoch, recs...)
	if _, refused, err := r.Publish(context.Background(), key, topic, p); err != nil || refused {
		t.Fatalf("publish: refused %v, %v", refused, err)
	}
}

// TestEachRecordOnce sends records of several boards in random order, many times,
// through restarts, and compares the tables with plain sets.
func TestEachRecordOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(7, 7))
	sent := map[string]map[uint64]bool{}
	var dups int64
	for round := range 4 {
		rg := start(t, dir, Config{})
		for range 60 {
			key := BoardKey{"default", fmt.Sprintf("b%d", r.IntN(3))}
			epoch := uint64(1 + r.IntN(2))
			name := fmt.Sprint(key.Board, epoch)
			if sent[name] == nil {
				sent[name] = map[uint64]bool{}
			}
			var recs []schema.SeqRecord
			seq := 1 + r.Uint64N(150)
			for range 1 + r.IntN(8) {
				recs = append(recs, schema.SeqRecord{Seq: seq, Payload: samples(t, float64(seq))})
				if sent[name][seq] {
					dups++
				}
				sent[name][seq] = true
				seq += 1 + r.Uint64N(3)
			}
			rg.send(t, key, schema.ClassMetric, epoch, recs...)
		}
		want := int64(0)
		for _, s := range sent {
			want += int64(len(s))
		}
		rows := rg.int(t, "SELECT count(*) FROM telemetry")
		arrived := rg.int(t, "SELECT sum(arrived) FROM stream")
		turned := rg.int(t, "SELECT sum(dups) FROM stream")
		if rows != want || arrived != want || turned != dups {
			t.Fatalf("round %d: %d rows, %d arrived, %d duplicates; want %d, %d, %d", round, rows, arrived, turned, want, want, dups)
		}
		rg.stop()
	}
}

// TestGapsAndReturn: a gap is lost until its number comes after all.
func TestGapsAndReturn(t *testing.T) {
	t.Parallel()
	r := start(t, t.TempDir(), Config{})
	for _, seq := range []uint64{1, 2, 6} {
		r.send(t, testKey, schema.ClassMetric, 9, schema.SeqRecord{Seq: seq, Payload: samples(t, 1)})
	}
	gap := record(t, schema.Record{Kind: schema.KindGap, Gap: &schema.Gap{Class: schema.ClassMetric, Epoch: 9, First: 2, Last: 4, Reason: schema.ReasonCrash}})
	r.send(t, testKey, schema.ClassAlarm, 3, schema.SeqRecord{Seq: 1, Payload: gap})
	expect := func(arrived, lost, waiting, count int64) {
		t.Helper()
		a, l := r.int(t, "SELECT arrived FROM stream WHERE class = 2"), r.int(t, "SELECT lost FROM stream WHERE class = 2")
		w := r.int(t, "SELECT heard FROM stream WHERE class = 2") - a - l
		c := r.int(t, "SELECT sum(count) FROM gap")
		if a != arrived || l != lost || w != waiting || c != count {
			t.Fatalf("arrived %d lost %d waiting %d, gap counts %d; want %d %d %d, %d", a, l, w, c, arrived, lost, waiting, count)
		}
	}
	expect(3, 2, 1, 2) // 5 is waiting
	r.send(t, testKey, schema.ClassMetric, 9, schema.SeqRecord{Seq: 3, Payload: samples(t, 1)})
	expect(4, 1, 1, 1)
	hello := &schema.Hello{V: 1, Board: "b1", Now: now(), Cursors: []schema.Cursor{{Class: schema.ClassMetric, Epoch: 9, Last: 10}}}
	if err := r.Hello(context.Background(), testKey, hello); err != nil {
		t.Fatal(err)
	}
	expect(4, 1, 5, 1)
}

// TestRefusedIsTakenOnce: what can never be understood does not come back, and is
// on record.
func TestRefusedIsTakenOnce(t *testing.T) {
	t.Parallel()
	r := start(t, t.TempDir(), Config{})
	ctx := context.Background()
	mt := schema.MessageTopic("default", "b1", schema.ClassMetric).String()
	_, foreign := message(t, BoardKey{"default", "b2"}, schema.ClassMetric, 1, schema.SeqRecord{Seq: 1, Payload: samples(t, 1)})
	_, event := message(t, testKey, schema.ClassEvent, 1, schema.SeqRecord{Seq: 1, Payload: samples(t, 1)})
	for name, p := range map[string]struct {
		topic   string
		payload []byte
	}{
		"noise":       {mt, []byte("hello")},
		"empty":       {mt, nil},
		"other board": {mt, foreign},
		"other class": {mt, event},
		"chunk":       {"f/v1/default/b1/blob/x.jpg", []byte{1}},
		"topic":       {"f/v1/default/b2/t/host", foreign},
		"too large":   {mt, make([]byte, schema.MaxPayload+1)},
	} {
		if _, refused, err := r.Publish(ctx, testKey, p.topic, p.payload); err != nil || !refused {
			t.Errorf("%s: refused %v, %v", name, refused, err)
		}
	}
	if n := r.int(t, "SELECT count(*) FROM refused"); n != 7 {
		t.Errorf("%d rows in refused, want 7", n)
	}
	// One bad record in a good message: the others are stored, its number is lost.
	r.send(t, testKey, schema.ClassMetric, 5,
		schema.SeqRecord{Seq: 1, Payload: samples(t, 1)}, schema.SeqRecord{Seq: 2, Payload: []byte{0xff}}, schema.SeqRecord{Seq: 3, Payload: samples(t, 3)})
	if a, h := r.int(t, "SELECT arrived FROM stream WHERE epoch = 5"), r.int(t, "SELECT heard FROM stream WHERE epoch = 5"); a != 2 || h != 3 {
		t.Errorf("arrived %d of %d heard, want 2 of 3", a, h)
	}
	if n := r.int(t, "SELECT count(*) FROM refused"); n != 8 {
		t.Errorf("%d rows in refused, want 8", n)
	}
}

// TestFailureKeepsNothing: when the disk refuses, callers get the error and memory
// forgets what was not written.
func TestFailureKeepsNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := start(t, dir, Config{})
	r.send(t, testKey, schema.ClassMetric, 1, schema.SeqRecord{Seq: 1, Payload: samples(t, 1)})
	other, err := store.OpenLedger(dir) // another connection breaks the table
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Write.Exec("CREATE TRIGGER full BEFORE INSERT ON telemetry BEGIN SELECT RAISE(ABORT, 'disk full'); END"); err != nil {
		t.Fatal(err)
	}
	topic, p := message(t, testKey, schema.ClassMetric, 1, schema.SeqRecord{Seq: 2, Payload: samples(t, 2)})
	if _, _, err := r.Publish(context.Background(), testKey, topic, p); err == nil {
		t.Fatal("a message that was not written is reported as stored")
	}
	if _, err := other.Write.Exec("DROP TRIGGER full"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Publish(context.Background(), testKey, topic, p); err != nil {
		t.Fatal(err)
	}
	if n, a := r.int(t, "SELECT count(*) FROM telemetry"), r.int(t, "SELECT arrived FROM stream"); n != 2 || a != 2 {
		t.Fatalf("%d rows, %d arrived; want 2, 2", n, a)
	}
	if n := r.int(t, "SELECT bytes FROM usage WHERE kind = 'telemetry'"); n != r.int(t, "SELECT sum(length(payload) + 100) FROM telemetry") {
		t.Fatalf("usage %d does not match the table", n)
	}
	r.stop()
	if _, _, err := r.Publish(context.Background(), testKey, topic, p); !errors.Is(err, ErrStopped) {
		t.Fatalf("after the stop: %v", err)
	}
}

// TestPictures: chunks in any order and twice, then the index record.
func TestPictures(t *testing.T) {
	t.Parallel()
	r := start(t, t.TempDir(), Config{BoardPictures: 300_000})
	body := make([]byte, 150_000)
	for i := range body {
		body[i] = byte(i * 7)
	}
	chunk := func(name string, off int) {
		t.Helper()
		c := &schema.Chunk{V: 1, Offset: int64(off), Total: int64(len(body)), Data: body[off:min(off+schema.MaxChunk, len(body))]}
		if _, refused, err := r.Publish(context.Background(), testKey, "f/v1/default/b1/blob/"+name, encode(t, c)); err != nil || refused {
			t.Fatalf("chunk: refused %v, %v", refused, err)
		}
	}
	seq := uint64(0)
	index := func(name string, sum [32]byte) {
		t.Helper()
		seq++
		r.send(t, testKey, schema.ClassSnapshot, 1, schema.SeqRecord{Seq: seq, Payload: record(t, schema.Record{
			Kind: schema.KindSnapshot, Snapshot: &schema.Snapshot{Name: name, Size: int64(len(body)), SHA256: sum, Media: "image/jpeg", Source: "cam0"},
		})})
	}
	has := func(name string) int64 { return r.int(t, "SELECT has FROM snapshot WHERE name = ?", name) }
	sum := sha256.Sum256(body)
	for _, off := range []int{131072, 0, 131072, 65536} {
		chunk("a.jpg", off)
	}
	index("a.jpg", sum)
	chunk("b.jpg", 0)
	index("b.jpg", sum) // two chunks are missing
	for _, off := range []int{0, 65536, 131072} {
		chunk("c.jpg", off)
	}
	index("c.jpg", [32]byte{1}) // another picture
	if has("a.jpg") != 1 || has("b.jpg") != 0 || has("c.jpg") != 0 {
		t.Fatalf("pictures: a %d b %d c %d, want 1 0 0", has("a.jpg"), has("b.jpg"), has("c.jpg"))
	}
	if n := r.Stats().NoPicture; n != 2 {
		t.Errorf("%d pictures counted as not whole, want 2", n)
	}
	got, err := r.blobs.Open("default", "b1", "a.jpg")
	if err != nil {
		t.Fatal(err)
	}
	_ = got.Close()
	// Two more go over the board's share: the oldest is evicted.
	for _, name := range []string{"d.jpg", "e.jpg"} {
		for _, off := range []int{0, 65536, 131072} {
			chunk(name, off)
		}
		index(name, sum)
	}
	if has("a.jpg") != 0 || has("d.jpg") != 1 || has("e.jpg") != 1 {
		t.Fatalf("after the share was full: a %d d %d e %d, want 0 1 1", has("a.jpg"), has("d.jpg"), has("e.jpg"))
	}
	if _, err := r.blobs.Open("default", "b1", "a.jpg"); !os.IsNotExist(err) {
		t.Fatalf("evicted picture: %v", err)
	}
}

// TestRetention: old rows go, in steps, and the sums stay right.
func TestRetention(t *testing.T) {
	t.Parallel()
	r := start(t, t.TempDir(), Config{TelemetryBytes: 40_000, EventsFor: time.Millisecond})
	var seq uint64
	for range 20 {
		var recs []schema.SeqRecord
		for range 50 {
			seq++
			recs = append(recs, schema.SeqRecord{Seq: seq, Payload: samples(t, float64(seq))})
		}
		r.send(t, testKey, schema.ClassMetric, 1, recs...)
	}
	ev := record(t, schema.Record{Kind: schema.KindEvent, Event: &schema.Event{Source: "cam0"}})
	r.send(t, testKey, schema.ClassEvent, 1, schema.SeqRecord{Seq: 1, Payload: ev})
	deadline := time.Now().Add(10 * time.Second)
	for r.int(t, "SELECT sum(bytes) FROM usage WHERE kind IN ('telemetry', 'event')") > 40_000 || r.int(t, "SELECT count(*) FROM event") > 0 {
		if time.Now().After(deadline) {
			t.Fatal("nothing was pruned")
		}
		time.Sleep(20 * time.Millisecond) // real disk and real ticker
	}
	if n, u := r.int(t, "SELECT coalesce(sum(length(payload) + 100), 0) FROM telemetry"), r.int(t, "SELECT bytes FROM usage WHERE kind = 'telemetry'"); n != u {
		t.Fatalf("table holds %d bytes, usage says %d", n, u)
	}
	if a := r.int(t, "SELECT arrived FROM stream WHERE class = 2"); a != int64(seq) {
		t.Fatalf("pruning changed the ledger: %d arrived of %d", a, seq)
	}
}

// TestEpochsFold: epochs beyond the bound are summed up, nothing is lost from the sums.
func TestEpochsFold(t *testing.T) {
	t.Parallel()
	r := start(t, t.TempDir(), Config{})
	const n = shelf.MaxEpochs + 10
	for e := uint64(1); e <= n; e++ {
		r.send(t, testKey, schema.ClassMetric, e, schema.SeqRecord{Seq: 2, Payload: samples(t, 1)})
	}
	kept := r.int(t, "SELECT count(*) FROM stream")
	past := r.int(t, "SELECT sum(epochs) FROM stream_past")
	if kept != shelf.MaxEpochs || kept+past != n {
		t.Fatalf("%d kept, %d in the past, want %d and %d", kept, past, shelf.MaxEpochs, n-shelf.MaxEpochs)
	}
	heard := r.int(t, "SELECT (SELECT sum(heard) FROM stream) + (SELECT sum(heard) FROM stream_past)")
	arrived := r.int(t, "SELECT (SELECT sum(arrived) FROM stream) + (SELECT sum(arrived) FROM stream_past)")
	if heard != 2*n || arrived != n {
		t.Fatalf("heard %d arrived %d, want %d %d", heard, arrived, 2*n, n)
	}
}

// TestStalePresence: word of an older connection does not count.
func TestStalePresence(t *testing.T) {
	t.Parallel()
	r := start(t, t.TempDir(), Config{})
	say := func(online bool, boot, conn uint64) int64 {
		t.Helper()
		if err := r.Presence(context.Background(), testKey, schema.Presence{V: 1, Online: online, Boot: boot, Conn: conn}); err != nil {
			t.Fatal(err)
		}
		return r.int(t, "SELECT online FROM board")
	}
	for i, s := range []struct {
		online     bool
		boot, conn uint64
		want       int64
	}{
		{true, 5, 1, 1}, {true, 5, 2, 1}, {false, 5, 1, 1}, {false, 5, 2, 0}, {true, 6, 1, 1}, {false, 5, 9, 1}, {true, 6, 0, 1}, {false, 6, 1, 0},
	} {
		if got := say(s.online, s.boot, s.conn); got != s.want {
			t.Errorf("step %d: online %d, want %d", i, got, s.want)
		}
	}
}

// FuzzPublish: whatever an enrolled board sends, ingest answers and goes on. The one
// error is of a newer board, whose message must wait for the fleet's update.
func FuzzPublish(f *testing.F) {
	topic, p := message(f, testKey, schema.ClassMetric, 1, schema.SeqRecord{Seq: 1, Payload: samples(f, 1)})
	f.Add(topic, p)
	gap := record(f, schema.Record{Kind: schema.KindGap, Gap: &schema.Gap{Class: 1, Epoch: 1, First: 1, Last: 1 << 60, Reason: 1}})
	topic, p = message(f, testKey, schema.ClassAlarm, 1, schema.SeqRecord{Seq: 1 << 60, Payload: gap})
	f.Add(topic, p)
	f.Add("f/v1/default/b1/blob/x", encode(f, &schema.Chunk{V: 1, Total: 3, Data: []byte{1, 2, 3}}))
	f.Add("f/v1/default/b1/st", []byte{})
	r := start(f, f.TempDir(), Config{})
	f.Fuzz(func(t *testing.T, topic string, p []byte) {
		_, _, err := r.Publish(context.Background(), testKey, topic, p)
		if err != nil && !errors.Is(err, ErrNewer) {
			t.Fatalf("an error makes the board send it for ever: %v", err)
		}
		if n := r.int(t, "SELECT count(*) FROM stream WHERE heard < arrived + lost"); n != 0 {
			t.Fatal("the ledger does not sum up")
		}
	})
}

func BenchmarkRecords(b *testing.B) {
	r := start(b, b.TempDir(), Config{})
	const boards, per = 16, 20
	payload := samples(b, 1)
	b.ReportAllocs()
	var wg sync.WaitGroup
	each := b.N/(boards*per) + 1
	b.ResetTimer()
	for i := range boards {
		wg.Add(1)
		go func() {
			defer wg.Done()
			key := BoardKey{"default", fmt.Sprintf("b%d", i)}
			seq := uint64(0)
			for range each {
				recs := make([]schema.SeqRecord, per)
				for j := range recs {
					seq++
					recs[j] = schema.SeqRecord{Seq: seq, Payload: payload}
				}
				r.send(b, key, schema.ClassMetric, 1, recs...)
			}
		}()
	}
	wg.Wait()
	b.ReportMetric(float64(each*boards*per)/b.Elapsed().Seconds(), "records/s")
}

// TestGivenUp: what nobody waits for any more is not written, and takes no time of what
// somebody does.
func TestGivenUp(t *testing.T) {
	r := start(t, t.TempDir(), Config{})
	<-r.ready
	gone, leave := context.WithCancel(t.Context())
	leave()
	ran := false
	j := &job{ctx: gone, key: testKey, done: make(chan error, 1), apply: func(*txn) error { ran = true; return nil }}
	r.queue <- j
	after := false
	if err := r.submit(t.Context(), testKey, func(*txn) error { after = true; return nil }); err != nil || !after || ran {
		t.Errorf("%v; written: %v, and what nobody waits for: %v", err, after, ran)
	}
}
