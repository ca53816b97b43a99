// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package meta

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"fulmar/schema/rest"
)

// Bounds on one board's metadata: what a person writes, and small enough that 50,000 of
// them are read with each look at the fleet.
const (
	maxSite        = 64   // bytes
	maxLabels      = 32   // of a board
	maxKey         = 48   // bytes
	maxLabel       = 128  // bytes of a value
	maxDescription = 1024 // bytes
	maxAccuracy    = 1e5  // metres: what is known no better stands nowhere
	maxPower       = 1000 // watts; the largest Jetson draws 130
)

func invalid(field, why string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrInvalid, field, fmt.Sprintf(why, args...))
}

// check holds metadata to its bounds. Texts are not repeated in errors.
func check(m *rest.Meta) error {
	if err := words("site", m.Site, maxSite); err != nil {
		return err
	}
	if err := words("description", strings.ReplaceAll(m.Description, "\n", ""), maxDescription); err != nil {
		return err
	}
	if len(m.Labels) > maxLabels {
		return invalid("labels", "%d of them, at most %d", len(m.Labels), maxLabels)
	}
	for k, v := range m.Labels {
		if err := checkKey(k); err != nil {
			return err
		}
		if v == "" {
			return invalid("labels", "%s has no value; leave it out instead", k)
		}
		if err := words("label "+k, v, maxLabel); err != nil {
			return err
		}
	}
	if l := m.Location; l != nil && !(math.Abs(l.Lat) <= 90 && math.Abs(l.Lon) <= 180) { // false for NaN, too
		return invalid("location", "wants lat from -90 to 90 and lon from -180 to 180")
	}
	if !(m.LocationAccuracy >= 0 && m.LocationAccuracy <= maxAccuracy) {
		return invalid("edge-location-accuracy", "wants metres from 0 to %.0f", maxAccuracy)
	}
	if !(m.PowerBudget >= 0 && m.PowerBudget <= maxPower) {
		return invalid("power-budget-watt", "wants watts from 0 (not told) to %d", maxPower)
	}
	return nil
}

// checkKey holds a label's name to what a query can name: label.KEY.
func checkKey(k string) error {
	bad := strings.IndexFunc(k, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	})
	if k == "" || len(k) > maxKey || bad >= 0 {
		return invalid("labels", "a name is of a-z 0-9 - _ . and 1 to %d bytes long", maxKey)
	}
	return nil
}

// words holds a text to its length, UTF-8 and no characters that cannot be seen.
func words(field, s string, most int) error {
	switch {
	case len(s) > most:
		return invalid(field, "%d bytes, at most %d", len(s), most)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return invalid(field, "holds what is no character that can be seen")
	case strings.TrimSpace(s) != s:
		return invalid(field, "begins or ends with a blank")
	}
	return nil
}

func copyOf(m rest.Meta) rest.Meta {
	m.Labels = maps.Clone(m.Labels)
	if m.Location != nil {
		l := *m.Location
		m.Location = &l
	}
	return m
}

// difference says what was changed, for the audit log; "" where nothing was.
func difference(was, now rest.Meta) string {
	var out []string
	say := func(what string, a, b any) {
		if a != b {
			out = append(out, fmt.Sprintf("%s %v (was %v)", what, named(b), named(a)))
		}
	}
	say("site", was.Site, now.Site)
	keys := slices.Sorted(maps.Keys(was.Labels))
	for _, k := range slices.Sorted(maps.Keys(now.Labels)) {
		if _, had := was.Labels[k]; !had {
			keys = append(keys, k)
		}
	}
	for _, k := range keys {
		say("label."+k, was.Labels[k], now.Labels[k])
	}
	say("location", place(was.Location), place(now.Location))
	say("edge-location-accuracy", was.LocationAccuracy, now.LocationAccuracy)
	say("power-budget-watt", was.PowerBudget, now.PowerBudget)
	if was.Description != now.Description {
		out = append(out, "description")
	}
	return strings.Join(out, "; ")
}

func named(v any) any {
	if v == "" {
		return "none"
	}
	return v
}

func place(l *rest.Location) string {
	if l == nil {
		return ""
	}
	return fmt.Sprintf("%g,%g", l.Lat, l.Lon)
}
