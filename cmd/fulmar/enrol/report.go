// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"fulmar/cmd/fulmar/here"
	"fulmar/internal/cli"
)

// Errors that end with an exit code of their own.
var (
	// ErrUsage: what was typed cannot be meant.
	ErrUsage = cli.ErrUsage
	// ErrUnreachable: the fleet gave no answer.
	ErrUnreachable = errors.New("no answer from the fleet")
	// ErrRefused: the fleet said no.
	ErrRefused = errors.New("refused by the fleet")
	// ErrWaiting: a person has to let the board in; nothing more is to be done here.
	ErrWaiting = errors.New("waiting for approval")
)

// Failure is what went wrong: to what, because of what, and what to do.
type Failure struct {
	What    string `json:"what"`
	Because string `json:"because"`
	Do      string `json:"do"`
	// Is is one of this package's errors, or nil.
	Is error `json:"-"`
}

// Error gives three lines.
func (f *Failure) Error() string {
	return f.What + "\n  because " + strings.ReplaceAll(f.Because, "\n", "\n          ") + "\n  do      " + f.Do
}

// Unwrap gives Is.
func (f *Failure) Unwrap() error { return f.Is }

// Step is one thing that is true now, or is not.
type Step struct {
	Name  string `json:"name"`
	State string `json:"state"` // ok, waiting, failed
	Say   string `json:"say"`
	Ms    int64  `json:"ms"` // since the step before it
}

// Result is what --json prints.
type Result struct {
	OK      bool     `json:"ok"`
	Already bool     `json:"already,omitempty"` // it was enrolled before; nothing was changed
	Board   string   `json:"board,omitempty"`
	Tenant  string   `json:"tenant,omitempty"`
	Fleet   string   `json:"fleet,omitempty"` // host:port
	Steps   []Step   `json:"steps"`
	TookMs  int64    `json:"took_ms"`
	Failure *Failure `json:"failure,omitempty"`
}

// report tells the steps as they come.
type report struct {
	out, talk io.Writer
	json      bool
	paint     func(colour, word string) string
	began     time.Time
	last      time.Time // end of the step before
	waits     string    // what was told to be waited for
	Result
}

func newReport(asJSON bool, out, talk io.Writer) *report {
	now := time.Now()
	return &report{out: out, talk: talk, json: asJSON, paint: here.Painter(talk), began: now, last: now, Result: Result{Steps: []Step{}}}
}

// pause leaves the time that f takes, in which a person types, out of the count.
func (r *report) pause(f func() error) error {
	start := time.Now()
	err := f()
	d := time.Since(start)
	r.began, r.last = r.began.Add(d), r.last.Add(d)
	return err
}

func (r *report) took() time.Duration { return time.Since(r.began) }

// step does one thing and tells how it went.
func (r *report) step(name string, do func() (say string, err error)) error {
	say, err := do()
	if err != nil {
		r.add(name, "failed", here.Bad, firstLine(err))
		return err
	}
	r.add(name, "ok", here.Good, say)
	return nil
}

func firstLine(err error) string {
	s, _, _ := strings.Cut(err.Error(), "\n")
	return s
}

func (r *report) add(name, state, colour, say string) {
	now := time.Now()
	ms := now.Sub(r.last).Milliseconds()
	r.last = now
	r.Steps = append(r.Steps, Step{name, state, say, ms})
	r.line(state, colour, name, fmt.Sprintf("%s  (%s)", say, short(time.Duration(ms)*time.Millisecond)))
}

// waiting tells what is waited for, once.
func (r *report) waiting(name, for_ string) {
	if text := name + for_; text != r.waits {
		r.waits = text
		r.line("waiting", here.Warning, name, for_)
	}
}

func (r *report) line(state, colour, name, say string) {
	if !r.json {
		fmt.Fprintf(r.talk, "%s %-12s %s\n", r.paint(colour, fmt.Sprintf("%-7s", state)), name, say)
	}
}

func (r *report) note(format string, a ...any) {
	if !r.json {
		fmt.Fprintf(r.talk, format+"\n", a...)
	}
}

// say tells what is true at the end.
func (r *report) say(format string, a ...any) {
	if !r.json {
		fmt.Fprintf(r.out, format+"\n", a...)
	}
}

// end prints the result where a program reads it.
func (r *report) end(err error) error {
	r.OK, r.TookMs = err == nil, r.took().Milliseconds()
	if !errors.As(err, &r.Failure) && err != nil {
		r.Failure = &Failure{What: firstLine(err), Is: err}
	}
	if !r.json {
		return err
	}
	e := json.NewEncoder(r.out)
	e.SetIndent("", "  ")
	return errors.Join(err, e.Encode(r.Result))
}

// short is a duration as a person reads it.
func short(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
