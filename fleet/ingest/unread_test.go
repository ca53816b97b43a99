// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"fulmar/schema"
)

// unchecked encodes what Encode would refuse.
func unchecked(t *testing.T, v any) []byte {
	t.Helper()
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := mode.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// books holds a stream's numbers against what is wanted, and the reasons against them.
func (r *rig) books(t *testing.T, what string, c schema.Class, epoch, heard, arrived, lost int64) {
	t.Helper()
	got := [3]int64{}
	for i, col := range []string{"heard", "arrived", "lost"} {
		got[i] = r.int(t, "SELECT coalesce(sum("+col+"), 0) FROM stream WHERE class = ? AND epoch = ?", c, epoch)
	}
	if got != [3]int64{heard, arrived, lost} {
		t.Errorf("%s: heard, arrived, lost %v, want %v", what, got, [3]int64{heard, arrived, lost})
	}
	if n := r.int(t, "SELECT coalesce(sum(count), 0) FROM gap WHERE class = ? AND epoch = ?", c, epoch); n != lost {
		t.Errorf("%s: gaps count %d, lost are %d", what, n, lost)
	}
}

func (r *rig) loss(t *testing.T, why schema.Reason) int64 {
	t.Helper()
	return r.int(t, "SELECT coalesce(sum(count), 0) FROM loss WHERE reason = ?", why)
}

func (r *rig) said(t *testing.T, subject string) (state, text string) {
	t.Helper()
	if err := r.db.Read.QueryRow("SELECT coalesce(max(state), ''), coalesce(max(text), '') FROM report WHERE subject = ?", subject).Scan(&state, &text); err != nil {
		t.Fatal(err)
	}
	return state, text
}

// TestNewerBoardKeepsItsRecords: of a board with a newer wire version nothing is taken
// or acknowledged, a person is told, and nothing stands in its way once it is understood.
func TestNewerBoardKeepsItsRecords(t *testing.T) {
	t.Parallel()
	ctx, dir := context.Background(), t.TempDir()
	r := start(t, dir, Config{})
	m := &schema.Message{V: schema.Version + 1, Board: testKey.Board, Class: schema.ClassMetric, Epoch: 9, Sent: now()}
	for i := range uint64(50) {
		m.Records = append(m.Records, schema.SeqRecord{Seq: i + 1, Payload: samples(t, float64(i))})
	}
	topic := schema.MessageTopic("default", "b1", schema.ClassMetric).String()
	for what, p := range map[string][]byte{
		"message": unchecked(t, m), "what only that version can read": append([]byte{0xbf, 1, schema.Version + 1}, 0xc1, 0xff, 0xff),
	} {
		for range 3 {
			if ack, refused, err := r.Publish(ctx, testKey, topic, p); !errors.Is(err, ErrNewer) || ack != nil || refused {
				t.Errorf("%s: acknowledged %v, refused %v, %v", what, ack, refused, err)
			}
		}
	}
	if _, _, err := r.Publish(ctx, testKey, "f/v1/default/b1/blob/x.jpg", unchecked(t, &schema.Chunk{V: schema.Version + 1, Total: 1, Data: []byte{1}})); !errors.Is(err, ErrNewer) {
		t.Errorf("piece of a picture: %v", err)
	}
	for _, table := range []string{"telemetry", "stream", "gap", "loss", "refused"} {
		if n := r.int(t, "SELECT count(*) FROM "+table); n != 0 {
			t.Errorf("%d rows in %s", n, table)
		}
	}
	state, text := r.said(t, "fleet/version")
	if state != "newer" || !strings.Contains(text, "board b1 speaks wire version 2 and this fleet reads up to 1") || !strings.Contains(text, "update fulmar-fleet") {
		t.Errorf("told: %s %q", state, text)
	}
	if s := r.Stats(); s.Newer != 7 || s.Refused != 0 {
		t.Errorf("%+v", s)
	}
	// The program is replaced: it does not know yet whether the board is still newer.
	r.stop()
	r = start(t, dir, Config{})
	if _, _, err := r.Publish(ctx, testKey, topic, unchecked(t, m)); !errors.Is(err, ErrNewer) {
		t.Fatal(err)
	}
	m.V = schema.Version
	if err := r.Hello(ctx, testKey, &schema.Hello{V: 1, Board: "b1", Now: now(), Cursors: []schema.Cursor{{Class: schema.ClassMetric, Epoch: 9, Last: 50}}}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Publish(ctx, testKey, topic, encode(t, m)); err != nil {
		t.Fatal(err)
	}
	r.books(t, "after the update", schema.ClassMetric, 9, 50, 50, 0)
	if state, _ := r.said(t, "fleet/version"); state != "ok" {
		t.Errorf("told after the update: %q", state)
	}
	if _, _, err := r.Publish(ctx, testKey, topic, append([]byte{0xa1, 1, 2}, 0)); !errors.Is(err, ErrNewer) {
		t.Fatal(err)
	}
	if state, _ := r.said(t, "fleet/version"); state != "newer" {
		t.Errorf("told of a newer one again: %q", state)
	}
	r.stop()
	if r = start(t, dir, Config{}); r.Stats().Messages == 0 {
		r.send(t, testKey, schema.ClassMetric, 9, schema.SeqRecord{Seq: 51, Payload: samples(t, 1)})
	}
	if state, text := r.said(t, "fleet/version"); state != "" {
		t.Errorf("another program still says %q", text)
	}
}

// TestUnreadableIsLost: what came and cannot be read is booked as lost in the
// transaction that takes it, as far as its numbers are known, and acknowledged so that
// boards of either mode let go of it. Sent again it changes nothing; a record that can
// be read after all has arrived.
func TestUnreadableIsLost(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	good := func(seq ...uint64) (out []schema.SeqRecord) {
		for _, n := range seq {
			out = append(out, schema.SeqRecord{Seq: n, Payload: samples(t, float64(n))})
		}
		return out
	}
	bad := schema.SeqRecord{Seq: 4, Payload: []byte{0xff}}
	lie := schema.SeqRecord{Seq: 5, Payload: unchecked(t, &schema.Record{Kind: 77, Time: now(), Samples: &schema.Samples{}})}
	for name, c := range map[string]struct {
		message       schema.Message
		topic         string
		arrived, lost int64
		refused       bool
		quiet         bool // no word that a board could hear
	}{
		"records":         {message: schema.Message{Records: append(good(1, 3), bad, lie)}, arrived: 2, lost: 2},
		"all records":     {message: schema.Message{Records: []schema.SeqRecord{bad, lie}}, lost: 2},
		"version 0":       {message: schema.Message{V: 200, Records: good(1, 2, 3, 7)}, lost: 4, refused: true},
		"another's name":  {message: schema.Message{Board: "b2", Records: good(1, 2, 3)}, lost: 3, refused: true},
		"no name":         {message: schema.Message{Board: "?", Records: good(1, 2, 3)}, lost: 3, refused: true},
		"topic":           {message: schema.Message{Records: good(5, 6)}, topic: "f/v1/default/b1/e/event", lost: 2, refused: true},
		"falling numbers": {message: schema.Message{Records: good(9, 2, 2)}, lost: 2, refused: true, quiet: true},
		"empty record":    {message: schema.Message{Records: append(good(1), schema.SeqRecord{Seq: 2})}, lost: 2, refused: true},
		"huge record":     {message: schema.Message{Records: []schema.SeqRecord{{Seq: 1, Payload: make([]byte, schema.MaxRecord+1)}}}, lost: 1, refused: true},
		"impossible":      {message: schema.Message{Records: []schema.SeqRecord{{Seq: 1}, {Seq: 1 << 63, Payload: []byte{1}}}}, lost: 1, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, t.TempDir(), Config{})
			m := c.message
			m.Class, m.Epoch, m.Sent = schema.ClassMetric, 9, now()
			switch m.V {
			case 0:
				m.V = schema.Version
			case 200:
				m.V = 0
			}
			if m.Board == "" {
				m.Board = "b1"
			}
			topic := c.topic
			if topic == "" {
				topic = schema.MessageTopic("default", "b1", schema.ClassMetric).String()
			}
			heard := int64(0)
			for _, q := range m.Records {
				if q.Seq < 1<<53 {
					heard = max(heard, int64(q.Seq))
				}
			}
			for range 2 {
				ack, refused, err := r.Publish(ctx, testKey, topic, unchecked(t, &m))
				if err != nil || refused != c.refused || (ack == nil) != c.quiet {
					t.Fatalf("acknowledged %+v, refused %v, %v", ack, refused, err)
				}
				if ack != nil && (ack.Class != m.Class || ack.Epoch != m.Epoch || ack.Ranges[0][0] != m.Records[0].Seq || ack.Ranges[len(ack.Ranges)-1][1] != m.Records[len(m.Records)-1].Seq) {
					t.Errorf("acknowledged %+v", ack)
				}
				r.books(t, "sent", schema.ClassMetric, 9, heard, c.arrived, c.lost)
				if n := r.loss(t, schema.ReasonUnreadable); n != c.lost {
					t.Errorf("%d unreadable, want %d", n, c.lost)
				}
			}
			if state, text := r.said(t, "fleet/unreadable"); state != "lost" || !strings.Contains(text, "of class metric of board b1 came and could not be read") {
				t.Errorf("told: %s %q", state, text)
			}
			if r.int(t, "SELECT count(*) FROM refused") == 0 || r.Stats().Unknown != 0 {
				t.Errorf("no proof is kept; %+v", r.Stats())
			}
			var seq uint64
			for _, q := range m.Records {
				if _, err := schema.DecodeRecord(q.Payload); err != nil || c.refused {
					seq = q.Seq
					break
				}
			}
			r.send(t, testKey, schema.ClassMetric, 9, good(seq)...)
			r.books(t, "come after all", schema.ClassMetric, 9, heard, c.arrived+1, c.lost-1)
			if n := r.loss(t, schema.ReasonUnreadable); n != c.lost-1 {
				t.Errorf("%d unreadable after one came, want %d", n, c.lost-1)
			}
		})
	}
}

