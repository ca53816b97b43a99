// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"fulmar/schema"
)

const yearMs = int64(365 * 24 * 3600 * 1000)

// lifeBoard is a board whose wall clock is whatever it is told to be. Its life ends
// now, by the fleet's clock, so that it can be sent at once.
type lifeBoard struct {
	t     *testing.T
	key   BoardKey
	boot  uint64
	began int64 // true time of this boot's start, ms
	now   int64 // true time, ms
	wall  int64 // wall clock less true time, ms
	seq   map[schema.Class]uint64
	queue []queued
	truth map[string]int64 // true time of each batch and event, by name of table and boot/mono
	steps int64            // offset of the newest anchor
}

type queued struct {
	class schema.Class
	rec   schema.SeqRecord
}

func (b *lifeBoard) time() schema.Time {
	return schema.Time{Boot: b.boot, Mono: (b.now - b.began) * 1e6, Wall: b.now + b.wall}
}

func (b *lifeBoard) put(c schema.Class, r schema.Record) {
	r.Time = b.time()
	b.seq[c]++
	b.queue = append(b.queue, queued{c, schema.SeqRecord{Seq: b.seq[c], Payload: record(b.t, r)}})
	table := map[schema.Kind]string{schema.KindSamples: "telemetry", schema.KindEvent: "event"}[r.Kind]
	if table != "" {
		b.truth[fmt.Sprintf("%s %d %d", table, b.boot, r.Time.Mono/1e6)] = b.now
	}
}

// reboot starts a boot with the clock at wall, less true time, and its first anchor.
func (b *lifeBoard) reboot(wall int64) {
	b.boot++
	b.began, b.wall = b.now, wall
	b.now += 20_000
	b.anchor(true, false)
}

func (b *lifeBoard) anchor(start, synced bool) {
	off := b.time().WallOffset()
	a := &schema.Anchor{Old: b.steps, New: off, Start: start, Synced: synced}
	if start {
		a.Old = off
	}
	b.steps = off
	b.put(schema.ClassEvent, schema.Record{Kind: schema.KindAnchor, Anchor: a})
}

// live makes a batch and now and then an event, each minute.
func (b *lifeBoard) live(minutes int) {
	for i := range minutes {
		b.now += 60_000
		b.put(schema.ClassMetric, schema.Record{Kind: schema.KindSamples, Samples: &schema.Samples{Series: []string{"x"}, Value: []float64{1}}})
		if i%5 == 0 {
			b.put(schema.ClassEvent, schema.Record{Kind: schema.KindEvent, Event: &schema.Event{Source: "cam0"}})
		}
	}
}

// send delivers all that waits, in messages of one class, the classes interleaved.
func (b *lifeBoard) send(r *rig) {
	b.t.Helper()
	for len(b.queue) > 0 {
		for _, c := range schema.Classes() {
			m := schema.Message{V: 1, Board: b.key.Board, Class: c, Epoch: 1, Sent: b.time(), Replay: true}
			rest := b.queue[:0:0]
			for _, q := range b.queue {
				if q.class == c && len(m.Records) < 40 {
					m.Records = append(m.Records, q.rec)
					continue
				}
				rest = append(rest, q)
			}
			if b.queue = rest; len(m.Records) == 0 {
				continue
			}
			p := encode(b.t, &m)
			if _, refused, err := r.Publish(context.Background(), b.key, schema.MessageTopic("default", b.key.Board, c).String(), p); err != nil || refused {
				b.t.Fatalf("publish: refused %v, %v", refused, err)
			}
		}
	}
}

// settle does what the ticks do: rows are placed anew until there are none left.
func settle(t *testing.T, r *rig) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); r.int(t, "SELECT count(*) FROM retime WHERE moved = 1") > 0; {
		if time.Now().After(end) {
			t.Fatal("rows are still to be placed anew")
		}
		time.Sleep(20 * time.Millisecond) // the real ticker
	}
}

