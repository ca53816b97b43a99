// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package overlay turns an event into what is drawn over its picture and written
// beside it: boxes in per cent of the picture, labels, a table, a sentence. The
// picture itself is never touched.
package overlay

import (
	"strconv"

	"fulmar/fleet/web/words"
	"fulmar/schema"
)

// The kinds of marks: each has its own line, word and colour.
const (
	Hit    = "hit"    // a detection
	False  = "false"  // a detection with nothing there
	Truth  = "truth"  // ground truth that was found
	Missed = "missed" // ground truth that was not
)

// labelRoom is the part of the picture's height that a label needs.
const labelRoom = 0.06

// Mark is one box drawn over a picture. Places are per cent of the picture, so
// that the drawing needs no scaling and its words keep their size.
type Mark struct {
	Kind       string
	Label      string
	X, Y, W, H string // with the per-cent sign
	At         string // where the label goes: "above", "below" or "inside"
	Flush      bool   // the label ends at the right edge: no room to its right
}

// Row is one line of the table under a picture.
type Row struct {
	Kind, What, Verdict, Score, Place string
}

// Drawing is an event ready to be shown.
type Drawing struct {
	Marks   []Mark
	Rows    []Row
	Summary string // in words, for those who cannot see it
	Brief   string // for a caption: only what there is
	Known   bool   // ground truth is known
	Right   int
	Wrong   int
	Missed  int
}

// Draw prepares an event. Ground truth lies under the detections.
func Draw(e *schema.Event) Drawing {
	d := Drawing{Known: known(e)}
	var missed []Row
	for _, t := range e.Truth {
		name := label(e, t.Class)
		if t.Match != schema.MatchMissed {
			d.add(e, t, Truth, "")
			continue
		}
		d.Missed++
		d.add(e, t, Missed, "missed: "+name)
		missed = append(missed, Row{Missed, name, "missed", "none", where(t)})
	}
	for _, b := range e.Boxes {
		name, sure := label(e, b.Class), words.Score(b.Score)
		switch b.Match {
		case schema.MatchFalse:
			d.Wrong++
			d.add(e, b, False, "false alarm: "+name+" "+sure)
			d.Rows = append(d.Rows, Row{False, name, "false alarm", sure, where(b)})
		case schema.MatchTrue:
			d.Right++
			d.add(e, b, Hit, name+" "+sure)
			d.Rows = append(d.Rows, Row{Hit, name, "right", sure, where(b)})
		default:
			d.add(e, b, Hit, name+" "+sure)
			d.Rows = append(d.Rows, Row{Hit, name, "no ground truth", sure, where(b)})
		}
	}
	d.Rows = append(d.Rows, missed...)
	d.Summary = words.Plural(len(e.Boxes), "detection", "detections")
	d.Brief = d.Summary
	if d.Known {
		wrong := words.Plural(d.Wrong, "false alarm", "false alarms")
		d.Summary += "; against ground truth: " + strconv.Itoa(d.Right) + " right, " + strconv.Itoa(d.Missed) + " missed, " + wrong
		d.Brief = strconv.Itoa(d.Right) + " right"
		if d.Missed > 0 {
			d.Brief += ", " + strconv.Itoa(d.Missed) + " missed"
		}
		if d.Wrong > 0 {
			d.Brief += ", " + wrong
		}
	}
	return d
}

// add draws a box unless nothing of it lies in the picture.
func (d *Drawing) add(e *schema.Event, b schema.Box, kind, text string) {
	if m, ok := place(e, b); ok {
		m.Kind, m.Label = kind, text
		d.Marks = append(d.Marks, m)
	}
}

// known tells whether ground truth is known for the frame.
func known(e *schema.Event) bool {
	if len(e.Truth) > 0 {
		return true
	}
	for _, b := range e.Boxes {
		if b.Match != schema.MatchUnknown {
			return true
		}
	}
	return false
}

// label names a class; one that the event has no word for keeps its number.
func label(e *schema.Event, class uint16) string {
	if s := e.Labels[class]; s != "" {
		return s
	}
	return "class " + strconv.Itoa(int(class))
}

// place puts a box on the picture, cut to its edges; false when nothing is left.
func place(e *schema.Event, b schema.Box) (Mark, bool) {
	w, h := float64(e.Width), float64(e.Height)
	if w <= 0 || h <= 0 {
		return Mark{}, false
	}
	x0, y0 := max(float64(b.X0), 0), max(float64(b.Y0), 0)
	x1, y1 := min(float64(b.X1), w), min(float64(b.Y1), h)
	if !(x1 > x0 && y1 > y0) {
		return Mark{}, false
	}
	pct := func(v, of float64) string { return strconv.FormatFloat(v/of*100, 'f', 3, 64) + "%" }
	at := "above"
	switch {
	case y0/h >= labelRoom:
	case y1/h <= 1-labelRoom:
		at = "below"
	default:
		at = "inside"
	}
	return Mark{
		X: pct(x0, w), Y: pct(y0, h), W: pct(x1-x0, w), H: pct(y1-y0, h),
		At: at, Flush: x0/w > 0.75,
	}, true
}

// where writes a place in pixels.
func where(b schema.Box) string {
	n := func(v float32) string { return words.Number(float64(v), 0) }
	return n(b.X0) + ", " + n(b.Y0) + " \u2013 " + n(b.X1) + ", " + n(b.Y1)
}
