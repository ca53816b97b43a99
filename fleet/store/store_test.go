// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/ingest/pictures"

	"fulmar/fleet/ingest"
	"fulmar/fleet/store"
	"fulmar/fleet/web"
	"fulmar/schema"
)

var ctx = context.Background()

type rig struct {
	*store.Store
	in *ingest.Ingest
	db *store.DB
	// path is that of the ledger.
	path string
	seq  map[schema.Class]uint64
	// clock is the board's.
	clock func(time.Time) schema.Time
}

func open(t *testing.T, boards ...store.Enrolled) *rig {
	t.Helper()
	dir := t.TempDir()
	db, err := store.OpenLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := pictures.New(filepath.Join(dir, "pictures"))
	if err != nil {
		t.Fatal(err)
	}
	in := ingest.New(ingest.Config{}, db, blobs, slog.New(slog.DiscardHandler))
	run, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- in.Run(run) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = db.Close()
	})
	list := func(context.Context, string) ([]store.Enrolled, error) { return boards, nil }
	return &rig{Store: store.New(db, list, blobs.Open).Eager(), in: in, db: db, path: filepath.Join(dir, "ledger.db"), seq: map[schema.Class]uint64{}, clock: boardTime}
}

var key = ingest.BoardKey{Tenant: "default", Board: "b1"}

// boardTime is the time of a board that has run since 1970 and whose clock is right.
func boardTime(t time.Time) schema.Time {
	return schema.Time{Boot: 1, Mono: t.UnixNano(), Wall: t.UnixMilli()}
}

// put sends one record of board b1 with the given age, skipping numbers before it.
func (r *rig) put(t *testing.T, c schema.Class, skip uint64, age time.Duration, rec schema.Record) {
	t.Helper()
	now := time.Now()
	rec.Time = r.clock(now.Add(-age))
	raw, err := schema.EncodeRecord(&rec)
	if err != nil {
		t.Fatal(err)
	}
	r.seq[c] += 1 + skip
	p, err := schema.Encode(&schema.Message{
		V: 1, Board: "b1", Class: c, Epoch: 1, Sent: r.clock(now),
		Replay: age > time.Minute, Records: []schema.SeqRecord{{Seq: r.seq[c], Payload: raw}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, refused, err := r.in.Publish(ctx, key, schema.MessageTopic("default", "b1", c).String(), p); err != nil || refused {
		t.Fatalf("refused %v, %v", refused, err)
	}
}

func (r *rig) board(t *testing.T) web.Board {
	t.Helper()
	o, err := r.Overview(ctx, "default")
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Boards) != 1 {
		t.Fatalf("%d boards", len(o.Boards))
	}
	return o.Boards[0]
}

func report(sev schema.Severity, subject, text string) schema.Record {
	return schema.Record{Kind: schema.KindReport, Report: &schema.Report{Subject: subject, State: "x", Severity: sev, Text: text}}
}

func sampleOf(v float64, q schema.Quality) schema.Record {
	return schema.Record{Kind: schema.KindSamples, Samples: &schema.Samples{Series: []string{"cpu.load_percent"}, Value: []float64{v}, Quality: []schema.Quality{q}}}
}

// TestStates walks a board through its states in the fixed order of precedence.
func TestStates(t *testing.T) {
	t.Parallel()
	r := open(t, store.Enrolled{Name: "b1", KeyMode: "software", At: time.Now()})
	expect := func(state web.State, cause string) {
		t.Helper()
		if b := r.board(t); b.State != state || b.Cause != cause {
			t.Fatalf("%s (%q), want %s (%q)", b.State, b.Cause, state, cause)
		}
	}
	expect(web.StateNeverHeard, "enrolled, but has not connected yet")
	say := func(online bool) {
		t.Helper()
		if err := r.in.Presence(ctx, key, schema.Presence{V: 1, Online: online, Boot: 1, Conn: 1}); err != nil {
			t.Fatal(err)
		}
	}
	say(true)
	r.put(t, schema.ClassMetric, 0, 0, sampleOf(5, schema.QualityGood))
	expect(web.StateHealthy, "")
	// Newest values are coalesced; wait for the writer's tick.
	r.put(t, schema.ClassMetric, 0, 0, sampleOf(0, schema.QualityStale))
	for end := time.Now().Add(5 * time.Second); r.board(t).State == web.StateHealthy && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond) // real writer
	}
	expect(web.StateDegraded, "1 sensor gives no good value: cpu.load_percent (stale)")
	r.put(t, schema.ClassAlarm, 0, 0, report(schema.SeverityWarn, "spool", "The spool is 80 % full"))
	expect(web.StateDegraded, "spool: The spool is 80 % full")
	r.put(t, schema.ClassAlarm, 0, 0, report(schema.SeverityAlarm, "worker", "The worker died three times"))
	expect(web.StateFailing, "worker: The worker died three times")
	say(false)
	expect(web.StateUnreachable, "connection lost")
	say(true)
	expect(web.StateFailing, "worker: The worker died three times")
	// A board of a newer version is sent away: why comes before that it is gone.
	for _, online := range []bool{true, false} {
		say(online)
		if err := r.in.Newer(ctx, key, 2); !errors.Is(err, ingest.ErrNewer) {
			t.Fatal(err)
		}
		if b := r.board(t); b.State != web.StateFailing || !strings.Contains(b.Cause, "board b1 speaks wire version 2 ") || !strings.Contains(b.Cause, "update fulmar-fleet") {
			t.Fatalf("online %v: %s (%q)", online, b.State, b.Cause)
		}
	}
	say(true)
	if err := r.in.Hello(ctx, key, &schema.Hello{V: 1, Board: "b1", Now: boardTime(time.Now())}); err != nil {
		t.Fatal(err)
	}
	expect(web.StateFailing, "worker: The worker died three times")
	r.put(t, schema.ClassAlarm, 0, 0, report(schema.SeverityInfo, "worker", ""))
	r.put(t, schema.ClassAlarm, 0, 0, report(schema.SeverityInfo, "spool", ""))
	// An older word, replayed, does not stand against a newer one.
	r.put(t, schema.ClassAlarm, 0, time.Hour, report(schema.SeverityAlarm, "worker", "old"))
	expect(web.StateDegraded, "1 sensor gives no good value: cpu.load_percent (stale)")
}

