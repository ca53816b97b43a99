// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollouts

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"fulmar/fleet/web/words"
	"fulmar/schema/rest"
)

// plan lists what a plan says, in words.
func plan(s *rest.RolloutSpec) []words.Fact {
	var out []words.Fact
	add := func(name, text string) {
		if text != "" {
			out = append(out, words.Fact{Name: name, Text: text})
		}
	}
	add("What", s.Component+" "+s.Release)
	add("Which boards", target(s))
	add("Boards not there", map[string]string{"later": "join in the last wave", "never": "are left out"}[s.Unreachable])
	for i, w := range s.Waves {
		add("Wave "+strconv.Itoa(i+1), waveWords(w, i == len(s.Waves)-1))
	}
	if h := s.Shadow; h != nil {
		add("Shadow phase", amount(h.Percent, h.Count)+" run it beside the old one, "+seconds(h.SoakS))
	}
	g := s.Gate
	add("Gate", percent(g.Gate)+" good, "+map[string]string{"point": "by the share itself: below it all is taken back"}[g.Policy])
	if g.Policy != "point" {
		out[len(out)-1].Text = fmt.Sprintf("%s good; halts when it is below for sure, from %s on", percent(g.Gate), words.Plural(g.MinFailures, "failure", "failures"))
	}
	for _, g := range s.Guards {
		add("Guard "+g.Name, g.Expr+": "+g.Better+" is better")
	}
	for _, w := range s.Windows {
		add("Window", window(w))
	}
	if s.PerSite > 0 {
		add("At one site", "at most "+strconv.Itoa(s.PerSite)+" at once")
	}
	if s.Bytes > 0 {
		add("Download", words.Quantity(float64(s.Bytes), words.UnitBytes)+" a board")
	}
	if s.FleetRate > 0 {
		add("All boards together", "at most "+words.Quantity(float64(s.FleetRate), words.UnitBytesPerSecond))
	}
	if s.SiteRate > 0 {
		add("Boards of a site", "at most "+words.Quantity(float64(s.SiteRate), words.UnitBytesPerSecond))
	}
	if s.Approval {
		add("Approval", "by a second person")
	}
	add("After", strings.Join(s.After, ", "))
	if s.Before != nil {
		add("Asked before a wave", s.Before.URL)
	}
	if s.Behind != nil {
		add("Asked after a wave", s.Behind.URL)
	}
	add("A halt takes back", map[string]string{"wave": "the wave that failed", "all": "all waves", "failed": "only the boards that failed"}[s.Undo])
	return out
}

func target(s *rest.RolloutSpec) string {
	q := s.Query
	if q == "" {
		q = "all"
	}
	if len(s.Boards) > 0 {
		q += ", of these " + words.Plural(len(s.Boards), "named board", "named boards")
	}
	return q
}

func amount(percent float64, count int) string {
	if count > 0 {
		return words.Plural(count, "board", "boards")
	}
	return strconv.FormatFloat(percent, 'f', -1, 64) + "\u00a0%"
}

func waveWords(w rest.WaveSpec, last bool) string {
	s := amount(w.Percent, w.Count)
	if last {
		s = "the rest"
	}
	s += ", soak " + seconds(w.SoakS)
	if w.Pause {
		s += ", then a person says when to go on"
	}
	if w.Unclear == "continue" {
		s += "; goes on where there are not enough boards to tell"
	}
	return s
}

func seconds(n int64) string { return words.Span(time.Duration(n) * time.Second) }

func window(w rest.Window) string {
	days := "every day"
	if len(w.Days) > 0 {
		days = strings.Join(w.Days, " ")
	}
	zone := w.Zone
	if zone == "" || zone == "site" {
		zone = "time of the site"
	}
	return days + " " + w.From + " to " + w.To + ", " + zone
}
