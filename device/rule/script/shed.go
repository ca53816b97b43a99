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

// Step is one step of the shed ladder: while the board is too hot, throttled or short of
// memory, it does less. A step is a rule that sets keys of the twin and clears them at its
// end.
type Step struct {
	When  string `yaml:"when" cbor:"when,omitempty"`
	For   string `yaml:"for" cbor:"for,omitempty"`
	Until string `yaml:"until" cbor:"until,omitempty"`
	// Do are keys of the twin and what they are set to: camera.NAME.fps: 2,
	// model.NAME.paused: true, sample.GROUP.period: 1m.
	Do map[string]any `yaml:"do" cbor:"do,omitempty"`
}

// MaxSteps bounds the ladder.
const MaxSteps = 8

// shedName is how the rules of the ladder are called, from 1; other rules may not be
// called so.
const shedName = "shed-"

// shedKeys are the ends of keys that make a board do less.
func shedKey(key string) bool {
	for _, k := range []struct{ root, end string }{
		{"camera.", ".fps"},
		{"camera.", ".event_every"},
		{"camera.", ".snapshot_every"},
		{"model.", ".paused"},
		{"model.", ".variant"},
		{"sample.", ".period"},
	} {
		if strings.HasPrefix(key, k.root) && strings.HasSuffix(key, k.end) && len(key) > len(k.root)+len(k.end) {
			return true
		}
	}
	return false
}

// Ladder gives the rules that a ladder stands for.
func Ladder(steps []Step) ([]Spec, error) {
	if len(steps) > MaxSteps {
		return nil, fmt.Errorf("shed: %d steps, at most %d", len(steps), MaxSteps)
	}
	var out []Spec
	step := map[string]int{}
	for i, st := range steps {
		s := Spec{Name: fmt.Sprintf("%s%d", shedName, i+1), When: st.When, For: st.For, Until: st.Until}
		for _, key := range slices.Sorted(maps.Keys(st.Do)) {
			if !shedKey(key) {
				return nil, fmt.Errorf("shed[%d]: do: %.70s is no key that makes a board do less: camera.NAME.fps, .event_every, .snapshot_every, model.NAME.paused, .variant, sample.GROUP.period", i, key)
			}
			// The end of one would undo the other, and nobody would see it.
			if other, twice := step[key]; twice {
				return nil, fmt.Errorf("shed[%d]: do: %.70s is set by shed[%d] too: each step needs keys of its own", i, key, other)
			}
			step[key] = i
			s.Do = append(s.Do, Action{Set: key, Value: st.Do[key]})
			s.Else = append(s.Else, Action{Clear: key})
		}
		out = append(out, s)
	}
	return out, nil
}

// ParseLadder reads a ladder from the twin (shed): the CBOR of a list of steps.
func ParseLadder(value []byte) ([]Step, error) {
	var list []any
	if err := schema.Decode(value, &list); err != nil {
		return nil, errors.New("shed: it is no list of steps")
	}
	for i, v := range list {
		m, ok := v.(map[any]any)
		if !ok {
			return nil, fmt.Errorf("shed[%d]: it is no map of words", i)
		}
		for k := range m {
			if w, _ := k.(string); !slices.Contains([]string{"when", "for", "until", "do"}, w) {
				return nil, fmt.Errorf("shed[%d]: unknown word %.40q; there are when, for, until, do", i, fmt.Sprint(k))
			}
		}
	}
	var steps []Step
	if err := schema.Decode(value, &steps); err != nil {
		return nil, fmt.Errorf("shed: a field is of the wrong kind: %w", err)
	}
	return steps, nil
}

// Set is what rules are made of: what the config says, and what the twin says.
type Set struct {
	Rules []Spec
	Shed  []Step
	// TwinRules are the values of the twin's keys rule.NAME, by name; false takes a rule of
	// the config out of force. TwinShed is the value of shed; nil where it is not set.
	TwinRules map[string][]byte
	TwinShed  []byte
}

// Compile gives the rules that are in force: what the twin says goes before what the
// config says. What cannot be compiled is left out, and has an error under its name; so
// has what is over [MaxRules].
func (s *Set) Compile() (programs []*Program, refused map[string]error) {
	refused = map[string]error{}
	specs := map[string]Spec{}
	for _, r := range s.Rules {
		if _, twice := specs[r.Name]; twice {
			refused[r.Name] = fmt.Errorf("rule %s: it is there twice", r.Name)
			continue
		}
		specs[r.Name] = r
	}
	for name, value := range s.TwinRules {
		var off bool
		if schema.Decode(value, &off) == nil && !off {
			delete(specs, name)
			continue
		}
		r, err := Parse(name, value)
		if err == nil {
			_, err = Compile(r)
		}
		if err != nil { // then the config's stays
			refused[name] = err
			continue
		}
		specs[name] = r
	}
	for name := range specs {
		if strings.HasPrefix(name, shedName) {
			refused[name] = fmt.Errorf("rule %s: names that begin with %s are those of the shed ladder", name, shedName)
			delete(specs, name)
		}
	}
	s.ladder(specs, refused)
	for _, name := range slices.Sorted(maps.Keys(specs)) {
		p, err := Compile(specs[name])
		if err == nil && len(programs) == MaxRules {
			err = fmt.Errorf("rule %s: there are %d rules before it, which is the most", name, MaxRules)
		}
		if err != nil {
			refused[name] = err
			continue
		}
		programs = append(programs, p)
	}
	return programs, refused
}

func (s *Set) ladder(specs map[string]Spec, refused map[string]error) {
	steps := s.Shed
	if s.TwinShed != nil {
		if twin, err := ParseLadder(s.TwinShed); err != nil {
			refused["shed"] = err
		} else {
			steps = twin
		}
	}
	rules, err := Ladder(steps)
	if err != nil {
		refused["shed"] = err
	}
	for _, r := range rules {
		specs[r.Name] = r
	}
}

// Validate checks rules and ladder of a config; each error says which one and what.
func Validate(rules []Spec, shed []Step) error {
	s := Set{Rules: rules, Shed: shed}
	_, refused := s.Compile()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(refused)) {
		errs = append(errs, refused[name])
	}
	return errors.Join(errs...)
}

// CheckTwin checks a value of the twin's keys rule.NAME and shed.
func CheckTwin(key string, value []byte) error {
	s := Set{}
	if name, ok := strings.CutPrefix(key, "rule."); ok {
		s.TwinRules = map[string][]byte{name: value}
	} else if key == "shed" {
		s.TwinShed = value
	} else {
		return fmt.Errorf("%.70s is no key of a rule", key)
	}
	_, refused := s.Compile()
	for _, err := range refused {
		return err
	}
	return nil
}
