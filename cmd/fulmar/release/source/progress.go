// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"fmt"
	"io"
	"time"

	"fulmar/cmd/fulmar/here"
)

// Size writes bytes for people.
func Size(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 1e6:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	case n < 1e9:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.2f GB", float64(n)/1e9)
}

// Progress says what is done right now: over the last line on a terminal, else a line
// each, but only of what takes longer.
type Progress struct {
	W        io.Writer
	terminal bool
	last     time.Time
	begun    time.Time
}

// NewProgress begins to count the time.
func NewProgress(w io.Writer) *Progress {
	now := time.Now()
	return &Progress{W: w, terminal: here.IsTerminal(w), begun: now}
}

// quietFor is how often a line is said to what is no terminal.
const (
	quietFor = 5 * time.Second
	flicker  = 100 * time.Millisecond
)

// Step says what is done now.
func (p *Progress) Step(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if p.terminal {
		line = fmt.Sprintf("%3.0f s  %s", time.Since(p.begun).Seconds(), line)
		fmt.Fprintf(p.W, "\r\x1b[K%s", line[:min(len(line), here.Width(p.W)-1)])
	} else if time.Since(max2(p.last, p.begun)) >= quietFor {
		p.last = time.Now()
		fmt.Fprintln(p.W, line)
	}
}

// Bytes tells how far a copy is.
func (p *Progress) Bytes(what string) func(n, total int64) {
	var last time.Time
	return func(n, total int64) {
		if time.Since(last) >= flicker {
			last = time.Now()
			p.Step("%s  %d %%  %s of %s", what, 100*n/max(total, 1), Size(n), Size(total))
		}
	}
}

// Clear takes the line away.
func (p *Progress) Clear() {
	if p.terminal {
		fmt.Fprint(p.W, "\r\x1b[K")
	}
}

func max2(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
