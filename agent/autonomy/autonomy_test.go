// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package autonomy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/command"
	"fulmar/device/rule"
	"fulmar/schema"
)

var policy = Config{
	Grace: 30 * time.Second, Back: 10 * time.Second,
	Allow: []Allowance{
		{Name: "valves", Commands: []string{"set-valve-position", "set-output"}, For: 20 * time.Minute, Safe: []string{"gate-valve", "pump"}},
		{Name: "look", Commands: []string{"read-sensor-batch", "snapshot"}, Who: []string{WhoPeople}},
		{Name: "all", Commands: []string{"run-model"}, For: time.Hour, Safe: []string{SafeAll}},
	},
}

// board is a policy at work, and what it did.
type board struct {
	*Service
	up   atomic.Bool
	mu   sync.Mutex
	log  []string
	safe error
	stop func()
}

func (b *board) say(s string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = append(b.log, s)
}

func (b *board) take() string {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	s := strings.Join(b.log, "; ")
	b.log = nil
	return s
}

func (b *board) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.safe = err
}

func boot(t *testing.T, cfg Config, path string, up bool) *board {
	t.Helper()
	b := &board{}
	b.up.Store(up)
	b.Service = Open(cfg, Deps{
		Path: path, Up: b.up.Load,
		Safe: func(_ context.Context, outputs []string, all bool, _ string) error {
			b.say(fmt.Sprintf("safe %v%v", outputs, all))
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.safe
		},
		Changed: func(s Status) { b.say(string(s.State)) },
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- b.Run(ctx) }()
	b.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	return b
}

func code(err error) string {
	var e *command.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

// TestStates: connected, alone, over, safe, connected; and what is allowed in each.
func TestStates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := boot(t, policy, "", true)
		time.Sleep(time.Hour)
		if got := b.take(); got != "connected" {
			t.Error(got)
		}
		b.up.Store(false)
		time.Sleep(29 * time.Second)
		b.up.Store(true) // a reconnect
		time.Sleep(1500 * time.Millisecond)
		b.up.Store(false)
		time.Sleep(29 * time.Second)
		if got := b.take(); got != "" {
			t.Errorf("within the grace: %s", got)
		}
		time.Sleep(2 * time.Second)
		if got := b.take(); got != "alone" {
			t.Error(got)
		}
		for want, c := range map[string][2]string{
			"<nil>":                  {"rule/x", "set-output"},
			"<nil> ":                 {"local/ada", "snapshot"},
			"<nil>  ":                {"rule/x", "trigger-safety-shutdown"},
			"<nil>   ":               {"fleet", "restart"},
			"not-allowed-alone":      {"rule/x", "snapshot"},
			"not-allowed-alone ":     {"key/0123456789abcdef", "restart"},
			"<nil>     ":             {"local/ada", "cancel"},
			"<nil>          (local)": {"local/ada", "set-valve-position"},
		} {
			if got := code(b.Allow(c[0], c[1])); got != strings.Fields(want)[0] {
				t.Errorf("%v: %s, want %s", c, got, want)
			}
		}
		time.Sleep(20 * time.Minute)
		if got := b.take(); got != "over; safe [gate-valve pump]false; safe" {
			t.Errorf("after the lease: %s", got)
		}
		if err := b.Allow("rule/x", "set-output"); code(err) != CodeAlone || !strings.Contains(err.Error(), "for 20m0s while the fleet cannot be asked (autonomy.allow valves), and that is over") {
			t.Error(err)
		}
		b.fail(errors.New("the bus is dead"))
		time.Sleep(40 * time.Minute)
		if got := b.take(); !strings.HasPrefix(got, "over; safe []true; over; safe []true") || b.Status().Failing != "the bus is dead" {
			t.Errorf("when safe fails: %s, %+v", got, b.Status())
		}
		b.fail(nil)
		time.Sleep(time.Minute)
		if got := b.take(); !strings.HasSuffix(got, "safe []true; safe") || b.Status().Failing != "" {
			t.Error(got)
		}
		b.up.Store(true)
		time.Sleep(8 * time.Second)
		b.up.Store(false)
		time.Sleep(20 * time.Second) // it was no return
		b.up.Store(true)
		time.Sleep(8 * time.Second)
		if got := b.take(); got != "" {
			t.Errorf("not back for long enough: %s", got)
		}
		time.Sleep(3 * time.Second)
		if got := b.take(); got != "connected" || b.Allow("rule/x", "set-output") != nil {
			t.Error(got)
		}
		if got := fmt.Sprint(b.Status().Stays); got != "[gate-valve pump all]" {
			t.Errorf("what stays: %s", got)
		}
		b.stop()
	})
}

