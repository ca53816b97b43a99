// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package decide puts a board's rules and its policy for being alone to work: what the
// config and the twin say goes in, commands and reports come out.
package decide

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"fulmar/agent/autonomy"
	"fulmar/command"
	"fulmar/device/output"
	"fulmar/device/rule"
	"fulmar/device/rule/cond"
	"fulmar/device/schedule"
	"fulmar/internal/run"
	"fulmar/schema"
)

const (
	beat      = time.Second
	stopGrace = 8 * time.Second
	// actor is who gives commands when a lease is over.
	actor = "autonomy"
)

// Given is one command that the board gives itself.
type Given struct {
	ID     [16]byte // the same where the same is given again after a crash
	Actor  string   // rule/NAME, autonomy
	Name   string
	Args   map[string]any
	Reason string
}

// Deps is what it works with. What others do not bring yet is nil.
type Deps struct {
	RulesPath, AutonomyPath string
	// TwinRules and TwinShed are those of the twin at the start, as [Board.Twin] takes them:
	// what was on in an earlier life and is not among them would begin anew.
	TwinRules map[string][]byte
	TwinShed  []byte
	Up        func() bool // the fleet can be asked
	// Give returns once the command is in the journal; nil: none can be given.
	Give func(ctx context.Context, g Given) error
	// Ended returns when a command that was given has ended: nil where it had its effect,
	// else why not, with its code in a *command.Error. nil: it is not known.
	Ended func(ctx context.Context, id [16]byte) error
	// Set and Clear change a key of the twin on the board.
	Set   func(ctx context.Context, actor, key string, value any) error
	Clear func(ctx context.Context, actor, key string) error
	// SafeOf is the safe state of an output.
	SafeOf func(output string) (float64, bool)
	// Say tells the fleet a state, as a record; Report sets a key of the twin's reported.
	Say    func(subject, state string, sev schema.Severity, text string)
	Report func(key string, value map[string]any)
	Wall   func() (time.Time, bool)
	Clock  schema.Clock
	Log    *slog.Logger
}

// Plan is what the config says.
type Plan struct {
	Rules    []rule.Spec
	Shed     []rule.Step
	Autonomy autonomy.Config
	Sample   schedule.Plan
}

// Board decides. Its methods may be called from many goroutines.
type Board struct {
	*rule.Runner
	deps  Deps
	alone *autonomy.Service
	plan  atomic.Pointer[schedule.Plan]

	mu   sync.Mutex
	set  rule.Set
	apps map[string]bool
	told map[string]bool // rules of which something was told
}

// New opens what earlier lives have left and puts the plan in force.
func New(plan Plan, deps Deps) *Board {
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	b := &Board{deps: deps, apps: map[string]bool{}, told: map[string]bool{}}
	b.plan.Store(&plan.Sample)
	b.set.TwinRules, b.set.TwinShed = deps.TwinRules, deps.TwinShed
	b.alone = autonomy.Open(plan.Autonomy, autonomy.Deps{Path: deps.AutonomyPath, Up: deps.Up, Safe: b.safe, Changed: b.sayAlone, Log: deps.Log})
	b.Runner = rule.Open(rule.Config{Path: deps.RulesPath, Do: b.do, Changed: b.sayRule, Wall: deps.Wall, Quiet: b.quiet, Log: deps.Log})
	st := b.alone.Status()
	b.Link(false, st.DownFor)
	b.Alone(st.State != autonomy.Connected)
	b.Update(plan)
	return b
}

// Status tells how the board stands while it is alone, or not.
func (b *Board) Status() autonomy.Status { return b.alone.Status() }

// Allow says why an actor may not give a command now; see [autonomy.Service.Allow].
func (b *Board) Allow(actor, name string) error { return b.alone.Allow(actor, name) }

// quiet is how long a series that is thinned may say nothing: its longest silence, and
// as much again for a late tick.
func (b *Board) quiet(series string) time.Duration { return 2 * b.plan.Load().Silence(series) }

