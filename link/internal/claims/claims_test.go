// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package claims

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/link/internal/flights"
	"fulmar/schema"
)

const number = 42

func flight(spans ...flights.Span) *flights.Flight {
	return &flights.Flight{Class: schema.ClassEvent, Epoch: number, Runs: spans}
}

func ack(spans ...flights.Span) *schema.Ack {
	return &schema.Ack{V: 1, Class: schema.ClassEvent, Epoch: number, Ranges: spans}
}

// false1 tells whether the book calls a word false.
func (b *Book) false1(a *schema.Ack) bool {
	before := b.False()
	b.Check(a, slog.New(slog.DiscardHandler))
	return b.False() > before
}

// TestAgainstASet: over random flights and words the book says what a plain set of
// numbers says.
func TestAgainstASet(t *testing.T) {
	t.Parallel()
	draw := rand.New(rand.NewPCG(5, 6))
	for range 300 {
		var b Book
		out := map[uint64]bool{}
		b.Met([]schema.Cursor{{Class: schema.ClassEvent, Epoch: number}})
		for range 30 {
			first := 1 + draw.Uint64N(200)
			r := flights.Span{first, first + draw.Uint64N(12)}
			b.Out(flight(r))
			for n := r[0]; n <= r[1]; n++ {
				out[n] = true
			}
			first = 1 + draw.Uint64N(200)
			w := flights.Span{first, first + draw.Uint64N(4)}
			want := false
			for n := w[0]; n <= w[1]; n++ {
				want = want || !out[n]
			}
			if b.false1(ack(w)) != want {
				t.Fatalf("%v after %v: false is %v, wants %v", w, b.epochs[0].runs, !want, want)
			}
		}
	}
}

// TestWhatIsNotKnown: what may have been sent before this program ran is not blamed,
// also where the epoch came in the middle of a connection.
func TestWhatIsNotKnown(t *testing.T) {
	t.Parallel()
	var b Book
	if !b.false1(ack(flights.Span{1, 1})) {
		t.Error("an epoch that nobody knows was believed")
	}
	b.Met([]schema.Cursor{{Class: schema.ClassEvent, Epoch: number, Acked: 3, Last: 10}})
	b.Met([]schema.Cursor{{Class: schema.ClassEvent, Epoch: number, Acked: 3, Last: 20}})
	if b.false1(ack(flights.Span{1, 10})) || !b.false1(ack(flights.Span{1, 11})) {
		t.Error("what stood when the epoch was met is 1 to 10")
	}
	var late Book
	late.Out(flight(flights.Span{7, 8}))
	if late.false1(ack(flights.Span{1, 8})) || !late.false1(ack(flights.Span{8, 9})) {
		t.Error("of an epoch met by its record 7 what is before it may have been sent, and nothing behind 8")
	}
	if other := ack(flights.Span{1, 1}); true {
		other.Class = schema.ClassMetric
		if !b.false1(other) {
			t.Error("the same epoch of another class was believed")
		}
	}
	if !b.false1(ack(flights.Span{1, 1<<64 - 1})) {
		t.Error("everything there is was believed")
	}
}

// TestBounds: the book stays small, and where it must forget a hole it believes.
func TestBounds(t *testing.T) {
	t.Parallel()
	var b Book
	b.Met([]schema.Cursor{{Class: schema.ClassEvent, Epoch: number}})
	for n := range uint64(1000) {
		b.Out(flight(flights.Span{10 * (n + 1), 10*(n+1) + 3}))
	}
	if n := len(b.epochs[0].runs); n > maxRuns {
		t.Errorf("%d runs, at most %d", n, maxRuns)
	}
	for n := range uint64(1000) {
		if b.false1(ack(flights.Span{10 * (n + 1), 10*(n+1) + 3})) {
			t.Fatalf("the word for what went out at %d is blamed", 10*(n+1))
		}
	}
	if !b.false1(ack(flights.Span{10_004, 10_004})) || !b.false1(ack(flights.Span{1, 9})) {
		t.Error("what is around everything sent was believed")
	}
	for n := range uint64(1000) {
		b.Met([]schema.Cursor{{Class: schema.ClassAlarm, Epoch: n + 1}})
	}
	if len(b.epochs) != maxEpochs || b.of(schema.ClassAlarm, 1000) == nil {
		t.Errorf("%d epochs are remembered, wants the last %d", len(b.epochs), maxEpochs)
	}
}

// TestSaidOnceAMinute: a flood of false words is counted, and one line a minute says
// what they name.
func TestSaidOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Book
		var text bytes.Buffer
		log := slog.New(slog.NewTextHandler(&text, nil))
		b.Out(flight(flights.Span{1, 5}))
		for range 1800 { // three minutes
			b.Check(ack(flights.Span{4, 4}, flights.Span{6, 9}, flights.Span{20, 20}), log)
			time.Sleep(100 * time.Millisecond)
		}
		lines := strings.Split(strings.TrimSpace(text.String()), "\n")
		if b.False() != 1800 || len(lines) != 3 {
			t.Fatalf("%d counted, %d lines:\n%s", b.False(), len(lines), text.String())
		}
		for _, want := range []string{"level=ERROR", "class=event", "epoch=42", "first=6 last=20 ranges=2", "above everything sent", "another board", "so_far=601"} {
			if !strings.Contains(lines[1], want) {
				t.Errorf("the second line lacks %q: %s", want, lines[1])
			}
		}
	})
}
