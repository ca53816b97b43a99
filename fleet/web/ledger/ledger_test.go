// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"slices"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/web/live"
	"fulmar/schema"
)

var now = time.Date(2026, 11, 21, 14, 5, 9, 0, time.UTC)

func clock(h, m int) time.Time { return time.Date(2026, 11, 21, h, m, 30, 0, time.UTC) }

// TestLostAndWaitingAreToldApart is a board with all of it at once.
func TestLostAndWaitingAreToldApart(t *testing.T) {
	t.Parallel()
	b := &Board{
		Name: "dock-1", Since: clock(13, 40), Classes: []Class{
			{Class: "alarm", Made: 9, Arrived: 9},
			{Class: "event", Made: 20, Arrived: 12, Lost: 8, Reasons: map[string]uint64{"crash": 8}},
			{Class: "metric", Made: 5000, Arrived: 3184, Lost: 612, Waiting: 1204, Reasons: map[string]uint64{"disk full": 312, "thinned": 300}, Oldest: clock(12, 1)},
		},
		Gaps: []Gap{
			{Class: "event", First: 13, Last: 20, Count: 8, Reason: "crash", At: clock(9, 0)},
			{Class: "metric", First: 601, Last: 700, Count: 100, Reason: "disk full", From: clock(2, 21), To: clock(2, 31)},
			{Class: "metric", First: 389, Last: 600, Count: 212, Reason: "disk full", From: clock(2, 10), To: clock(2, 20)},
			{Class: "metric", First: 1, Last: 300, Count: 300, Reason: "thinned", From: now.AddDate(0, 0, -1), To: clock(1, 0)},
			{Class: "metric", First: 350, Last: 360, Reason: "corrupt"}, // all of it came after all
		},
	}
	p := live.NewSheet(now)
	v := Build(p, b)
	text := func(key string) string { return p.Vals[key].Text }
	if got, want := text("book"), "5,029 made = 3,205 arrived + 300 thinned + 312 lost + at most 8 lost in a crash + 1,204 waiting"; got != want {
		t.Errorf("sum: %s\nwant %s", got, want)
	}
	if got, want := text("book|metric|waits"), "Not yet arrived: 1,204 samples, oldest from 12:01; the board is offline since 13:40"; got != want {
		t.Errorf("waiting: %s\nwant %s", got, want)
	}
	want := []Line{
		{"Lost at most 8 events", Why("crash"), "time unknown, written down 09:00", "no. 13 to 20"},
		{"Lost 312 samples", "the disk was full", "02:10 to 02:31", "no. 389 to 700"},
	}
	if !slices.Equal(v.Lost, want) {
		t.Errorf("lost %q\nwant %q", v.Lost, want)
	}
	thin := []Line{{"300 samples", "kept as 1-minute summaries to save space", "2026-11-20 14:05 to 01:00", "no. 1 to 300"}}
	if !slices.Equal(v.Thinned, thin) {
		t.Errorf("thinned %q\nwant %q", v.Thinned, thin)
	}
	if got := text("book|event|lost") + ", " + text("book|metric|lost"); got != "at most 8, 312" {
		t.Errorf("lost in the table: %s", got)
	}
	if len(v.Waiting) != 1 || v.Clean || v.Sums != "" {
		t.Errorf("%+v", v)
	}
	b.Online = true
	if Build(p, b); !strings.HasSuffix(text("book|metric|waits"), "; the board is connected and sends them") {
		t.Error(text("book|metric|waits"))
	}
	b.Gaps = b.Gaps[:1]
	if got, want := Build(p, b).Sums, "In all 8 events: "+Why("crash")+"; 312 samples: the disk was full; 300 samples: kept as 1-minute summaries to save space."; got != want {
		t.Errorf("sums: %s\nwant %s", got, want)
	}
	b.Classes[2].Reasons["disk full"] = 300
	if got := Build(p, b).Sums; !strings.Contains(got, "12 samples: the board has not said why") {
		t.Errorf("sums: %s", got)
	}
}

func TestClean(t *testing.T) {
	t.Parallel()
	v := Build(live.NewSheet(now), &Board{Online: true, Classes: []Class{{Class: "event", Made: 3, Arrived: 3}}})
	if !v.Clean || len(v.Waiting)+len(v.Lost)+len(v.Thinned) != 0 || v.Sums != "" {
		t.Errorf("%+v", v)
	}
	p := live.NewSheet(now)
	v = Build(p, &Board{Since: clock(13, 40), Classes: []Class{{Class: "event", Made: 3, Arrived: 3}}})
	if got, want := p.Vals["book|offline"].Text, "The board is offline since 13:40; what it makes meanwhile is counted when it is back"; got != want || len(v.Waiting) != 1 {
		t.Errorf("a board that is away: %q", got)
	}
	if v := Build(live.NewSheet(now), &Board{}); v.Any {
		t.Errorf("nothing was made: %+v", v)
	}
}