// TestRestarts: the time alone goes on over restarts, and one without a stop in order
// gives nothing back.
func TestRestarts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "autonomy")
		b := boot(t, policy, path, false)
		time.Sleep(10 * time.Minute)
		b.stop()
		time.Sleep(24 * time.Hour) // off
		b = boot(t, policy, path, false)
		time.Sleep(10*time.Minute + 20*time.Second)
		if got := b.take(); got != "alone" {
			t.Errorf("before the lease ends: %s", got)
		}
		time.Sleep(11 * time.Second)
		if got := b.take(); got != "over; safe [gate-valve pump]false; safe" {
			t.Errorf("after it: %s", got)
		}
		b.stop()
		b = boot(t, policy, path, false)
		time.Sleep(time.Minute)
		if got := b.take(); got != "safe" || fmt.Sprint(b.Status().Stays) != "[gate-valve pump]" {
			t.Errorf("safe is done once: %s, %+v", got, b.Status())
		}
		b.stop()
	})
	// A program that dies each 40 seconds, 25 after its newest word on the disk.
	m, alone := newMachine(policy), time.Duration(0)
	for n := range 40 {
		for range 15 {
			m.pass(time.Second, false)
		}
		disk, err := m.keep(false)
		if err != nil {
			t.Fatal(err)
		}
		if alone += 40 * time.Second; alone > policy.Grace+20*time.Minute && !m.over["valves"] {
			t.Fatalf("start %d: alone for %v, and the lease goes on", n, alone)
		}
		m = newMachine(policy)
		if err := m.restore(disk); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAgainstReference: random links, restarts and policies against what the words of
// the documentation give when all is computed from all that ever was.
func TestAgainstReference(t *testing.T) {
	t.Parallel()
	states := map[State]int{}
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 9))
		cfg := Config{Grace: time.Duration(1+r.IntN(20)) * time.Second, Back: time.Duration(1+r.IntN(8)) * time.Second}
		for i := range r.IntN(4) {
			a := Allowance{Name: fmt.Sprint(i), Commands: []string{fmt.Sprint("c", r.IntN(3))}, For: time.Duration(r.IntN(4)*15) * time.Second}
			if a.For > 0 && r.IntN(2) == 0 {
				a.Safe = []string{fmt.Sprint("o", i)}
			}
			cfg.Allow = append(cfg.Allow, a)
		}
		m, up := newMachine(cfg), r.IntN(2) == 0
		var ups []bool
		payable := map[int]bool{}
		for n := range 200 {
			if r.IntN(12) == 0 {
				up = !up
			}
			if ups = append(ups, up); r.IntN(20) == 0 && n > 0 && !ups[n-1] && !up {
				disk, err := m.keep(true)
				if err != nil {
					t.Fatal(err)
				}
				m = newMachine(cfg)
				if err := m.restore(disk); err != nil {
					t.Fatal(err)
				}
			}
			m.pass(time.Second, up)
			outputs, names, all := m.owed()
			if payable[n] = r.IntN(8) == 0; payable[n] && len(names) > 0 {
				m.paid(m.times, outputs, names, all)
			}
			want, over := expected(cfg, ups, payable)
			states[want]++
			if m.state != want {
				t.Fatalf("seed %d, second %d, %+v, %v: %s, want %s", seed, n, cfg, ups, m.state, want)
			}
			for _, c := range []string{"c0", "c1", "c2"} {
				ok := want == Connected || len(cfg.Allow) == 0
				for _, a := range cfg.Allow {
					ok = ok || a.Commands[0] == c && !over[a.Name]
				}
				if got := m.allow("rule/r", c) == nil; got != ok {
					t.Fatalf("seed %d, second %d: %s allowed: %v, want %v", seed, n, c, got, ok)
				}
			}
		}
	}
	for _, s := range []State{Connected, Alone, Over, Safe} {
		if states[s] < 3000 {
			t.Errorf("the schedules do too little: %v", states)
		}
	}
}

