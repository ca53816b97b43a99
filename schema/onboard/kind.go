// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package onboard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"fulmar/schema"
)

// Kind is one command that a board has.
type Kind struct {
	Name   string `json:"name"`
	Lane   string `json:"lane"` // normal, long, safety
	Safety bool   `json:"safety,omitempty"`
	Args   []Arg  `json:"args,omitempty"`
	Effect string `json:"effect"` // one sentence: what it does
	// Crash is what becomes of one that ran when the board died: repeat, ask, unknown.
	Crash string `json:"crash,omitempty"`
	User  bool   `json:"user,omitempty"` // added to this board by a manifest
}

// Arg is one argument of a command.
type Arg struct {
	Name     string `json:"name"`
	Type     string `json:"type"` // one of the Type constants
	Required bool   `json:"required,omitempty"`
	// Min and Max bound a number, or a duration in seconds, where one of them is not 0.
	Min     float64  `json:"min,omitempty"`
	Max     float64  `json:"max,omitempty"`
	Unit    string   `json:"unit,omitempty"`
	Choices []string `json:"choices,omitempty"` // all that a text may be, where there are any
	Help    string   `json:"help,omitempty"`
}

// The types of arguments.
const (
	TypeText     = "text"
	TypeNumber   = "number"
	TypeBool     = "bool"
	TypeDuration = "duration" // 30s, 10m, or a number of seconds
	TypeTexts    = "texts"    // a list
)

// ErrArgs: arguments that a command does not take.
var ErrArgs = errors.New("arguments that it does not take")

// Words reads arguments as a person types them, NAME=VALUE, into the JSON object of an
// [Order]. A list has commas between its parts.
func (k *Kind) Words(words []string) (json.RawMessage, error) {
	out := map[string]any{}
	for _, w := range words {
		name, text, ok := strings.Cut(w, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%w: %q is not of the form NAME=VALUE; %s", ErrArgs, w, k.takes())
		}
		a := k.arg(name)
		if a == nil {
			return nil, fmt.Errorf("%w: %s has no argument %s; %s", ErrArgs, k.Name, name, k.takes())
		}
		if _, twice := out[name]; twice {
			return nil, fmt.Errorf("%w: %s is given twice", ErrArgs, name)
		}
		v, err := a.word(text)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrArgs, name, err)
		}
		out[name] = v
	}
	b, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	_, err = k.Encode(b)
	return b, err
}

// Encode checks a JSON object of arguments and gives it as the CBOR of a command.
func (k *Kind) Encode(args json.RawMessage) ([]byte, error) {
	in, err := object(args)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrArgs, err)
	}
	out := map[string]any{}
	for name, v := range in {
		a := k.arg(name)
		if a == nil {
			return nil, fmt.Errorf("%w: %s has no argument %.40q; %s", ErrArgs, k.Name, name, k.takes())
		}
		if out[name], err = a.value(v); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrArgs, name, err)
		}
	}
	for _, a := range k.Args {
		if _, there := out[a.Name]; a.Required && !there {
			return nil, fmt.Errorf("%w: %s wants %s; %s", ErrArgs, k.Name, a.Name, k.takes())
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	return schema.Encode(out)
}

func (k *Kind) arg(name string) *Arg {
	i := slices.IndexFunc(k.Args, func(a Arg) bool { return a.Name == name })
	if i < 0 {
		return nil
	}
	return &k.Args[i]
}

// takes tells a person which arguments there are.
func (k *Kind) takes() string {
	if len(k.Args) == 0 {
		return k.Name + " takes none"
	}
	var all []string
	for i := range k.Args {
		all = append(all, k.Args[i].String())
	}
	return "it takes " + strings.Join(all, " ")
}

// String is the argument as help shows it: NAME=TYPE, in brackets where it may be left out.
func (a *Arg) String() string {
	s := a.Name + "=" + strings.ToUpper(a.Type)
	if len(a.Choices) > 0 {
		s = a.Name + "=" + strings.Join(a.Choices, "|")
	}
	if !a.Required {
		return "[" + s + "]"
	}
	return s
}

// word reads what a person typed.
func (a *Arg) word(text string) (any, error) {
	switch a.Type {
	case TypeNumber:
		if _, err := strconv.ParseFloat(text, 64); err != nil {
			return nil, fmt.Errorf("%.40q is no number", text)
		}
		return a.value(json.Number(text))
	case TypeDuration:
		if _, err := strconv.ParseFloat(text, 64); err == nil {
			return a.value(json.Number(text))
		}
		return a.value(text)
	case TypeBool:
		switch text {
		case "true", "yes", "on":
			return true, nil
		case "false", "no", "off":
			return false, nil
		}
		return nil, fmt.Errorf("%.40q is neither true nor false", text)
	case TypeTexts:
		var all []any
		for s := range strings.SplitSeq(text, ",") {
			all = append(all, s)
		}
		return all, nil
	case TypeText:
		return text, nil
	}
	return nil, a.unknown()
}

func (a *Arg) unknown() error {
	return fmt.Errorf("is of the type %.40q, which this release does not know", a.Type)
}

// value checks a value out of JSON against the type.
func (a *Arg) value(v any) (any, error) {
	switch a.Type {
	case TypeNumber:
		n, ok := v.(json.Number)
		if !ok {
			return nil, errors.New("wants a number")
		}
		return a.number(n)
	case TypeDuration:
		return a.duration(v)
	case TypeBool:
		if b, ok := v.(bool); ok {
			return b, nil
		}
		return nil, errors.New("wants true or false")
	case TypeText:
		s, ok := v.(string)
		if !ok {
			return nil, errors.New("wants text")
		}
		if len(a.Choices) > 0 && !slices.Contains(a.Choices, s) {
			return nil, fmt.Errorf("%.40q is none of %s", s, strings.Join(a.Choices, ", "))
		}
		return s, nil
	case TypeTexts:
		all, ok := v.([]any)
		for _, s := range all {
			_, text := s.(string)
			ok = ok && text
		}
		if !ok {
			return nil, errors.New("wants a list of texts")
		}
		return all, nil
	}
	return nil, a.unknown()
}

func (a *Arg) number(n json.Number) (any, error) {
	f, err := n.Float64()
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, fmt.Errorf("%.40s is no number", n)
	}
	return f, a.within(f, n.String())
}

