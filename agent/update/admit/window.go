// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// MaxWindows bounds them: two for each day.
const MaxWindows = 14

// Windows are when a board may be disturbed, by its own time of day. None is always.
type Windows []window

// window is from a moment of some days, for so long.
type window struct {
	days [7]bool // Sunday first
	from int     // minutes after midnight
	long int     // minutes, at most 24 h
}

const day = 24 * 60 // minutes

var names = [...]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// ParseWindows reads "22:00-04:00", "mon-fri 22:00-04:00", "sat,sun 00:00-24:00". One that
// ends before it begins goes on to the next day.
func ParseWindows(list []string) (Windows, error) {
	if len(list) > MaxWindows {
		return nil, fmt.Errorf("%d windows, at most %d", len(list), MaxWindows)
	}
	var out Windows
	for i, s := range list {
		w, err := parse(strings.Fields(strings.ToLower(s)))
		if err != nil {
			return nil, fmt.Errorf("[%d]: %.60q %w; wants \"mon-fri 22:00-04:00\"", i, s, err)
		}
		out = append(out, w)
	}
	return out, nil
}

func parse(words []string) (w window, err error) {
	switch len(words) {
	case 1:
		w.days = [7]bool{true, true, true, true, true, true, true}
	case 2:
		if w.days, err = days(words[0]); err != nil {
			return w, err
		}
	default:
		return w, fmt.Errorf("is not days and times")
	}
	a, b, ok := strings.Cut(words[len(words)-1], "-")
	from, err1 := minute(a)
	to, err2 := minute(b)
	if !ok || err1 != nil || err2 != nil || from == to || from == day {
		return w, fmt.Errorf("has no times from and to")
	}
	w.from, w.long = from, to-from
	if w.long < 0 {
		w.long += day
	}
	return w, nil
}

func days(s string) (out [7]bool, err error) {
	for part := range strings.SplitSeq(s, ",") {
		a, b, span := strings.Cut(part, "-")
		if !span {
			b = a
		}
		i, j := slices.Index(names[:], a), slices.Index(names[:], b)
		if i < 0 || j < 0 {
			return out, fmt.Errorf("names no days (%s)", strings.Join(names[:], ", "))
		}
		for ; ; i = (i + 1) % len(names) {
			out[i] = true
			if i == j {
				break
			}
		}
	}
	return out, nil
}

func minute(s string) (int, error) {
	if s == "24:00" {
		return day, nil
	}
	t, err := time.Parse("15:04", s)
	return t.Hour()*60 + t.Minute(), err
}

// Open tells whether one is open at a time of day. Minutes are counted as the clock shows
// them: where the hour is changed a window is an hour longer or shorter.
func (ws Windows) Open(now time.Time) bool {
	at := now.Hour()*60 + now.Minute()
	today := int(now.Weekday())
	return len(ws) == 0 || slices.ContainsFunc(ws, func(w window) bool {
		return w.days[today] && at >= w.from && at < w.from+w.long ||
			w.days[(today+6)%7] && at+day >= w.from && at+day < w.from+w.long
	})
}

// Next is when one opens, at the latest in a week; now where one is open.
func (ws Windows) Next(now time.Time) time.Time {
	t := now.Truncate(time.Minute)
	for range 7*day + 1 {
		if ws.Open(t) {
			return t
		}
		t = t.Add(time.Minute)
	}
	return t
}
