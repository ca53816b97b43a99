// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rule

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"fulmar/schema"
)

func encode(t *testing.T, v any) []byte {
	t.Helper()
	b, err := schema.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestLadder: hot is slower, hotter is paused, and all is as before when it is cool.
func TestLadder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		set := Set{Shed: []Step{
			{When: "x.a > 80", Until: "x.a < 70", Do: map[string]any{"camera.dock.fps": 2, "sample.fast.period": "5s"}},
			{When: "x.a > 90", Until: "x.a < 80", Do: map[string]any{"model.watch.paused": true}},
		}}
		programs, refused := set.Compile()
		if len(refused) > 0 {
			t.Fatal(refused)
		}
		g := start(t, Config{Do: j.Do})
		g.Rules(programs)
		for _, step := range []struct {
			v    float64
			want string
		}{
			{75, ""},
			{85, "set camera.dock.fps to 2, set sample.fast.period to 5s"},
			{95, "set model.watch.paused to true"},
			{85, ""},
			{75, "clear model.watch.paused"},
			{65, "clear camera.dock.fps, clear sample.fast.period"},
		} {
			g.read(step.v)
			if got := j.take(); got != step.want {
				t.Errorf("at %v: %q, want %q", step.v, got, step.want)
			}
		}
		g.stop()
	})
}

// TestTwinGoesFirst: a rule of the twin replaces that of the config, false takes it away,
// and one that is broken leaves the config's in force.
func TestTwinGoesFirst(t *testing.T) {
	t.Parallel()
	rule := func(when string) []byte {
		return encode(t, map[string]any{"when": when, "do": []any{map[string]any{"command": "c"}}})
	}
	set := Set{
		Rules:     []Spec{hot(), {Name: "gone", When: "x.a > 1", Do: hot().Do}, {Name: "stays", When: "x.a > 2", Do: hot().Do}},
		Shed:      []Step{{When: "x.a > 3", Do: map[string]any{"camera.dock.fps": 1}}},
		TwinRules: map[string][]byte{"hot": rule("x.b > 1"), "gone": encode(t, false), "stays": rule("x.b >"), "new": rule("x.c > 1"), "shed-1": rule("x.d > 1")},
		TwinShed:  encode(t, []any{map[string]any{"when": "x.e > 1", "do": map[string]any{"model.m.paused": true}}}),
	}
	programs, refused := set.Compile()
	var got []string
	for _, p := range programs {
		got = append(got, p.Name+" "+p.When)
	}
	if s := strings.Join(got, ", "); s != "hot x.b > 1, new x.c > 1, shed-1 x.e > 1, stays x.a > 2" {
		t.Error(s)
	}
	if len(refused) != 2 || refused["stays"] == nil || refused["shed-1"] == nil {
		t.Error(refused)
	}
}

func TestLadderRefused(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"rule shed-1: when: at column 1: it is empty": Validate(nil, []Step{{Do: map[string]any{"camera.c.fps": 1}}}),
		"shed[0]: do: app.x is no key that makes":     Validate(nil, []Step{{When: "x.a > 1", Do: map[string]any{"app.x": 1}}}),
		"shed[1]: do: model.m.paused is set by shed[0] too": Validate(nil, []Step{
			{When: "x.a > 1", Do: map[string]any{"model.m.paused": true}}, {When: "x.a > 2", Do: map[string]any{"model.m.paused": true}},
		}),
		"shed: 9 steps, at most 8":                 Validate(nil, make([]Step, 9)),
		"rule hot: it is there twice":              Validate([]Spec{hot(), hot()}, nil),
		"rule shed-x: names that begin with shed-": Validate([]Spec{{Name: "shed-x", When: "x.a > 1"}}, nil),
		"shed: it is no list of steps":             CheckTwin("shed", encode(t, "x")),
		`shed[0]: unknown word "else"; there are`:  CheckTwin("shed", encode(t, []any{map[string]any{"else": 1}})),
		"rule r: unknown word":                     CheckTwin("rule.r", encode(t, map[string]any{"wen": 1})),
		"rule r: it is no map of words":            CheckTwin("rule.r", encode(t, true)),
		"camera.x is no key of a rule":             CheckTwin("camera.x", nil),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	if err := CheckTwin("rule.r", encode(t, false)); err != nil {
		t.Error(err)
	}
	var many []Spec
	for i := range MaxRules + 1 {
		many = append(many, Spec{Name: fmt.Sprintf("r%02d", i), When: "x.a > 1", Do: hot().Do})
	}
	if err := Validate(many, nil); err == nil || err.Error() != "rule r32: there are 32 rules before it, which is the most" {
		t.Error(err)
	}
}