// TestTrustStates: where trust stands among the causes.
func TestTrustStates(t *testing.T) {
	t.Parallel()
	x := &web.Trust{How: schema.TrustMaker, Until: time.Now().Add(time.Hour)}
	r := open(t, store.Enrolled{Name: "b1", KeyMode: "tpm", At: time.Now(), Trust: x})
	expect := func(state web.State, cause string) {
		t.Helper()
		if b := r.board(t); b.State != state || !strings.Contains(b.Cause, cause) || (cause == "") != (b.Cause == "") || b.Trust != x {
			t.Fatalf("%s (%q), want %s (%q)", b.State, b.Cause, state, cause)
		}
	}
	say := func(online bool) {
		t.Helper()
		if err := r.in.Presence(ctx, key, schema.Presence{V: 1, Online: online, Boot: 1, Conn: 1}); err != nil {
			t.Fatal(err)
		}
	}
	say(true)
	r.put(t, schema.ClassMetric, 0, 0, sampleOf(5, schema.QualityGood))
	expect(web.StateHealthy, "")
	x.Silent = time.Now()
	expect(web.StateDegraded, "has not answered")
	r.put(t, schema.ClassAlarm, 0, 0, report(schema.SeverityWarn, "spool", "The spool is 80 % full"))
	expect(web.StateDegraded, "spool")
	r.put(t, schema.ClassAlarm, 0, 0, report(schema.SeverityAlarm, "worker", "The worker died three times"))
	expect(web.StateFailing, "worker")
	x.Why = "It lied."
	expect(web.StateFailing, "was not believed")
	say(false)
	expect(web.StateUnreachable, "connection lost")
	x.Asks = "to-software"
	expect(web.StateUnreachable, "its TPM is missing")
	x.Clones = time.Now()
	expect(web.StateFailing, "two boards")
	say(true)
	expect(web.StateFailing, "two boards")
	x.Clones = time.Time{}
	expect(web.StateFailing, "was not believed")
}

// TestGapThatWasNone: a board that died tells numbers as lost that the fleet had taken
// already, or that come after all: they are not lost, and no gap is shown.
func TestGapThatWasNone(t *testing.T) {
	t.Parallel()
	r := open(t, store.Enrolled{Name: "b1"})
	gap := func(first, last uint64) {
		t.Helper()
		r.put(t, schema.ClassAlarm, 0, 0, schema.Record{Kind: schema.KindGap, Gap: &schema.Gap{Class: schema.ClassMetric, Epoch: 1, First: first, Last: last, Reason: schema.ReasonCrash}})
	}
	r.put(t, schema.ClassMetric, 0, 0, sampleOf(1, schema.QualityGood)) // 1
	gap(1, 1)
	gap(2, 2)
	r.Stale("default")
	if b := r.board(t); len(b.Gaps) != 1 || b.Gaps[0].First != 2 || b.Gaps[0].Count != 1 {
		t.Errorf("1 is here, 2 is lost: %+v", b.Gaps)
	}
	r.put(t, schema.ClassMetric, 0, 0, sampleOf(2, schema.QualityGood)) // 2
	r.Stale("default")
	if b := r.board(t); len(b.Gaps) != 0 {
		t.Errorf("all are here: %+v", b.Gaps)
	}
}

