// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/agent/commands"
	"fulmar/command"
	"fulmar/device/output"
	"fulmar/link"
	"fulmar/schema"
	"fulmar/twin"
)

// TestFleetCommand: what the fleet signs moves an output, and is told and reported.
func TestFleetCommand(t *testing.T) {
	simulate(t, "", func(t *testing.T, h *host) {
		h.known()
		if r := h.order("user/dora", "set-valve-position", `{"valve":"valve","percent":40}`); r.State != command.Done {
			t.Fatalf("%+v", r)
		}
		if v, by := h.stands("valve"); v != 40 || by != "user/dora" {
			t.Errorf("the valve stands at %v by %s", v, by)
		}
		h.wait(time.Second)
		if got := h.at("output.valve", "value", "by"); got != "40 user/dora" {
			t.Errorf("reported %s", got)
		}
		if names, _ := h.reported("commands").([]any); !slices.Contains(names, any("set-output")) {
			t.Errorf("reported commands %v", names)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if n := len(h.told); n == 0 || h.told[n-1].Result.State != command.Done {
			t.Errorf("told %+v", h.told)
		}
	})
}

// TestRelease: a safety shutdown is released by people, through the fleet and at the board,
// and by nobody else; while it holds nothing moves.
func TestRelease(t *testing.T) {
	simulate(t, "", func(t *testing.T, h *host) {
		h.known()
		give := func(actor, name, args string) command.Result {
			t.Helper()
			raw, err := command.FromJSON([]byte(args))
			if err != nil {
				t.Fatal(err)
			}
			r, err := h.c.Commands().Local(context.Background(), actor, name, raw, commands.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return h.ends(r.ID)
		}
		release := map[string]func() command.Result{
			"user/dora":     func() command.Result { return h.order("user/dora", "release-safety-shutdown", `{}`) },
			"token/line-4":  func() command.Result { return h.order("token/line-4", "release-safety-shutdown", `{}`) },
			"nobody":        func() command.Result { return h.order("", "release-safety-shutdown", `{}`) },
			"an old fleet":  func() command.Result { return h.order("dora", "release-safety-shutdown", `{}`) },
			"local/eva":     func() command.Result { return give("local/eva", "release-safety-shutdown", `{}`) },
			"rule/hot":      func() command.Result { return give("rule/hot", "release-safety-shutdown", `{}`) },
			"rule/autonomy": func() command.Result { return give("rule/autonomy", "release-safety-shutdown", `{}`) },
		}
		for who, may := range map[string]bool{"user/dora": true, "token/line-4": false, "nobody": false, "an old fleet": false, "local/eva": true, "rule/hot": false, "rule/autonomy": false} {
			if r := give("local/eva", "trigger-safety-shutdown", `{"reason":"smoke"}`); r.State != command.Done {
				t.Fatalf("%+v", r)
			}
			if r := h.order("user/dora", "set-output", `{"output":"lamp","value":1}`); r.Code != output.CodeShutdown {
				t.Errorf("a set while it is latched: %+v", r)
			}
			r := release[who]()
			if active, _, _ := h.plant.Bank.Safe(); active == may || may != (r.State == command.Done) || !may && r.Code != output.CodePerson {
				t.Errorf("%s: %v %s %q, latched %v", who, r.State, r.Code, r.Text, active)
			}
			h.wait(time.Second)
			if got := h.at("safety", "active"); got != fmt.Sprint(!may) {
				t.Errorf("%s: reported as active %s", who, got)
			}
		}
	})
}

// TestRuleOnce: a rule gives its command once, over a restart too.
func TestRuleOnce(t *testing.T) {
	simulate(t, `
rules:
  - {name: hot, when: "x.a > 80", stale: 1h, do: [{command: set-output, args: {output: valve, value: 30}}]}
`, func(t *testing.T, h *host) {
		h.read("x.a", 90)
		h.wait(2 * time.Second)
		if got := h.given("rule/hot"); !slices.Equal(got, []string{"set-output done"}) {
			t.Fatalf("given %q", got)
		}
		h.end()
		h.start()
		h.wait(time.Second)
		h.read("x.a", 91)
		h.wait(10 * time.Second)
		if got := h.given("rule/hot"); !slices.Equal(got, []string{"set-output done"}) {
			t.Errorf("after a restart: %q", got)
		}
		h.read("x.a", 20)
		h.wait(time.Second)
		h.read("x.a", 92)
		h.wait(2 * time.Second)
		if got := h.given("rule/hot"); len(got) != 2 {
			t.Errorf("fired again: %q", got)
		}
	})
}

// TestReasonIsKept: the reason of a rule is cut between letters: a journal with half a
// letter in it forgets the command at the next start.
func TestReasonIsKept(t *testing.T) {
	for i := range 2 { // whichever way the letters fall
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			simulate(t, fmt.Sprintf("\nrules:\n  - {name: hot, when: \"x.a > 80 or app.x == '%s%s'\", stale: 1h, do: [{command: set-output, args: {output: valve, value: 30}}]}\n",
				strings.Repeat("o", i), strings.Repeat("ö", 100)), func(t *testing.T, h *host) {
				h.read("x.a", 90)
				h.wait(2 * time.Second)
				h.end()
				h.start()
				if got := h.given("rule/hot"); !slices.Equal(got, []string{"set-output done"}) {
					t.Errorf("after a restart: %q", got)
				}
			})
		})
	}
}

