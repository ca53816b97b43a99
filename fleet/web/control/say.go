// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"fulmar/fleet/web/words"
	"fulmar/schema/rest"
)

// maxShown is how much of a value stands in a row, in bytes; all of it is a hover away.
const maxShown = 120

// stateWord gives what people call a command's state, tone the icon and colour with it.
func stateWord(state string) string {
	switch state {
	case rest.CommandWaiting:
		return "waits for a second person"
	case rest.CommandQueued:
		return "waits for the board"
	case rest.CommandUnknown:
		return "outcome unknown"
	}
	return state
}

func tone(state string) string {
	switch state {
	case rest.CommandDone:
		return "healthy"
	case rest.CommandFailed, rest.CommandUnknown:
		return "failing"
	case rest.CommandWaiting, rest.CommandRefused, rest.CommandExpired:
		return "degraded"
	case rest.CommandCancelled:
		return "unreachable"
	case rest.CommandSent, rest.CommandAccepted, rest.CommandRunning:
		return "run"
	}
	return "never"
}

// order is that in which counts stand: what needs a look first.
func order() []string {
	return []string{
		rest.CommandUnknown, rest.CommandFailed, rest.CommandRefused, rest.CommandExpired, rest.CommandWaiting, rest.CommandRunning, rest.CommandAccepted,
		rest.CommandSent, rest.CommandQueued, rest.CommandCancelled, rest.CommandDone,
	}
}

// segment is one state in a bar of boards.
type segment struct {
	State, Word string // State: class of the colour
	X, Width    string // per cent
	Count       int
}

// bar draws how many of total boards are in which state: what is done first.
func bar(counts map[string]int, total int) (out []segment) {
	x := 0.0
	for _, s := range slices.Backward(order()) {
		n := counts[s]
		if n == 0 || total == 0 {
			continue
		}
		w := 100 * float64(n) / float64(total)
		word := stateWord(s)
		if n > 1 {
			word = strings.Replace(word, "waits ", "wait ", 1)
		}
		out = append(out, segment{class(s), word, fmt.Sprintf("%.2f%%", x), fmt.Sprintf("%.2f%%", w), n})
		x += w
	}
	return out
}

// class is the colour of a state in bars: those of rollouts.
func class(state string) string {
	switch tone(state) {
	case "healthy":
		return "good"
	case "failing":
		return "failed"
	case "degraded":
		return "undone"
	case "run":
		return "installing"
	case "unreachable":
		return "unreached"
	}
	return "waiting"
}

// spoken says a bar in words.
func spoken(bar []segment) string {
	var out []string
	for _, s := range bar {
		out = append(out, words.Count(uint64(s.Count))+" "+s.Word)
	}
	return strings.Join(out, ", ")
}

// worst is the state that a command's headline has: of one board its own.
func worst(c *rest.Command) string {
	for _, s := range order() {
		if c.Counts[s] > 0 {
			return s
		}
	}
	return rest.CommandQueued
}

// over tells whether no board is left that has no last word.
func over(c *rest.Command) bool {
	for s, n := range c.Counts {
		if n > 0 && !rest.CommandFinal(s) {
			return false
		}
	}
	return true
}

// given says a command as a person would: set-valve-position valve=main percent=40.
func given(c *rest.Command) string {
	s := c.Name
	if a := argWords(c.Args); a != "" {
		s += " " + a
	}
	if c.DryRun {
		s += " (check only)"
	}
	return s
}

// person says who an actor is: people by their name alone, also where a board tells of
// one whom the fleet named to it.
func person(actor string) string {
	if of, ok := strings.CutPrefix(actor, "fleet ("); ok {
		actor = strings.Replace(of, ")", "", 1)
	}
	for _, kind := range []string{"token ", "token/"} { // as the fleet names one, as boards do
		if of, ok := strings.CutPrefix(actor, kind); ok {
			return "API token " + of
		}
	}
	return strings.TrimPrefix(actor, "user/")
}

// said is what a board says of a command, as a sentence without the command's name before
// it.
func said(name, text string) string { return stop(strings.TrimPrefix(text, name+": ")) }

// num writes a number with four decimals at most: what a valve has of 40 after a ramp is
// 39.999999999998664.
func num(f float64) string {
	return strconv.FormatFloat(math.Round(f*1e4)/1e4, 'f', -1, 64)
}

// took writes how long a step took: under ten seconds with a tenth.
func took(d time.Duration) string {
	switch {
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + "\u00a0ms"
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + "\u00a0s"
	}
	return words.Span(d)
}

// argWords writes an object of arguments as name=value.
func argWords(raw json.RawMessage) string {
	var args map[string]json.RawMessage
	if len(raw) == 0 || json.Unmarshal(raw, &args) != nil {
		return ""
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(args)) {
		out = append(out, k+"="+value(args[k]))
	}
	return clip(strings.Join(out, " "))
}

// value writes a JSON value as people do: text without its quotes.
func value(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return clip(s)
	}
	if bytes.ContainsAny(raw, ".eE") {
		var f float64
		if json.Unmarshal(raw, &f) == nil {
			return num(f)
		}
	}
	var x any
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // > is nothing that a person has to read as \u003e
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if d.Decode(&x) != nil || e.Encode(x) != nil {
		return ""
	}
	return clip(strings.TrimSpace(b.String()))
}

// ofKey writes the value of a key of the twin; of a rule its condition.
func ofKey(key string, raw json.RawMessage) string {
	var x struct{ When string }
	if strings.HasPrefix(key, "rule.") && json.Unmarshal(raw, &x) == nil && x.When != "" {
		return clip("when " + x.When)
	}
	return value(raw)
}

func clip(s string) string {
	if len(s) <= maxShown {
		return s
	}
	return strings.ToValidUTF8(s[:maxShown], "") + "…"
}

// stop ends a sentence.
func stop(s string) string {
	if s = words.Sentence(s); s == "" || strings.ContainsAny(s[len(s)-1:], ".?!") {
		return s
	}
	return s + "."
}
