// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package clocks

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"fulmar/schema"
)

const (
	hour  = int64(3600 * 1000)
	day   = 24 * hour
	year  = 365 * day
	today = int64(1_800_000_000_000) // now, by the fleet
)

// boot is one boot of a simulated board.
type boot struct {
	id    uint64
	began int64 // real time of its start
	wall  int64 // its wall clock less real time
}

func (s *boot) at(moment int64) schema.Time {
	return schema.Time{Boot: s.id, Mono: (moment - s.began) * 1e6, Wall: moment + s.wall}
}

// life is a board's records in the order of their numbers.
type life struct {
	seq  uint64
	recs []rec
}

type rec struct {
	seq    uint64
	t      schema.Time
	moment int64
	anchor *schema.Anchor
}

func (l *life) make(s *boot, moment int64, anchor *schema.Anchor) {
	l.seq++
	if anchor != nil {
		anchor.New = s.at(moment).WallOffset()
	}
	l.recs = append(l.recs, rec{l.seq, s.at(moment), moment, anchor})
}

// deliver sends all records in one message of the boot now running.
func (l *life) deliver(b *Board, now *boot) {
	b.Sent(now.at(today), today)
	for _, r := range l.recs {
		b.Heard(schema.ClassMetric, 1, r.seq, r.t, now.id, today)
		if r.anchor != nil {
			b.Anchor(r.t, r.anchor, today)
		}
	}
	b.Settle(today)
}

// TestPlaces tells what each kind of evidence is worth, in ms.
func TestPlaces(t *testing.T) {
	t.Parallel()
	here := &boot{9, today - hour, -56 * year}
	for name, c := range map[string]struct {
		past   []*boot
		synced bool
		grade  Grade
		off    int64 // at most this far from the truth
	}{
		"connected, clock at 1970":                 {nil, false, Exact, 0},
		"offline boot, clock right":                {[]*boot{{1, today - 20*hour, 0}}, false, Unknown, 0},
		"offline boot, kept by NTP":                {[]*boot{{1, today - 20*hour, 200}}, true, Estimated, 200},
		"offline boot, an hour slow":               {[]*boot{{1, today - 20*hour, -hour}}, false, Unknown, hour},
		"offline boot at 1970":                     {[]*boot{{1, today - 20*hour, -56 * year}}, false, Unknown, 10 * hour},
		"offline boot 50 years on":                 {[]*boot{{1, today - 20*hour, 50 * year}}, false, Unknown, 10 * hour},
		"two offline boots, the second at 1970":    {[]*boot{{1, today - 40*hour, 0}, {2, today - 20*hour, -56 * year}}, false, Unknown, 11 * hour},
		"two offline boots, the second hours slow": {[]*boot{{1, today - 40*hour, 0}, {2, today - 20*hour, -25 * hour}}, false, Unknown, 14 * hour},
		"two offline boots at 1970":                {[]*boot{{1, today - 40*hour, -56 * year}, {2, today - 20*hour, -56 * year}}, false, Unknown, 30 * hour},
	} {
		var l life
		for _, p := range c.past {
			l.make(p, p.began+20_000, &schema.Anchor{Start: true, Synced: c.synced})
			for m := p.began + hour; m <= p.began+9*hour; m += hour {
				l.make(p, m, nil)
			}
		}
		for m := here.began; m <= today; m += hour / 4 {
			l.make(here, m, nil)
		}
		b := &Board{}
		l.deliver(b, here)
		last := int64(0)
		for i, r := range l.recs {
			at, g := b.Place(r.t, today)
			want := c.grade
			if r.t.Boot == here.id {
				want = Exact
			}
			if off := at - r.moment; off > c.off || off < -c.off || g != want {
				t.Errorf("%s: number %d of boot %d is placed %v from the truth as %s, want at most %v as %s", name, r.seq, r.t.Boot,
					time.Duration(off)*time.Millisecond, g, time.Duration(c.off)*time.Millisecond, want)
				break
			}
			if at < last || at > today {
				t.Errorf("%s: number %d at %d after one at %d, now is %d", name, r.seq, at, last, today)
			}
			if i > 0 && l.recs[i-1].t.Boot == r.t.Boot && at-last != r.moment-l.recs[i-1].moment {
				t.Errorf("%s: number %d is placed %d ms after the one before, was %d", name, r.seq, at-last, r.moment-l.recs[i-1].moment)
			}
			last = at
		}
		if at, _ := b.Place(here.at(today+hour), today); at > today {
			t.Errorf("%s: a record %d ms in the future", name, at-today)
		}
	}
}