// TestLimits: what the twin narrows holds for commands, goes when the key goes, and one
// for an output that is not there is refused alone. What the twin does not fit stays out
// over a restart, and the rest stays in.
func TestLimits(t *testing.T) {
	simulate(t, "", func(t *testing.T, h *host) {
		h.known()
		set := func(v string) command.Result {
			t.Helper()
			return h.order("user/dora", "set-output", `{"output":"valve","value":`+v+`}`)
		}
		h.edit(map[string]any{"limit.valve.max": 40, "limit.vlave.max": 5})
		if r := set("50"); r.Code != output.CodeRange {
			t.Errorf("over the limit: %+v", r)
		}
		if r := set("30"); r.State != command.Done {
			t.Errorf("within the limit: %+v", r)
		}
		if refused := fmt.Sprint(h.reported("twin.refused")); !strings.Contains(refused, "limit.vlave.max:") || strings.Contains(refused, "limit.valve") {
			t.Errorf("refused %s", refused)
		}
		if got := h.at("output.valve", "min", "max"); got != "0 40" {
			t.Errorf("reported %s", got)
		}
		h.end()
		h.start()
		if err := h.plant.Bank.Check("valve", 50); err == nil {
			t.Error("the limit is gone after a restart")
		}
		h.connect()
		h.edit(map[string]any{"limit.valve.max": nil})
		if r := set("50"); r.State != command.Done {
			t.Errorf("the limit is gone: %+v", r)
		}
	})
}

// TestApps: free keys of the twin are values that rules see, and not when they are gone.
func TestApps(t *testing.T) {
	simulate(t, `
rules:
  - {name: go, when: "app.go == 1", do: [{command: set-output, args: {output: lamp, value: 1}}], else: [{command: set-output, args: {output: lamp, value: 0}}], until: "app.go != 1 or app.stop == 1"}
`, func(t *testing.T, h *host) {
		h.known()
		h.edit(map[string]any{"app.go": 1, "app.stop": 0})
		h.wait(time.Second)
		if v, by := h.stands("lamp"); v != 1 || by != "rule/go" {
			t.Errorf("the lamp is %v by %s", v, by)
		}
		h.edit(map[string]any{"app.stop": 1})
		h.wait(time.Second)
		if v, _ := h.stands("lamp"); v != 0 {
			t.Errorf("the lamp is %v", v)
		}
		h.edit(map[string]any{"app.stop": 0, "app.go": nil})
		h.wait(2 * time.Minute)
		for _, r := range h.c.State(context.Background()).Rules {
			if r.Name == "go" && (r.State != "undecided" || !strings.Contains(r.Why, "app.go")) {
				t.Errorf("a key that is gone still has a value: %+v", r)
			}
		}
	})
}

const leaseYAML = `
autonomy:
  grace: 5s
  back: 2s
  allow: [{name: valves, commands: [set-output], for: 20s, safe: [valve]}]
rules:
  - {name: hot, when: "x.a > 80", stale: 1h, do: [{command: set-output, args: {output: valve, value: 30}}]}
`

