// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package picture draws how a board is as lines of text that fit a terminal, and has the
// words for it.
package picture

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"fulmar/cmd/fulmar/here"
	"fulmar/cmd/fulmar/show"
	"fulmar/schema/onboard"
)

const (
	// Commands is how many of the last commands a picture has.
	Commands = 8
	minWidth = 24 // the narrowest that is drawn for, in columns
)

// Picture is how a board is, drawn as lines of a terminal.
type Picture struct {
	State onboard.State
	Log   []onboard.Entry // the newest first
	Width int             // columns
	Paint func(colour, word string) string
}

// WidthOf is that of the terminal that w is, or a fixed one.
func WidthOf(w io.Writer) int {
	return max(here.Width(w), minWidth)
}

// cell is a word with a colour, "" for none.
type cell struct{ text, colour string }

func plain(s string) cell { return cell{text: show.Clean(s)} }

// column of a table; those of a higher rank go first where the width does not do.
type column struct {
	name string
	rank int
}

// Lines draws it.
func (p *Picture) Lines() []string {
	s := &p.State
	head := s.Board
	if head == "" {
		head = "a board without a name"
	}
	if s.Tenant != "" && s.Tenant != "default" {
		head += " of " + s.Tenant
	}
	out := []string{p.Cut(show.Clean(fmt.Sprintf("%s  %s  fulmard %s  you: %s, %s", head, s.At.Local().Format("2006-01-02 15:04:05 MST"), s.Release, s.You.User, s.You.Role)))}
	out = append(out, p.fact("link", p.link()), p.fact("autonomy", p.autonomy()))
	if s.Autonomy != nil {
		for _, l := range s.Autonomy.Leases {
			text := fmt.Sprintf("%s for %s more", l.Name, Span(l.Left))
			if l.Then != "" {
				text += ", then " + l.Then
			}
			if l.Left <= 0 {
				text = l.Name + " is over"
			}
			out = append(out, p.fact("", plain(text)))
		}
	}
	out = append(out, p.fact("safety", p.safety()))
	if s.Conflicts > 0 {
		out = append(out, p.fact("conflicts", cell{map[bool]string{true: "1 key waits", false: fmt.Sprintf("%d keys wait", s.Conflicts)}[s.Conflicts == 1] + " for a person: fulmar local conflicts", here.Warning}))
	}
	for _, c := range s.Causes {
		out = append(out, p.fact("cause", cell{show.Clean(c), here.Warning}))
	}
	out = append(out, p.outputs()...)
	out = append(out, p.rules()...)
	return append(out, p.commands()...)
}

func (p *Picture) link() cell {
	l := &p.State.Link
	text := l.State
	if l.For > 0 {
		text += " for " + Span(l.For)
	}
	if l.Error != "" {
		text += ": " + l.Error
	}
	if l.Up() {
		return cell{show.Clean(text), here.Good}
	}
	return cell{show.Clean(text), here.Warning}
}

func (p *Picture) autonomy() cell {
	a := p.State.Autonomy
	switch {
	case a == nil:
		return plain("not told")
	case a.State == "alone":
		return cell{show.Clean("alone" + since(a.For) + ": the board decides"), here.Warning}
	case a.State == "over", a.State == "safe":
		return cell{show.Clean("alone" + since(a.For) + ", a lease is over: " + map[string]string{"over": "outputs go to their safe states", "safe": "outputs are safe"}[a.State]), here.Bad}
	}
	return plain(a.State + since(a.For))
}

func (p *Picture) safety() cell {
	s := p.State.Safety
	switch {
	case s == nil:
		return plain("this board moves nothing")
	case s.Active:
		by := ""
		if s.By != "" {
			by = ", by " + s.By
		}
		return cell{show.Clean("SHUT DOWN" + since(s.For) + by + ": outputs stay in their safe states"), here.Bad}
	}
	return plain("ready")
}

func since(s int64) string {
	if s <= 0 {
		return ""
	}
	return " for " + Span(s)
}

func (p *Picture) outputs() []string {
	var rows [][]cell
	for _, o := range p.State.Outputs {
		at := "not known"
		if o.Value != nil {
			at = Amount(o.Value, o.Unit)
		}
		state := plain(o.State)
		switch o.State {
		case "failed":
			state.colour = here.Bad
		case "safe", "unknown":
			state.colour = here.Warning
		}
		rows = append(rows, []cell{plain(o.Name), plain(at), state, plain(between(o.Min, o.Max)), plain(Amount(o.Safe, "")), plain(o.Kind), plain(o.Why)})
	}
	return p.table([]column{{"OUTPUT", 0}, {"AT", 0}, {"STATE", 1}, {"RANGE", 3}, {"SAFE", 4}, {"KIND", 5}, {"WHY", 2}}, rows)
}

func (p *Picture) rules() []string {
	var rows [][]cell
	for _, r := range p.State.Rules {
		rows = append(rows, []cell{plain(r.Name), plain(r.State), plain(strings.TrimPrefix(since(r.For), " for ")), plain(strconv.FormatUint(r.Fired, 10)), plain(r.Why)})
	}
	return p.table([]column{{"RULE", 0}, {"STATE", 0}, {"FOR", 2}, {"FIRED", 1}, {"WHY", 3}}, rows)
}

