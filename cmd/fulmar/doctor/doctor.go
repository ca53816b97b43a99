// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"fulmar/cmd/fulmar/here"
	"fulmar/device"
)

// DefaultTimeout is how long one look may take. The worker's takes longest: it loads
// ONNX Runtime and TensorRT, 3 s on a cold disk.
const DefaultTimeout = 20 * time.Second

// How a thing is.
const (
	Good    = "good"
	Warning = "warning" // fulmar works, less well or not for long
	Bad     = "bad"     // fulmar does not work, or a part of it does not
)

// ErrBad says that something is bad; it stands in what was printed.
var ErrBad = errors.New("something is bad")

// Line is one thing that was looked at.
type Line struct {
	Name  string `json:"name"`  // "disk"
	State string `json:"state"` // Good, Warning, Bad
	Say   string `json:"say"`   // one sentence
	Do    string `json:"do,omitempty"`
}

// Report is what --json prints.
type Report struct {
	OK    bool   `json:"ok"` // nothing is bad
	Lines []Line `json:"lines"`
}

// Options are what doctor is told. Zero values are the defaults of a packaged board.
type Options struct {
	// Root is the folder under which the system's files are read. Another than "/" is
	// some other board's disk: then nothing that runs here is asked.
	Root    string
	Config  string        // /etc/fulmar/fulmard.yaml, not under Root
	JSON    bool          //
	Timeout time.Duration // of each look; DefaultTimeout
}

// Run looks and prints to stdout; [ErrBad] if something is bad.
func Run(ctx context.Context, o Options, stdout, _ io.Writer) error {
	if o.Root == "" {
		o.Root = "/"
	}
	if o.Config == "" {
		o.Config = "/etc/fulmar/fulmard.yaml"
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	m := newMachine(ctx, o)
	r := examine(ctx, m, checks(m.live), o.Timeout)
	if err := r.write(stdout, o.JSON); err != nil {
		return err
	}
	if !r.OK {
		return ErrBad
	}
	return nil
}

// check is one look. It may leave nothing to say.
type check struct {
	name string
	look func(ctx context.Context, m *machine) []Line
}

// checks are all looks in the order in which they are told; those at what runs only on a
// live machine.
func checks(live bool) []check {
	all := []check{
		{"board", board},
		{"power", power},
		{"clock", clock},
		{"disk", disk},
		{"users", users},
		{"folders", folders},
		{"devices", devices},
		{"cameras", cameras},
		{"tpm", tpm},
	}
	if live {
		all = append(all, check{"config", config}, check{"slot", slot}, check{"units", units},
			check{"network", network}, check{"fleet", fleet}, check{"models", models})
	}
	return all
}

// examine takes all looks side by side.
func examine(ctx context.Context, m *machine, all []check, timeout time.Duration) *Report {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	got := make([]chan []Line, len(all))
	for i, c := range all {
		got[i] = make(chan []Line, 1)
		go func() { // one that hangs stays behind; the process ends soon
			defer func() {
				if p := recover(); p != nil {
					got[i] <- []Line{{c.name, Warning, fmt.Sprintf("could not be looked at: %v", p), "tell the authors of fulmar"}}
				}
			}()
			got[i] <- c.look(ctx, m)
		}()
	}
	r := &Report{OK: true, Lines: []Line{}}
	for i, c := range all {
		var lines []Line
		select {
		case lines = <-got[i]:
		case <-ctx.Done():
			select {
			case lines = <-got[i]:
			case <-time.After(200 * time.Millisecond): // what heeds the context says its own word
				lines = []Line{{c.name, Warning, fmt.Sprintf("no answer within %v: a file or a program hangs", timeout), "dmesg may tell which; try again"}}
			}
		}
		for _, l := range lines {
			r.OK = r.OK && l.State != Bad
			r.Lines = append(r.Lines, l)
		}
	}
	return r
}

func (r *Report) write(w io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	paint := here.Painter(w)
	colours := map[string]string{Good: here.Good, Warning: here.Warning, Bad: here.Bad}
	count := map[string]int{}
	var b strings.Builder
	for _, l := range r.Lines {
		count[l.State]++
		fmt.Fprintf(&b, "%s  %-9s %s\n", paint(colours[l.State], fmt.Sprintf("%-7s", l.State)), l.Name, l.Say)
		if l.Do != "" {
			fmt.Fprintf(&b, "%19s-> %s\n", "", l.Do)
		}
	}
	s := "s"
	if count[Warning] == 1 {
		s = ""
	}
	fmt.Fprintf(&b, "%d good, %d warning%s, %d bad\n", count[Good], count[Warning], s, count[Bad])
	_, err := io.WriteString(w, b.String())
	return err
}

// machine is what the looks look at.
type machine struct {
	root  device.Root
	live  bool // root is that of the running system
	path  string
	shown *here.Shown // config, or the defaults where it cannot be read
	err   error       // why not
	sys   system
}

// newMachine reads the config; everything else is the looks' own.
func newMachine(ctx context.Context, o Options) *machine {
	m := &machine{root: device.NewRoot(o.Root), live: o.Root == "/", path: o.Config, sys: realSystem(), shown: new(here.Shown)}
	if m.live {
		var s *here.Shown
		if s, m.err = here.Show(ctx, "fulmard", o.Config); m.err == nil {
			m.shown = s
		}
	}
	if m.shown.Config.Data == "" {
		m.shown.Config.Data = "/var/lib/fulmard"
	}
	return m
}

func good(name, format string, a ...any) Line {
	return Line{Name: name, State: Good, Say: fmt.Sprintf(format, a...)}
}

func warn(name, do, format string, a ...any) Line {
	return Line{Name: name, State: Warning, Say: fmt.Sprintf(format, a...), Do: do}
}

func bad(name, do, format string, a ...any) Line {
	return Line{Name: name, State: Bad, Say: fmt.Sprintf(format, a...), Do: do}
}
