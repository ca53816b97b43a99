// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package script

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"fulmar/schema"
)

// Spec is a rule as it is written, in the config and in the twin (rule.NAME). Spans are
// written 500ms, 10s, 5m, 1h; "" is none.
type Spec struct {
	Name string `yaml:"name" cbor:"-"`
	// When is the condition, in the language of package cond.
	When string `yaml:"when" cbor:"when,omitempty"`
	// For is how long the condition must be true without a gap.
	For string `yaml:"for" cbor:"for,omitempty"`
	// Every is the least time between two firings; one that comes sooner waits.
	Every string `yaml:"every" cbor:"every,omitempty"`
	// Do is done when the rule fires, in this order.
	Do []Action `yaml:"do" cbor:"do,omitempty"`
	// Until ends the rule; "": it ends when the condition is false.
	Until string `yaml:"until" cbor:"until,omitempty"`
	// Else is done once when the rule ends, or when its lease does.
	Else []Action `yaml:"else" cbor:"else,omitempty"`
	// Lease is how long the rule may hold what it did.
	Lease string `yaml:"lease" cbor:"lease,omitempty"`
	// Alone: the rule fires only while the fleet cannot be asked, and ends when it can.
	Alone bool `yaml:"alone" cbor:"alone,omitempty"`
	// Stale is how old a reading may be; "": three times what lay between its last two.
	Stale string `yaml:"stale" cbor:"stale,omitempty"`
}

// Action is one thing that a rule does: it gives a command, or sets or clears a key of
// the twin.
type Action struct {
	Command string         `yaml:"command" cbor:"command,omitempty"`
	Args    map[string]any `yaml:"args" cbor:"args,omitempty"` // texts, numbers, true, false
	Set     string         `yaml:"set" cbor:"set,omitempty"`
	Value   any            `yaml:"value" cbor:"value,omitempty"`
	Clear   string         `yaml:"clear" cbor:"clear,omitempty"`
}

// Bounds of a rule and of what it gives.
const (
	// MaxRules bounds the rules of a board: each is an actor of the command journal, which
	// knows 64 of them.
	MaxRules   = 32
	maxActions = 8
	maxArgs    = 16
	maxText    = 256 // bytes of an argument
	maxRuleLen = 32  // bytes of its name: rule/NAME is an actor, in 64
)

// reserved is no rule's name: what autonomy gives is of the actor rule/autonomy.
const reserved = "autonomy"

// checkName checks a rule's name.
func checkName(s string) error {
	if s == reserved {
		return fmt.Errorf("name %s: is the actor of the policy for a board alone (autonomy)", s)
	}
	if s == "" || len(s) > maxRuleLen || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" || s[0] == '-' || s[0] == '_' {
		return fmt.Errorf("name %.40q: wants 1 to %d of a-z 0-9 - _, and a letter or digit first", s, maxRuleLen)
	}
	return nil
}