// check compares all rows with the truth: none missing, in order within each
// boot, none in the future or before 2024, and none further off than its grade says.
func (b *lifeBoard) check(r *rig, off map[int]int64) {
	t := b.t
	t.Helper()
	settle(t, r)
	found := 0
	for _, table := range []string{"telemetry", "event"} {
		rows, err := r.db.Read.Query("SELECT boot, mono, at, timed FROM " + table + " ORDER BY boot, mono")
		if err != nil {
			t.Fatal(err)
		}
		lastBoot, last := int64(0), int64(0)
		for rows.Next() {
			var boot, mono, at int64
			var timed int
			if err := rows.Scan(&boot, &mono, &at, &timed); err != nil {
				t.Fatal(err)
			}
			found++
			want, ok := b.truth[fmt.Sprintf("%s %d %d", table, boot, mono)]
			if !ok {
				t.Fatalf("%s has a row that was never made", table)
			}
			if d := at - want; d > off[timed] || d < -off[timed] {
				t.Errorf("%s of boot %d is %v off the truth, as grade %d at most %v", table, boot, time.Duration(d)*time.Millisecond, timed, time.Duration(off[timed])*time.Millisecond)
				break
			}
			if boot == lastBoot && at < last {
				t.Errorf("%s of boot %d goes back in time", table, boot)
				break
			}
			if now := time.Now().UnixMilli(); at > now || at < 1704067200000 {
				t.Errorf("%s of boot %d lies at %d, now is %d", table, boot, at, now)
				break
			}
			lastBoot, last = boot, at
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if found != len(b.truth) {
		t.Errorf("%d rows, %d were made", found, len(b.truth))
	}
	if n := r.int(t, "SELECT coalesce(sum(heard - arrived), 0) FROM stream"); n != 0 {
		t.Errorf("%d numbers are not here", n)
	}
}

// TestClocksThatLie walks boards through what clocks do. Exact means to the
// latency, an estimate to what the anchor was off, and what is unknown still lies
// between its neighbours.
func TestClocksThatLie(t *testing.T) {
	t.Parallel()
	const hour = int64(3600 * 1000)
	ms := map[int]int64{0: 15_000, 1: 15_000, 2: 15_000} // exact includes the time this test needs to send
	loose := func(d int64) map[int]int64 { return map[int]int64{0: 15_000, 1: 15_000, 2: d} }
	for name, c := range map[string]struct {
		off  map[int]int64
		long int64 // hours that the life takes
		live func(b *lifeBoard)
	}{
		"50 years on from the start":   {ms, 2, func(b *lifeBoard) { b.reboot(50 * yearMs); b.live(119) }},
		"50 years back from the start": {ms, 2, func(b *lifeBoard) { b.reboot(-50 * yearMs); b.live(119) }},
		"a jump in the middle": {ms, 2, func(b *lifeBoard) {
			b.reboot(0)
			b.live(50)
			b.wall = 50 * yearMs
			b.anchor(false, false)
			b.live(69)
		}},
		"back and forth": {ms, 3, func(b *lifeBoard) {
			b.reboot(0)
			for i := range 17 {
				b.wall = int64(i%3-1) * 50 * yearMs
				b.live(10)
			}
		}},
		"a suspend of eight hours": {ms, 9, func(b *lifeBoard) {
			b.reboot(-56 * yearMs)
			b.live(20)
			b.now += 8 * hour // CLOCK_BOOTTIME and the wall clock both go on
			b.live(20)
		}},
		"rebooted offline, the clock at 1970, NTP in the end": {loose(-1), 9, func(b *lifeBoard) {
			b.reboot(-56 * yearMs)
			b.live(100)
			b.wall = 0
			b.anchor(false, true)
			b.live(10)
			b.now += 5 * hour // switched off
			b.reboot(-56 * yearMs)
			b.live(60)
		}},
		"rebooted offline, the clock at 1970 all along": {loose(5*hour + 15_000), 9, func(b *lifeBoard) {
			b.reboot(-56 * yearMs)
			b.live(110)
			b.now += 5 * hour
			b.reboot(-56 * yearMs)
			b.live(60)
		}},
		"two boots never connected, the second at 2076": {loose(5*hour + 15_000), 12, func(b *lifeBoard) {
			b.reboot(0)
			b.live(110)
			b.now += 3 * hour
			b.reboot(50 * yearMs)
			b.live(110)
			b.now += 2 * hour
			b.reboot(-56 * yearMs)
			b.live(60)
		}},
		"two boots never connected, both at 1970": {loose(10*hour + 15_000), 12, func(b *lifeBoard) {
			for range 2 {
				b.reboot(-56 * yearMs)
				b.live(110)
				b.now += 2 * hour
			}
			b.reboot(-56 * yearMs)
			b.live(60)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, t.TempDir(), Config{})
			b := &lifeBoard{t: t, key: testKey, seq: map[schema.Class]uint64{}, truth: map[string]int64{}}
			c.live(b) // once to see how long it takes, then to end now
			took := b.now
			*b = lifeBoard{t: t, key: testKey, seq: map[schema.Class]uint64{}, truth: map[string]int64{}, now: time.Now().UnixMilli() - took}
			c.live(b)
			b.send(r)
			b.check(r, c.off)
			if n := r.int(t, "SELECT count(*) FROM anchor"); n == 0 || n > 10 {
				t.Errorf("%d anchors are kept", n)
			}
		})
	}
}

// TestManyBootsOffline: a month of boots, none connected, delivered in pieces by
// the last one through restarts of the fleet. All is there and in order.
func TestManyBootsOffline(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(8, 8))
	live := func(b *lifeBoard) {
		rnd = rand.New(rand.NewPCG(8, 8))
		for range 30 {
			b.reboot([]int64{0, -56 * yearMs, 50 * yearMs}[rnd.IntN(3)])
			b.live(5 + rnd.IntN(30))
			b.now += rnd.Int64N(20 * 3600 * 1000)
		}
		b.reboot(-56 * yearMs)
		b.live(3)
	}
	b := &lifeBoard{t: t, key: testKey, seq: map[schema.Class]uint64{}, truth: map[string]int64{}}
	live(b)
	*b = lifeBoard{t: t, key: testKey, seq: map[schema.Class]uint64{}, truth: map[string]int64{}, now: time.Now().UnixMilli() - b.now}
	live(b)
	dir, all := t.TempDir(), b.queue
	for len(all) > 0 {
		r := start(t, dir, Config{})
		n := min(len(all), 300)
		b.queue, all = all[:n:n], all[n:]
		b.send(r)
		if len(all) == 0 {
			// Boots whose clock was right are placed by it; the others by order.
			b.check(r, map[int]int64{0: 15_000, 1: 0, 2: 30 * 24 * 3600 * 1000})
			if n := r.int(t, "SELECT count(*) FROM telemetry a JOIN telemetry b ON b.id = a.id + 1 WHERE a.boot < b.boot AND a.at > b.at"); n != 0 {
				t.Errorf("%d boots overlap", n)
			}
		}
		r.stop()
	}
}