func TestLedgerSumsUp(t *testing.T) {
	t.Parallel()
	r := open(t, store.Enrolled{Name: "b1"})
	rnd := rand.New(rand.NewPCG(3, 3))
	for range 60 {
		r.put(t, schema.ClassMetric, rnd.Uint64N(4), 0, sampleOf(1, schema.QualityGood))
		if rnd.IntN(3) == 0 {
			first := 1 + rnd.Uint64N(r.seq[schema.ClassMetric])
			r.put(t, schema.ClassAlarm, 0, 0, schema.Record{Kind: schema.KindGap, Gap: &schema.Gap{
				Class: schema.ClassMetric, Epoch: 1, First: first, Last: first + rnd.Uint64N(10), Reason: schema.ReasonQuota,
			}})
		}
	}
	b := r.board(t)
	var lost uint64
	for _, l := range b.Ledger {
		if l.Made != l.Arrived+l.Lost+l.Waiting || l.Made < l.Arrived {
			t.Errorf("%+v does not sum up", l)
		}
		if l.Class == "metric" {
			lost = l.Lost
			if l.Arrived != 60 || l.Made < r.seq[schema.ClassMetric] {
				t.Errorf("%+v, want 60 arrived", l)
			}
		}
	}
	var counted uint64
	for _, g := range b.Gaps {
		counted += g.Count
	}
	if lost == 0 || counted != lost {
		t.Errorf("gaps count %d, ledger says %d", counted, lost)
	}
	c, err := r.Check(ctx, "default")
	if err != nil || len(c) != 1 || c[0].Batches != 60 || c[0].Samples["cpu.load_percent"] != 60 {
		t.Errorf("check %+v, %v", c, err)
	}
}

// TestSeries: few points come as they are; of many, the extremes survive.
func TestSeries(t *testing.T) {
	t.Parallel()
	r := open(t, store.Enrolled{Name: "b1"}, store.Enrolled{Name: "quiet"})
	base := time.Now().Add(-50 * time.Minute)
	for i := range 300 {
		v := float64(i % 7)
		if i == 137 {
			v = 1000
		}
		r.put(t, schema.ClassMetric, 0, time.Since(base.Add(time.Duration(i)*10*time.Second)), sampleOf(v, schema.QualityGood))
	}
	r.put(t, schema.ClassMetric, 0, 0, sampleOf(0, schema.QualityOffline))
	get := func(points int) web.Series {
		t.Helper()
		out, err := r.Series(ctx, web.SeriesQuery{Tenant: "default", Board: "b1", Points: points, Series: []string{"cpu.load_percent"}})
		if err != nil || len(out) != 1 {
			t.Fatalf("%v %v", out, err)
		}
		return out[0]
	}
	for _, points := range []int{10, 100, 5000} {
		s := get(points)
		if len(s.T) > points || len(s.T) != len(s.V) || !slices.IsSorted(s.T) || slices.Max(append(s.Hi, s.V...)) != 1000 || slices.Min(append(s.Lo, s.V...)) != 0 {
			t.Errorf("%d points asked: got %d, sorted %v, max %v", points, len(s.T), slices.IsSorted(s.T), slices.Max(s.V))
		}
	}
	if n := len(get(5000).T); n != 300 {
		t.Errorf("%d points of 300 good ones", n)
	}
	if out, err := r.Series(ctx, web.SeriesQuery{Tenant: "default", Board: "quiet"}); err != nil || len(out) != 0 {
		t.Errorf("%v %v", out, err)
	}
	for _, q := range []web.SeriesQuery{{Tenant: "default", Board: "nobody"}, {Tenant: "other", Board: "nobody"}} {
		if _, err := r.Series(ctx, q); !errors.Is(err, web.ErrNotFound) {
			t.Errorf("unknown board: %v", err)
		}
	}
}

