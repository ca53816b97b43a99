// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"fulmar/schema/rest"
)

func candidates(n, sites int) (out []Candidate) {
	for i := range n {
		out = append(out, Candidate{Board: fmt.Sprintf("b%06d", i), Site: fmt.Sprintf("s%d", i%sites), Zone: "Europe/Berlin", Able: true, Reachable: true})
	}
	return out
}

func complete(t testing.TB, s rest.RolloutSpec) rest.RolloutSpec {
	t.Helper()
	if s.Component == "" {
		s.Component, s.Release = "agent", "1.9.0"
	}
	s, err := Complete(s)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWaves(t *testing.T) {
	t.Parallel()
	s := complete(t, rest.RolloutSpec{})
	all := candidates(1000, 5)
	all[3].Able, all[4].Busy, all[5].Release, all[6].Reachable = false, "r-30", "1.9.0", false
	p, err := Make(s, all)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(p.Waves); got != "[{1 20 5} {2 100 5} {3 877 5}]" {
		t.Errorf("waves %s", got)
	}
	if len(p.LeftOut) != 3 || p.LeftOut[0].Boards != 1 {
		t.Errorf("left out %+v", p.LeftOut)
	}
	if last := p.Boards[len(p.Boards)-1]; last.Board != all[6].Board || last.Wave != 3 {
		t.Errorf("the unreachable board is %+v", last)
	}
	perSite := map[string]int{}
	for _, b := range p.Boards[:20] {
		perSite[b.Site]++
	}
	for s, n := range perSite {
		if n != 4 {
			t.Errorf("the first wave has %d boards of site %s, wants 4", n, s)
		}
	}
	// The order does not hang on the order that the boards come in.
	for i := range all[:500] {
		all[i], all[999-i] = all[999-i], all[i]
	}
	if q, err := Make(s, all); err != nil || !reflect.DeepEqual(p, q) {
		t.Errorf("another order of boards makes another plan: %v", err)
	}
	s.Unreachable = Never
	if p, _ = Make(s, all); len(p.Boards) != 996 {
		t.Errorf("%d boards where the unreachable never join", len(p.Boards))
	}
	s.Boards = []string{"b000010", "b000011", "b000003", "nobody"}
	p, err = Make(s, all)
	if err != nil || len(p.Boards) != 2 || len(p.LeftOut) != 2 || p.LeftOut[0].Reason != outUnknown && p.LeftOut[1].Reason != outUnknown {
		t.Errorf("a list of boards: %+v, %v", p, err)
	}
	s.Boards = []string{"b000003"}
	if p, err = Make(s, all); !errors.Is(err, ErrNoBoards) || len(p.LeftOut) != 1 {
		t.Errorf("nothing left: %+v, %v", p, err)
	}
}

// TestSmallFleet: with fewer boards than waves some stay empty and none gets a board twice.
func TestSmallFleet(t *testing.T) {
	t.Parallel()
	for n := 1; n < 60; n++ {
		p, err := Make(complete(t, rest.RolloutSpec{}), candidates(n, 7))
		if err != nil {
			t.Fatal(err)
		}
		sum := 0
		for _, w := range p.Waves {
			sum += w.Boards
		}
		for i, b := range p.Boards {
			if b.Wave < 1 || i > 0 && b.Wave < p.Boards[i-1].Wave {
				t.Fatalf("%d boards: board %d is in wave %d", n, i, b.Wave)
			}
		}
		if sum != n || p.Waves[0].Boards != (n+49)/50 {
			t.Errorf("%d boards: waves %v", n, p.Waves)
		}
	}
}

// TestSpecs: each wrong field is named.
func TestSpecs(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*rest.RolloutSpec){
		"/component":         func(s *rest.RolloutSpec) { s.Component = "kernel" },
		"/release":           func(s *rest.RolloutSpec) { s.Release = "a b" },
		"/envelope":          func(s *rest.RolloutSpec) { s.Envelope = make([]byte, maxEnvelope+1) },
		"/unreachable":       func(s *rest.RolloutSpec) { s.Unreachable = "maybe" },
		"/undo":              func(s *rest.RolloutSpec) { s.Undo = "some" },
		"/per_site":          func(s *rest.RolloutSpec) { s.PerSite = -1 },
		"/bytes":             func(s *rest.RolloutSpec) { s.FleetRate = 5 },
		"/waves/0":           func(s *rest.RolloutSpec) { s.Waves = []rest.WaveSpec{{Percent: 101}} },
		"/waves/0/soak_s":    func(s *rest.RolloutSpec) { s.Waves = []rest.WaveSpec{{Count: 1, SoakS: -1}} },
		"/waves/0/unclear":   func(s *rest.RolloutSpec) { s.Waves = []rest.WaveSpec{{Count: 1, Unclear: "pass"}} },
		"/shadow":            func(s *rest.RolloutSpec) { s.Shadow = &rest.ShadowSpec{} },
		"/gate/policy":       func(s *rest.RolloutSpec) { s.Gate.Policy = "hope" },
		"/gate/gate":         func(s *rest.RolloutSpec) { s.Gate.Gate = 99.5 },
		"/gate/min_failures": func(s *rest.RolloutSpec) { s.Gate.MinFailures = -1 },
		"/guards/0/expr":     func(s *rest.RolloutSpec) { s.Guards = []rest.Guard{{Name: "x"}} },
		"/windows/0/from":    func(s *rest.RolloutSpec) { s.Windows = []rest.Window{{From: "25:00", To: "01:00"}} },
		"/windows/0/days": func(s *rest.RolloutSpec) {
			s.Windows = []rest.Window{{From: "01:00", To: "02:00", Days: []string{"sunday"}}}
		},
		"/windows/0/zone": func(s *rest.RolloutSpec) { s.Windows = []rest.Window{{From: "01:00", To: "02:00", Zone: "Mars"}} },
		"/limits/trial_s": func(s *rest.RolloutSpec) { s.Limits.TrialS = -5 },
		"/before/url":     func(s *rest.RolloutSpec) { s.Before = &rest.Hook{URL: "file:///etc/passwd"} },
		"/behind/limit_s": func(s *rest.RolloutSpec) { s.Behind = &rest.Hook{URL: "https://x", LimitS: 1e9} },
	} {
		s := rest.RolloutSpec{Component: "agent", Release: "1"}
		change(&s)
		_, err := Complete(s)
		var e *Error
		if !errors.As(err, &e) || e.Pointer != want {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestWindows: days are those of the beginning, zones those of the wall, and a change
// of the clocks neither loses a night nor makes one that is not there.
func TestWindows(t *testing.T) {
	t.Parallel()
	berlin := Zone("Europe/Berlin")
	at := func(s string) time.Time {
		t.Helper()
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	night := []rest.Window{{From: "22:00", To: "05:00"}}
	friday := []rest.Window{{From: "22:00", To: "05:00", Days: []string{"fri"}}}
	gap := []rest.Window{{From: "02:15", To: "02:45"}} // 29 Mar 2026 has no such time in Berlin
	for _, c := range []struct {
		ws   []rest.Window
		now  string
		open bool
		next string
	}{
		{nil, "2026-07-01T12:00:00Z", true, "2026-07-01T12:00:00Z"},
		{night, "2026-07-01T19:59:59Z", false, "2026-07-01T20:00:00Z"}, // 21:59 in summer
		{night, "2026-01-01T20:30:00Z", false, "2026-01-01T21:00:00Z"}, // 21:30 in winter
		{night, "2026-07-02T02:59:00Z", true, "2026-07-02T02:59:00Z"},
		{night, "2026-07-02T03:00:00Z", false, "2026-07-02T20:00:00Z"},
		{friday, "2026-07-04T01:00:00Z", true, "2026-07-04T01:00:00Z"}, // Saturday 03:00, begun on Friday
		{friday, "2026-07-04T20:30:00Z", false, "2026-07-10T20:00:00Z"},
		{friday, "2026-07-03T01:00:00Z", false, "2026-07-03T20:00:00Z"}, // Friday 03:00 belongs to Thursday
		{gap, "2026-03-29T00:00:00Z", false, "2026-03-30T00:15:00Z"},    // left out: the next night
		{gap, "2026-10-25T00:20:00Z", true, "2026-10-25T00:20:00Z"},     // 02:20, the first time
		{gap, "2026-10-25T01:20:00Z", true, "2026-10-25T01:20:00Z"},     // and the second
		{gap, "2026-10-25T00:50:00Z", false, "2026-10-25T01:15:00Z"},
		{[]rest.Window{{From: "02:30", To: "04:00"}}, "2026-03-29T00:00:00Z", false, "2026-03-29T01:00:00Z"}, // it is 03:00 then
		{[]rest.Window{{From: "22:00", To: "23:00", Zone: "Asia/Tokyo"}}, "2026-07-01T12:00:00Z", false, "2026-07-01T13:00:00Z"},
	} {
		ws, err := ParseWindows(c.ws)
		if err != nil {
			t.Fatal(err)
		}
		if got := ws.Open(berlin, at(c.now)); got != c.open {
			t.Errorf("%v at %s: open %v", c.ws, c.now, got)
		}
		if next, ok := ws.Next(berlin, at(c.now)); !ok || !next.Equal(at(c.next)) {
			t.Errorf("%v from %s: next %s, wants %s", c.ws, c.now, next.UTC().Format(time.RFC3339), c.next)
		}
	}
}

func TestForecast(t *testing.T) {
	t.Parallel()
	s := complete(t, rest.RolloutSpec{
		PerSite: 3, Bytes: 6_100_000, FleetRate: 1_000_000,
		Waves: []rest.WaveSpec{{Count: 20, SoakS: 600}, {Count: 100, SoakS: 1800}, {Percent: 100, SoakS: 600}},
	})
	p, err := Make(s, candidates(1000, 5))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	f := Forecast(s, p, 5*time.Minute, now)
	// 15 at a time: 20 boards take two rounds.
	if f.Waves[0].Proves != "20 of 20: at least 86.1 %" || f.Waves[1].Proves != "120 of 120: at least 97.5 %" || f.Waves[2].Proves != "1000 of 1000: at least 99.70 %" {
		t.Errorf("proves %q, %q, %q", f.Waves[0].Proves, f.Waves[1].Proves, f.Waves[2].Proves)
	}
	if f.Waves[0].Halts != 2 || f.Waves[1].Halts != 3 {
		t.Errorf("halts %d, %d", f.Waves[0].Halts, f.Waves[1].Halts)
	}
	if took := f.Waves[0].Ends.Sub(now); took < 20*time.Minute || took > 23*time.Minute {
		t.Errorf("the first wave takes %s", took)
	}
	// 1,000 boards, 15 at once, 5 minutes each: 5 h 34 min and the rounds' ends and soaks.
	if took := f.Done.Sub(now); took < 5*time.Hour+50*time.Minute || took > 7*time.Hour {
		t.Errorf("all takes %s", took)
	}
	if !strings.Contains(f.Sentence, "1000 boards in 3 waves: 20 boards first (") || len(f.Waves[2].Names) != 880 {
		t.Errorf("%q, %d names", f.Sentence, len(f.Waves[2].Names))
	}
	s.Windows = []rest.Window{{From: "22:00", To: "23:00"}}
	if g := Forecast(s, p, 5*time.Minute, now); g.Done == nil || g.Done.Sub(now) < 5*24*time.Hour {
		t.Errorf("one hour a night: %s", g.Sentence)
	}
	s.PerSite, s.Windows = 1, []rest.Window{{From: "22:00", To: "22:01", Days: []string{"mon"}}}
	if g := Forecast(s, p, 5*time.Minute, now); g.Done != nil || !strings.Contains(g.Sentence, "not done within 90 days") {
		t.Errorf("one board of a site a week: %s", g.Sentence)
	}
}

func BenchmarkPlan100k(b *testing.B) {
	s := complete(b, rest.RolloutSpec{PerSite: 3, Bytes: 6_100_000, FleetRate: 50_000_000, Windows: []rest.Window{{From: "22:00", To: "05:00"}}})
	all := candidates(100_000, 500)
	for b.Loop() {
		p, err := Make(s, all)
		if err != nil {
			b.Fatal(err)
		}
		if f := Forecast(s, p, 5*time.Minute, time.Unix(1.8e9, 0)); f.Done == nil {
			b.Fatal(f.Sentence)
		}
	}
}
