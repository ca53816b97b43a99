// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package autonomy

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/agent/commands"
	"fulmar/command"
	"fulmar/schema"
	"fulmar/schema/rest"
	"fulmar/twin"
)

// TestSeventeenMinutes: 86 boards, and no network for 17 minutes. Each closes its valve,
// does what people at it and its rules say, and is afterwards what the fleet knows.
func TestSeventeenMinutes(t *testing.T) {
	t.Parallel()
	seeds := uint64(1)
	if os.Getenv("FULMAR_CUT") != "" { // make soak
		seeds = 30
	}
	for seed := range seeds {
		begun := time.Now()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed, 86)
			defer w.close()
			newCut86(w).run(17 * time.Minute)
		})
		t.Logf("seed %d took %v", seed, time.Since(begun).Round(time.Millisecond))
	}
}

// at is one board during the cut, and what was done there.
type at struct {
	*post
	t    *testing.T
	n    int
	mine map[command.ID]string // given here: its name, who gave it, and its end
}

type cut86 struct {
	*world
	r     *report
	begun time.Time
	all   []*at
	when  map[string][2]time.Duration // of each deed: the first and the last
	sum   map[string][3]int           // how often it was given, had its effect, is at the fleet
	told  int                         // outputs
	late  string
	valid string
}

func newCut86(w *world) *cut86 {
	c := &cut86{world: w, r: &report{title: fmt.Sprintf("%d boards were alone for 17 minutes", len(w.posts))}, when: map[string][2]time.Duration{}, sum: map[string][3]int{}}
	for i, n := range slices.Sorted(maps.Keys(w.posts)) {
		c.all = append(c.all, &at{post: w.posts[n], t: w.t, n: i, mine: map[command.ID]string{}})
	}
	return c
}

// each does something at all boards at once and waits for the end of it.
func (c *cut86) each(do func(a *at)) {
	var wg sync.WaitGroup
	for _, a := range c.all {
		wg.Go(func() { do(a) })
	}
	wg.Wait()
}

func (c *cut86) run(long time.Duration) {
	c.settle(true) // a board on a line that dies again and again counts as alone before
	c.before()
	c.settle(false)
	c.begun = time.Now()
	c.each(func(a *at) { a.holdUp() })
	c.late = c.give(time.Minute, "set-output", `{"output": "lamp", "value": 77}`) // it leaves, and comes when it is too late
	c.each(func(a *at) {
		time.Sleep(time.Second + c.within(10*time.Second))
		a.cut()
	})
	c.fromFleet()
	c.each(func(a *at) { c.alone(a) })
	if left := long - time.Since(c.begun); left < 0 {
		c.t.Fatalf("it took %v more than the cut has", -left)
	}
	time.Sleep(long - time.Since(c.begun))
	c.each(func(a *at) { // it comes back in pieces
		for range 3 {
			time.Sleep(c.within(20 * time.Second))
			a.heal()
			time.Sleep(c.within(20 * time.Second))
			a.cut()
		}
		a.heal()
		if a.release() == 0 {
			a.t.Errorf("%s: the command that is to come too late never left", a.name)
		}
	})
	time.Sleep(2 * time.Minute)
	c.settle(true)
	healed := time.Now()
	for !c.inSync() && time.Since(healed) < 5*time.Minute {
		time.Sleep(time.Second)
	}
	c.t.Logf("all in sync %v after the line was whole", time.Since(healed))
	c.judge()
}

// before has all of them linked, open and agreed.
func (c *cut86) before() {
	c.each(func(a *at) { time.Sleep(c.within(10 * time.Second)); a.heal() })
	time.Sleep(time.Minute)
	c.edit("begin", map[string]int{"app.fleet": 0, "app.edge": 0, "app.max": 8, "app.min": 8, "app.hold": 0})
	c.give(time.Hour, "set-valve-position", `{"valve": "inlet", "percent": 100}`)
	time.Sleep(5 * time.Minute)
	for _, a := range c.all {
		if got := a.told("inlet"); len(got) == 0 || got[len(got)-1] != 100 {
			c.t.Fatalf("%s: the inlet was told %v", a.name, got)
		}
		a.forget()
	}
}

