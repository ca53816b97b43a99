// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package build

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// Progress tells how far a build is.
type Progress struct {
	// Phase is what is done now, in the library's words.
	Phase string `json:"phase"`
	// Percent of the whole, a guess that never falls.
	Percent float64 `json:"percent"`
	// Elapsed and Left are in seconds; Left is negative while nothing can be said.
	Elapsed float64 `json:"elapsed_s"`
	Left    float64 `json:"left_s"`
}

// String is "building, 40 %, about 3 min left".
func (p Progress) String() string {
	s := fmt.Sprintf("building, %d %%", int(p.Percent))
	if p.Left < 0 {
		return s + ", time left not known yet"
	}
	return s + ", " + about(time.Duration(p.Left*float64(time.Second))) + " left"
}

// about is a duration as a person says it.
func about(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return "some seconds"
	case d < time.Minute:
		// In steps of ten, so that it does not flicker.
		return fmt.Sprintf("about %d s", int(math.Ceil(d.Seconds()/10))*10)
	case d < 2*time.Hour:
		return fmt.Sprintf("about %d min", int(math.Round(d.Minutes())))
	}
	return fmt.Sprintf("about %d h", int(math.Round(d.Hours())))
}

// Estimate makes of the library's phases how far the whole is. A phase that begins
// while another is open is a part of the other's current step.
type Estimate struct {
	began  time.Time
	expect time.Duration
	open   []phase
	top    float64 // fraction, never falls
}

type phase struct {
	name     string
	done, of int
}

// maxOpen bounds how deep phases nest; TensorRT has three levels.
const maxOpen = 16

// NewEstimate begins now. expect is how long the last such build took, 0 if unknown.
func NewEstimate(now time.Time, expect time.Duration) *Estimate {
	return &Estimate{began: now, expect: expect}
}

// Step takes in that done of of steps of a phase are done.
func (e *Estimate) Step(name string, done, of int, now time.Time) Progress {
	at := -1
	for i := range e.open {
		if e.open[i].name == name {
			at = i
		}
	}
	switch {
	case at >= 0:
		e.open = e.open[:at+1] // what was inside of it is over
		e.open[at] = phase{name, done, of}
	case len(e.open) < maxOpen:
		if n := len(e.open); n > 0 && e.open[n-1].done >= e.open[n-1].of {
			e.open = e.open[:n-1] // it is over: the new one comes after it
		}
		e.open = append(e.open, phase{name, done, of})
	}
	fraction := 0.0
	for i := len(e.open) - 1; i >= 0; i-- {
		p := e.open[i]
		if p.of > 0 {
			fraction = min(1, (float64(min(p.done, p.of))+min(fraction, 1))/float64(p.of))
		}
	}
	// The last hundredth is for what comes after the library's phases.
	e.top = max(e.top, min(fraction, 0.99))
	return e.At(name, now)
}

// Over is the progress when the library is done and the rest begins.
func (e *Estimate) Over(name string, now time.Time) Progress {
	e.top = 0.99
	return e.At(name, now)
}

// At is the progress at a time without news from the library.
func (e *Estimate) At(name string, now time.Time) Progress {
	elapsed := now.Sub(e.began).Round(100 * time.Millisecond)
	p := Progress{Phase: name, Percent: math.Floor(e.top * 100), Elapsed: elapsed.Seconds(), Left: -1}
	const enough = 0.03 // of the whole: less says nothing about the rest
	switch {
	case e.top >= enough:
		p.Left = math.Round(elapsed.Seconds() * (1 - e.top) / e.top)
	case e.expect > 0:
		p.Left = max(0, (e.expect - elapsed).Seconds())
	}
	return p
}

// Line is one line that a build writes for its parent, as JSON.
type Line struct {
	Progress *Progress `json:"progress,omitempty"`
	// Waiting says that another build runs on this board.
	Waiting bool `json:"waiting,omitempty"`
	// Done is the last line of a build that went well, Error that of one that did not.
	Done  *Done  `json:"done,omitempty"`
	Error string `json:"error,omitempty"`
	// Code is the exit code that follows.
	Code int `json:"code,omitempty"`
}

// Done tells what a build gave.
type Done struct {
	ID string `json:"engine"`
	// Already says that the engine was there.
	Already bool    `json:"already,omitempty"`
	Bytes   int64   `json:"plan_bytes"`
	Took    float64 `json:"took_s"`
	RunUs   int64   `json:"run_us"`
	Golden  int     `json:"golden"`
	// OnGPU are the layers that a DLA engine leaves to the GPU, of Layers.
	Layers int      `json:"layers"`
	OnGPU  []string `json:"on_gpu,omitempty"`
}

// Teller writes a build's progress: lines of JSON for a program, or one line that is
// written over for a person at a terminal, or a line now and then for a log.
type Teller struct {
	Out      io.Writer
	JSON     bool
	Terminal bool
	// last is what was told, so that only news is.
	last   string
	lastAt time.Time
}

// logEvery is how often a log that is no terminal gets a line.
const logEvery = 10 * time.Second

// Progress tells one if it is news.
func (t *Teller) Progress(p Progress, now time.Time) {
	switch {
	case t.JSON:
		t.line(Line{Progress: &p})
	case t.Terminal:
		text := fmt.Sprintf("%s: %s (%d s so far)", p, p.Phase, int(p.Elapsed))
		if text != t.last {
			// \x1b[K clears the rest of a longer line before.
			fmt.Fprintf(t.Out, "\r%s\x1b[K", text)
		}
		t.last = text
	case now.Sub(t.lastAt) >= logEvery:
		fmt.Fprintf(t.Out, "%s: %s\n", p, p.Phase)
		t.lastAt = now
	}
}

// Waiting tells that another build is waited for.
func (t *Teller) Waiting() {
	if t.JSON {
		t.line(Line{Waiting: true})
		return
	}
	fmt.Fprintln(t.Out, "another build runs on this board; this one begins when it ends")
}

// End tells the last of it. Err is nil with done.
func (t *Teller) End(done *Done, err error, code int) {
	if t.JSON {
		l := Line{Done: done, Code: code}
		if err != nil {
			l.Error = OneLine(err.Error())
		}
		t.line(l)
		return
	}
	if t.last != "" {
		fmt.Fprintln(t.Out)
	}
	if done == nil {
		return // the error goes to standard error
	}
	if done.Already {
		fmt.Fprintf(t.Out, "the engine is in the cache already: %.12s\n", done.ID)
		return
	}
	fmt.Fprintf(t.Out, "built in %.1f s: %d bytes, %d us a picture, %d golden pictures right, engine %.12s\n",
		done.Took, done.Bytes, done.RunUs, done.Golden, done.ID)
	if n := len(done.OnGPU); n > 0 {
		fmt.Fprintf(t.Out, "%d of %d layers are left to the GPU: %s\n", n, done.Layers, strings.Join(done.OnGPU, ", "))
	}
}

func (t *Teller) line(l Line) {
	b, err := json.Marshal(&l)
	if err != nil {
		panic(err) // numbers and strings always encode
	}
	_, _ = t.Out.Write(append(b, '\n')) // a parent that is gone ends us by our input
}

// maxWhy is the longest reason that goes into a status, in bytes.
const maxWhy = 400

// OneLine makes an error fit a status line.
func OneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxWhy {
		s = s[:maxWhy-3] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}
