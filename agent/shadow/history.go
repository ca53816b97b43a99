// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package shadow

import (
	"fmt"
	"strings"
	"time"

	"fulmar/schema"
	"fulmar/twin"
)

const (
	// MaxHistory is how many changes a board remembers: some weeks of a board that is set
	// by hand, and 50 KiB on its disk at the most.
	MaxHistory = 64
	// maxShown is the longest value in the history, in bytes of CBOR; a longer one is left
	// out: the twin has it while it holds.
	maxShown = 128
	// maxAlarms bounds the subjects that stand as alarms at the fleet: a key is one at most.
	maxAlarms = 256
	// maxOutbox bounds the reports that wait to be told: they go within a moment.
	maxOutbox = 64
)

// Kinds of a [Change] beside those of package twin's events.
const (
	KindSet     = "set"     // on the board
	KindCleared = "cleared" // on the board
	KindApplied = "applied" // a desired version came and is in force
	KindUndone  = "undone"
)

// Change is one entry of a board's history.
type Change struct {
	At      schema.Time `cbor:"1,keyasint"`
	Kind    string      `cbor:"2,keyasint"` // "set", "cleared", "applied", "decided", "held", "replaced", "expired", "refused", "undone"
	Key     string      `cbor:"3,keyasint,omitempty"`
	Version uint64      `cbor:"4,keyasint,omitempty"` // of desired, then
	Author  string      `cbor:"5,keyasint,omitempty"`
	Reason  string      `cbor:"6,keyasint,omitempty"`
	Value   twin.Value  `cbor:"7,keyasint,omitempty"` // that holds after it; nil: none, or over 128 bytes
}

// subject is a report that stands at the fleet as more than information.
type subject struct {
	Subject string `cbor:"1,keyasint"`
	Key     string `cbor:"2,keyasint,omitempty"` // "": a version
	State   string `cbor:"3,keyasint"`
}

// kindWord is the word of an event's kind, in the history, in reports and in the API.
func kindWord(k twin.Kind) string {
	words := []string{"decided", "held", "replaced", "expired", "refused", KindUndone}
	if int(k) < len(words) {
		return words[k]
	}
	return fmt.Sprintf("kind %d", k)
}

// subjectOf names a key in reports: twin/KEY, as far as the names of subjects go.
func subjectOf(key string) string {
	name := "twin"
	if key != "" {
		name += "/" + strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.' {
				return r
			}
			return '_'
		}, strings.ToLower(key))
	}
	return clip(name, schema.MaxName)
}

func severity(k twin.Kind) schema.Severity {
	switch k {
	case twin.Held, twin.Refused:
		return schema.SeverityWarn
	case twin.Undone:
		return schema.SeverityAlarm
	}
	return schema.SeverityInfo
}

// sentence tells an event: what, to what, because.
func sentence(e *twin.Event) string {
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
		return "what the fleet set last made the board unhealthy and was gone back from: " + strings.TrimPrefix(e.Why, undonePrefix)
	}
	return e.Key + ": " + e.Why
}

// told is an edit as a person reads it: 21 (dora).
func told(e *twin.Edit) string {
	if len(e.Value) == 0 {
		return strings.TrimSuffix("a deletion ("+e.Author+")", " ()")
	}
	v, err := e.Value.Any()
	text := clip(fmt.Sprint(v), maxShown)
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

// clip cuts a text to n bytes, at a whole character.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}