// TestOrderByNumbers: what of two offline boots comes first does not say which ran
// first; their numbers do.
func TestOrderByNumbers(t *testing.T) {
	t.Parallel()
	here := &boot{9, today - hour, 0}
	one, two := &boot{1, today - 40*hour, -56 * year}, &boot{2, today - 20*hour, -56 * year}
	b := &Board{}
	b.Sent(here.at(today), today)
	b.Heard(schema.ClassEvent, 1, 1, here.at(today), here.id, today)
	for _, x := range []struct {
		c   schema.Class
		seq uint64
		of  *boot
	}{{schema.ClassEvent, 50, two}, {schema.ClassMetric, 10, one}, {schema.ClassMetric, 900, two}, {schema.ClassEvent, 7, one}} {
		b.Heard(x.c, 7, x.seq, x.of.at(x.of.began+hour), here.id, today)
		b.Settle(today)
	}
	first, _ := b.Place(one.at(one.began+hour), today)
	second, _ := b.Place(two.at(two.began+hour), today)
	if third := here.began; first >= second || second > third {
		t.Errorf("boots lie at %d, %d and %d before now", today-first, today-second, today-third)
	}
}

// TestLatency: the quickest of several messages counts, and a board whose
// oscillator is slow is followed.
func TestLatency(t *testing.T) {
	t.Parallel()
	b := &Board{}
	for i, late := range []int64{8000, 300, 40, 2500, 900} {
		sent := &boot{1, today - hour, 0}
		now := today + int64(i)*1000
		b.Sent(sent.at(now-late), now)
	}
	b.Settle(today)
	if at, g := b.Place(schema.Time{Boot: 1, Mono: hour * 1e6}, today+day); at < today || at > today+45 || g != Exact {
		t.Errorf("%d ms late, %s", at-today, g)
	}
	// Its second is 100 ppm longer than ours: after ten days it is 86 s behind.
	for d := int64(0); d <= 10*day; d += hour {
		b.Sent(schema.Time{Boot: 1, Mono: (hour + d - d/10_000) * 1e6}, today+d)
	}
	b.Settle(today + 10*day)
	if at, _ := b.Place(schema.Time{Boot: 1, Mono: (hour + 10*day - day/1000) * 1e6}, today+20*day); at < today+10*day-1000 || at > today+10*day+1000 {
		t.Errorf("a slow oscillator is placed %d ms off", at-today-10*day)
	}
}

// TestBetterAnchorMoves: what was placed by order alone is placed anew when an
// anchor comes, and not for less than two seconds.
func TestBetterAnchorMoves(t *testing.T) {
	t.Parallel()
	past, here := &boot{1, today - 20*hour, -56 * year}, &boot{2, today - hour, 0}
	var l life
	for m := past.began; m < past.began+5*hour; m += hour {
		l.make(past, m, nil)
	}
	b := &Board{}
	l.deliver(b, here)
	if !b.Stored(1, today) || b.Stored(2, today+settling+1) || b.Stored(77, today) {
		t.Fatal("the wrong boots are open")
	}
	if again := b.Settle(today); len(again) != 0 {
		t.Fatalf("%v moved for nothing", again)
	}
	right := past.at(past.began + 4*hour)
	b.Anchor(right, &schema.Anchor{New: past.began, Synced: true}, today)
	if got := b.Settle(today); len(got) != 1 || got[0] != 1 {
		t.Fatalf("%v moved, want boot 1", got)
	}
	if at, g := b.Place(right, today); at != past.began+4*hour || g != Estimated {
		t.Errorf("%d ms off, %s", at-past.began-4*hour, g)
	}
	b.Anchor(past.at(past.began+5*hour), &schema.Anchor{New: past.began + 1500, Synced: true}, today)
	if got := b.Settle(today); len(got) != 0 {
		t.Errorf("%v moved for 1.5 s", got)
	}
	b.Close(1)
	b.Anchor(past.at(past.began+6*hour), &schema.Anchor{New: past.began - hour, Synced: true}, today)
	if got := b.Settle(today); len(got) != 0 || b.Stored(1, today) {
		t.Errorf("%v moved after it was closed", got)
	}
}

