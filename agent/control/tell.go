// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"fulmar/device/output"
	"fulmar/device/rule/cond"
	"fulmar/internal/fit"
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
	is := map[string]any{"commands": c.names}
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
		} else {
			delete(c.decides, key) // of a rule that is gone
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

// reported is what the fleet was told of the board.
type reported struct {
	seen set
	not  map[string]bool // keys that could not be told, and that this was said of
}

// differs reports what is another than before, and takes back what is not any more. Where
// not all of it fits the twin's section, what matters most is told, and the rest is said
// once in the log.
func (c *Control) differs(is map[string]any) {
	next, change := set{}, map[string]twin.Value{}
	for k, v := range is {
		value, err := twin.ValueOf(v)
		if err != nil {
			c.notTold(k, err)
			continue
		}
		if next[k] = value; string(c.told.seen[k]) != string(value) {
			change[k] = value
		}
	}
	for k := range c.told.seen {
		if next[k] == nil {
			change[k] = nil
		}
	}
	if len(change) == 0 {
		return
	}
	if c.shadow.Report(change) == nil {
		c.told.seen = next
		clear(c.told.not)
		return
	}
	for _, k := range slices.SortedFunc(maps.Keys(change), func(a, b string) int { return cmp.Or(rank(change, a)-rank(change, b), strings.Compare(a, b)) }) {
		switch err := c.shadow.Report(map[string]twin.Value{k: change[k]}); {
		case err != nil:
			c.notTold(k, err)
		case change[k] == nil:
			delete(c.told.seen, k)
		default:
			c.told.seen[k] = change[k]
		}
	}
}

// rank says what is told first where not all has room: what is taken back, the state of
// the whole board, outputs, rules.
func rank(change map[string]twin.Value, key string) int {
	kind, _, of := strings.Cut(key, ".")
	switch {
	case change[key] == nil:
		return 0
	case !of:
		return 1
	case kind == "output":
		return 2
	}
	return 3
}

func (c *Control) notTold(key string, err error) {
	if !c.told.not[key] {
		c.told.not[key] = true
		c.cfg.Log.Warn("part of the board's state is not told to the fleet", "key", key, "err", err)
	}
}

// names is a list for the twin, as much of it as one value holds.
func names(all []string) []any {
	out := []any{}
	for _, n := range all {
		out = append(out, n)
	}
	for len(out) > 0 {
		if _, err := twin.ValueOf(out); err == nil {
			break
		}
		out = out[:len(out)-1]
	}
	return out
}

// maxWhy bounds a reason in the twin, in bytes: a value has a kilobyte.
const maxWhy = 200

func clip(s string) string { return fit.Text(s, maxWhy) }

// State tells a person at the board how it is.
func (c *Control) State(context.Context) onboard.State {
	s := c.cfg.State()
	now := c.cfg.Clock.Now()
	if active, at, by := c.safety(); active {
		s.Safety = &onboard.Safety{Active: true, For: since(now, at), By: by}
	} else if c.cfg.Plant != nil {
		s.Safety = &onboard.Safety{} // "none holds" is another word than "nobody has told"
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
