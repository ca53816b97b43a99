// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schedule_test

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"fulmar/device/schedule"
)

func TestDefaultPlanIsValid(t *testing.T) {
	t.Parallel()
	p := schedule.DefaultPlan()
	if err := p.Validate(); err != nil {
		t.Error(err)
	}
}

func TestPlanIsYAML(t *testing.T) {
	t.Parallel()
	var p schedule.Plan
	dec := yaml.NewDecoder(strings.NewReader(`
groups:
  - name: fast
    period: 500ms
    jitter: 2s
    deadline: 100ms
    sensors: [cpu, "thermal*"]
on_change:
  - series: thermal.*
    deadband: 0.5
    max_silence: 1m
`), yaml.Strict())
	if err := dec.Decode(&p); err != nil {
		t.Fatal(err)
	}
	want := schedule.Plan{
		Groups: []schedule.Group{{
			Name: "fast", Period: 500 * time.Millisecond, Jitter: 2 * time.Second, Deadline: 100 * time.Millisecond,
			Sensors: []string{"cpu", "thermal*"},
		}},
		OnChange: []schedule.OnChange{{Series: "thermal.*", Deadband: 0.5, MaxSilence: time.Minute}},
	}
	if !reflect.DeepEqual(p, want) {
		t.Errorf("got %+v", p)
	}
	if err := p.Validate(); err != nil {
		t.Error(err)
	}
}

func TestPlanIsChecked(t *testing.T) {
	t.Parallel()
	ok := func() schedule.Plan {
		return schedule.Plan{
			Groups:   []schedule.Group{{Name: "a", Period: time.Second, Sensors: []string{"*"}}},
			OnChange: []schedule.OnChange{{Series: "*", Deadband: 1, MaxSilence: time.Minute}},
		}
	}
	good := ok()
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for what, spoil := range map[string]func(*schedule.Plan){
		"name":             func(p *schedule.Plan) { p.Groups[0].Name = "A" },
		"period 0":         func(p *schedule.Plan) { p.Groups[0].Period = 0 },
		"period long":      func(p *schedule.Plan) { p.Groups[0].Period = 25 * time.Hour },
		"jitter":           func(p *schedule.Plan) { p.Groups[0].Jitter = -1 },
		"deadline":         func(p *schedule.Plan) { p.Groups[0].Deadline = 2 * time.Second },
		"deadline < 0":     func(p *schedule.Plan) { p.Groups[0].Deadline = -1 },
		"glob":             func(p *schedule.Plan) { p.Groups[0].Sensors[0] = "[" },
		"empty sensor":     func(p *schedule.Plan) { p.Groups[0].Sensors[0] = "" },
		"same name":        func(p *schedule.Plan) { p.Groups = append(p.Groups, p.Groups[0]) },
		"too many":         func(p *schedule.Plan) { p.Groups = make([]schedule.Group, schedule.MaxGroups+1) },
		"too many rules":   func(p *schedule.Plan) { p.OnChange = make([]schedule.OnChange, schedule.MaxRules+1) },
		"too many sensors": func(p *schedule.Plan) { p.Groups[0].Sensors = make([]string, schedule.MaxSensors+1) },
		"rule":             func(p *schedule.Plan) { p.OnChange[0].Series = "[" },
		"deadband":         func(p *schedule.Plan) { p.OnChange[0].Deadband = -1 },
		"deadband nan":     func(p *schedule.Plan) { p.OnChange[0].Deadband = math.NaN() },
		"silence":          func(p *schedule.Plan) { p.OnChange[0].MaxSilence = 0 },
	} {
		p := ok()
		spoil(&p)
		if err := p.Validate(); err == nil {
			t.Errorf("%s: %+v is taken", what, p)
		}
	}
}
