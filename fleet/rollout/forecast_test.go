// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/rollout/plan"
	"fulmar/fleet/rollout/state"
	"fulmar/schema/ota"
	"fulmar/schema/rest"
)

// TestForecastIsTrue plays plans by the logic itself, second by second, with boards that
// take what the forecast assumes, and compares when each wave began and ended.
func TestForecastIsTrue(t *testing.T) {
	t.Parallel()
	const takes = 5 * time.Minute
	now := time.Date(2026, 3, 28, 15, 0, 0, 0, time.UTC) // the clocks change in the night
	night := []rest.Window{{From: "22:00", To: "05:00"}}
	for name, s := range map[string]rest.RolloutSpec{
		"no bounds":     {},
		"slots":         {PerSite: 3},
		"fleet's rate":  {Bytes: 6_000_000, FleetRate: 200_000},
		"sites' rate":   {Bytes: 6_000_000, SiteRate: 50_000},
		"nights":        {Windows: night, PerSite: 3},
		"all of it":     {Windows: night, PerSite: 4, Bytes: 6_000_000, FleetRate: 500_000, SiteRate: 100_000},
		"shadow phase":  {Component: "model/parcels", Shadow: &rest.ShadowSpec{Count: 10, SoakS: 1200}},
		"one of a kind": {Waves: []rest.WaveSpec{{Count: 300, SoakS: 60}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if s.Component == "" {
				s.Component = "agent"
			}
			s.Release = newVersion
			s.Limits.AckS = 30 * 24 * 3600
			s, err := plan.Complete(s)
			if err != nil {
				t.Fatal(err)
			}
			var c []plan.Candidate
			for i := range 300 {
				c = append(c, plan.Candidate{Board: fmt.Sprintf("b%03d", i), Site: fmt.Sprint("s", i%6), Zone: []string{"Europe/Berlin", "America/New_York"}[i%2], Able: true, Reachable: true})
			}
			p, err := plan.Make(s, c)
			if err != nil {
				t.Fatal(err)
			}
			f := plan.Forecast(s, p, takes, now)
			r, err := New("r-1", "default", "ann", s, p, now)
			if err != nil {
				t.Fatal(err)
			}
			simulate(t, r, now, takes)
			if f.Done == nil {
				t.Fatal(f.Sentence)
			}
			was, said := r.Since.Sub(now), f.Done.Sub(now)
			if off := math.Abs(was.Seconds()-said.Seconds()) / was.Seconds(); off > 0.05 {
				t.Errorf("forecast done after %s, it was after %s (%.0f %% off)", said, was, 100*off)
			}
			for i, w := range r.Waves {
				if d := w.Ended.Sub(*f.Waves[i].Ends); d.Abs() > was/15 {
					t.Errorf("wave %d ended at %s, forecast at %s", w.N, w.Ended.Format("02 15:04"), f.Waves[i].Ends.Format("02 15:04"))
				}
			}
		})
	}
}

// simulate lets boards take the release in exactly so long.
func simulate(t *testing.T, r *state.Rollout, now time.Time, takes time.Duration) {
	t.Helper()
	apply := func(ev Event) Effects {
		fx, err := Apply(r, ev, now)
		if err != nil {
			t.Fatal(err)
		}
		return fx
	}
	type due struct {
		at      time.Time
		board   int
		attempt uint64
	}
	var queue []due // in order: all take the same
	take := func(fx Effects) {
		for _, i := range fx.Send {
			if _, attempt, _, ok := r.Order(i); ok {
				queue = append(queue, due{now.Add(takes), i, attempt})
			}
		}
	}
	take(apply(Start{By: Person{"ann", "ann"}, Epoch: 1}))
	var said time.Time // after the first wave
	for range 20 * 24 * 3600 / 5 {
		if r.State.Over() {
			break
		}
		for len(queue) > 0 && !queue[0].at.After(now) {
			take(apply(Report{Board: r.Boards[queue[0].board].Name, Attempt: queue[0].attempt, Word: ota.Committed, Release: newVersion, Level: "claimed"}))
			queue = queue[1:]
		}
		take(apply(Tick{}))
		if r.Wave == 1 && r.State == state.Soak {
			if d := r.DoneAbout(now); d == nil {
				t.Fatal("nothing is said of when it is done")
			} else {
				said = *d
			}
		}
		now = now.Add(5 * time.Second)
	}
	if r.State != state.Done {
		t.Fatalf("%s: %+v", r.State, r.Total())
	}
	// The simulated board takes half as long as a board is taken to, so later is right.
	if early := r.Since.Sub(said); len(r.Spec.Waves) > 1 && (early > time.Minute || early < -12*time.Hour) {
		t.Errorf("after the first wave it was said to be done at %s, it was at %s", said, r.Since)
	}
}

// TestDiagram: the picture in docs/rollouts.md is that of the table.
func TestDiagram(t *testing.T) {
	t.Parallel()
	const page = "../../docs/rollouts.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	want := "```mermaid\n" + state.Diagram() + "```"
	a, b := strings.Index(string(text), "```mermaid\n"), 0
	if a >= 0 {
		b = strings.Index(string(text[a+3:]), "```") + a + 6
	}
	if a < 0 || string(text[a:b]) != want {
		if os.Getenv("FULMAR_UPDATE") != "" && a >= 0 {
			if err := os.WriteFile(page, []byte(string(text[:a])+want+string(text[b:])), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		t.Errorf("the diagram in docs/rollouts.md is not the table's: FULMAR_UPDATE=1 go test ./fleet/rollout writes it anew")
	}
}

// TestEveryStateIsExplained: each state but the ends has a way out by time, and every
// state can be reached from the first.
func TestEveryStateIsExplained(t *testing.T) {
	t.Parallel()
	reached := map[state.State]bool{state.Planned: true}
	for range state.States() {
		for _, tr := range state.Table() {
			if reached[tr.From] {
				reached[tr.To] = true
			}
		}
	}
	for _, s := range state.States() {
		byTime := false
		for _, tr := range state.Table() {
			if tr.From == s {
				for _, c := range tr.On {
					byTime = byTime || c == state.OnTime
				}
			}
		}
		if !reached[s] {
			t.Errorf("%s cannot be reached", s)
		}
		if byTime == s.Over() {
			t.Errorf("%s: over %v, a way out by time %v", s, s.Over(), byTime)
		}
		r := &state.Rollout{State: s, Spec: rest.RolloutSpec{Limits: rest.Limits{WaveS: 1, UndoS: 1}, Before: &rest.Hook{LimitS: 1}}}
		if (life(r, s) > 0) == s.Over() {
			t.Errorf("%s lasts %s", s, life(r, s))
		}
	}
}
