// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollouts

import (
	"net/url"
	"slices"
	"strconv"
	"time"

	"fulmar/fleet/web/form"
	"fulmar/fleet/web/rollouts/planform"
	"fulmar/fleet/web/words"
	"fulmar/schema/rest"
)

// maxNames bounds the boards of one wave that a forecast names on the page.
const maxNames = 60

// planView is the form, and what would happen where that was asked for.
type planView struct {
	Form                            *form.Form
	Known                           []known // what can be rolled out, the newest first
	More                            bool    // the folded part is open
	Forecast                        *rest.Forecast
	Mark                            string // of the plan that was played through
	Bytes, Finish                   string
	Steps                           []forecastStep
	WaveRows, GuardRows, WindowRows []int
}

// known is a component of a release that can be rolled out.
type known struct{ Text, Link string }

// knownShown bounds them: those of the newest releases.
const knownShown = 12

// offer lists what can be rolled out.
func offer(all []rest.Release) (out []known) {
	for i := range all {
		r := &all[i]
		for j := range r.Components {
			if c := r.Components[j].Name; r.State == rest.ReleaseReady && r.Trusted && len(out) < knownShown {
				out = append(out, known{c + " " + r.Release, "/rollouts/new?" + url.Values{"component": {c}, "release": {r.Release}}.Encode()})
			}
		}
	}
	return out
}

// forecastStep is one wave of a forecast.
type forecastStep struct {
	Title, Size, Starts, Ends, Proves, Halts string
	Names                                    []string
	More                                     string // how many boards are not named
}

// newPlan makes the view of the form.
func newPlan(f *form.Form) *planView {
	v := &planView{Form: f, WaveRows: upTo(planform.Waves), GuardRows: upTo(planform.Guards), WindowRows: upTo(planform.Windows)}
	for _, n := range []string{"after", "per_site", "bytes", "fleet_rate", "site_rate", "install_min", "trial_min", "wave_h", "shadow", "agree", "before", "behind", "v0from", "v0to", "v1from", "g0name", "g0expr", "g1expr", "g2expr"} {
		v.More = v.More || f.Raw(n) != ""
	}
	return v
}

func upTo(n int) (out []int) {
	for i := range n {
		out = append(out, i)
	}
	return out
}

// show puts a forecast into the view.
func (v *planView) show(fc *rest.Forecast, mark string, now time.Time) {
	v.Forecast, v.Mark = fc, mark
	if fc.Bytes > 0 {
		v.Bytes = words.Quantity(float64(fc.Bytes), words.UnitBytes)
	}
	about := func(t *time.Time) string {
		if t == nil {
			return "not within 90 days"
		}
		return soon(t.In(now.Location()), now)
	}
	if fc.Done != nil {
		v.Finish = about(fc.Done)
	}
	for i := range fc.Waves {
		w := &fc.Waves[i]
		s := forecastStep{Title: "Wave " + strconv.Itoa(w.N), Size: words.Plural(w.Boards, "board", "boards"), Starts: about(w.Starts), Ends: about(w.Ends), Proves: w.Proves, Halts: strconv.Itoa(w.Halts)}
		if w.Shadow {
			s.Title = "Shadow phase"
		}
		if w.Sites > 0 {
			s.Size += " over " + words.Plural(w.Sites, "site", "sites")
		}
		if w.Halts > w.Boards {
			s.Halts = "too small"
		}
		s.Names = slices.Clone(w.Names[:min(len(w.Names), maxNames)])
		if n := w.Boards - len(s.Names); n > 0 {
			s.More = words.Count(uint64(n))
		}
		v.Steps = append(v.Steps, s)
	}
}
