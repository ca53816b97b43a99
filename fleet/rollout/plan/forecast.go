// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"fulmar/fleet/rollout/gate"
	"fulmar/schema/rest"
)

const (
	// Typical is what a board is taken to need from its assignment to its verdict where
	// nothing is known of earlier ones.
	Typical = 10 * time.Minute
	// horizon is how far a forecast looks.
	horizon = 90 * 24 * time.Hour
	// NamesShown bounds the names of a wave that are shown.
	NamesShown = 1000
)

// pace plays the bounds of a plan through: slots of sites, rates, windows.
type pace struct {
	s     rest.RolloutSpec
	ws    Windows
	each  time.Duration
	fleet time.Time              // when the fleet's rate lets the next one begin
	site  map[string]time.Time   // when the site's does
	slots map[string][]time.Time // when the site's slots become free
	zones map[string]*time.Location
	shut  map[string][2]time.Time // of a zone: when it is closed, found once
}

// Forecast plays the plan through as if it started now, every reachable board took each
// and none failed.
func Forecast(s rest.RolloutSpec, p *Plan, each time.Duration, now time.Time) rest.Forecast {
	f := rest.Forecast{Boards: len(p.Boards), LeftOut: p.LeftOut, Bytes: int64(len(p.Boards)) * s.Bytes, Assumes: assumes(s, p, each)}
	ws, _ := ParseWindows(s.Windows) // Complete has checked them
	pc := &pace{s: s, ws: ws, each: each, fleet: now, site: map[string]time.Time{}, slots: map[string][]time.Time{}, zones: map[string]*time.Location{}, shut: map[string][2]time.Time{}}
	t, ok := now, true
	done := 0
	for _, w := range p.Waves {
		spec := WaveSpec(s, w.N)
		fw := rest.ForecastWave{Wave: Show(s, w, done)}
		var boards []*Board
		for i := range p.Boards {
			if b := &p.Boards[i]; w.N > 0 && b.Wave == w.N || w.N == 0 && b.Shadow {
				if len(fw.Names) < NamesShown {
					fw.Names = append(fw.Names, b.Board)
				}
				boards = append(boards, b)
			}
		}
		if w.N > 0 {
			done += w.Boards
		}
		if begin, end, fine := pc.wave(boards, t); ok && fine && len(boards) > 0 {
			end = end.Add(time.Duration(spec.SoakS) * time.Second)
			fw.Starts, fw.Ends, t = &begin, &end, end
		} else {
			ok = ok && fine
		}
		f.Waves = append(f.Waves, fw)
	}
	if ok {
		f.Done = &t
	}
	f.Sentence = sentence(f)
	return f
}

// WaveSpec gives the plan's words on wave n; those of the shadow phase for 0.
func WaveSpec(s rest.RolloutSpec, n int) rest.WaveSpec {
	if n == 0 && s.Shadow != nil {
		return rest.WaveSpec{Percent: s.Shadow.Percent, Count: s.Shadow.Count, SoakS: s.Shadow.SoakS, Unclear: Wait}
	}
	if n < 1 || n > len(s.Waves) {
		return rest.WaveSpec{Unclear: Wait}
	}
	return s.Waves[n-1]
}

// Show puts a wave into the words of the API; before is how many boards are done when
// it begins.
func Show(s rest.RolloutSpec, w Wave, before int) rest.Wave {
	spec := WaveSpec(s, w.N)
	return rest.Wave{
		N: w.N, Shadow: w.N == 0, Boards: w.Boards, Sites: w.Sites, SoakS: spec.SoakS, Pause: spec.Pause,
		Counts: map[string]int{}, Proves: gate.Proves(before + w.Boards), Halts: gate.BadFrom(s.Gate, w.Boards),
	}
}

