// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"bytes"
	"encoding/hex"
	"math"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// letters gives n letters; as a name it is legal.
func letters(n int) string { return strings.Repeat("a", n) }

// boxes gives n boxes that take as many bytes as a box can.
func boxes(n int) []Box {
	out := make([]Box, n)
	for i := range out {
		out[i] = Box{Class: math.MaxUint16, Score: 0.1234567, X0: 1.234567, Y0: 2.345678, X1: 32766.123, Y1: 777.7777, Match: MatchMissed}
	}
	return out
}

func records(n, size int) []SeqRecord {
	out := make([]SeqRecord, n)
	for i := range out {
		out[i] = SeqRecord{Seq: math.MaxUint64 - uint64(n-i), Payload: bytes.Repeat([]byte{0xff}, size)}
	}
	return out
}

func cursors(n int) []Cursor {
	out := make([]Cursor, n)
	for i := range out {
		out[i] = Cursor{Class: Class(i % NumClasses), Epoch: math.MaxUint64, Acked: math.MaxUint64, Last: math.MaxUint64}
	}
	return out
}

func facts(n int) map[string]string {
	out := map[string]string{}
	for i := range n {
		out[letters(MaxName-2)+strconv.Itoa(10+i)] = letters(MaxFact)
	}
	return out
}

func ranges(n int) [][2]uint64 {
	out := make([][2]uint64, n)
	for i := range out {
		at := math.MaxUint64 - uint64(2*(n-i))
		out[i] = [2]uint64{at, at}
	}
	return out
}

func samples(n, name int) *Samples {
	s := &Samples{}
	for range n {
		s.Series = append(s.Series, letters(name))
		s.Value = append(s.Value, 1.0/3)
		s.Quality = append(s.Quality, QualityStale)
	}
	return s
}

func labels(n int) map[uint16]string {
	out := map[uint16]string{}
	for i := range n {
		out[uint16(i)] = letters(MaxName)
	}
	return out
}

// TestLegalMaximaPass: each list at its limit, and each payload at its, goes out
// and comes in again.
func TestLegalMaximaPass(t *testing.T) {
	t.Parallel()
	name := letters(MaxName)
	message := func(r []SeqRecord) *Message {
		return &Message{V: Version, Board: name, Epoch: math.MaxUint64, Sent: testTime, Records: r}
	}
	for _, c := range []struct {
		what  string
		value any
		blank any
	}{
		{"512 records", message(records(MaxRecords, 100)), new(Message)},
		{"4 records of 16 KiB less their share of the envelope", message(records(4, MaxRecord)), new(Message)},
		{"a chunk of 64 KiB", &Chunk{V: Version, Offset: 63 << 20, Total: 64 << 20, Data: make([]byte, MaxChunk)}, new(Chunk)},
		{"300 boxes and 300 truths", &Record{Kind: KindEvent, Time: testTime, Event: &Event{Source: name, Boxes: boxes(MaxDetections), Truth: boxes(MaxDetections)}}, new(Record)},
		{"300 labels", &Record{Kind: KindEvent, Event: &Event{Source: name, Labels: labels(MaxDetections)}}, new(Record)},
		{"512 series", &Record{Kind: KindSamples, Samples: samples(MaxSeries, MaxName)}, new(Record)},
		{"32 facts and 16 cursors", &Hello{V: Version, Board: name, Release: name, Facts: facts(MaxFacts), Cursors: cursors(MaxCursors)}, new(Hello)},
		{"512 ranges", &Ack{V: Version, Epoch: math.MaxUint64, Ranges: ranges(MaxRecords)}, new(Ack)},
		{"text of 1 KiB", &Record{Kind: KindReport, Report: &Report{Subject: name, State: name, Text: letters(MaxText)}}, new(Record)},
	} {
		b, err := Encode(c.value)
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		if err := Decode(b, c.blank); err != nil {
			t.Errorf("%s, %d bytes: %v", c.what, len(b), err)
		}
	}
}

