// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package mind

import (
	"fmt"
	"math/rand/v2"
	"time"

	"fulmar/command"
	"fulmar/schema"
	"fulmar/trust"
)

const (
	// workFor is the longest that a simulated command takes.
	workFor = 3 * time.Second
	// maxKnown bounds the commands whose result is told again.
	maxKnown = 64
)

// obedience is what a simulated board knows of commands. It is no dispatcher: nothing
// is kept over a restart, and one command at a time is enough to see them move.
type obedience struct {
	known  map[command.ID]command.Result
	order  []command.ID
	seq    uint64
	jobs   []job
	valve  float64
	safety bool
}

type job struct {
	cmd  command.Command
	args map[string]any
	ends time.Time
}

func newObedience() obedience { return obedience{known: map[command.ID]command.Result{}} }

func commandNames() []any {
	return []any{"read-sensor-batch", "release-safety-shutdown", "set-log-level", "set-output", "set-valve-position", "trigger-safety-shutdown"}
}

// valve is how an output stands in the twin.
func valve(percent float64) map[string]any {
	return map[string]any{"kind": "simulated", "value": percent, "unit": "%", "min": 0.0, "max": 100.0, "safe": 0.0, "state": "set"}
}

// ordered takes a command.
func (m *Mind) ordered(envelope []byte) {
	payload, err := m.open(trust.TypeCommand, envelope)
	if err != nil {
		return
	}
	var c command.Command
	if err := schema.Decode(payload, &c); err != nil {
		return
	}
	if r, ok := m.jobs.known[c.ID]; ok {
		m.reply(r)
		return
	}
	r := command.Result{ID: c.ID, State: command.Accepted}
	args := map[string]any{}
	err = nil
	if len(c.Args) > 0 {
		err = schema.Decode(c.Args, &args)
	}
	switch {
	case c.Board != m.cfg.Board || c.Tenant != m.cfg.Tenant:
		r.State, r.Code, r.Text = command.Refused, command.CodeAddress, "it is for another board"
	case c.Seq <= m.jobs.seq:
		r.State, r.Code, r.Text = command.Refused, command.CodeReplayed, fmt.Sprintf("number %d: %d came already", c.Seq, m.jobs.seq)
	case uint64(time.Now().UnixMilli()) >= c.Expires:
		r.State, r.Code, r.Text = command.Expired, command.CodeLate, "it came too late"
	case err != nil:
		r.State, r.Code, r.Text = command.Refused, command.CodeArgs, err.Error()
	default:
		r = m.judge(&c, args, r)
	}
	m.jobs.seq = max(m.jobs.seq, c.Seq)
	if c.DryRun && r.State == command.Accepted {
		r.State, r.Text = command.Done, "nothing was done: it would be accepted"
	}
	m.remember(r)
	m.reply(r)
	if r.State == command.Accepted {
		m.jobs.jobs = append(m.jobs.jobs, job{cmd: c, args: args, ends: time.Now().Add(time.Duration(rand.Int64N(int64(workFor))))})
	}
}

// judge refuses what a board with this valve refuses.
func (m *Mind) judge(c *command.Command, args map[string]any, r command.Result) command.Result {
	refuse := func(code, text string) command.Result {
		r.State, r.Code, r.Text = command.Refused, code, text
		return r
	}
	switch c.Name {
	case "set-valve-position", "set-output":
		percent, ok := number(args["percent"])
		if !ok {
			percent, ok = number(args["value"])
		}
		switch {
		case !ok:
			return refuse(command.CodeArgs, "percent: is missing or no number")
		case percent < 0 || percent > 100:
			return refuse("out-of-range", fmt.Sprintf("%g %% is not within 0 to 100", percent))
		case m.jobs.safety:
			return refuse("safety-shutdown", "the safety shutdown holds; release it first")
		}
	case "read-sensor-batch", "set-log-level", "trigger-safety-shutdown", "release-safety-shutdown":
	default:
		return refuse(command.CodeUnknown, "this board has no command "+c.Name)
	}
	return r
}

func number(v any) (float64, bool) {
	switch n := v.(type) {
	case uint64:
		return float64(n), true
	case int64:
		return float64(n), true
	case float64:
		return n, true
	}
	return 0, false
}

// works ends the commands whose time has come.
func (m *Mind) works(now time.Time) {
	var left []job
	for _, j := range m.jobs.jobs {
		if now.Before(j.ends) {
			left = append(left, j)
			continue
		}
		r := command.Result{ID: j.cmd.ID, State: command.Done}
		switch j.cmd.Name {
		case "set-valve-position", "set-output":
			p, ok := number(j.args["percent"])
			if !ok {
				p, _ = number(j.args["value"])
			}
			m.jobs.valve = p
		case "trigger-safety-shutdown":
			m.jobs.safety, m.jobs.valve = true, 0
		case "release-safety-shutdown":
			m.jobs.safety = false
		case "read-sensor-batch":
			if v, err := schema.Encode(m.cfg.Feels()); err == nil {
				r.Value = v
			}
		}
		m.reports(map[string]any{"output.main": valve(m.jobs.valve), "safety": map[string]any{"active": m.jobs.safety}})
		m.remember(r)
		m.reply(r)
	}
	m.jobs.jobs = left
}

// remember keeps a result to tell it again.
func (m *Mind) remember(r command.Result) {
	if _, there := m.jobs.known[r.ID]; !there {
		m.jobs.order = append(m.jobs.order, r.ID)
	}
	m.jobs.known[r.ID] = r
	if len(m.jobs.order) > maxKnown {
		delete(m.jobs.known, m.jobs.order[0])
		m.jobs.order = m.jobs.order[1:]
	}
}

// reply tells a result.
func (m *Mind) reply(r command.Result) {
	r.V, r.Time = schema.Version, m.cfg.Clock(time.Now())
	m.say(schema.ChanCommand+schema.Channel(r.ID.String()+"/r"), &command.Report{V: schema.Version, Result: r})
}
