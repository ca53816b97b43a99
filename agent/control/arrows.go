// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"fulmar/agent/commands"
	"fulmar/agent/config"
	"fulmar/agent/decide"
	"fulmar/command"
	"fulmar/device/output"
	"fulmar/device/rule"
	"fulmar/inference/worker"
	"fulmar/schema"
	"fulmar/twin"
)

// Samples takes a batch of readings, beside the spool.
func (c *Control) Samples(b *schema.Samples) { c.decide.Samples(b) }

// Event takes what one frame of a camera showed.
func (c *Control) Event(e *schema.Event) { c.decide.Event(e) }

// Cameras takes which cameras are looked at.
func (c *Control) Cameras(all []worker.CameraStatus) {
	for _, cam := range all {
		c.decide.Camera(cam.Name, cam.State == "running")
	}
}

// check refuses values of the keys that are not settings of the config.
func (c *Control) check(key string, v twin.Value) error {
	name, isRule := strings.CutPrefix(key, "rule.")
	limit, isLimit := strings.CutPrefix(key, "limit.")
	switch {
	case isRule && name != "", key == "shed":
		return rule.CheckTwin(key, v)
	case isLimit:
		return c.checkLimit(limit, v)
	case strings.HasPrefix(key, "app."):
		return nil
	}
	return fmt.Errorf("this board has no key %s; docs/twin.md lists them", key)
}

// checkLimit takes limit.NAME.min and limit.NAME.max of the board's outputs.
func (c *Control) checkLimit(key string, v twin.Value) error {
	name, end, ok := cutLast(key, ".")
	if !ok || name == "" || end != "min" && end != "max" {
		return fmt.Errorf("limit.%s: wants limit.OUTPUT.min or limit.OUTPUT.max", key)
	}
	if _, ok := number(v); !ok {
		return fmt.Errorf("limit.%s: wants a number", key)
	}
	if !slices.ContainsFunc(c.outputs(), func(s output.State) bool { return s.Name == name }) {
		return fmt.Errorf("limit.%s: this board has no output %s", key, name)
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
	c.decide.Update(cfg.Plan())
	return errors.Join(err, c.take(effective))
}

// take has rules, limits and the free keys follow the twin.
func (c *Control) take(effective map[string]twin.Value) error {
	limits := map[string]output.Limit{}
	for key, v := range effective {
		if name, is := strings.CutPrefix(key, "limit."); is {
			output, end, _ := cutLast(name, ".")
			n, _ := number(v)
			limits[output] = narrowed(limits, output, end, n)
		}
	}
	c.decide.Twin(below(effective, "rule."), effective["shed"], below(effective, "app."))
	c.poke()
	if c.cfg.Plant == nil {
		if len(limits) > 0 {
			return errors.New("limits are set and the board has no outputs")
		}
		return nil
	}
	return c.cfg.Plant.Bank.SetLimits(limits)
}

// below gives the keys of a kind, by the rest of their names.
func below(effective map[string]twin.Value, kind string) map[string][]byte {
	out := map[string][]byte{}
	for key, v := range effective {
		if name, is := strings.CutPrefix(key, kind); is {
			out[name] = v
		}
	}
	return out
}

// give puts a command of a rule, or of the policy for being alone, into the journal.
func (c *Control) give(ctx context.Context, g decide.Given) error {
	actor := g.Actor
	if !strings.HasPrefix(actor, command.ActorRule+"/") {
		actor = command.ActorRule + "/" + actor
	}
	args, err := schema.Encode(g.Args)
	if err != nil {
		return err
	}
	r, err := c.commands.Local(ctx, actor, g.Name, args, commands.Options{ID: g.ID, Reason: clip(g.Reason)})
	if err == nil && (r.State == command.Refused || r.State == command.Expired) {
		err = &command.Error{Code: r.Code, Text: r.Text}
	}
	return err
}

// ended waits until a command that was given has ended, and says why it had no effect.
func (c *Control) ended(ctx context.Context, id [16]byte) error {
	r, err := c.commands.Wait(ctx, id)
	if err != nil || r.State == command.Done {
		return err
	}
	return &command.Error{Code: r.Code, Text: r.State.String() + ": " + r.Text}
}

func (c *Control) set(_ context.Context, actor, key string, value any) error {
	v, err := twin.ValueOf(value)
	if err != nil {
		return err
	}
	return c.shadow.Set(key, twin.Edit{Value: v, Author: actor})
}

func (c *Control) clear(_ context.Context, actor, key string) error {
	_, err := c.shadow.Clear(key, actor)
	return err
}

// safeOf is the safe value of an output.
func (c *Control) safeOf(name string) (float64, bool) {
	for _, s := range c.outputs() {
		if s.Name == name && s.Safe != nil {
			return *s.Safe, true
		}
	}
	return 0, false
}

// decided keeps what rules and autonomy report, for the twin.
func (c *Control) decided(key string, v map[string]any) {
	delete(v, "since") // the report records have the moment; the twin says what is
	for k, text := range v {
		if s, is := text.(string); is {
			v[k] = clip(s)
		}
	}
	c.mu.Lock()
	c.decides[key] = v
	c.mu.Unlock()
	c.poke()
}

// wall is the time of day, where the fleet has told it.
func (c *Control) wall() (time.Time, bool) {
	ms, known := c.keys.Now()
	return time.UnixMilli(int64(ms)).Local(), known
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
