// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"fulmar/agent/autonomy"
	"fulmar/agent/commands"
	"fulmar/agent/config"
	"fulmar/command"
	"fulmar/device/output"
	"fulmar/device/rule"
	"fulmar/device/rule/cond"
	"fulmar/inference/worker"
	"fulmar/schema"
	"fulmar/twin"
)

// safeTimeout bounds one try to bring outputs into their safe states: each output has a
// bound of its own.
const safeTimeout = 30 * time.Second

// Samples takes a batch of readings, beside the spool.
func (c *Control) Samples(t schema.Time, b *schema.Samples) {
	c.newest.Samples(t, b)
	c.rules.Samples(b)
}

// Event takes what one frame of a camera showed.
func (c *Control) Event(e *schema.Event) { c.rules.Event(e) }

// Cameras takes which cameras are looked at.
func (c *Control) Cameras(all []worker.CameraStatus) {
	for _, cam := range all {
		c.rules.Camera(cam.Name, cam.State == "running")
	}
}

// check refuses values of the keys that are not settings of the config.
func check(key string, v twin.Value) error {
	name, isRule := strings.CutPrefix(key, "rule.")
	limit, isLimit := strings.CutPrefix(key, "limit.")
	switch {
	case isRule && name != "", key == "shed":
		return rule.CheckTwin(key, v)
	case isLimit:
		return checkLimit(limit, v)
	case strings.HasPrefix(key, "app."):
		return nil
	}
	return fmt.Errorf("this board has no key %s; docs/twin.md lists them", key)
}