// TestLease: when a lease ends its outputs are safe, and the word that they are comes after
// that; while the fleet is there nothing ends. A second time is as the first.
func TestLease(t *testing.T) {
	simulate(t, leaseYAML, func(t *testing.T, h *host) {
		h.known()
		h.wait(time.Hour)
		for round := range 2 {
			if r := h.order("user/dora", "set-output", `{"output":"valve","value":40}`); r.State != command.Done {
				t.Fatalf("%+v", r)
			}
			h.words("autonomy")
			h.down()
			h.wait(24 * time.Second)
			if v, _ := h.stands("valve"); v != 40 {
				t.Errorf("round %d: before the lease ends the valve stands at %v", round, v)
			}
			h.wait(5 * time.Second)
			if v, by := h.stands("valve"); v != 0 || by != "rule/autonomy" {
				t.Errorf("round %d: the valve stands at %v by %s", round, v, by)
			}
			if w := h.words("autonomy"); !strings.Contains(w, "autonomy safe") {
				t.Errorf("round %d: %s", round, w)
			}
			if got := h.given("rule/autonomy"); len(got) != round+1 || got[round] != "set-output done" {
				t.Errorf("round %d: %q", round, got)
			}
			h.read("x.a", 90) // not among what is allowed any more
			h.wait(time.Second)
			if v, _ := h.stands("valve"); v != 0 {
				t.Errorf("round %d: a rule moved the valve to %v", round, v)
			}
			h.read("x.a", 20)
			h.connect()
			h.wait(5 * time.Second)
			if s := h.c.State(context.Background()).Autonomy; s == nil || s.State != "connected" {
				t.Errorf("round %d: %+v", round, s)
			}
			if got := h.at("autonomy", "state"); got != "connected" {
				t.Errorf("round %d: reported %s", round, got)
			}
		}
	})
}

// TestLatchedLease: while a safety shutdown holds, a lease that ends has nothing left to do.
func TestLatchedLease(t *testing.T) {
	simulate(t, leaseYAML, func(t *testing.T, h *host) {
		h.known()
		if r := h.order("user/dora", "trigger-safety-shutdown", `{}`); r.State != command.Done {
			t.Fatalf("%+v", r)
		}
		h.words("autonomy")
		h.down()
		h.wait(time.Minute)
		if w := h.words("autonomy"); !strings.Contains(w, "autonomy safe") || strings.Contains(w, "not safe yet") {
			t.Error(w)
		}
	})
}

// TestNotSafeYet: an output that does not go to its safe state is not told to be there; it
// is tried again.
func TestNotSafeYet(t *testing.T) {
	yaml := strings.Replace(leaseYAML, "safe: [valve]", "safe: [stuck, valve]", 1)
	t.Parallel()
	h := newHost(t, strings.Replace(boardYAML, "outputs:\n", "outputs:\n  - {name: stuck, kind: simulated, min: 0, max: 1, safe: 0, simulated: {fault: refuse}}\n", 1)+yaml)
	synctest.Test(t, func(t *testing.T) {
		h.t = t
		h.start()
		defer func() { h.end() }()
		h.wait(40 * time.Second)
		if w := h.words("autonomy"); !strings.Contains(w, "not safe yet") || strings.Contains(w, "autonomy safe") {
			t.Error(w)
		}
		if v, by := h.stands("valve"); v != 0 || by != "rule/autonomy" {
			t.Errorf("the valve stands at %v by %s", v, by)
		}
		if got := h.given("rule/autonomy"); len(got) < 4 {
			t.Errorf("tried %d times", len(got)/2)
		}
	})
}

// TestBroker: a board with a broker of its own is alone while that cannot be reached, and
// not for ever.
func TestBroker(t *testing.T) {
	simulate(t, leaseYAML, func(t *testing.T, h *host) {
		var lc link.Config
		h.c.Broker(&lc)
		ctx, cut := context.WithCancel(context.Background())
		go lc.Connected(ctx, 7)
		h.wait(time.Hour)
		if s := h.c.State(context.Background()).Autonomy; s.State != "connected" {
			t.Errorf("with its broker: %+v", s)
		}
		cut()
		h.wait(10 * time.Second)
		if s := h.c.State(context.Background()).Autonomy; s.State != "alone" {
			t.Errorf("without it: %+v", s)
		}
	})
}

// TestOverlap: a connection that ends late, as one that hung in a disk, takes nothing from
// the one that came after it.
func TestOverlap(t *testing.T) {
	simulate(t, leaseYAML, func(t *testing.T, h *host) {
		first, end := context.WithCancel(context.Background())
		second, cancel := context.WithCancel(context.Background())
		defer cancel()
		go h.line.Connected(first, 1)
		synctest.Wait()
		go h.line.Connected(second, 2)
		synctest.Wait()
		end()
		synctest.Wait()
		if !h.c.up() {
			t.Error("the board counts as cut off while it is connected")
		}
		cancel()
		synctest.Wait()
		if h.c.up() {
			t.Error("the board counts as connected while it is cut off")
		}
	})
}