func (a *Action) check() error {
	given := 0
	for _, s := range []string{a.Command, a.Set, a.Clear} {
		if s != "" {
			given++
		}
	}
	switch {
	case given != 1:
		return errors.New("wants one of command, set and clear")
	case a.Command == "" && a.Args != nil:
		return errors.New("args belong to a command")
	case a.Set == "" && a.Value != nil:
		return errors.New("value belongs to set")
	case a.Command != "" && (len(a.Command) > schema.MaxName || strings.Trim(a.Command, "abcdefghijklmnopqrstuvwxyz0123456789-") != ""):
		return fmt.Errorf("command %.70q is no name of a command", a.Command)
	case len(a.Args) > maxArgs:
		return fmt.Errorf("%d args, at most %d", len(a.Args), maxArgs)
	case a.Set != "":
		if err := plain(a.Value); err != nil {
			return fmt.Errorf("value: %w", err)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(a.Args)) {
		if k == "" || len(k) > schema.MaxName {
			return fmt.Errorf("an argument of %s has a name of %d bytes, wants 1 to %d", a.Command, len(k), schema.MaxName)
		}
		if err := plain(a.Args[k]); err != nil {
			return fmt.Errorf("argument %s of %s: %w", k, a.Command, err)
		}
	}
	if key := a.Set + a.Clear; key != "" {
		return checkKey(key)
	}
	return nil
}

// checkKey says which keys a rule may set: how much the board does. Not rules, limits and
// what else guards the board.
func checkKey(key string) error {
	for _, p := range []string{"camera.", "model.", "sample.", "app."} {
		if rest, ok := strings.CutPrefix(key, p); ok && rest != "" && schema.CheckName(key) == nil {
			return nil
		}
	}
	if key == "log.level" {
		return nil
	}
	return fmt.Errorf("key %.70s cannot be set by a rule; camera.*, model.*, sample.*, app.* and log.level can", key)
}

// plain checks that a value is one number, text, true or false.
func plain(v any) error {
	switch v := v.(type) {
	case bool, int, int64, uint64, float64:
		return nil
	case string:
		if len(v) > maxText {
			return fmt.Errorf("a text of %d bytes, at most %d", len(v), maxText)
		}
		return nil
	}
	return fmt.Errorf("it is %T; wants a number, a text, true or false", v)
}

// whole makes all integers of one kind, so that a rule from the config and the same from
// the twin are equal.
func whole(v any) any {
	switch n := v.(type) {
	case uint64:
		if n <= 1<<63-1 {
			return int64(n)
		}
		return float64(n)
	case int:
		return int64(n)
	}
	return v
}

// normal is the action with its values of one kind.
func (a Action) normal() Action {
	a.Value = whole(a.Value)
	if a.Args != nil {
		a.Args = maps.Clone(a.Args)
		for k, v := range a.Args {
			a.Args[k] = whole(v)
		}
	}
	return a
}

// fields are those of a rule in the twin, and of an action.
func fields(action bool) []string {
	if action {
		return []string{"command", "args", "set", "value", "clear"}
	}
	return []string{"when", "for", "every", "do", "until", "else", "lease", "alone", "stale"}
}

// Parse reads a rule from the twin: the CBOR of a map with the words of [Spec], without
// the name. Words that are not known are errors.
func Parse(name string, value []byte) (Spec, error) {
	var all any
	if err := schema.Decode(value, &all); err != nil {
		return Spec{}, fmt.Errorf("rule %s: %w", name, err)
	}
	if err := only(all, false); err != nil {
		return Spec{}, fmt.Errorf("rule %s: %w", name, err)
	}
	s := Spec{}
	if err := schema.Decode(value, &s); err != nil {
		return Spec{}, fmt.Errorf("rule %s: a field is of the wrong kind: %w", name, err)
	}
	s.Name = name
	return s, nil
}

// only checks that a decoded map has known words alone.
func only(v any, action bool) error {
	m, ok := v.(map[any]any)
	if !ok {
		return errors.New("it is no map of words")
	}
	for k, v := range m {
		word, _ := k.(string)
		if !slices.Contains(fields(action), word) {
			return fmt.Errorf("unknown word %.40q; there are %s", fmt.Sprint(k), strings.Join(fields(action), ", "))
		}
		list, ok := v.([]any)
		if word != "do" && word != "else" {
			continue
		}
		if !ok {
			return fmt.Errorf("%s: it is no list of actions", word)
		}
		for i, a := range list {
			if err := only(a, true); err != nil {
				return fmt.Errorf("%s[%d]: %w", word, i, err)
			}
		}
	}
	return nil
}

// Words tells actions to people.
func Words(actions []Action) string {
	var out []string
	for _, a := range actions {
		switch {
		case a.Set != "":
			out = append(out, fmt.Sprintf("set %s to %v", a.Set, a.Value))
		case a.Clear != "":
			out = append(out, "clear "+a.Clear)
		default:
			w := a.Command
			for _, k := range slices.Sorted(maps.Keys(a.Args)) {
				w += fmt.Sprintf(" %s=%v", k, a.Args[k])
			}
			out = append(out, w)
		}
	}
	return strings.Join(out, ", ")
}