// checkLimit takes limit.NAME.min and limit.NAME.max.
func checkLimit(key string, v twin.Value) error {
	name, end, ok := cutLast(key, ".")
	if !ok || name == "" || end != "min" && end != "max" {
		return fmt.Errorf("limit.%s: wants limit.OUTPUT.min or limit.OUTPUT.max", key)
	}
	if _, ok := number(v); !ok {
		return fmt.Errorf("limit.%s: wants a number", key)
	}
	return nil
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func number(v twin.Value) (float64, bool) {
	a, err := v.Any()
	if err != nil {
		return 0, false
	}
	switch n := a.(type) {
	case uint64:
		return float64(n), true
	case int64:
		return float64(n), true
	case float64:
		return n, true
	}
	return 0, false
}

// apply puts a config and what else the twin says in force.
func (c *Control) apply(_ context.Context, cfg *config.Config, effective map[string]twin.Value) error {
	err := c.cfg.Apply(cfg)
	c.autonomy.Update(cfg.Autonomy)
	return errors.Join(err, c.take(effective))
}

// take has rules, limits and the free keys follow the twin.
func (c *Control) take(effective map[string]twin.Value) error {
	base := c.cfg.Base()
	s := rule.Set{Rules: base.Rules, Shed: base.Shed, TwinRules: map[string][]byte{}}
	limits := map[string]output.Limit{}
	for key, v := range effective {
		if name, ok := strings.CutPrefix(key, "rule."); ok {
			s.TwinRules[name] = v
		}
		if key == "shed" {
			s.TwinShed = v
		}
		if l, ok := strings.CutPrefix(key, "limit."); ok {
			name, end, _ := cutLast(l, ".")
			n, _ := number(v)
			limits[name] = narrowed(limits, name, end, n)
		}
	}
	programs, refused := s.Compile()
	c.rules.Rules(programs)
	var errs []error
	for name, err := range refused {
		errs = append(errs, fmt.Errorf("rule %s: %w", name, err))
	}
	errs = append(errs, c.outputs.SetLimits(limits))
	c.apps(effective)
	c.mu.Lock()
	c.effective = maps.Clone(effective)
	c.mu.Unlock()
	c.poke()
	return errors.Join(errs...)
}

// apps tells the rules of the free keys.
func (c *Control) apps(effective map[string]twin.Value) {
	c.mu.Lock()
	was := c.effective
	c.mu.Unlock()
	for key := range was {
		if name, ok := strings.CutPrefix(key, "app."); ok && effective[key] == nil {
			c.rules.App(name, cond.Value{})
		}
	}
	for key, v := range effective {
		if name, ok := strings.CutPrefix(key, "app."); ok {
			if a, err := v.Any(); err == nil {
				c.rules.App(name, cond.ValueOf(a))
			}
		}
	}
}

// order has what a rule wants done: a command goes into the journal, a key into the twin.
func (c *Control) order(ctx context.Context, o rule.Order) error {
	switch a := o.Action; {
	case a.Command != "":
		if err := c.autonomy.Allow(o.Actor, a.Command); err != nil {
			return err
		}
		args, err := schema.Encode(a.Args)
		if err != nil {
			return err
		}
		r, err := c.commands.Local(ctx, o.Actor, a.Command, args, commands.Options{ID: o.ID, Reason: o.Why})
		if err == nil && r.State == command.Refused {
			err = &command.Error{Code: r.Code, Text: r.Text}
		}
		return err
	case a.Set != "":
		v, err := twin.ValueOf(a.Value)
		if err != nil {
			return err
		}
		return c.shadow.Set(a.Set, twin.Edit{Value: v, Author: o.Actor, Reason: o.Why})
	}
	_, err := c.shadow.Clear(o.Action.Clear, o.Actor)
	return err
}

// wall is the time of day, where the fleet has told it.
func (c *Control) wall() (time.Time, bool) {
	ms, known := c.keys.Now()
	return time.UnixMilli(int64(ms)).Local(), known
}

// quiet is how long a thinned series may be silent.
func (c *Control) quiet(series string) time.Duration {
	cfg := c.cfg.Config()
	return cfg.Sample.Silence(series)
}

// safe brings outputs into their safe states because a lease is over.
func (c *Control) safe(ctx context.Context, outputs []string, all bool, why string) error {
	ctx, cancel := context.WithTimeout(ctx, safeTimeout)
	defer cancel()
	if all {
		return c.outputs.Shutdown(ctx, why)
	}
	var errs []error
	for _, name := range outputs {
		errs = append(errs, c.outputs.SetSafe(ctx, name, autonomyActor))
	}
	return errors.Join(errs...)
}

// autonomyActor is who moves an output when a lease is over.
const autonomyActor = "autonomy"

// autonomyChanged tells the rules and the fleet.
func (c *Control) autonomyChanged(s autonomy.Status) {
	c.rules.Alone(s.State != autonomy.Connected)
	c.poke()
	sev, text := schema.SeverityInfo, "the fleet can be asked"
	switch s.State {
	case autonomy.Alone:
		sev, text = schema.SeverityWarn, "the fleet cannot be asked: the board acts on its own, within its policy"
	case autonomy.Over, autonomy.Safe:
		sev, text = schema.SeverityAlarm, "what the board may do alone is over: "+strings.Join(s.Stays, ", ")+" in the safe state"
	}
	if s.Failing != "" {
		sev, text = schema.SeverityAlarm, "outputs are not in their safe states yet, tried again: "+s.Failing
	}
	c.cfg.Say("autonomy", string(s.State), sev, text)
}

// ruleChanged tells the fleet what is wrong with a rule, and that it acts.
func (c *Control) ruleChanged(s rule.State) {
	c.poke()
	state, sev, text := s.State, schema.SeverityInfo, "rule "+s.Name+" is "+s.State
	switch {
	case s.Failing != "":
		state, sev, text = "failing", schema.SeverityWarn, "rule "+s.Name+": "+s.Failing
	case s.Long:
		state, sev, text = "undecided", schema.SeverityWarn, "rule "+s.Name+" cannot decide: "+s.Undecided
	case s.Slowed:
		state, sev, text = "slowed", schema.SeverityWarn, "rule "+s.Name+" fires too often and is slowed down"
	case s.State == rule.On:
		text = fmt.Sprintf("rule %s fired: %s", s.Name, s.Actions)
	}
	c.cfg.Say("rule/"+s.Name, state, sev, text)
}

// narrowed puts one end into a limit that may be there already.
func narrowed(limits map[string]output.Limit, name, end string, n float64) output.Limit {
	l, ok := limits[name]
	if !ok {
		l = output.NoLimit()
	}
	if end == "min" {
		l.Min = n
	} else {
		l.Max = n
	}
	return l
}