// Update puts another config in force. Rules that did not change keep their state.
func (b *Board) Update(plan Plan) {
	b.alone.Update(plan.Autonomy)
	b.plan.Store(&plan.Sample)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.set.Rules, b.set.Shed = plan.Rules, plan.Shed
	b.compile()
}

// Twin takes what holds of the twin's keys rule.* (by NAME), shed (nil: not set) and
// app.* (by the rest of the key), in CBOR.
func (b *Board) Twin(rules map[string][]byte, shed []byte, apps map[string][]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name := range b.apps {
		if apps[name] == nil {
			b.App(name, cond.Value{})
			delete(b.apps, name)
		}
	}
	for name, v := range apps {
		b.apps[name] = true
		b.App(name, value(v))
	}
	b.set.TwinRules, b.set.TwinShed = rules, shed
	b.compile()
}

// value is a twin's value as conditions see it; what is no number, text, true or false is
// none.
func value(b []byte) cond.Value {
	var v any
	if schema.Decode(b, &v) != nil {
		return cond.Value{}
	}
	switch v := v.(type) {
	case bool:
		return cond.Is(v)
	case string:
		return cond.Txt(v)
	case uint64:
		return cond.Num(float64(v))
	case int64:
		return cond.Num(float64(v))
	case float64:
		return cond.Num(v)
	}
	return cond.Value{}
}

// compile puts the rules in force, with the lock.
func (b *Board) compile() {
	programs, refused := b.set.Compile()
	for _, name := range slices.Sorted(maps.Keys(refused)) {
		b.deps.Say("rule/"+name, "refused", schema.SeverityAlarm, refused[name].Error())
	}
	maps.DeleteFunc(b.told, func(name string, _ bool) bool {
		return !slices.ContainsFunc(programs, func(p *rule.Program) bool { return p.Name == name })
	})
	b.Rules(programs)
}

// Run decides until ctx ends.
func (b *Board) Run(ctx context.Context) error {
	g := run.New(ctx)
	g.Go("autonomy", b.alone.Run)
	g.Go("rules", b.Runner.Run)
	g.Go("link", func(ctx context.Context) error {
		t := time.NewTicker(beat)
		defer t.Stop()
		for was := false; ; {
			if up := b.deps.Up(); up != was {
				was = up
				b.Link(up, 0)
			}
			select {
			case <-ctx.Done():
				return nil
			case <-t.C:
			}
		}
	})
	return g.Wait(stopGrace)
}

var errNothing = errors.New("this board cannot do that")

// do does an action of a rule.
func (b *Board) do(ctx context.Context, o rule.Order) error {
	a := o.Action
	switch {
	case a.Command != "":
		if err := b.Allow(o.Actor, a.Command); err != nil {
			return err
		}
		return b.give(ctx, Given{o.ID, o.Actor, a.Command, a.Args, o.Why})
	case a.Set != "" && b.deps.Set != nil:
		return b.deps.Set(ctx, o.Actor, a.Set, a.Value)
	case a.Clear != "" && b.deps.Clear != nil:
		return b.deps.Clear(ctx, o.Actor, a.Clear)
	}
	return errNothing
}

func (b *Board) give(ctx context.Context, g Given) error {
	if b.deps.Give == nil {
		return errNothing
	}
	return b.deps.Give(ctx, g)
}

// safe brings outputs into their safe states, each tried even if another fails. It returns
// nil only when they are there: that a command is taken moves nothing yet.
func (b *Board) safe(ctx context.Context, outputs []string, all bool, why string) error {
	var given [][16]byte
	give := func(name string, args map[string]any) error {
		g := Given{Actor: actor, Name: name, Args: args, Reason: why}
		_, _ = rand.Read(g.ID[:]) // never fails
		err := b.give(ctx, g)
		if err == nil {
			given = append(given, g.ID)
		}
		return latched(err)
	}
	var errs []error
	if all {
		errs = append(errs, give("trigger-safety-shutdown", map[string]any{"reason": why}))
	}
	for _, o := range outputs {
		v, ok := 0.0, false
		if b.deps.SafeOf != nil {
			v, ok = b.deps.SafeOf(o)
		}
		if !ok {
			errs = append(errs, fmt.Errorf("output %s has no safe state: give it one (outputs), or name it no more in autonomy.allow", o))
			continue
		}
		errs = append(errs, give("set-output", map[string]any{"output": o, "value": v}))
	}
	if b.deps.Ended != nil {
		for _, id := range given {
			errs = append(errs, latched(b.deps.Ended(ctx, id)))
		}
	}
	return errors.Join(errs...)
}