// expected computes the state after these seconds, and which leases are over.
func expected(cfg Config, ups []bool, payable map[int]bool) (State, map[string]bool) {
	begin := -1 // the second in which the board began to be alone
	var down, back time.Duration
	for n, up := range ups {
		if up {
			down = 0
			if back += time.Second; back >= cfg.Back {
				begin = -1
			}
			continue
		}
		back = 0
		if down += time.Second; begin < 0 && down >= cfg.Grace {
			begin = n
		}
	}
	if begin < 0 {
		return Connected, nil
	}
	state, over := Alone, map[string]bool{}
	for _, a := range cfg.Allow {
		ends := begin + int(a.For/time.Second)
		if a.For == 0 || ends > len(ups)-1 {
			continue
		}
		over[a.Name] = true
		done := len(a.Safe) == 0
		for n := ends; n < len(ups); n++ {
			done = done || payable[n]
		}
		switch {
		case len(a.Safe) == 0:
		case !done:
			state = Over
		case state == Alone:
			state = Safe
		}
	}
	return state, over
}

// TestSeventeenMinutes is the case that this is for: a dock without network for 17
// minutes, a valve that must close when nobody can be asked, a reading that gets worse
// meanwhile, a person there; and a return with nothing to put right.
func TestSeventeenMinutes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		b := boot(t, policy, filepath.Join(dir, "autonomy"), true)
		begin := time.Now()
		rules := rule.Open(rule.Config{Path: filepath.Join(dir, "rules"), Do: func(_ context.Context, o rule.Order) error {
			if err := b.Allow(o.Actor, o.Action.Command); err != nil {
				return err
			}
			b.say(fmt.Sprintf("%v %s %v", time.Since(begin).Round(time.Second), o.Action.Command, o.Action.Args["value"]))
			return nil
		}})
		close, open := map[string]any{"output": "gate-valve", "value": 0}, map[string]any{"output": "gate-valve", "value": 100}
		programs, refused := (&rule.Set{Rules: []rule.Spec{
			{Name: "nobody", When: "true", For: "270s", Alone: true, Do: []rule.Action{{Command: "set-valve-position", Args: close}}, Else: []rule.Action{{Command: "set-valve-position", Args: open}}},
			{Name: "pressure", When: "pressure.main_bar > 9", For: "5s", Do: []rule.Action{{Command: "trigger-safety-shutdown"}}},
			{Name: "photo", When: "pressure.main_bar > 8", Alone: true, Do: []rule.Action{{Command: "snapshot"}}},
		}}).Compile()
		if len(refused) > 0 {
			t.Fatal(refused)
		}
		rules.Rules(programs)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- rules.Run(ctx) }()
		was := true
		time.Sleep(300 * time.Millisecond) // so that nothing happens at the very beat of the policy
		begin = time.Now()
		for second := range 25 * 60 {
			if up := second < 60 || second >= 18*60; up != was {
				b.up.Store(up)
				rules.Link(up, 0)
				was = up
			}
			rules.Alone(b.Status().State != Connected)
			bar := 5.0
			if second >= 10*60 && second < 11*60 {
				bar = 9.5
			}
			rules.Samples(&schema.Samples{Series: []string{"pressure.main_bar"}, Value: []float64{bar}})
			if second == 12*60 && (b.Allow("local/ada", "set-valve-position") != nil || b.Allow("local/ada", "snapshot") != nil || b.Allow("local/ada", "restart") == nil) {
				t.Error("the person there may not what the policy says")
			}
			time.Sleep(time.Second)
		}
		want := "connected; alone; 6m0s set-valve-position 0; 10m5s trigger-safety-shutdown <nil>; connected; 18m10s set-valve-position 100"
		if got := b.take(); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
		for _, s := range rules.States() {
			if s.Name == "photo" && (s.Fired != 1 || s.State != rule.Off) {
				t.Errorf("what is not allowed was not tried, or is tried for ever: %+v", s)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		b.stop()
	})
}