func (c *cut86) edit(reason string, set map[string]int) {
	c.t.Helper()
	p := rest.TwinPatch{Set: map[string]json.RawMessage{}, Reason: reason}
	for k, v := range set {
		p.Set[k] = json.RawMessage(fmt.Sprint(v))
	}
	names, _ := c.Boards(context.Background(), ann(), "")
	all, err := c.twins.PatchMany(context.Background(), ann(), names, p, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, x := range all {
		if x.Error != "" {
			c.t.Fatal(x)
		}
	}
}

func (c *cut86) give(valid time.Duration, name, args string) string {
	c.t.Helper()
	boards, _ := c.Boards(context.Background(), ann(), "")
	x, err := c.orders.Give(context.Background(), ann(), rest.CommandSpec{Boards: boards, Name: name, Args: json.RawMessage(args), ValidS: int64(valid / time.Second)})
	if err != nil {
		c.t.Fatal(err)
	}
	return x.ID
}

// fromFleet is what the fleet wants of boards that it cannot reach.
func (c *cut86) fromFleet() {
	c.t.Helper()
	c.valid = c.give(time.Hour, "set-valve-position", `{"valve": "dose", "percent": 55}`)
	c.edit("from the desk", map[string]int{"app.fleet": 1, "app.edge": 1, "app.max": 7, "app.min": 7, "app.hold": 1})
}

// alone is what happens at one board: people, readings, rules.
func (c *cut86) alone(a *at) {
	pause := func(least time.Duration) { time.Sleep(least + c.within(time.Minute)) }
	pause(time.Second)
	for k, v := range map[string]int{"app.fleet": 2, "app.edge": 2, "app.max": 9, "app.min": 9, "app.hold": 2} {
		x, err := twin.ValueOf(v)
		if err == nil {
			err = a.ctl.Twin().Set(k, twin.Edit{Value: x, Author: "local/eve", Reason: "by hand"})
		}
		if err != nil {
			a.t.Errorf("%s: %v", a.name, err)
		}
	}
	a.reads(1)
	pause(3 * time.Minute) // by now the rule has closed the inlet
	c.person(a, command.Done, "set-valve-position", map[string]any{"valve": "bypass", "percent": 10 + a.n%30})
	c.person(a, command.Done, "read-sensor-batch", nil)
	pause(time.Minute)
	if a.byRule() {
		a.reads(9)
		time.Sleep(5 * time.Second)
		a.reads(1)
	} else {
		c.person(a, command.Done, "trigger-safety-shutdown", map[string]any{"reason": "smoke"})
	}
	time.Sleep(10 * time.Second)
	c.person(a, command.Failed, "set-valve-position", map[string]any{"valve": "bypass", "percent": 99})
	pause(time.Second)
	c.person(a, command.Done, "release-safety-shutdown", nil)
	c.person(a, command.Done, "set-valve-position", map[string]any{"valve": "bypass", "percent": 40 + a.n%30})
}

// byRule: here the pressure rises, and a rule does what elsewhere somebody does.
func (a *at) byRule() bool { return a.n%2 == 0 }

// reads is the sampler's word of a reading.
func (a *at) reads(bar float64) {
	a.latest.Put("main.pressure_bar", bar, schema.QualityGood, a.clock.Now().Mono)
	a.ctl.Samples(&schema.Samples{Series: []string{"main.pressure_bar"}, Value: []float64{bar}, Quality: []schema.Quality{schema.QualityGood}})
}

func (c *cut86) person(a *at, want command.State, name string, args map[string]any) {
	b, err := schema.Encode(args)
	if args == nil {
		b = nil
	}
	var r command.Result
	if err == nil {
		r, err = a.ctl.Commands().Local(context.Background(), "local/eve", name, b, commands.Options{Reason: "by hand"})
	}
	if err == nil && !r.State.Final() {
		r, err = a.ctl.Commands().Wait(context.Background(), r.ID)
	}
	if err != nil || r.State != want {
		a.t.Errorf("%s: %s: %+v, %v; wants %v", a.name, name, r, err, want)
	}
}

// judge holds what the fleet has to what was done.
func (c *cut86) judge() {
	ctx := context.Background()
	for _, a := range c.all {
		c.rows(ctx, a)
		c.device(a, "inlet", 0, 0)
		c.device(a, "bypass", float64(10+a.n%30), 0, float64(40+a.n%30))
		c.device(a, "dose", 0, 55)
		c.device(a, "lamp")
	}
	c.r.held(c.told == 4*len(c.all), deed{"all outputs", "all of them", "", fmt.Sprintf("%d told what was given, once, in its order", c.told), fmt.Sprintf("of %d", 4*len(c.all)), ""})
	for _, x := range []struct {
		id, want, what string
	}{{c.late, rest.CommandExpired, "set-output lamp, valid 1m"}, {c.valid, rest.CommandDone, "set-valve-position dose, valid 1h"}} {
		v, err := c.orders.Get(ctx, tenant, x.id, true, nil)
		if err != nil {
			c.t.Fatal(err)
		}
		c.r.held(v.Counts[x.want] == len(c.all), deed{x.what, "the fleet", "10s", map[bool]string{true: "once each", false: "never"}[x.want == rest.CommandDone], fmt.Sprintf("%d %s", v.Counts[x.want], x.want), ""})
	}
	for _, what := range slices.Sorted(maps.Keys(c.sum)) {
		s, d := c.sum[what], c.when[what]
		name, by, _ := strings.Cut(what, "|")
		row := deed{name, by, fmt.Sprintf("%v to %v", d[0].Round(time.Second), d[1].Round(time.Second)), fmt.Sprintf("%d times", s[0]), fmt.Sprintf("%d rows, once each and of the same end: %d", s[2], s[1]), ""}
		c.r.held(s[0] == s[1] && s[1] == s[2], row)
	}
	c.keysAgree(ctx)
	c.t.Logf("%d times the line lost or doubled something", c.lost)
	c.r.judge(c.t)
}

// rows holds the fleet's rows of one board's own commands to the board's log.
func (c *cut86) rows(ctx context.Context, a *at) {
	log, err := a.ctl.Commands().List(ctx, 256)
	if err != nil {
		c.t.Fatal(err)
	}
	list, next, err := c.orders.OfBoard(ctx, tenant, a.name, "", 1000)
	if err != nil || next != "" {
		c.t.Fatal(err, next)
	}
	at := map[string][]rest.Command{}
	for _, row := range list {
		if row.Local {
			v, err := c.orders.Get(ctx, tenant, row.ID, true, nil)
			if err != nil {
				c.t.Fatal(err)
			}
			at[v.Boards[0].ID] = append(at[v.Boards[0].ID], *v)
		}
	}
	given := map[string]int{}
	for _, e := range log {
		if e.Command == nil || e.Command.Actor == command.ActorFleet {
			continue
		}
		key := e.Command.Name + " " + e.Result.State.String() + "|" + e.Command.Actor
		given[key]++
		s, d := c.sum[key], c.when[key]
		s[0]++
		all := at[e.Result.ID.String()]
		s[2] += len(all)
		if len(all) == 1 && all[0].Boards[0].State == e.Result.State.String() {
			s[1]++
		} else {
			c.t.Errorf("%s: %s is %v on the board and at the fleet %+v", a.name, key, e.Result.State, all)
		}
		delete(at, e.Result.ID.String())
		after := time.UnixMilli(e.Given.Wall).Sub(c.begun)
		if d[0] == 0 || after < d[0] {
			d[0] = after
		}
		d[1] = max(d[1], after)
		c.sum[key], c.when[key] = s, d
	}
	for id, all := range at {
		c.r.held(false, deed{all[0].Name, all[0].Actor, "?", "not done on " + a.name, id, ""})
	}
	want := map[string]int{
		"set-valve-position done|rule/nobody": 1, "read-sensor-batch done|rule/nobody": 1, "set-valve-position done|local/eve": 2,
		"read-sensor-batch done|local/eve": 1, "set-valve-position failed|local/eve": 1, "release-safety-shutdown done|local/eve": 1,
		"trigger-safety-shutdown done|" + map[bool]string{true: "rule/pressure", false: "local/eve"}[a.byRule()]: 1,
	}
	if !maps.Equal(given, want) {
		c.r.held(false, deed{"all", a.name, "", fmt.Sprint(given), fmt.Sprint(want), ""})
	}
}

// device holds what a device was told to what was given, in its order.
func (c *cut86) device(a *at, name string, want ...float64) {
	if got := a.told(name); slices.Equal(got, want) {
		c.told++
	} else {
		c.r.held(false, deed{"output " + name, a.name, "", fmt.Sprintf("told %v", got), fmt.Sprintf("given %v", want), ""})
	}
}

// keysAgree holds both sides of each twin to each other, and decides what waits.
func (c *cut86) keysAgree(ctx context.Context) {
	want := map[string]string{"app.fleet": "1", "app.edge": "2", "app.max": "9", "app.min": "7", "app.hold": "2"}
	c.agree(ctx, "keys, set on both sides", want)
	all, err := c.twins.Conflicts(ctx, tenant)
	if err != nil {
		c.t.Fatal(err)
	}
	decided := 0
	for _, x := range all {
		if _, err := c.twins.Decide(ctx, ann(), rest.TwinDecision{Board: x.Board, Key: x.Key, Choose: rest.ChooseFleet, Reason: "asked the shift leader"}); err != nil {
			c.t.Error(err)
			continue
		}
		decided++
	}
	time.Sleep(time.Minute)
	left, err := c.twins.Conflicts(ctx, tenant)
	if err != nil {
		c.t.Fatal(err)
	}
	c.r.held(decided == len(c.all) && len(left) == 0, deed{"app.hold decided for the fleet's", "ann", "", fmt.Sprintf("%d calls", decided), fmt.Sprintf("%d conflicts before, %d after", len(all), len(left)), ""})
	want["app.hold"] = "1"
	c.agree(ctx, "keys, after the decision", want)
}

func (c *cut86) inSync() bool {
	for _, a := range c.all {
		if t, err := c.twins.Twin(context.Background(), tenant, a.name); err != nil || !t.InSync {
			return false
		}
	}
	return true
}

func (c *cut86) agree(ctx context.Context, what string, want map[string]string) {
	same := 0
	for _, a := range c.all {
		t, err := c.twins.Twin(ctx, tenant, a.name)
		if err != nil {
			c.t.Fatal(err)
		}
		there := map[string]string{}
		for _, k := range t.Keys {
			there[k.Key] = string(k.Value)
		}
		here := map[string]string{}
		for k, v := range a.ctl.Twin().Effective() {
			b, err := command.ToJSON(v)
			if err != nil {
				c.t.Fatal(err)
			}
			here[k] = string(b)
		}
		if t.InSync && maps.Equal(there, want) && maps.Equal(here, want) {
			same++
		} else {
			c.t.Errorf("%s: in sync %v, at the fleet %v, on the board %v", a.name, t.InSync, there, here)
		}
	}
	c.r.held(same == len(c.all), deed{what, "both", "", fmt.Sprint(want), fmt.Sprintf("%d of %d boards in sync and the same", same, len(c.all)), ""})
}