// TestJoined: losses far apart, of another kind or with a hole between stay apart.
func TestJoined(t *testing.T) {
	t.Parallel()
	g := func(class, reason string, first, last uint64, from, to time.Time) Gap {
		return Gap{Class: class, Reason: reason, First: first, Last: last, Count: last - first + 1, From: from, To: to}
	}
	for name, c := range map[string]struct {
		in   []Gap
		want int
	}{
		"none":             {nil, 0},
		"touching":         {[]Gap{g("metric", "quota", 11, 20, clock(2, 5), clock(2, 9)), g("metric", "quota", 1, 10, clock(2, 0), clock(2, 5))}, 1},
		"another epoch":    {[]Gap{g("metric", "quota", 1, 20, clock(2, 5), clock(2, 9)), g("metric", "quota", 900, 910, clock(2, 0), clock(2, 5))}, 1},
		"hours apart":      {[]Gap{g("metric", "quota", 11, 20, clock(7, 5), clock(7, 9)), g("metric", "quota", 1, 10, clock(2, 0), clock(2, 5))}, 2},
		"another reason":   {[]Gap{g("metric", "quota", 11, 20, clock(2, 5), clock(2, 9)), g("metric", "crash", 1, 10, clock(2, 0), clock(2, 5))}, 2},
		"another class":    {[]Gap{g("event", "quota", 11, 20, clock(2, 5), clock(2, 9)), g("metric", "quota", 1, 10, clock(2, 0), clock(2, 5))}, 2},
		"no time, a hole":  {[]Gap{g("event", "crash", 11, 20, time.Time{}, time.Time{}), g("event", "crash", 1, 9, time.Time{}, time.Time{})}, 2},
		"no time, no hole": {[]Gap{g("event", "crash", 11, 20, time.Time{}, time.Time{}), g("event", "crash", 1, 10, time.Time{}, time.Time{})}, 1},
	} {
		got := joined(c.in)
		before, after := uint64(0), uint64(0)
		for _, x := range c.in {
			before += x.Count
		}
		for _, x := range got {
			after += x.Count
		}
		if len(got) != c.want || before != after {
			t.Errorf("%s: %d lines of %d records, want %d of %d", name, len(got), after, c.want, before)
		}
	}
}

func TestFleet(t *testing.T) {
	t.Parallel()
	ok := Class{Class: "event", Made: 10, Arrived: 10}
	lost := Class{Class: "event", Made: 10, Arrived: 8, Lost: 2, Reasons: map[string]uint64{"quota": 2}}
	crash := Class{Class: "event", Made: 10, Arrived: 9, Lost: 1, Reasons: map[string]uint64{"crash": 1}}
	thin := Class{Class: "metric", Made: 10, Arrived: 8, Lost: 2, Reasons: map[string]uint64{"thinned": 2}}
	wait := Class{Class: "metric", Made: 10, Arrived: 8, Waiting: 2}
	boards := func(cs ...Class) (out []Board) {
		for i, c := range cs {
			out = append(out, Board{Name: "b" + string(rune('1'+i)), Classes: []Class{c}})
		}
		return out
	}
	for want, in := range map[string][]Board{
		"": boards(Class{}),
		"Nothing is lost: all 20 records made have arrived.":                                                  boards(ok, ok),
		"Of 20 records made 2 are lost on b2.":                                                                boards(ok, lost),
		"Of 10 records made at most 1 is lost in crashes on b1.":                                              boards(crash),
		"Of 30 records made 2 are lost on b1, at most 1 is lost in crashes on b2, 2 not yet arrived from b3.": boards(lost, crash, wait),
		"Of 20 records made none is lost, 2 not yet arrived from b1, 2 kept as 1-minute summaries.":           boards(wait, thin),
	} {
		if got := Fleet(in); got != want {
			t.Errorf("%q\nwant %q", got, want)
		}
	}
}

// TestEveryReasonHasWords: also those added later.
func TestEveryReasonHasWords(t *testing.T) {
	t.Parallel()
	for r := schema.Reason(1); !strings.HasPrefix(r.String(), "reason-"); r++ {
		if Why(r.String()) == r.String() {
			t.Errorf("reason %q has no plain words", r)
		}
	}
}