// TestUpdate: another policy counts the time that has passed, and makes safe what it
// adds.
func TestUpdate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := boot(t, Config{Grace: time.Second, Back: time.Second}, "", false)
		time.Sleep(30 * time.Minute)
		if got := b.take(); got != "connected; alone" || b.Allow("rule/x", "restart") != nil {
			t.Errorf("without a policy: %s", got)
		}
		b.Update(policy)
		time.Sleep(2 * time.Second)
		if got := b.take(); got != "over; safe [gate-valve pump]false; safe" || b.Allow("rule/x", "restart") == nil {
			t.Error(got)
		}
		other := policy
		other.Allow = []Allowance{policy.Allow[0]}
		other.Allow[0].Safe = []string{"lamp"}
		b.Update(other)
		time.Sleep(2 * time.Second)
		if got := b.take(); !strings.Contains(got, "safe [lamp]false; safe") {
			t.Errorf("an output that the policy adds: %s", got)
		}
		b.stop()
	})
}

// TestLongBeat: time that passed at once, as after a restart, counts past the grace.
func TestLongBeat(t *testing.T) {
	t.Parallel()
	m := newMachine(policy)
	m.pass(policy.Grace+20*time.Minute, false)
	if !m.over["valves"] || m.status().Alone != 20*time.Minute {
		t.Errorf("%+v", m.status())
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*Config){
		"autonomy.grace: 0s, wants 1s to 24h":                           func(c *Config) { c.Grace = 0 },
		"autonomy.back: 48h0m0s, wants 1s to 24h":                       func(c *Config) { c.Back = 48 * time.Hour },
		"autonomy.allow[0].commands: 0, and 0 outputs in safe":          func(c *Config) { c.Allow = []Allowance{{Name: "a"}} },
		`autonomy.allow[0].who: "robots", wants rules, people`:          func(c *Config) { c.Allow = []Allowance{{Name: "a", Commands: []string{"*"}, Who: []string{"robots"}}} },
		"autonomy.allow[0].for: 1s, wants 0s (without end) or 10s to":   func(c *Config) { c.Allow = []Allowance{{Name: "a", Commands: []string{"*"}, For: time.Second}} },
		"autonomy.allow[0].for: is 0s, without end, so nothing of safe": func(c *Config) { c.Allow = []Allowance{{Name: "a", Commands: []string{"*"}, Safe: []string{"all"}}} },
		`autonomy.allow[0].safe: "all" is all; leave all, v out`: func(c *Config) {
			c.Allow = []Allowance{{Name: "a", Commands: []string{"*"}, For: time.Hour, Safe: []string{"all", "v"}}}
		},
		`autonomy.allow[1].name: "a" is there twice`: func(c *Config) {
			c.Allow = []Allowance{{Name: "a", Commands: []string{"*"}}, {Name: "a", Commands: []string{"*"}}}
		},
		"autonomy.allow: 17, at most 16": func(c *Config) { c.Allow = make([]Allowance, 17) },
	} {
		c := Default()
		change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	if err := policy.Validate(); err != nil {
		t.Error(err)
	}
}

// pay has all that is owed become safe.
func pay(m *machine) {
	outputs, names, all := m.owed()
	m.paid(m.times, outputs, names, all)
}

// TestLatePayment: outputs that become safe only when the fleet is back, or when the board
// is alone once more, are no reason to leave them alone when the lease ends the next time.
func TestLatePayment(t *testing.T) {
	t.Parallel()
	m := newMachine(policy)
	alone := func() { m.pass(30*time.Minute, false) }
	back := func() { m.pass(time.Minute, true) }
	alone()
	outputs, names, all := m.owed()
	if m.state != Over || len(outputs) != 2 {
		t.Fatalf("%s, owes %v", m.state, outputs)
	}
	first := m.times
	back()
	m.paid(first, outputs, names, all)
	if alone(); m.state != Over {
		t.Errorf("the second time: %s, though nobody has made anything safe", m.state)
	}
	m.paid(first, outputs, names, all) // of the first time, and very late
	if m.state != Over {
		t.Errorf("the second time, by a payment of the first: %s", m.state)
	}
	if pay(m); m.state != Safe {
		t.Errorf("paid: %s", m.state)
	}
}

func FuzzRestore(f *testing.F) {
	m := newMachine(policy)
	m.pass(30*time.Minute, false)
	pay(m)
	b, err := m.keep(false)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		m := newMachine(policy)
		if m.restore(b) != nil {
			return
		}
		for i := range 100 {
			m.pass(time.Minute, i > 50)
			pay(m)
			_ = m.status()
		}
		if m.state != Connected {
			t.Fatalf("%+v", m)
		}
	})
}