// latched takes a refusal of a safety shutdown for what it is: the outputs are brought to
// their safe states by that, and kept there.
func latched(err error) error {
	var e *command.Error
	if errors.As(err, &e) && e.Code == output.CodeShutdown {
		return nil
	}
	return err
}

// sayAlone tells a change of the policy's state, to the rules first.
func (b *Board) sayAlone(s autonomy.Status) {
	b.Alone(s.State != autonomy.Connected)
	sev, text := schema.SeverityInfo, "the board does not count as alone"
	var over []string
	leases := map[string]any{}
	for _, l := range s.Leases {
		leases[l.Name] = map[string]any{"left_s": int64(l.Left / time.Second), "over": l.Over}
		if l.Over {
			over = append(over, l.Name)
		}
	}
	switch s.State {
	case autonomy.Alone:
		sev, text = schema.SeverityWarn, "the fleet cannot be asked: the board decides on its own"
		if len(over) > 0 {
			text += "; over are the leases of " + strings.Join(over, ", ")
		}
	case autonomy.Over:
		sev, text = schema.SeverityAlarm, "the leases of "+strings.Join(over, ", ")+" are over: their outputs go to safe states"
	case autonomy.Safe:
		sev, text = schema.SeverityAlarm, "the leases of "+strings.Join(over, ", ")+" are over, and in their safe states are: "+strings.Join(s.Stays, ", ")
	case autonomy.Connected:
		if len(s.Stays) > 0 {
			text += "; in their safe states until somebody says otherwise stay: " + strings.Join(s.Stays, ", ")
		}
	}
	if s.Failing != "" {
		text += "; not safe yet, and tried again: " + s.Failing
	}
	b.deps.Say("autonomy", string(s.State), sev, text)
	b.report("autonomy", map[string]any{"state": string(s.State), "leases": leases, "stays": strings.Join(s.Stays, ", "), "why": s.Failing})
}

// sayRule tells a change of a rule's state. What is short of news is in reported alone.
func (b *Board) sayRule(s rule.State) {
	why := s.Undecided
	if s.Failing != "" {
		why = s.Failing
	}
	b.report("rule."+s.Name, map[string]any{"state": s.State, "fired": s.Fired, "why": why, "slowed": s.Slowed})
	sev, text := schema.SeverityInfo, "it is off"
	state := s.State
	switch {
	case s.Failing != "":
		sev, state, text = schema.SeverityAlarm, "failing", "tried again: "+s.Failing
	case s.Slowed:
		sev, state, text = schema.SeverityWarn, "slowed", "it fires too often, and now once a minute at most: give it an end condition (until) or every"
	case s.Undecided != "" && s.Long:
		sev, state, text = schema.SeverityWarn, "undecided", "it has no answer: "+s.Undecided
	case s.Undecided != "" || s.State == rule.Waiting:
		return
	case s.State == rule.On:
		sev, text = schema.SeverityWarn, fmt.Sprintf("it is on, for the %d. time: %s", s.Fired, s.Actions)
	case s.State == rule.Spent:
		sev, text = schema.SeverityWarn, "its lease is over; what it did is undone while its condition holds"
	}
	b.mu.Lock()
	quiet := state == rule.Off && !b.told[s.Name] // that a rule is there and off is no news
	b.told[s.Name] = true
	b.mu.Unlock()
	if !quiet {
		b.deps.Say("rule/"+s.Name, state, sev, "rule "+s.Name+": "+text)
	}
}

func (b *Board) report(key string, v map[string]any) {
	if b.deps.Report == nil {
		return
	}
	now := b.deps.Clock.Now()
	v["since"] = map[string]any{"boot": now.Boot, "mono_ms": now.Mono / int64(time.Millisecond)}
	b.deps.Report(key, v)
}
