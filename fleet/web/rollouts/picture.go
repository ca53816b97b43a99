// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollouts

import (
	"strconv"
	"strings"

	"fulmar/fleet/web/words"
	"fulmar/schema/rest"
)

// picture is the interval of a verdict: lengths are shares of the width with a sign of
// per cent, for an SVG without a viewBox, whose texts keep their size.
type picture struct {
	Lower, Width, Gate, Seen  string
	GateText, SeenText        string
	GateAnchor, SeenAnchor    string
	Floor, Least, Most, Words string
	Tone                      string
}

// draw gives the picture of a verdict; nil where nothing has ended.
func draw(v *rest.Verdict) *picture {
	if v == nil || v.Good+v.Failed == 0 {
		return nil
	}
	low := min(v.Lower, v.Gate, v.Value)
	floor := 0.0
	for _, f := range []float64{0.5, 0.8, 0.9, 0.95, 0.99} {
		if low-(1-f)/10 > f { // a tenth of the width stays free on the left
			floor = f
		}
	}
	at := func(x float64) float64 { return 2 + 96*(min(max(x, floor), 1)-floor)/(1-floor) }
	anchor := func(x float64) string {
		switch {
		case x < 16:
			return "start"
		case x > 84:
			return "end"
		}
		return "middle"
	}
	_, t := outcome(v.Outcome)
	p := &picture{
		Lower: share(at(v.Lower)), Width: share(max(at(v.Upper)-at(v.Lower), 0.5)), Gate: share(at(v.Gate)), Seen: share(at(v.Value)),
		GateText: "gate " + percent(v.Gate), SeenText: "seen " + percent(v.Value), GateAnchor: anchor(at(v.Gate)), SeenAnchor: anchor(at(v.Value)),
		Floor: percent(floor), Least: percent(v.Lower), Most: percent(v.Upper), Tone: t,
	}
	p.Words = "Share of good boards: seen " + percent(v.Value) + ", at least " + p.Least + ", at best " + p.Most + ", the gate is at " + percent(v.Gate) + "."
	return p
}

// share writes a length.
func share(v float64) string { return strconv.FormatFloat(v, 'f', 3, 64) + "%" }

// segment is one piece of a wave's bar.
type segment struct {
	State, Word, X, Width string
	Count                 int
}

// order lists the states of boards as a bar has them, and their words.
func order() [][2]string {
	return [][2]string{
		{"good", "good"},
		{"trial", "in trial"},
		{"installing", "installing"},
		{"assigned", "asked"},
		{"waiting", "waiting"},
		{"unreached", "never reached"},
		{"undoing", "going back"},
		{"undone", "taken back"},
		{"stuck", "stuck"},
		{"failed", "failed"},
		{"out", "left out"},
	}
}

// boardWord is what people call a state of a board.
func boardWord(state string) string {
	for _, o := range order() {
		if o[0] == state {
			return o[1]
		}
	}
	return state
}

// boardTone is the icon of a state of a board.
func boardTone(state string) string {
	switch state {
	case "good":
		return "healthy"
	case "failed", "stuck":
		return "failing"
	case "undoing", "undone":
		return "degraded"
	case "unreached":
		return "unreachable"
	case "trial", "installing", "assigned":
		return "run"
	}
	return "never"
}

// bar makes the pieces of a bar.
func bar(counts map[string]int, boards int) (out []segment) {
	x := 0.0
	for _, o := range order() {
		n := counts[o[0]]
		if n <= 0 || boards <= 0 {
			continue
		}
		w := 100 * float64(n) / float64(boards)
		out = append(out, segment{o[0], o[1], share(x), share(w), n})
		x += w
	}
	return out
}

// spoken is a bar in words: "61 good, 6 in trial, 31 installing".
func spoken(segs []segment) string {
	if len(segs) == 0 {
		return "no board"
	}
	out := make([]string, len(segs))
	for i, s := range segs {
		out[i] = words.Count(uint64(s.Count)) + " " + s.Word
	}
	return strings.Join(out, ", ")
}