func (p *Picture) commands() []string {
	var rows [][]cell
	for i := range p.Log {
		e := &p.Log[i]
		state := e.State
		if !e.Final && e.Percent > 0 {
			state += fmt.Sprintf(" %d %%", e.Percent)
		}
		rows = append(rows, []cell{plain(Clock(Given(e), p.State.At)), plain(e.Name), {show.Clean(state), colourOf(e.State)}, plain(Who(*e)), plain(Why(*e))})
	}
	return p.table([]column{{"GIVEN", 3}, {"COMMAND", 0}, {"STATE", 0}, {"WHO", 1}, {"WHY", 2}}, rows)
}

func colourOf(state string) string {
	switch state {
	case "done":
		return here.Good
	case "failed", "unknown":
		return here.Bad
	case "refused", "expired", "cancelled":
		return here.Warning
	}
	return ""
}

// fact is one line with a name.
func (p *Picture) fact(name string, c cell) string {
	const indent = 10
	text := p.fit(c.text, p.Width-indent)
	return fmt.Sprintf("%-*s", indent, name) + p.colour(c.colour, text)
}

func (p *Picture) colour(colour, text string) string {
	if colour == "" {
		return text
	}
	return p.Paint(colour, text)
}

// table draws rows under their names, with a line before it. Columns go where the width
// does not do, the last one is cut.
func (p *Picture) table(columns []column, rows [][]cell) []string {
	if len(rows) == 0 {
		return nil
	}
	wide := make([]int, len(columns))
	use := make([]bool, len(columns))
	for i, c := range columns {
		wide[i] = len(c.name)
		for _, r := range rows {
			wide[i] = max(wide[i], utf8.RuneCountInString(r[i].text))
			use[i] = use[i] || r[i].text != ""
		}
	}
	last := len(columns) - 1
	total := func() (n int) {
		for i := range columns {
			if use[i] {
				n += min(wide[i], map[bool]int{true: 12, false: 1 << 20}[i == last]) + 2
			}
		}
		return n - 2
	}
	for total() > p.Width {
		worst := -1
		for i, c := range columns {
			if use[i] && c.rank > 0 && (worst < 0 || c.rank > columns[worst].rank) {
				worst = i
			}
		}
		if worst < 0 {
			break // the lines are cut
		}
		use[worst] = false
	}
	for i := range columns {
		if use[i] {
			last = i
		}
	}
	out := []string{""}
	head := make([]cell, len(columns))
	for i, c := range columns {
		head[i].text = c.name
	}
	for _, r := range slices.Concat([][]cell{head}, rows) {
		out = append(out, p.row(r, wide, use, last))
	}
	return out
}

func (p *Picture) row(r []cell, wide []int, use []bool, last int) string {
	var b strings.Builder
	at := 0
	for i, c := range r {
		room := p.Width - at
		if !use[i] || room <= 0 {
			continue
		}
		text := p.fit(c.text, room)
		b.WriteString(p.colour(c.colour, text))
		if i == last {
			break
		}
		pad := min(wide[i]+2, room) - utf8.RuneCountInString(text)
		b.WriteString(strings.Repeat(" ", max(0, pad)))
		at += wide[i] + 2
	}
	if r[last].text == "" { // nothing stands behind the gap
		return strings.TrimRight(b.String(), " ")
	}
	return b.String()
}

// Cut cuts a line to the width.
func (p *Picture) Cut(s string) string { return p.fit(s, p.Width) }

// fit cuts a text to so many columns.
func (p *Picture) fit(s string, room int) string {
	if utf8.RuneCountInString(s) <= room {
		return s
	}
	if room < 1 {
		return ""
	}
	return string([]rune(s)[:room-1]) + "~"
}

// Amount writes a value with its unit; "" for none.
func Amount(v *float64, unit string) string {
	if v == nil {
		return ""
	}
	return strings.TrimSpace(strconv.FormatFloat(*v, 'g', 6, 64) + " " + unit)
}

func between(low, high *float64) string {
	if low == nil && high == nil {
		return ""
	}
	return Amount(low, "") + ".." + Amount(high, "")
}

// Span writes seconds as a person says them.
func Span(s int64) string {
	switch {
	case s < 120:
		return fmt.Sprintf("%d s", s)
	case s < 7200:
		return fmt.Sprintf("%d min", s/60)
	case s < 48*3600:
		return fmt.Sprintf("%d h %d min", s/3600, s%3600/60)
	}
	return fmt.Sprintf("%d d", time.Duration(s)*time.Second/(24*time.Hour))
}

// Given is when a command came, or what is known of its time.
func Given(e *onboard.Entry) time.Time {
	if e.Given.IsZero() {
		return e.At
	}
	return e.Given
}

// Who is the actor of a command, and the person behind it.
func Who(e onboard.Entry) string {
	if e.By != "" {
		return e.By + " (" + e.Actor + ")"
	}
	return e.Actor
}

// Why is the reason of the person and the word of the board.
func Why(e onboard.Entry) string {
	var parts []string
	for _, s := range []string{e.Reason, e.Code, e.Text} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, "; ")
}

// Clock writes a moment of the board as people at it read it.
func Clock(t, now time.Time) string {
	switch {
	case t.IsZero():
		return ""
	case now.Sub(t).Abs() < 20*time.Hour:
		return t.Local().Format(time.TimeOnly)
	}
	return t.Local().Format("2006-01-02 15:04")
}