func TestDetections(t *testing.T) {
	t.Parallel()
	r := open(t, store.Enrolled{Name: "b1"})
	picture := []byte("\xff\xd8\xff\xe0 a picture")
	p, err := schema.Encode(&schema.Chunk{V: 1, Total: int64(len(picture)), Data: picture})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.in.Publish(ctx, key, "f/v1/default/b1/blob/p.jpg", p); err != nil {
		t.Fatal(err)
	}
	r.put(t, schema.ClassSnapshot, 0, 0, schema.Record{Kind: schema.KindSnapshot, Snapshot: &schema.Snapshot{
		Name: "p.jpg", Size: int64(len(picture)), SHA256: sha256.Sum256(picture), Media: "image/jpeg", Source: "cam0",
	}})
	for i := range 12 {
		e := &schema.Event{
			Source: fmt.Sprintf("cam%d", i%2), Model: "parcels@1", Engine: "cpu", Width: 10, Height: 10,
			Boxes: []schema.Box{{Class: 1, Score: 0.5, Match: schema.MatchTrue}, {Match: schema.MatchFalse}}, Truth: []schema.Box{{Match: schema.MatchMissed}},
		}
		if i == 4 {
			e.Snapshot = "p.jpg"
		}
		if i == 5 {
			e.Snapshot = "gone.jpg"
		}
		r.put(t, schema.ClassEvent, 0, time.Duration(i)*time.Second, schema.Record{Kind: schema.KindEvent, Event: e})
	}
	find := func(q web.DetectionQuery) []web.Detection {
		t.Helper()
		q.Tenant = "default"
		d, err := r.Detections(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	// Pages of five, newest first, see each once.
	var ids []string
	for before := ""; ; {
		page := find(web.DetectionQuery{Before: before, Limit: 5})
		if len(page) == 0 {
			break
		}
		for _, d := range page {
			ids = append(ids, d.ID)
		}
		before = ids[len(ids)-1]
	}
	if len(ids) != 12 || ids[0] != "b1/event/0000000000000001/1" || ids[11] != "b1/event/0000000000000001/12" {
		t.Fatalf("%v", ids)
	}
	if d := find(web.DetectionQuery{After: ids[5], Limit: 2}); len(d) != 2 || d[0].ID != ids[4] || d[1].ID != ids[3] {
		t.Errorf("after: %+v", d)
	}
	if d := find(web.DetectionQuery{ID: ids[3]}); len(d) != 1 || d[0].ID != ids[3] {
		t.Errorf("one: %+v", d)
	}
	if d := find(web.DetectionQuery{Camera: "cam1"}); len(d) != 6 {
		t.Errorf("%d of cam1", len(d))
	}
	d := find(web.DetectionQuery{PicturesOnly: true})
	if len(d) != 1 || !d[0].HasPicture || d[0].Event.Snapshot != "p.jpg" {
		t.Fatalf("with pictures: %+v", d)
	}
	f, err := r.Picture(ctx, "default", "b1", "p.jpg")
	if err != nil {
		t.Fatal(err)
	}
	got, _ := io.ReadAll(f)
	_ = f.Close()
	if string(got) != string(picture) {
		t.Error("another picture")
	}
	for _, bad := range [][3]string{{"default", "b1", "gone.jpg"}, {"other", "b1", "p.jpg"}, {"default", "b1", "../../ledger.db"}} {
		if _, err := r.Picture(ctx, bad[0], bad[1], bad[2]); !errors.Is(err, web.ErrNotFound) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	for _, bad := range []string{"x", "b1/event/zz/1", "b1/event/1/999", "b2/event/0000000000000001/1"} {
		if _, err := r.Detections(ctx, web.DetectionQuery{Tenant: "default", Before: bad}); !errors.Is(err, web.ErrNotFound) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	cams := r.board(t).Cameras
	if len(cams) != 2 || cams[0].Events != 6 || cams[0].Boxes != 12 || !cams[0].Known || cams[0].True != 6 || cams[0].False != 6 || cams[0].Missed != 6 || cams[0].Model != "parcels@1" {
		t.Errorf("%+v", cams)
	}
}

// TestNewerFile: a file of a newer program is refused, not damaged.
func TestNewerFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.db")
	steps := []string{"CREATE TABLE a (x)", "CREATE TABLE b (x)"}
	for _, n := range []int{1, 2, 2} { // an upgrade, and once more
		db, err := store.OpenFile(path, steps[:n])
		if err != nil {
			t.Fatal(err)
		}
		_ = db.Close()
	}
	if _, err := store.OpenFile(path, steps[:1]); err == nil {
		t.Fatal("an older program opens a newer file")
	}
}