// TestKeysComeLater: what came before the keys that signed it is asked for again.
func TestKeysComeLater(t *testing.T) {
	simulate(t, "", func(t *testing.T, h *host) {
		h.connect()
		h.edit(map[string]any{"app.x": 7})
		if v, _ := h.c.Twin().Get("app.x"); v != nil {
			t.Fatalf("taken of keys that are not known: %x", v)
		}
		h.line.Inbox(link.Down{Channel: schema.ChanKeys, Payload: h.keySet()})
		h.wait(2 * time.Second)
		if v, from := h.c.Twin().Get("app.x"); v == nil || from != twin.FromDesired {
			t.Errorf("app.x is %x from %v", v, from)
		}
	})
}

// TestReported: what a board says of itself comes and goes with what it has.
func TestReported(t *testing.T) {
	simulate(t, "", func(t *testing.T, h *host) {
		h.known()
		if h.reported("rule.wet") != nil || h.reported("autonomy") == nil || h.reported("safety") == nil {
			t.Errorf("reported rule %v, autonomy %v, safety %v", h.reported("rule.wet"), h.reported("autonomy"), h.reported("safety"))
		}
		h.edit(map[string]any{"rule.wet": map[string]any{"when": "x.b > 3", "stale": "1h", "do": []any{map[string]any{"command": "set-output", "args": map[string]any{"output": "lamp", "value": 1}}}}})
		h.read("x.b", 4)
		h.wait(2 * time.Second)
		if got := h.at("rule.wet", "state", "fired"); got != "on 1" {
			t.Errorf("reported %s, refused %v", got, h.reported("twin.refused"))
		}
		h.edit(map[string]any{"rule.wet": nil})
		h.wait(time.Second)
		if h.reported("rule.wet") != nil {
			t.Errorf("a rule that is gone is reported: %v", h.reported("rule.wet"))
		}
		h.c.mu.Lock()
		defer h.c.mu.Unlock()
		if len(h.c.decides) > 1 {
			t.Errorf("remembered: %v", h.c.decides)
		}
	})
}

// TestMuch: where not all fits the section, what matters most is told.
func TestMuch(t *testing.T) {
	simulate(t, "", func(t *testing.T, h *host) {
		h.known()
		is := map[string]any{"zone": map[string]any{"active": true}, "output.pump": 7, "huge": strings.Repeat("x", 4096)}
		for i := range 300 {
			is[fmt.Sprintf("rule.r%d", i)] = map[string]any{"why": strings.Repeat("y", 100)}
		}
		// Another one beside the board's own, which says the same all the time.
		c := &Control{cfg: h.c.cfg, shadow: h.c.shadow, told: reported{seen: set{}, not: map[string]bool{}}}
		c.differs(is)
		h.wait(2 * time.Second)
		if h.at("zone", "active") != "true" || fmt.Sprint(h.reported("output.pump")) != "7" {
			t.Errorf("reported %s, %v", h.at("zone", "active"), h.reported("output.pump"))
		}
		c.differs(map[string]any{"zone": map[string]any{"active": false}})
		h.wait(2 * time.Second)
		if h.at("zone", "active") != "false" || h.reported("rule.r1") != nil {
			t.Errorf("reported %s, %v", h.at("zone", "active"), h.reported("rule.r1"))
		}
	})
}

// TestState: a person at the board sees all of it.
func TestState(t *testing.T) {
	simulate(t, leaseYAML, func(t *testing.T, h *host) {
		h.read("x.a", 90)
		h.wait(10 * time.Second)
		s := h.c.State(context.Background())
		if len(s.Outputs) != 2 || s.Outputs[0].Name != "valve" || s.Outputs[0].Value == nil || *s.Outputs[0].Value != 30 || s.Outputs[0].Safe == nil {
			t.Errorf("outputs %+v", s.Outputs)
		}
		if len(s.Rules) != 1 || s.Rules[0].Name != "hot" || s.Rules[0].State != "on" || s.Rules[0].Fired != 1 {
			t.Errorf("rules %+v", s.Rules)
		}
		if s.Autonomy == nil || s.Autonomy.State != "alone" || len(s.Autonomy.Leases) != 1 || s.Autonomy.Leases[0].Left < 10 || s.Autonomy.Leases[0].Left > 20 {
			t.Errorf("autonomy %+v", s.Autonomy)
		}
		if s.Safety == nil || s.Safety.Active {
			t.Errorf("safety %+v", s.Safety)
		}
		if err := h.plant.Bank.Shutdown(context.Background(), "local/eva"); err != nil {
			t.Fatal(err)
		}
		h.wait(3 * time.Second)
		if s := h.c.State(context.Background()).Safety; s == nil || !s.Active || s.By != "local/eva" || s.For != 3 {
			t.Errorf("safety %+v", s)
		}
	})
}
