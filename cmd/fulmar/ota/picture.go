// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ota

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"fulmar/cmd/fulmar/here"
	"fulmar/cmd/fulmar/local/picture"
	"fulmar/cmd/fulmar/show"
	"fulmar/schema/onboard"
	wire "fulmar/schema/ota"
)

// Bounds of what is drawn, in columns.
const (
	minWidth = 40
	maxBar   = 40
)

// view draws how updates stand, as lines of a terminal.
type view struct {
	onboard.Updates

	width int
	paint func(colour, word string) string
}

func newView(u onboard.Updates, width int, paint func(colour, word string) string) *view {
	return &view{u, max(width, minWidth), paint}
}

func (v *view) lines() []string {
	var out []string
	if v.Off != "" {
		out = append(out, v.cut("off       ", v.Off, here.Warning))
	}
	for _, c := range v.Components {
		out = append(out, v.component(c))
	}
	if len(v.Components) == 0 {
		out = append(out, v.cut("          ", "this board can update nothing: it does not run out of slots and has no model of its own", ""))
	}
	if v.Work != nil {
		out = append(out, "")
		out = append(out, v.work(v.Work)...)
	}
	for i := range v.Waiting {
		w := &v.Waiting[i]
		out = append(out, v.cut("waits     ", what(w)+reason(w.Reason), ""))
	}
	if v.Hold > 0 {
		out = append(out, v.cut("hold      ", fmt.Sprintf("%s want none for %s more", who(v.HoldBy), picture.Span(v.Hold)), here.Warning))
	}
	for _, b := range v.Blocked {
		out = append(out, v.cut("not now   ", b, here.Warning))
	}
	switch {
	case v.FloorError != "":
		out = append(out, v.cut("floor     ", v.FloorError, here.Bad))
	case v.Floor > 0:
		out = append(out, v.cut("floor     ", fmt.Sprintf("releases below epoch %d are never installed again", v.Floor), ""))
	}
	if v.Unsure {
		out = append(out, v.cut("record    ", "lost; what the board did before is not known to it, and the fleet tells what is newest", here.Warning))
	}
	return out
}

func who(s string) string {
	if s == "" {
		return "people"
	}
	return s
}

func (v *view) component(c onboard.Component) string {
	text := c.Version
	if text == "" {
		text = "version not known"
	}
	if c.Release != "" && c.Release != c.Version {
		text += " of release " + c.Release
	}
	colour := ""
	switch c.Word {
	case "":
	case wire.Committed:
		text += ", " + c.Word
		colour = here.Good
	default:
		text += "; the newest update: " + c.Word + reason(c.Reason)
		colour = here.Warning
	}
	return v.cut(fmt.Sprintf("%-9s ", c.Name), text, colour)
}

func reason(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}

// what names an update.
func what(u *onboard.Update) string {
	s := fmt.Sprintf("%s %s %s", u.Act, u.Component, u.Release)
	if u.Rollout != "" && u.Rollout != "local" {
		s += " of rollout " + u.Rollout
	}
	return s
}

// way is the states that an update goes by when all is well; the last ones where it is not.
func way(state string) []string {
	all := wire.Words()
	all = slices.DeleteFunc(all, func(s string) bool {
		switch s {
		case wire.Idle, wire.Scheduled:
			return s != state
		case wire.RollingBack, wire.RolledBack:
			return state != wire.RollingBack && state != wire.RolledBack
		case wire.Committed:
			return state == wire.RollingBack || state == wire.RolledBack || state == wire.Failed
		case wire.Failed:
			return state != wire.Failed
		}
		return false
	})
	return all
}

func (v *view) work(u *onboard.Update) []string {
	out := []string{v.cut("", what(u), "")}
	line, wide := "", 0
	flush := func() {
		if line != "" {
			out = append(out, "  "+line)
		}
		line, wide = "", 0
	}
	for i, s := range way(u.State) {
		word := s
		if s == u.State {
			word = "[" + s + "]"
		}
		n := utf8.RuneCountInString(word)
		if i > 0 {
			n += 3
		}
		if wide+n > v.width-2 {
			flush()
			n = utf8.RuneCountInString(word)
		}
		if i > 0 && wide > 0 {
			line += " > "
		}
		if s == u.State {
			word = v.paint(stateColour(s), word)
		}
		line += word
		wide += n
	}
	flush()
	if u.State == wire.Fetching {
		out = append(out, "  "+bar(u.Progress, min(maxBar, v.width-12)))
	}
	text := "since " + picture.Span(u.Since)
	if u.Ends > 0 {
		text += ", " + picture.Span(u.Ends) + " left"
	}
	out = append(out, v.cut("  ", text, ""))
	if u.Reason != "" {
		out = append(out, v.cut("  ", u.Reason, here.Warning))
	}
	return out
}

func stateColour(s string) string {
	switch s {
	case wire.Committed:
		return here.Good
	case wire.Failed, wire.RolledBack, wire.RollingBack:
		return here.Bad
	}
	return here.Warning
}

// bar draws per cent in so many columns.
func bar(percent, wide int) string {
	percent = min(max(percent, 0), 100)
	full := percent * wide / 100
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", wide-full) + fmt.Sprintf("] %d %%", percent)
}

// cut is a name and a text within the width.
func (v *view) cut(name, text, colour string) string {
	text = show.Clean(text)
	if room := v.width - utf8.RuneCountInString(name); utf8.RuneCountInString(text) > room && room > 3 {
		text = string([]rune(text)[:room-3]) + "..."
	}
	if colour != "" {
		text = v.paint(colour, text)
	}
	return name + text
}