func assumes(s rest.RolloutSpec, p *Plan, each time.Duration) []string {
	out := []string{fmt.Sprintf("a board takes %s and none fails", each.Round(time.Second))}
	silent, zoneless := 0, 0
	for i := range p.Boards {
		if !p.Boards[i].Reachable {
			silent++
		}
		if p.Boards[i].Zone == "" {
			zoneless++
		}
	}
	if silent > 0 {
		out = append(out, fmt.Sprintf("%d unreachable boards are not waited for", silent))
	}
	if zoneless > 0 && slices.ContainsFunc(s.Windows, func(w rest.Window) bool { return w.Zone == "" || w.Zone == "site" }) {
		out = append(out, fmt.Sprintf("%d boards have no site with a time zone: UTC", zoneless))
	}
	if s.Approval || len(s.After) > 0 || slices.ContainsFunc(s.Waves, func(w rest.WaveSpec) bool { return w.Pause }) {
		out = append(out, "nobody and nothing is waited for: approval, other rollouts, pauses after waves")
	}
	return out
}

// wave gives when the first board of a wave begins and the last one ends.
func (pc *pace) wave(boards []*Board, from time.Time) (begin, end time.Time, ok bool) {
	end = from
	pc.fleet = later(pc.fleet, from)
	for _, b := range boards {
		if !b.Reachable {
			continue
		}
		start := later(later(from, pc.fleet), pc.site[b.Site])
		slots := pc.slots[b.Site]
		if pc.s.PerSite > 0 && len(slots) >= pc.s.PerSite {
			start = later(start, slots[0])
		}
		start, ok = pc.open(b.Zone, start)
		if !ok || start.Sub(from) > horizon {
			return begin, end, false
		}
		pc.book(b, start)
		if begin.IsZero() || start.Before(begin) {
			begin = start
		}
		end = later(end, start.Add(pc.each))
	}
	if begin.IsZero() {
		begin = from
	}
	return begin, end, true
}

// book takes what a board that begins at start takes of the rates and slots.
func (pc *pace) book(b *Board, start time.Time) {
	if pc.s.FleetRate > 0 {
		pc.fleet = pc.fleet.Add(Cost(pc.s.Bytes, pc.s.FleetRate))
	}
	if pc.s.SiteRate > 0 {
		pc.site[b.Site] = start.Add(Cost(pc.s.Bytes, pc.s.SiteRate))
	}
	if pc.s.PerSite > 0 {
		slots := pc.slots[b.Site]
		if len(slots) >= pc.s.PerSite {
			slots = slots[1:]
		}
		end := start.Add(pc.each)
		at, _ := slices.BinarySearchFunc(slots, end, time.Time.Compare)
		pc.slots[b.Site] = slices.Insert(slots, at, end)
	}
}

// open gives when the windows let a board begin.
func (pc *pace) open(zone string, t time.Time) (time.Time, bool) {
	if len(pc.ws) == 0 {
		return t, true
	}
	if shut := pc.shut[zone]; !t.Before(shut[0]) && t.Before(shut[1]) {
		return shut[1], true
	}
	next, ok := pc.ws.Next(pc.zone(zone), t)
	if ok && next.After(t) {
		pc.shut[zone] = [2]time.Time{t, next}
	}
	return next, ok
}

func (pc *pace) zone(name string) *time.Location {
	z := pc.zones[name]
	if z == nil {
		z = Zone(name)
		pc.zones[name] = z
	}
	return z
}

// Cost is how long a download takes of a rate.
func Cost(bytes, rate int64) time.Duration {
	return time.Duration(float64(bytes) / float64(rate) * float64(time.Second))
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func sentence(f rest.Forecast) string {
	var first string
	var waves int
	for _, w := range f.Waves {
		if w.Boards == 0 {
			continue
		}
		if waves++; waves == 1 {
			first = strings.Join(w.Names[:min(3, len(w.Names))], ", ")
			if w.Boards > 3 {
				first = fmt.Sprintf("%d boards first (%s and %d more)", w.Boards, first, w.Boards-3)
			} else {
				first += " first"
			}
		}
	}
	when := "not done within 90 days at this rate"
	if f.Done != nil {
		when = "done about " + f.Done.UTC().Format("Mon 2 Jan 15:04 UTC")
	}
	return fmt.Sprintf("%d boards in %d waves: %s, %s", f.Boards, waves, first, when)
}
