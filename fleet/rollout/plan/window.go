// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"
	"time"
	_ "time/tzdata" // zones also where the system has none: 450 KB of the server

	"fulmar/schema/rest"
)

// Windows are when boards may begin; none is always.
type Windows []window

type window struct {
	days     []time.Weekday // of the beginning; none: all
	from, to int            // minutes of the day
	zone     *time.Location // nil: the board's
}

// ParseWindows reads the windows of a plan.
func ParseWindows(list []rest.Window) (Windows, error) {
	var out Windows
	for i, w := range list {
		p := fmt.Sprintf("/windows/%d", i)
		var x window
		for _, m := range []struct {
			text string
			to   *int
			name string
		}{{w.From, &x.from, "/from"}, {w.To, &x.to, "/to"}} {
			t, err := time.Parse("15:04", m.text)
			if err != nil {
				return nil, wrong(p+m.name, "wants a time like 22:00")
			}
			*m.to = t.Hour()*60 + t.Minute()
		}
		for _, d := range w.Days {
			n := slices.Index([]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}, d)
			if n < 0 {
				return nil, wrong(p+"/days", "wants mon, tue, wed, thu, fri, sat or sun")
			}
			x.days = append(x.days, time.Weekday(n))
		}
		if len(x.days) > 7 {
			return nil, wrong(p+"/days", "wants at most 7")
		}
		if w.Zone != "" && w.Zone != "site" {
			z, err := time.LoadLocation(w.Zone)
			if err != nil || w.Zone == "Local" {
				return nil, wrong(p+"/zone", "wants site or a zone like Europe/Berlin")
			}
			x.zone = z
		}
		out = append(out, x)
	}
	return out, nil
}

// Zone reads a board's zone; UTC where there is none or it is unknown.
func Zone(name string) *time.Location {
	if z, err := time.LoadLocation(name); err == nil && name != "Local" {
		return z
	}
	return time.UTC
}

// Open tells whether a board in the zone may begin now. What counts is what a clock on
// the wall there shows: an hour that a change of the clocks leaves out is no time at
// all, and one that comes twice is open twice.
func (ws Windows) Open(site *time.Location, now time.Time) bool {
	for _, w := range ws {
		if w.open(site, now) {
			return true
		}
	}
	return len(ws) == 0
}

func (w window) open(site *time.Location, now time.Time) bool {
	if w.zone != nil {
		site = w.zone
	}
	t := now.In(site)
	m, day := t.Hour()*60+t.Minute(), t.Weekday()
	switch {
	case w.from < w.to:
		if m < w.from || m >= w.to {
			return false
		}
	case m < w.to: // over midnight, begun yesterday
		day = (day + 6) % 7
	case m < w.from:
		return false
	}
	return len(w.days) == 0 || slices.Contains(w.days, day)
}

// nextDays bounds the search: each weekday comes twice within it, also where a change of
// the clocks leaves one window out.
const nextDays = 15

// Next gives the first minute from now on at which a board in the zone may begin, now
// itself where that is open; false where no window opens. It walks minute by minute, 1 ms
// for a week: whoever asks for many boards of a zone remembers the answer.
func (ws Windows) Next(site *time.Location, now time.Time) (time.Time, bool) {
	if ws.Open(site, now) {
		return now, true
	}
	t := now.Truncate(time.Minute)
	for range nextDays * 24 * 60 {
		if t = t.Add(time.Minute); ws.Open(site, t) {
			return t, true
		}
	}
	return time.Time{}, false
}
