// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"fulmar/schema"
)

// Type is what a field of a command's arguments holds.
type Type string

// The types of fields.
const (
	Text     Type = "text"
	Number   Type = "number"
	Bool     Type = "bool"
	Duration Type = "duration" // text as time.ParseDuration reads it, or a number of seconds
	Texts    Type = "texts"    // a list of text
)

// maxTexts is how many entries a list may have.
const maxTexts = 64

// Field is one argument.
type Field struct {
	Name     string `json:"name" cbor:"name"`
	Type     Type   `json:"type" cbor:"type"`
	Required bool   `json:"required,omitempty" cbor:"required,omitempty"`
	// Min and Max bound a number, or a duration in seconds, where one of them is not 0.
	Min  float64 `json:"min,omitempty" cbor:"min,omitempty"`
	Max  float64 `json:"max,omitempty" cbor:"max,omitempty"`
	Unit string  `json:"unit,omitempty" cbor:"unit,omitempty"`
	// Choices are all that a text may be, where there are any.
	Choices []string `json:"choices,omitempty" cbor:"choices,omitempty"`
	Help    string   `json:"help,omitempty" cbor:"help,omitempty"`
}

// Kind describes a command: for those who give it, and for the check of what they give.
type Kind struct {
	Name   string  `json:"name" cbor:"name"`
	Lane   string  `json:"lane" cbor:"lane"` // a Lane's word
	Safety bool    `json:"safety,omitempty" cbor:"safety,omitempty"`
	Args   []Field `json:"args,omitempty" cbor:"args,omitempty"`
	// Effect is one sentence for people: what it does.
	Effect string `json:"effect" cbor:"effect"`
	// Crash is what becomes of one that ran when the board died: "repeat", "ask" or
	// "unknown".
	Crash string `json:"crash" cbor:"crash"`
	User  bool   `json:"user,omitempty" cbor:"user,omitempty"` // added by a manifest
}

// Args are arguments that a Kind has checked: each value is a string, float64, bool,
// time.Duration or []string, as its field says. Optional ones may be missing.
type Args map[string]any

// Text gives a text argument, "" where it is missing.
func (a Args) Text(name string) string { s, _ := a[name].(string); return s }

// Number gives a number, and whether it is there.
func (a Args) Number(name string) (float64, bool) { f, ok := a[name].(float64); return f, ok }

// Bool gives a bool, false where it is missing.
func (a Args) Bool(name string) bool { b, _ := a[name].(bool); return b }

// Duration gives a duration, 0 where it is missing.
func (a Args) Duration(name string) time.Duration { d, _ := a[name].(time.Duration); return d }

// Texts gives a list of text, nil where it is missing.
func (a Args) Texts(name string) []string { l, _ := a[name].([]string); return l }

// Parse reads arguments, a CBOR map or nothing, and checks each. The error is an [Error]
// of CodeArgs that names every argument that is wrong, what it is and what would be right.
func (k *Kind) Parse(raw []byte) (Args, error) {
	bad := func(form string, a ...any) error { return &Error{CodeArgs, fmt.Sprintf(form, a...)} }
	if len(raw) > MaxArgs {
		return nil, bad("arguments of %d bytes, at most %d", len(raw), MaxArgs)
	}
	given := map[string]any{}
	if len(raw) > 0 {
		if err := schema.Decode(raw, &given); err != nil {
			return nil, bad("the arguments are no CBOR map of names: %v", err)
		}
	}
	out, wrong := Args{}, []string{}
	for i := range k.Args {
		f := &k.Args[i]
		v, ok := given[f.Name]
		delete(given, f.Name)
		if !ok {
			if f.Required {
				wrong = append(wrong, fmt.Sprintf("%s is missing", f.Name))
			}
			continue
		}
		read, why := f.read(v)
		if why != "" {
			wrong = append(wrong, f.Name+" "+why)
			continue
		}
		out[f.Name] = read
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		wrong = append(wrong, fmt.Sprintf("%.40q is no argument of %s: it takes %s", name, k.Name, k.takes()))
	}
	if len(wrong) > 0 {
		return nil, bad("%s", strings.Join(wrong, "; "))
	}
	return out, nil
}

// takes lists the arguments' names.
func (k *Kind) takes() string {
	if len(k.Args) == 0 {
		return "none"
	}
	names := make([]string, len(k.Args))
	for i, f := range k.Args {
		names[i] = f.Name
	}
	return strings.Join(names, ", ")
}

// read gives the value of a field, or why it is none.
func (f *Field) read(v any) (out any, why string) {
	switch f.Type {
	case Text:
		return f.text(v)
	case Bool:
		if b, ok := v.(bool); ok {
			return b, ""
		}
		return nil, "is " + show(v) + ", wants true or false"
	case Number:
		n, ok := number(v)
		if !ok {
			return nil, "is " + show(v) + ", wants a number"
		}
		return n, f.within(n)
	case Duration:
		d, ok := duration(v)
		if !ok {
			return nil, "is " + show(v) + ", wants a duration such as 30s or 10m"
		}
		return d, f.within(d.Seconds())
	case Texts:
		list, ok := v.([]any)
		if !ok {
			list = []any{v} // one is a list of one
		}
		if len(list) > maxTexts {
			return nil, fmt.Sprintf("has %d entries, at most %d", len(list), maxTexts)
		}
		texts := make([]string, len(list))
		for i, e := range list {
			s, why := f.text(e)
			if why != "" {
				return nil, why
			}
			texts[i], _ = s.(string)
		}
		return texts, ""
	}
	return nil, fmt.Sprintf("is of the type %q, which this release does not know", f.Type)
}

func (f *Field) text(v any) (any, string) {
	s, ok := v.(string)
	switch {
	case !ok || !utf8.ValidString(s):
		return nil, "is " + show(v) + ", wants text"
	case len(s) > schema.MaxText:
		return nil, fmt.Sprintf("has %d bytes, at most %d", len(s), schema.MaxText)
	case f.Required && s == "":
		return nil, "is empty"
	case len(f.Choices) > 0 && !slices.Contains(f.Choices, s):
		return nil, fmt.Sprintf("is %.40q, wants %s", s, strings.Join(f.Choices, ", "))
	}
	return s, ""
}

// within says how a number is out of the field's range, "" if it is in it.
func (f *Field) within(n float64) string {
	if (f.Min != 0 || f.Max != 0) && (n < f.Min || n > f.Max) {
		return strings.TrimSpace(fmt.Sprintf("is %v, wants %v to %v %s", n, f.Min, f.Max, f.seconds()))
	}
	return ""
}

func (f *Field) seconds() string {
	if f.Type == Duration {
		return "s"
	}
	return f.Unit
}

// show is a value in an error, cut short.
func show(v any) string {
	s := strings.ToValidUTF8(fmt.Sprint(v), "?")
	if len(s) > 40 {
		s = strings.ToValidUTF8(s[:40], "") + "..."
	}
	return s
}

// number reads a finite number of any of CBOR's kinds.
func number(v any) (float64, bool) {
	switch n := v.(type) {
	case uint64:
		return float64(n), true
	case int64:
		return float64(n), true
	case float64:
		return n, !math.IsNaN(n) && !math.IsInf(n, 0)
	}
	return 0, false
}

func duration(v any) (time.Duration, bool) {
	if s, ok := v.(string); ok {
		d, err := time.ParseDuration(s)
		return d, err == nil
	}
	n, ok := number(v)
	if n *= float64(time.Second); !ok || math.Abs(n) > math.MaxInt64/2 {
		return 0, false
	}
	return time.Duration(n), true
}