// TestOverLimitIsRefused: one more than the limit does not go out, and does not
// come in from a writer that has no limits.
func TestOverLimitIsRefused(t *testing.T) {
	t.Parallel()
	msg := func(r []SeqRecord) *Message { return &Message{V: Version, Board: "b", Records: r} }
	evt := func(e Event) *Record { return &Record{Kind: KindEvent, Event: &e} }
	hello := func(h Hello) *Hello { h.V, h.Board = Version, "b"; return &h }
	rep := func(r Report) *Record { return &Record{Kind: KindReport, Report: &r} }
	snap := func(s Snapshot) *Record { return &Record{Kind: KindSnapshot, Snapshot: &s} }
	for _, c := range []struct {
		what  string
		value any
		blank any
	}{
		{"513 records", msg(records(MaxRecords+1, 1)), new(Message)},
		{"no record", msg(nil), new(Message)},
		{"a record of 16 KiB and one", msg(records(1, MaxRecord+1)), new(Message)},
		{"an empty record", msg(records(1, 0)), new(Message)},
		{"numbers that fall", msg([]SeqRecord{{Seq: 2, Payload: []byte{1}}, {Seq: 1, Payload: []byte{1}}}), new(Message)},
		{"a number twice", msg([]SeqRecord{{Seq: 2, Payload: []byte{1}}, {Seq: 2, Payload: []byte{1}}}), new(Message)},
		{"number 0", msg([]SeqRecord{{Payload: []byte{1}}}), new(Message)},
		{"an unknown class", &Message{V: Version, Board: "b", Class: NumClasses, Records: records(1, 1)}, new(Message)},
		{"a board with a slash", &Message{V: Version, Board: "a/b", Records: records(1, 1)}, new(Message)},
		{"a chunk of 64 KiB and one", &Chunk{V: Version, Total: 64 << 20, Data: make([]byte, MaxChunk+1)}, new(Chunk)},
		{"a chunk that crosses the end", &Chunk{V: Version, Offset: MaxChunk, Total: MaxChunk + 1, Data: []byte("ab")}, new(Chunk)},
		{"a chunk between places", &Chunk{V: Version, Offset: 1, Total: 10, Data: []byte("a")}, new(Chunk)},
		{"a chunk far out", &Chunk{V: Version, Offset: math.MaxInt64 / MaxChunk * MaxChunk, Total: 10, Data: []byte("a")}, new(Chunk)},
		{"a blob of over 64 MiB", &Chunk{V: Version, Total: 64<<20 + 1, Data: []byte("a")}, new(Chunk)},
		{"301 boxes", evt(Event{Source: "c", Boxes: boxes(MaxDetections + 1)}), new(Record)},
		{"301 truths", evt(Event{Source: "c", Truth: boxes(MaxDetections + 1)}), new(Record)},
		{"301 labels", evt(Event{Source: "c", Labels: labels(MaxDetections + 1)}), new(Record)},
		{"a label of 65 bytes", evt(Event{Source: "c", Labels: map[uint16]string{1: letters(MaxName + 1)}}), new(Record)},
		{"a box at no place", evt(Event{Source: "c", Boxes: []Box{{X0: float32(math.NaN())}}}), new(Record)},
		{"a box at infinity", evt(Event{Source: "c", Truth: []Box{{Y1: float32(math.Inf(1))}}}), new(Record)},
		{"a picture 40,000 wide", evt(Event{Source: "c", Width: 40_000}), new(Record)},
		{"a snapshot name with a way out", evt(Event{Source: "c", Snapshot: "../key"}), new(Record)},
		{"513 series", &Record{Kind: KindSamples, Samples: samples(MaxSeries+1, 1)}, new(Record)},
		{"a value short", &Record{Kind: KindSamples, Samples: &Samples{Series: []string{"a", "b"}, Value: []float64{1}}}, new(Record)},
		{"a quality short", &Record{Kind: KindSamples, Samples: &Samples{Series: []string{"a", "b"}, Value: []float64{1, 2}, Quality: []Quality{0}}}, new(Record)},
		{"a summary a count short", &Record{Kind: KindSamples, Samples: &Samples{Series: []string{"a"}, Value: []float64{1}, Over: &Over{SpanMs: 1, Min: []float64{1}, Max: []float64{1}}}}, new(Record)},
		{"a summary upside down", &Record{Kind: KindSamples, Samples: &Samples{Series: []string{"a"}, Value: []float64{1}, Over: &Over{SpanMs: 1, Min: []float64{2}, Max: []float64{1}, Count: []uint32{1}}}}, new(Record)},
		{"a summary of a year", &Record{Kind: KindSamples, Samples: &Samples{Series: []string{"a"}, Value: []float64{1}, Over: &Over{SpanMs: 365 * maxSpanMs, Min: []float64{1}, Max: []float64{1}, Count: []uint32{1}}}}, new(Record)},
		{"a sample that is no number", &Record{Kind: KindSamples, Samples: &Samples{Series: []string{"a"}, Value: []float64{math.NaN()}}}, new(Record)},
		{"33 facts", hello(Hello{Facts: facts(MaxFacts + 1)}), new(Hello)},
		{"a fact of 257 bytes", hello(Hello{Facts: map[string]string{"a": letters(MaxFact + 1)}}), new(Hello)},
		{"a fact without a name", hello(Hello{Facts: map[string]string{"": "a"}}), new(Hello)},
		{"a fact with a long name", hello(Hello{Facts: map[string]string{letters(MaxName + 1): "a"}}), new(Hello)},
		{"17 cursors", hello(Hello{Cursors: cursors(MaxCursors + 1)}), new(Hello)},
		{"a cursor of an unknown class", hello(Hello{Cursors: []Cursor{{Class: NumClasses}}}), new(Hello)},
		{"a release of 65 bytes", hello(Hello{Release: letters(MaxName + 1)}), new(Hello)},
		{"an unknown mode", &HelloAck{V: Version, Mode: AckBroker + 1}, new(HelloAck)},
		{"a negative wait", &HelloAck{V: Version, RetryAfterMs: -1}, new(HelloAck)},
		{"a negative rate", &HelloAck{V: Version, Rate: -1}, new(HelloAck)},
		{"513 ranges", &Ack{V: Version, Ranges: ranges(MaxRecords + 1)}, new(Ack)},
		{"ranges that fall", &Ack{V: Version, Ranges: [][2]uint64{{5, 6}, {1, 2}}}, new(Ack)},
		{"a range backwards", &Ack{V: Version, Ranges: [][2]uint64{{6, 5}}}, new(Ack)},
		{"a gap backwards", &Record{Kind: KindGap, Gap: &Gap{First: 5, Last: 4}}, new(Record)},
		{"a gap from 0", &Record{Kind: KindGap, Gap: &Gap{First: 0, Last: 4}}, new(Record)},
		{"text of 1 KiB and one", rep(Report{Subject: "a", Text: letters(MaxText + 1)}), new(Record)},
		{"a state of 65 bytes", rep(Report{Subject: "a", State: letters(MaxName + 1)}), new(Record)},
		{"an empty picture", snap(Snapshot{Name: "a.jpg", Source: "c"}), new(Record)},
		{"a picture of over 64 MiB", snap(Snapshot{Name: "a.jpg", Source: "c", Size: 64<<20 + 1}), new(Record)},
		{"an anchor in the year 2300", &Record{Kind: KindAnchor, Anchor: &Anchor{New: maxWall + 1}}, new(Record)},
		{"an anchor before 1691", &Record{Kind: KindAnchor, Anchor: &Anchor{Old: -maxWall - 1}}, new(Record)},
		{"an anchor that is a gap", &Record{Kind: KindGap, Anchor: &Anchor{}}, new(Record)},
		{"no body", &Record{Kind: KindGap}, new(Record)},
		{"another body", &Record{Kind: KindGap, Report: &Report{Subject: "a"}}, new(Record)},
		{"two bodies", &Record{Kind: KindGap, Gap: &Gap{First: 1, Last: 1}, Report: &Report{Subject: "a"}}, new(Record)},
		{"an unknown kind", &Record{Kind: 200, Gap: &Gap{First: 1, Last: 1}}, new(Record)},
	} {
		if _, err := Encode(c.value); err == nil {
			t.Errorf("%s went out", c.what)
		}
		b, err := codec().enc.Marshal(c.value)
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		if err := Decode(b, c.blank); err == nil {
			t.Errorf("%s came in", c.what)
		}
	}
}

