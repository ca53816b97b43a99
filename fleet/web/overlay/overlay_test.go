// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"math"
	"strings"
	"testing"

	"fulmar/schema"
)

func TestDraw(t *testing.T) {
	t.Parallel()
	e := &schema.Event{
		Width: 200, Height: 100, Labels: map[uint16]string{0: "parcel"},
		Boxes: []schema.Box{
			{Class: 0, Score: 0.914, X0: 20, Y0: 50, X1: 60, Y1: 80, Match: schema.MatchTrue},
			{Class: 9, Score: 0.5, X0: 180, Y0: 2, X1: 230, Y1: 40, Match: schema.MatchFalse},
		},
		Truth: []schema.Box{{X0: 20, Y0: 50, X1: 62, Y1: 80}, {X0: 0, Y0: -5, X1: 100, Y1: 120, Match: schema.MatchMissed}},
	}
	d := Draw(e)
	want := []Mark{
		{Truth, "", "10.000%", "50.000%", "21.000%", "30.000%", "above", false},
		{Missed, "missed: parcel", "0.000%", "0.000%", "50.000%", "100.000%", "inside", false},
		{Hit, "parcel 91\u00a0%", "10.000%", "50.000%", "20.000%", "30.000%", "above", false},
		{False, "false alarm: class 9 50\u00a0%", "90.000%", "2.000%", "10.000%", "38.000%", "below", true},
	}
	if len(d.Marks) != len(want) {
		t.Fatalf("%d marks, want %d", len(d.Marks), len(want))
	}
	for i := range want {
		if d.Marks[i] != want[i] {
			t.Errorf("mark %d\n got %+v\nwant %+v", i, d.Marks[i], want[i])
		}
	}
	if d.Brief != "1 right, 1 missed, 1 false alarm" || d.Summary != "2 detections; against ground truth: 1 right, 1 missed, 1 false alarm" {
		t.Errorf("brief %q, summary %q", d.Brief, d.Summary)
	}
	if len(d.Rows) != 3 || d.Rows[2].Verdict != "missed" || d.Rows[1].Verdict != "false alarm" || d.Rows[0].Score != "91\u00a0%" {
		t.Errorf("rows %+v", d.Rows)
	}
}

func TestDrawWithoutTruth(t *testing.T) {
	t.Parallel()
	d := Draw(&schema.Event{Width: 10, Height: 10, Boxes: []schema.Box{{Score: 1, X1: 5, Y1: 5}}})
	if d.Known || d.Brief != "1 detection" || d.Rows[0].Verdict != "no ground truth" {
		t.Errorf("%+v", d)
	}
	if d := Draw(&schema.Event{}); len(d.Marks) != 0 || d.Brief != "0 detections" {
		t.Errorf("of an empty frame: %+v", d)
	}
}

// FuzzDraw: whatever a board sends, a mark lies inside its picture.
func FuzzDraw(f *testing.F) {
	f.Add(100, 50, float32(-3), float32(2), float32(120), float32(40), float32(0.5))
	f.Add(1, 1, float32(0.2), float32(0.2), float32(0.2), float32(9), float32(7))
	f.Fuzz(func(t *testing.T, w, h int, x0, y0, x1, y1, s float32) {
		e := &schema.Event{Source: "c", Width: w, Height: h, Boxes: []schema.Box{{Score: s, X0: x0, Y0: y0, X1: x1, Y1: y1}}}
		if e.Validate() != nil {
			t.Skip() // never stored
		}
		for _, m := range Draw(e).Marks {
			for _, v := range []string{m.X, m.Y, m.W, m.H} {
				if strings.HasPrefix(v, "-") || strings.ContainsAny(v, "NI") {
					t.Errorf("%dx%d: box %v %v %v %v drawn as %+v", w, h, x0, y0, x1, y1, m)
				}
			}
		}
		if math.IsNaN(float64(s)) {
			t.Error("a score that is no number got through")
		}
	})
}
