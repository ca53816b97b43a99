// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schedule

import (
	"fmt"
	"math"
	"path"
	"time"

	"fulmar/schema"
)

const (
	// MaxGroups bounds the groups of a plan: each is a goroutine and a timer.
	MaxGroups = 16
	// MaxSensors bounds the sensors of a scheduler: each is a goroutine.
	MaxSensors = 256
	// MaxRules bounds the on-change rules of a plan: each series is matched against
	// all of them when it first appears.
	MaxRules = 64
	// MinPeriod is the shortest period. A pass over 40 sensors costs near 50 µs;
	// at 10 ms that is the half percent of one core that sampling may cost.
	MinPeriod = 10 * time.Millisecond
	// MaxPeriod is the longest period.
	MaxPeriod = 24 * time.Hour
	// maxDefaultDeadline bounds the default deadline: nobody wants to wait half an
	// hour for a sensor that is read once an hour.
	maxDefaultDeadline = 2 * time.Second
)

// Plan says which sensors are read how often. The zero Plan reads nothing.
type Plan struct {
	// Groups are tried in order: a sensor belongs to the first one that names it.
	// A sensor that none names is not read.
	Groups []Group `yaml:"groups"`
	// OnChange thins series that do not change. The first rule that matches counts.
	OnChange []OnChange `yaml:"on_change"`
}

// Group is the sensors that share a period and a batch.
type Group struct {
	Name string `yaml:"name"`
	// Period is the time between two ticks.
	Period time.Duration `yaml:"period"`
	// Jitter is the span over which the first tick is spread, so that a thousand
	// boards that boot at once do not speak at once. 0 begins at once.
	Jitter time.Duration `yaml:"jitter"`
	// Deadline is how long a tick waits for its sensors; 0 means half the period,
	// at most 2 s.
	Deadline time.Duration `yaml:"deadline"`
	// Sensors are names or globs ("disk*") of sensors.
	Sensors []string `yaml:"sensors"`
}

// OnChange sends a series only when it has moved by more than Deadband or changed
// its quality, and at least once in MaxSilence.
type OnChange struct {
	// Series is a glob of series names: "thermal.*".
	Series string `yaml:"series"`
	// Deadband is in the unit of the series.
	Deadband float64 `yaml:"deadband"`
	// MaxSilence is the longest time without a value.
	MaxSilence time.Duration `yaml:"max_silence"`
}

// DefaultPlan reads what changes fast each second, the rest each 10 s, and what
// hardly changes or costs more each minute.
func DefaultPlan() Plan {
	return Plan{Groups: []Group{
		{
			Name: "fast", Period: time.Second, Jitter: time.Second,
			Sensors: []string{"cpu", "thermal", "power", "gpu", "throttle", "synthetic"},
		},
		{
			Name: "slow", Period: time.Minute, Jitter: 10 * time.Second,
			Sensors: []string{"mounts", "uptime", "process", "power_mode"},
		},
		{Name: "normal", Period: 10 * time.Second, Jitter: 10 * time.Second, Sensors: []string{"*"}},
	}}
}

// TickEvery is the longest time between two ticks of the fastest group; 0: nothing is read.
func (p *Plan) TickEvery() (every time.Duration) {
	for _, g := range p.Groups {
		if d := g.Period + g.Jitter; every == 0 || d < every {
			every = d
		}
	}
	return every
}

// Validate checks names, spans and counts, and says which entry breaks them.
func (p *Plan) Validate() error {
	if len(p.Groups) > MaxGroups || len(p.OnChange) > MaxRules {
		return fmt.Errorf("plan with %d groups and %d on_change rules, at most %d and %d",
			len(p.Groups), len(p.OnChange), MaxGroups, MaxRules)
	}
	seen := map[string]bool{}
	for i := range p.Groups {
		g := &p.Groups[i]
		if err := g.validate(); err != nil {
			return err
		}
		if seen[g.Name] {
			return fmt.Errorf("group %s is there twice: give each its own name", g.Name)
		}
		seen[g.Name] = true
	}
	for _, r := range p.OnChange {
		if _, err := path.Match(r.Series, ""); err != nil || r.Series == "" {
			return fmt.Errorf("on_change: %q is no glob of series names", r.Series)
		}
		if r.Deadband < 0 || math.IsNaN(r.Deadband) || math.IsInf(r.Deadband, 0) {
			return fmt.Errorf("on_change %s: deadband %v, wants 0 or more", r.Series, r.Deadband)
		}
		if r.MaxSilence <= 0 || r.MaxSilence > MaxPeriod {
			return fmt.Errorf("on_change %s: max_silence %v, wants up to %v, so that silence still means something",
				r.Series, r.MaxSilence, MaxPeriod)
		}
	}
	return nil
}

func (g *Group) validate() error {
	if err := schema.CheckName(g.Name); err != nil {
		return fmt.Errorf("group: %w", err)
	}
	if g.Period < MinPeriod || g.Period > MaxPeriod {
		return fmt.Errorf("group %s: period %v, wants %v to %v", g.Name, g.Period, MinPeriod, MaxPeriod)
	}
	if g.Jitter < 0 || g.Jitter > MaxPeriod {
		return fmt.Errorf("group %s: jitter %v, wants 0 to %v", g.Name, g.Jitter, MaxPeriod)
	}
	if g.Deadline < 0 || g.Deadline > g.Period {
		return fmt.Errorf("group %s: deadline %v is longer than the period %v", g.Name, g.Deadline, g.Period)
	}
	if len(g.Sensors) > MaxSensors {
		return fmt.Errorf("group %s: %d sensors, at most %d", g.Name, len(g.Sensors), MaxSensors)
	}
	for _, s := range g.Sensors {
		if _, err := path.Match(s, ""); err != nil || s == "" {
			return fmt.Errorf("group %s: %q is no name or glob of sensors", g.Name, s)
		}
	}
	return nil
}

func (g *Group) deadline() time.Duration {
	if g.Deadline > 0 {
		return g.Deadline
	}
	return min(g.Period/2, maxDefaultDeadline)
}

// wants tells whether the group names the sensor.
func (g *Group) wants(sensor string) bool {
	for _, s := range g.Sensors {
		if ok, _ := path.Match(s, sensor); ok { // checked by validate
			return true
		}
	}
	return false
}

// Silence is the longest time without a value of a series that is thinned by an on-change
// rule; 0 for one that is sent at each tick.
func (p *Plan) Silence(series string) time.Duration {
	for _, r := range p.OnChange {
		if ok, _ := path.Match(r.Series, series); ok { // checked by Validate
			return r.MaxSilence
		}
	}
	return 0
}