// TestManyUnreadable: a board of which no record can be read must not push the gaps
// that it told itself out of the books.
func TestManyUnreadable(t *testing.T) {
	t.Parallel()
	r := start(t, t.TempDir(), Config{})
	gap := record(t, schema.Record{Kind: schema.KindGap, Gap: &schema.Gap{Class: schema.ClassEvent, Epoch: 1, First: 1, Last: 4, Reason: schema.ReasonQuota}})
	r.send(t, testKey, schema.ClassAlarm, 3, schema.SeqRecord{Seq: 1, Payload: gap})
	seq := uint64(0)
	for range 30 {
		var recs []schema.SeqRecord
		for range 50 {
			seq++
			recs = append(recs, schema.SeqRecord{Seq: seq, Payload: []byte{0xff}})
		}
		r.send(t, testKey, schema.ClassMetric, 9, recs...)
	}
	r.books(t, "all", schema.ClassMetric, 9, 1500, 0, 1500)
	r.books(t, "told", schema.ClassEvent, 1, 4, 0, 4)
	if n := r.int(t, "SELECT count(*) FROM gap"); n != 2 {
		t.Errorf("%d gaps, want 2", n)
	}
}

// TestFreedOnTheBoard: what a board let go of and is not here is lost, but not before
// the gaps that the board tells itself have come.
func TestFreedOnTheBoard(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := start(t, t.TempDir(), Config{})
	report := func() []byte {
		return record(t, schema.Record{Kind: schema.KindReport, Report: &schema.Report{Subject: "s", State: "ok"}})
	}
	// Noise: taken, as it would come again for ever. Nobody knows what was in it.
	topic := schema.MessageTopic("default", "b1", schema.ClassMetric).String()
	if ack, refused, err := r.Publish(ctx, testKey, topic, []byte("noise")); ack != nil || !refused || err != nil {
		t.Fatal(ack, refused, err)
	}
	if state, text := r.said(t, "fleet/unreadable"); r.Stats().Unknown != 1 || state != "unknown" || !strings.Contains(text, "a message of 5 bytes of board b1") {
		t.Errorf("told: %s %q; %+v", state, text, r.Stats())
	}
	r.send(t, testKey, schema.ClassMetric, 9, schema.SeqRecord{Seq: 30, Payload: samples(t, 1)})
	r.send(t, testKey, schema.ClassAlarm, 3, schema.SeqRecord{Seq: 2, Payload: report()})
	hello := func(metric uint64) {
		t.Helper()
		err := r.Hello(ctx, testKey, &schema.Hello{V: 1, Board: "b1", Now: now(), Cursors: []schema.Cursor{
			{Class: schema.ClassAlarm, Epoch: 3, Acked: 3, Last: 5}, {Class: schema.ClassMetric, Epoch: 9, Acked: metric, Last: 60},
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	hello(50)
	r.books(t, "alarms to come", schema.ClassMetric, 9, 60, 1, 0)
	gap := record(t, schema.Record{Kind: schema.KindGap, Gap: &schema.Gap{Class: schema.ClassMetric, Epoch: 9, First: 10, Last: 20, Reason: schema.ReasonQuota}})
	r.send(t, testKey, schema.ClassAlarm, 3, schema.SeqRecord{Seq: 5, Payload: gap})
	r.books(t, "one to come", schema.ClassMetric, 9, 60, 1, 11)
	r.send(t, testKey, schema.ClassAlarm, 3, schema.SeqRecord{Seq: 4, Payload: report()})
	for range 2 {
		r.books(t, "all alarms", schema.ClassMetric, 9, 60, 1, 49)
		r.books(t, "all alarms", schema.ClassAlarm, 3, 5, 3, 2) // 1 and 3
		if q, f := r.loss(t, schema.ReasonQuota), r.loss(t, schema.ReasonFreed); q != 11 || f != 38+2 {
			t.Errorf("%d evicted and %d let go, want 11 and 40", q, f)
		}
		hello(50)
	}
	r.send(t, testKey, schema.ClassMetric, 9, schema.SeqRecord{Seq: 1, Payload: samples(t, 1)})
	r.books(t, "one returned", schema.ClassMetric, 9, 60, 2, 48)
	hello(1 << 60) // a lie: it cannot have let go of more than it made
	r.books(t, "a lie", schema.ClassMetric, 9, 60, 2, 58)
}