// TestQuickerWordMoves: the first word of a boot was held up; what was placed by it is
// placed anew when a quicker one comes.
func TestQuickerWordMoves(t *testing.T) {
	t.Parallel()
	here, b := &boot{1, today - hour, 0}, &Board{}
	b.Sent(here.at(today-9000), today) // nine seconds on its way
	b.Settle(today)
	if !b.Stored(1, today) {
		t.Fatal("the rows of a boot that was just heard of are not open")
	}
	b.Sent(here.at(today+20_000), today+20_000)
	if got := b.Settle(today + 20_000); len(got) != 1 || got[0] != 1 {
		t.Fatalf("%v moved, want boot 1", got)
	}
	if at, g := b.Place(here.at(today-9000), today+20_000); at != today-9000 || g != Exact {
		t.Errorf("%d ms off, %s", at-today+9000, g)
	}
	if b.Stored(1, today+settling+1) {
		t.Error("the rows of a boot that is long here are open")
	}
}

// TestEarlierNextBoot: a boot that tells more time than there was between its neighbours
// ends where the next one begins; when that began earlier than was thought, its records
// move with it.
func TestEarlierNextBoot(t *testing.T) {
	t.Parallel()
	first := &boot{1, today - 20*hour, 0}
	long := &boot{2, today - 5*hour, 50 * year}
	here := &boot{3, today - hour, 0}
	b := &Board{}
	b.Sent(here.at(today-30_000), today) // half a minute on its way
	b.Heard(schema.ClassEvent, 1, 1, first.at(today-2*hour), here.id, today)
	b.Anchor(first.at(today-2*hour), &schema.Anchor{New: first.began, Synced: true}, today)
	b.Settle(today)
	b.Stored(first.id, today)
	b.Close(first.id)               // it stays where it is
	last := long.at(today - 2*hour) // three hours in one
	b.Heard(schema.ClassEvent, 1, 2, long.at(long.began), here.id, today)
	b.Heard(schema.ClassEvent, 1, 3, last, here.id, today)
	b.Settle(today)
	if !b.Stored(long.id, today) {
		t.Fatal("the rows of a boot of unknown time are not open")
	}
	if at, _ := b.Place(last, today); at != here.began+30_000 {
		t.Fatalf("the last is %d ms after the next boot's begin, wants half a minute", at-here.began)
	}
	b.Sent(here.at(today+1000), today+1000)
	if got := b.Settle(today + 1000); !slices.Contains(got, long.id) {
		t.Fatalf("%v moved, want boot %d", got, long.id)
	}
	if at, _ := b.Place(last, today+1000); at != here.began {
		t.Errorf("the last is %d ms after the next boot's begin, wants 0", at-here.began)
	}
}