// TestRecordBound: a record at its bound passes, one byte more is refused by
// name. All limits of an event at once are over it.
func TestRecordBound(t *testing.T) {
	t.Parallel()
	r := &Record{Kind: KindEvent, Event: &Event{Source: letters(MaxName), Boxes: boxes(MaxDetections)}}
	b, err := EncodeRecord(r)
	if err != nil {
		t.Fatalf("300 boxes: %v", err)
	}
	if _, err := DecodeRecord(b); err != nil {
		t.Fatalf("300 boxes, %d bytes: %v", len(b), err)
	}
	t.Logf("300 boxes are %d bytes of %d", len(b), MaxRecord)
	for len(b) < MaxRecord {
		r.Event.Truth = append(r.Event.Truth, Box{})
		if b, err = Encode(r); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := EncodeRecord(r); (err == nil) != (len(b) <= MaxRecord) {
		t.Errorf("a record of %d bytes: %v", len(b), err)
	}
	r.Event.Truth = boxes(MaxDetections)
	if _, err := EncodeRecord(r); err == nil || !strings.Contains(err.Error(), "at most 16384") {
		t.Errorf("300 boxes and 300 truths: %v", err)
	}
	if _, err := DecodeRecord(make([]byte, MaxRecord+1)); err == nil {
		t.Error("a record of 16 KiB and one came in")
	}
	if err := Decode(make([]byte, MaxPayload+1), new(Chunk)); err == nil {
		t.Error("a payload over the bound came in")
	}
}

// TestHostileBytes: what claims to be large is refused before it is allocated,
// and so is what the codec has no need of.
func TestHostileBytes(t *testing.T) {
	for what, text := range map[string]string{
		"an array of 4 billion":       "a1099affffffff",
		"a byte string of 2^63":       "a4010104" + "5b7fffffffffffffff",
		"a map of 4 billion":          "baffffffff",
		"nested 9 deep":               "a109" + strings.Repeat("81", 9) + "00",
		"a key twice":                 "a201010101",
		"an indefinite length":        "bf0101ff",
		"a tag":                       "c1a10101",
		"a tag inside":                "a101c101",
		"text that is no UTF-8":       "a10261ff",
		"bytes after the end":         "a10101" + "00",
		"cut short":                   "a101",
		"a number where a text is":    "a10205",
		"an unsigned over its type":   "a101190100",
		"a negative unsigned":         "a10120",
		"a simple value out of range": "f8ff",
	} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range []any{new(Message), new(Record), new(Hello)} {
			if err := Decode(b, v); err == nil {
				t.Errorf("%s was read as %T", what, v)
			}
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_ = Decode(b, new(Message))
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 256<<10 {
			t.Errorf("%s: %d bytes allocated for %d", what, n, len(b))
		}
	}
	if err := Decode(nil, new(Message)); err == nil {
		t.Error("nothing was read as a message")
	}
}
