// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"cmp"
	"context"
	"maps"
	"strings"
	"time"

	"fulmar/device/output"
	"fulmar/device/rule/cond"
	"fulmar/schema"
	"fulmar/schema/onboard"
	"fulmar/twin"
)

// set is what was reported last, by key.
type set map[string]twin.Value

// poke has what the board says of itself looked at.
func (c *Control) poke() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// keepReporting tells the fleet what the board is, in the twin, whenever that changes.
func (c *Control) keepReporting(ctx context.Context) error {
	t := time.NewTicker(reportEvery)
	defer t.Stop()
	for {
		c.report()
		select {
		case <-ctx.Done():
			return nil
		case <-c.changed:
		case <-t.C:
		}
	}
}

// report puts what changed into the twin's reported section.
func (c *Control) report() {
	is := map[string]any{"commands": names(c.commands.Names())}
	active, _, by := c.safety()
	is["safety"] = map[string]any{"active": active, "by": by}
	c.decide.Safety(active, true)
	for _, s := range c.outputs() {
		o := map[string]any{"kind": s.Kind, "unit": s.Unit, "min": s.Min, "max": s.Max, "state": s.State}
		if s.Safe != nil {
			o["safe"] = *s.Safe
		}
		value := cond.Value{}
		if s.Known {
			o["value"] = s.Value
			value = cond.Num(s.Value)
		}
		if s.Why != "" {
			o["why"] = clip(s.Why)
		}
		if s.By != "" {
			o["by"] = s.By
		}
		is["output."+s.Name] = o
		c.decide.Output(s.Name, value)
	}
	for _, r := range c.decide.States() {
		is["rule."+r.Name] = map[string]any{"state": r.State, "fired": r.Fired}
	}
	c.mu.Lock()
	for key, v := range c.decides {
		if _, there := is[key]; there || key == "autonomy" {
			is[key] = v
		}
	}
	c.mu.Unlock()
	c.differs(is)
}

// outputs tells of all outputs; none where the board moves nothing.
func (c *Control) outputs() []output.State {
	if c.cfg.Plant == nil {
		return nil
	}
	return c.cfg.Plant.Bank.States()
}

// safety tells whether a safety shutdown holds.
func (c *Control) safety() (active bool, since schema.Time, by string) {
	if c.cfg.Plant == nil {
		return false, since, ""
	}
	return c.cfg.Plant.Bank.Safe()
}

// differs reports what is another than before, and takes back what is not any more.
func (c *Control) differs(is map[string]any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next, change := set{}, map[string]twin.Value{}
	for k, v := range is {
		value, err := twin.ValueOf(v)
		if err != nil {
			c.cfg.Log.Warn("not told to the fleet", "key", k, "err", err)
			continue
		}
		if next[k] = value; string(c.seen[k]) != string(value) {
			change[k] = value
		}
	}
	for k := range maps.Keys(c.seen) {
		if next[k] == nil {
			change[k] = nil
		}
	}
	if len(change) == 0 {
		return
	}
	if err := c.shadow.Report(change); err != nil {
		c.cfg.Log.Warn("the board's state is not told to the fleet whole", "err", err)
		return
	}
	c.seen = next
}

// names is a list for the twin.
func names(all []string) []any {
	out := make([]any, len(all))
	for i, n := range all {
		out[i] = n
	}
	return out
}

// maxWhy bounds a reason in the twin, in bytes: a value has a kilobyte.
const maxWhy = 200

func clip(s string) string { return s[:min(len(s), maxWhy)] }

// State tells a person at the board how it is.
func (c *Control) State(context.Context) onboard.State {
	s := c.cfg.State()
	now := c.cfg.Clock.Now()
	if c.cfg.Plant != nil {
		s.Safety = &onboard.Safety{}
		if active, at, by := c.safety(); active {
			*s.Safety = onboard.Safety{Active: true, For: since(now, at), By: by}
		}
	}
	for _, o := range c.outputs() {
		x := onboard.Output{Name: o.Name, Kind: o.Kind, Unit: o.Unit, Min: &o.Min, Max: &o.Max, Safe: o.Safe, State: o.State, Why: o.Why}
		if o.Known {
			x.Value = &o.Value
		}
		s.Outputs = append(s.Outputs, x)
	}
	for _, r := range c.decide.States() {
		why := cmp.Or(r.Failing, r.Undecided)
		if why == "" && r.Slowed {
			why = "it fires too often, and now once a minute at most"
		}
		s.Rules = append(s.Rules, onboard.Rule{Name: r.Name, State: r.State, Fired: r.Fired, Why: why})
	}
	a := c.decide.Status()
	then := map[string]string{}
	for _, l := range c.cfg.Config().Autonomy.Allow {
		if len(l.Safe) > 0 {
			then[l.Name] = strings.Join(l.Safe, ", ") + " safe"
		}
	}
	s.Autonomy = &onboard.Autonomy{State: string(a.State), For: int64(a.Alone / time.Second)}
	for _, l := range a.Leases {
		if l.Left > 0 || l.Over {
			s.Autonomy.Leases = append(s.Autonomy.Leases, onboard.Lease{Name: l.Name, Left: int64(l.Left / time.Second), Then: then[l.Name]})
		}
	}
	return s
}