// duration takes 30s or a number of seconds, as it is.
func (a *Arg) duration(v any) (any, error) {
	switch v := v.(type) {
	case json.Number:
		return a.number(v)
	case string:
		d, err := time.ParseDuration(v)
		if err != nil {
			return nil, fmt.Errorf("%.40q is no time such as 30s or 10m", v)
		}
		return v, a.within(d.Seconds(), v)
	}
	return nil, errors.New("wants a time such as 30s or 10m")
}

func (a *Arg) within(f float64, said string) error {
	if (a.Min == 0 && a.Max == 0) || (f >= a.Min && f <= a.Max) {
		return nil
	}
	unit := a.Unit
	if a.Type == TypeDuration {
		unit = "s"
	}
	return fmt.Errorf("%.40s is out of range: %s", said, strings.TrimSpace(fmt.Sprintf("%v to %v %s", a.Min, a.Max, unit)))
}

// object reads a JSON object; nothing is an empty one.
func object(b json.RawMessage) (map[string]any, error) {
	if len(bytes.TrimSpace(b)) == 0 {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("the arguments are no JSON object: %w", err)
	}
	if d.More() {
		return nil, errors.New("the arguments are more than one JSON object")
	}
	return m, nil
}

// Any reads a JSON value into what CBOR takes: whole numbers as int64, others as float64.
func Any(b json.RawMessage) (any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("no JSON: %w", err)
	}
	if d.More() {
		return nil, errors.New("more than one JSON value")
	}
	return plain(v)
}

func plain(v any) (any, error) {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i, nil
		}
		f, err := v.Float64()
		if err != nil || math.IsInf(f, 0) {
			return nil, fmt.Errorf("%.40s is no number that fits", v)
		}
		return f, nil
	case []any:
		for i := range v {
			e, err := plain(v[i])
			if err != nil {
				return nil, err
			}
			v[i] = e
		}
	case map[string]any:
		for k := range v {
			e, err := plain(v[k])
			if err != nil {
				return nil, err
			}
			v[k] = e
		}
	}
	return v, nil
}

// JSON gives a value of CBOR (what a handler answers, what a key of the twin is set to)
// for a person; nil for none or for bytes that are no such value.
func JSON(b []byte) json.RawMessage {
	if len(b) == 0 {
		return nil
	}
	var v any
	if err := schema.Decode(b, &v); err != nil {
		return nil
	}
	out, err := json.Marshal(readable(v, 0))
	if err != nil {
		return nil // a number that JSON has not
	}
	return out
}

// maxDepth bounds how deep values are shown.
const maxDepth = 16

// readable makes maps with keys of any kind into those that JSON has.
func readable(v any, depth int) any {
	if depth > maxDepth {
		return "..."
	}
	switch v := v.(type) {
	case map[any]any:
		m := map[string]any{}
		for k, e := range v {
			m[fmt.Sprint(k)] = readable(e, depth+1)
		}
		return m
	case []any:
		for i := range v {
			v[i] = readable(v[i], depth+1)
		}
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Sprint(v)
		}
	}
	return v
}
