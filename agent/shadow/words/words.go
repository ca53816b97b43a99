// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package words puts what happens to a twin into words: those of the history, and the
// reports that the fleet gets.
package words

import (
	"fmt"
	"strings"
	"time"

	"fulmar/internal/fit"
	"fulmar/schema"
	"fulmar/twin"
)

const (
	// Undone is the word of what was gone back from; UndonePrefix begins its reason.
	Undone       = "undone"
	UndonePrefix = Undone + ": "
	maxValue     = 128 // bytes of a value in a sentence
)

// Kind is the word of an event's kind, in the history, in reports and in the API.
func Kind(k twin.Kind) string {
	words := []string{"decided", "held", "replaced", "expired", "refused", Undone}
	if int(k) < len(words) {
		return words[k]
	}
	return fmt.Sprintf("kind %d", k)
}

// Subject names a key in reports: twin/KEY, as far as the names of subjects go.
func Subject(key string) string {
	name := "twin"
	if key != "" {
		name += "/" + strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.' {
				return r
			}
			return '_'
		}, strings.ToLower(key))
	}
	return Clip(name, schema.MaxName)
}

// Severity ranks an event: what a person has to look at is more than information.
func Severity(k twin.Kind) schema.Severity {
	switch k {
	case twin.Held, twin.Refused:
		return schema.SeverityWarn
	case twin.Undone:
		return schema.SeverityAlarm
	}
	return schema.SeverityInfo
}

// Sentence tells an event: what, to what, because.
func Sentence(e *twin.Event) string {
	lost := make([]string, 0, len(e.Lost))
	for i := range e.Lost {
		lost = append(lost, told(&e.Lost[i]))
	}
	over := strings.Join(lost, " and ")
	won := "nothing is set"
	if e.Won != nil {
		won = told(e.Won)
	}
	switch e.Kind {
	case twin.Decided:
		return fmt.Sprintf("%s was set at the fleet and on the board, neither knowing of the other: by policy %v %s holds, not %s", e.Key, e.Policy, won, over)
	case twin.Held:
		return fmt.Sprintf("%s was set at the fleet and on the board, neither knowing of the other: %s holds until a person decides between it and %s", e.Key, won, over)
	case twin.Replaced:
		return fmt.Sprintf("%s of the fleet replaced what was set on the board for %s, %s", won, e.Key, over)
	case twin.Expired:
		return fmt.Sprintf("the lease of %s for %s has ended", over, e.Key)
	case twin.Refused:
		return fmt.Sprintf("%s for %s is not applied: %s", over, e.Key, e.Why)
	case twin.Undone:
		return "what the fleet set last made the board unhealthy and was gone back from: " + strings.TrimPrefix(e.Why, UndonePrefix)
	}
	return e.Key + ": " + e.Why
}

// told is an edit as a person reads it: 21 (dora).
func told(e *twin.Edit) string {
	if len(e.Value) == 0 {
		return strings.TrimSuffix("a deletion ("+e.Author+")", " ()")
	}
	v, err := e.Value.Any()
	text := Clip(fmt.Sprint(v), maxValue)
	if err != nil {
		text = "what cannot be read"
	}
	if e.Author != "" {
		text += " (" + e.Author + ")"
	}
	if e.LeaseMs > 0 {
		text += " for " + (time.Duration(e.LeaseMs) * time.Millisecond).String()
	}
	return text
}

// Clip cuts a text to n bytes, at a whole character.
func Clip(s string, n int) string {
	return fit.Text(s, n)
}
