// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rule

import (
	"strings"
	"testing"

	"fulmar/device/rule/script"
	"fulmar/schema"
)

func hot() Spec {
	return Spec{Name: "hot", When: "thermal.cpu_celsius > 85", Do: []Action{{Command: "set-output", Args: map[string]any{"output": "fan", "value": 1}}}}
}

// TestRefused: which part of a rule is wrong, and where.
func TestRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		want   string
		change func(*Spec)
	}{
		{`rule: name "Hot": wants 1 to 32 of a-z 0-9 - _, and a letter or digit first`, func(s *Spec) { s.Name = "Hot" }},
		{`rule hot: for: "10" is no span from 0s to 24h0m0s; write 500ms, 10s, 5m, 1h`, func(s *Spec) { s.For = "10" }},
		{`rule hot: lease: "0s" is no span from 1s to 720h0m0s; write 500ms, 10s, 5m, 1h`, func(s *Spec) { s.Lease = "0s" }},
		{`rule hot: when: at column 1: it is empty`, func(s *Spec) { s.When = "" }},
		{`rule hot: when: at column 8: wants a part of a name, not >; one that is no identifier is written ["..."]`, func(s *Spec) { s.When = "output.> 3" }},
		{`rule hot: until: at column 1: there is no input temp; a reading is named by its series, as`, func(s *Spec) { s.Until = "temp < 80" }},
		{`rule hot: when: at column 1: there is no input link.down; of its kind there are link.up, link.down_for`, func(s *Spec) { s.When = "link.down > 3" }},
		{`rule hot: when: at column 1: no input can be named thermal.CPU`, func(s *Spec) { s.When = "thermal.CPU > 3" }},
		{`rule hot: do: it does nothing`, func(s *Spec) { s.Do = nil }},
		{`rule hot: do[0]: wants one of command, set and clear`, func(s *Spec) { s.Do = []Action{{}} }},
		{`rule hot: do[0]: argument output of set-output`, func(s *Spec) { s.Do[0].Args["output"] = []any{1} }},
		{`rule hot: else[1]: key rule.other cannot be set by a rule; camera.*, model.*, sample.*, app.* and log.level can`, func(s *Spec) { s.Else = []Action{{Clear: "app.x"}, {Set: "rule.other", Value: 1}} }},
		{`rule hot: else[0]: value: it is <nil>; wants a number, a text, true or false`, func(s *Spec) { s.Else = []Action{{Set: "app.x"}} }},
		{`rule hot: do: 9 actions, at most 8`, func(s *Spec) { s.Do = make([]Action, 9) }},
	} {
		s := hot()
		c.change(&s)
		if _, err := Compile(s); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%v\nwant %s", err, c.want)
		}
	}
}

// TestOneRuleTwoForms: a rule from the config and the same from the twin are equal.
func TestOneRuleTwoForms(t *testing.T) {
	t.Parallel()
	b, err := schema.Encode(map[string]any{"when": "thermal.cpu_celsius > 85", "do": []any{
		map[string]any{"command": "set-output", "args": map[string]any{"output": "fan", "value": uint64(1)}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := script.Parse("hot", b)
	if err != nil {
		t.Fatal(err)
	}
	got, want := programs(t, []Spec{s})[0], programs(t, []Spec{hot()})[0]
	if got.Hash() != want.Hash() {
		t.Errorf("%+v and %+v", got.Spec, want.Spec)
	}
	other := hot()
	other.For = "1s"
	if programs(t, []Spec{other})[0].Hash() == want.Hash() {
		t.Error("a changed rule has the same hash")
	}
}

// TestParseRefuses: a word that is not known is no rule without it.
func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for want, v := range map[string]any{
		`rule hot: unknown word "untill"; there are when, for, every, do, until, else, lease, alone, stale`: map[string]any{"untill": "x"},
		`rule hot: do[0]: unknown word "arg"; there are command, args, set, value, clear`:                   map[string]any{"do": []any{map[string]any{"arg": 1}}},
		`rule hot: do: it is no list of actions`:                                                            map[string]any{"do": "close"},
		`rule hot: it is no map of words`:                                                                   "close",
		`rule hot: a field is of the wrong kind: `:                                                          map[string]any{"for": 10},
	} {
		b, err := schema.Encode(v)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := script.Parse("hot", b); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}

// FuzzCompile: whatever comes as a rule of the twin is refused in words or is a rule that
// can be stepped.
func FuzzCompile(f *testing.F) {
	for _, v := range []any{
		map[string]any{"when": "a.b > 1", "for": "1s", "do": []any{map[string]any{"command": "c", "args": map[string]any{"x": 1.5}}}},
		map[string]any{"when": "link.up", "until": "not link.up", "lease": "1m", "alone": true, "do": []any{map[string]any{"set": "app.x", "value": true}}},
		"rule",
	} {
		b, err := schema.Encode(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add("hot", b)
	}
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		s, err := script.Parse(name, b)
		if err != nil {
			return
		}
		p, err := Compile(s)
		if err != nil {
			return
		}
		again, err := Compile(p.Spec)
		if err != nil || again.Hash() != p.Hash() {
			t.Fatalf("%+v compiles once only: %v", s, err)
		}
		e := NewEngine(Options{}, nil)
		e.Set(0, []*Program{p})
		e.Link(0, false, 0)
		for now, next := tick, never; now < 100*tick; now = max(now+tick, min(next, now+10*tick)) {
			_, next = e.Step(now)
			if next < now {
				t.Fatalf("asked to be woken at %v when it is %v", next, now)
			}
		}
		_, _ = e.Save(100 * tick)
		_ = e.States(100 * tick)
	})
}
