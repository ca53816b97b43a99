// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"fulmar/cmd/fulmar/show"
	"fulmar/schema/rest"
)

const barWidth = 20

// bar draws how many boards of a wave have ended, and how.
func bar(w *rest.Wave) string {
	good, bad := w.Counts["good"], w.Counts["failed"]+w.Counts["stuck"]
	full := 0
	if w.Boards > 0 {
		full = min((good+bad)*barWidth/w.Boards, barWidth)
	}
	s := fmt.Sprintf("%s%s  %d/%d", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), good, w.Boards)
	return s + counts(w.Counts, "good")
}

// counts lists how many boards are in which state, but for some.
func counts(c map[string]int, but ...string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(c)) {
		if c[k] > 0 && !slices.Contains(but, k) {
			fmt.Fprintf(&b, "  %d %s", c[k], show.Clean(k))
		}
	}
	return b.String()
}

func leftOut(w io.Writer, list []rest.LeftOut) {
	for _, l := range list {
		fmt.Fprintf(w, "  left out %4d  %s\n", l.Boards, show.Clean(l.Reason))
	}
}

func waveLine(w io.Writer, v *rest.Wave) {
	name := fmt.Sprintf("wave %d", v.N)
	if v.Shadow {
		name = "shadow"
	}
	fmt.Fprintf(w, "  %-7s %5d boards over %d sites, %v each, %d failures halt it; %s\n",
		name, v.Boards, v.Sites, time.Duration(v.SoakS)*time.Second, v.Halts, show.Clean(v.Proves))
}

func writeForecast(w io.Writer, s rest.RolloutSpec, f *rest.Forecast) {
	fmt.Fprintf(w, "%s %s -> %d boards\n", show.Clean(s.Component), show.Clean(s.Release), f.Boards)
	leftOut(w, f.LeftOut)
	for i := range f.Waves {
		waveLine(w, &f.Waves[i].Wave)
		if at := f.Waves[i].Starts; at != nil {
			fmt.Fprintf(w, "          begins about %s\n", show.At(*at))
		}
	}
	fmt.Fprintf(w, "  %s\n", show.Clean(f.Sentence))
	for _, a := range f.Assumes {
		fmt.Fprintf(w, "  assumes %s\n", show.Clean(a))
	}
}

// write tells where a rollout stands, the sentence first.
func write(w io.Writer, r *rest.Rollout, now time.Time) {
	fmt.Fprintf(w, "%s  %s %s  %s since %s\n", r.ID, show.Clean(r.Spec.Component), show.Clean(r.Spec.Release), strings.ToUpper(r.State), show.At(r.Since))
	fmt.Fprintf(w, "  %s\n", show.Clean(r.Sentence))
	if r.Deadline != nil && !r.Over {
		fmt.Fprintf(w, "  until %s (%s): %s\n", show.At(*r.Deadline), show.Age(*r.Deadline, now), show.Clean(r.Then))
	}
	if v := r.Verdict; v != nil {
		fmt.Fprintf(w, "  gate %.4g %%: %d good, %d failed of %d; between %.4g and %.4g %%: %s\n",
			100*v.Gate, v.Good, v.Failed, v.Boards, 100*v.Lower, 100*v.Upper, show.Clean(v.Sentence))
		for _, g := range v.Guards {
			fmt.Fprintf(w, "  guard %s: %s\n", show.Clean(g.Name), show.Clean(g.Sentence))
		}
	}
	for _, l := range []string{"measured", "bound", "claimed"} { // the chips' words first
		if n := r.Levels[l]; n > 0 {
			fmt.Fprintf(w, "  good   %4d  %s\n", n, l)
		}
	}
	for _, f := range r.Reasons {
		fmt.Fprintf(w, "  failed %4d  %s: %s\n", f.Boards, show.Clean(f.Reason), show.Clean(strings.Join(f.Names[:min(len(f.Names), 5)], ", ")))
	}
	if r.Common != "" {
		fmt.Fprintf(w, "  common to the failed: %s\n", show.Clean(r.Common))
	}
	leftOut(w, r.LeftOut)
	for i := range r.Waves {
		fmt.Fprintf(w, "  wave %d  %s\n", r.Waves[i].N, bar(&r.Waves[i]))
	}
	for _, a := range r.Rolls {
		fmt.Fprintf(w, "  before, %s: %s: %s\n", show.At(a.Began), show.Clean(a.State), show.Clean(a.Sentence))
	}
	if r.Do != "" {
		fmt.Fprintf(w, "next: %s\n", show.Clean(r.Do))
	}
}