// TestAnyLife runs random lives: boots with clocks that jump 50 years either way,
// some connected, delivered in pieces and again. Order within each boot is kept,
// nothing lies in the future or before 2024, the state stays bounded and survives
// being packed.
func TestAnyLife(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 5))
		b, now := &Board{}, today
		seq := uint64(0)
		var waiting []rec
		for id := uint64(1); id < 2+r.Uint64N(90); id++ {
			s := &boot{id, now, (r.Int64N(101) - 50) * year}
			connected := r.IntN(2) == 0
			for range 1 + r.IntN(20) {
				now += r.Int64N(hour)
				if r.IntN(4) == 0 {
					s.wall = (r.Int64N(101) - 50) * year
				}
				seq++
				x := rec{seq: seq, t: s.at(now), moment: now}
				if r.IntN(5) == 0 {
					x.anchor = &schema.Anchor{New: x.t.WallOffset(), Synced: s.wall == 0}
				}
				waiting = append(waiting, x)
			}
			if !connected {
				continue
			}
			for len(waiting) > 0 {
				n := 1 + r.IntN(len(waiting))
				now += 20
				b.Sent(s.at(now), now)
				for _, x := range waiting[:n] {
					b.Heard(schema.ClassMetric, 1, x.seq, x.t, s.id, now)
					if x.anchor != nil {
						b.Anchor(x.t, x.anchor, now)
					}
				}
				b.Settle(now)
				last := map[uint64]int64{}
				for _, x := range waiting[:n] {
					at, g := b.Place(x.t, now)
					if at < last[x.t.Boot] || at > now || at < Earliest {
						t.Fatalf("seed %d: number %d of boot %d at %d after %d, now %d", seed, x.seq, x.t.Boot, at, last[x.t.Boot], now)
					}
					if d := at - x.moment; x.t.Boot == s.id && (g != Exact || d < -1000 || d > 21) {
						t.Fatalf("seed %d: number %d of the boot that is here is %d ms off, %s", seed, x.seq, d, g)
					}
					last[x.t.Boot] = at
					if b.Stored(x.t.Boot, now) && r.IntN(30) == 0 {
						b.Close(x.t.Boot)
					}
				}
				if r.IntN(3) > 0 {
					waiting = waiting[n:]
				}
			}
		}
		if len(b.Boots) > maxBoots {
			t.Fatalf("seed %d: %d boots are kept", seed, len(b.Boots))
		}
		if !slices.IsSortedFunc(b.Boots, func(x, y Boot) int { return int(x.ID) - int(y.ID) }) {
			t.Fatalf("seed %d: boots are out of order", seed)
		}
	}
}

// TestSpan: the time of a loss is moved with the gap that tells it, or unknown.
func TestSpan(t *testing.T) {
	t.Parallel()
	const at = today
	for name, c := range map[string]struct{ wall, from, to, wantFrom, wantTo int64 }{
		"clock right":                    {at, at - 3*hour, at - 2*hour, at - 3*hour, at - 2*hour},
		"clock at 1970":                  {5 * hour, 2 * hour, 3 * hour, at - 3*hour, at - 2*hour},
		"clock at 2077":                  {at + 50*year, at + 50*year - 3*hour, at + 50*year - 2*hour, at - 3*hour, at - 2*hour},
		"set between loss and gap":       {at, 2 * hour, 3 * hour, 0, 0},
		"set back between the two":       {2 * hour, at - 3*hour, at - 2*hour, 0, 0},
		"unknown to the board":           {at, 0, 0, 0, 0},
		"backwards":                      {at, at - 2*hour, at - 3*hour, 0, 0},
		"a second ahead of the gap":      {at, at - hour, at + 1000, at - hour, at},
		"numbers at the end of the line": {-1 << 63, 1<<63 - 1, 1<<63 - 1, 0, 0},
	} {
		from, to := Span(c.from, c.to, c.wall, at)
		if from != c.wantFrom || to != c.wantTo {
			t.Errorf("%s: %d to %d, want %d to %d", name, from, to, c.wantFrom, c.wantTo)
		}
	}
}

// FuzzBoard: no time that a board can tell makes a moment that is not one.
func FuzzBoard(f *testing.F) {
	f.Add(uint64(1), uint64(2), int64(5), int64(6), int64(7), int64(8), true)
	f.Add(uint64(1), uint64(1), int64(math.MinInt64), int64(math.MaxInt64), int64(math.MinInt64), int64(1<<43), false)
	f.Fuzz(func(t *testing.T, a, c uint64, m1, m2, wall, offset int64, synced bool) {
		b := &Board{}
		rec := schema.Time{Boot: a, Mono: m1, Wall: wall}
		for range 3 {
			b.Sent(schema.Time{Boot: c, Mono: m2, Wall: wall}, today)
			b.Heard(1, 1, 1, rec, c, today)
			x := &schema.Anchor{New: offset, Synced: synced}
			if x.Validate() == nil {
				b.Anchor(rec, x, today)
			}
			b.Stored(a, today)
			b.Settle(today)
			if at, _ := b.Place(rec, today); at > today || at < Earliest {
				t.Fatalf("%s", fmt.Sprint(at, rec, b))
			}
		}
	})
}