// TestRetentionGoesByArrival: records of 1970 and of 2076 live as long as all
// others: not gone at once, not kept for ever.
func TestRetentionGoesByArrival(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := start(t, dir, Config{TelemetryFor: time.Hour, EventsFor: time.Hour})
	for i, wall := range []int64{-56 * yearMs, 50 * yearMs, 0} {
		// Of a boot that was never connected, so that the wall clock is all there is.
		b := &lifeBoard{t: t, key: BoardKey{"default", fmt.Sprintf("b%d", i)}, seq: map[schema.Class]uint64{}, truth: map[string]int64{}, now: time.Now().UnixMilli() - 3*24*3600*1000}
		b.reboot(wall)
		b.live(10)
		b.boot++
		b.began = b.now
		b.send(r)
	}
	both := func() int64 {
		return r.int(t, "SELECT (SELECT count(*) FROM telemetry) + (SELECT count(*) FROM event)")
	}
	if err := r.Presence(context.Background(), testKey, schema.Presence{V: 1, Online: true}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond) // a tick of the real ticker prunes
	if n := both(); n != 36 {
		t.Fatalf("%d rows are left of 36 that came just now", n)
	}
	r.stop()
	r = start(t, dir, Config{TelemetryFor: time.Millisecond, EventsFor: time.Millisecond})
	for end := time.Now().Add(10 * time.Second); both() > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d rows outlived their time", both())
		}
	}
}
