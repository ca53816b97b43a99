// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package autonomy

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"fulmar/schema/onboard"
	"fulmar/schema/rest"
	"fulmar/tests/local"
	"fulmar/tpm/tpmtest"
)

// Registers of the plant.
const (
	inlet = iota // must close when nobody can be asked
	bypass
	drain // may stand open for half of the cut, then its lease is over
	dose
	lateLamp
	lamp
)

const board = "dock-1"

// times are how a cut goes; the lease grows with it.
type times struct{ cut, grace, close, lease time.Duration }

func timesOf(t *testing.T) times {
	cut := time.Minute
	if s := os.Getenv("FULMAR_CUT"); s != "" {
		var err error
		if cut, err = time.ParseDuration(s); err != nil || cut < time.Minute {
			t.Fatalf("FULMAR_CUT=%q, wants a duration of 1m or more", s)
		}
	}
	return times{cut: cut, grace: 4 * time.Second, close: 5 * time.Second, lease: cut / 2}
}

// config is the board's: what moves, what decides, and what is allowed alone.
func (x times) config(p *field) string {
	var b strings.Builder
	b.WriteString(`sensors: {synthetic: 2}
sample: {groups: [{name: fast, period: 500ms, sensors: [synthetic]}, {name: normal, period: 5s, sensors: ["*"]}]}
outputs:
`)
	for i, n := range []string{"valve.inlet", "valve.bypass", "valve.drain", "valve.dose", "lamp.late", "lamp.aisle"} {
		safe := "safe: 0, "
		if i > dose {
			safe = "restore: leave, "
		}
		fmt.Fprintf(&b, "  - {name: %s, kind: modbus, unit: percent, min: 0, max: 100, %smodbus: {address: %q, device: 1, register: %d}}\n", n, safe, p.address, i)
	}
	fmt.Fprintf(&b, `rules:
  - name: nobody
    when: "true"
    alone: true
    for: %v
    do: [{command: set-valve-position, args: {valve: valve.inlet, percent: 0}}, {command: read-sensor-batch}]
  - name: pressure
    when: 'synthetic["001"] > app.trip'
    do: [{command: trigger-safety-shutdown, args: {reason: pressure}}]
autonomy:
  grace: %v
  back: 2s
  allow:
    - {name: rules, commands: ["*"], who: [rules], for: %v, safe: [valve.drain]}
    - {name: hands, commands: [set-valve-position, read-sensor-batch, release-safety-shutdown], who: [people]}
twin:
  policies:
    - {key: app.edge, policy: edge}
    - {key: app.max, policy: max}
    - {key: app.min, policy: min}
    - {key: app.hold, policy: hold}
`, x.close, x.grace, x.lease)
	return b.String()
}

// cut is one partition of one board.
type cut struct {
	*house
	times
	plant *field
	r     *report
	begun time.Time
	given map[string]deed // on the board, by id: what the report will say of it
	order []string
}

// TestCut: no network, and a valve that must close. What is done meanwhile at the board,
// by its rules and by the fleet, is afterwards known to both, once.
func TestCut(t *testing.T) {
	t.Parallel()
	tpmtest.Need(t, "swtpm")
	c := &cut{house: newHouse(t), times: timesOf(t), plant: newField(t), given: map[string]deed{}}
	c.r = &report{title: fmt.Sprintf("%s was alone for %v", board, c.cut)}
	p := c.admit()
	c.before()

	c.up.Cut()
	c.begun = time.Now()
	late, valid := c.fromFleet()
	c.atBoard()
	c.alone()
	c.wait(c.cut)
	c.up.Heal()
	c.linked(board, true)

	c.settled(late, valid)
	c.twins()
	c.books(p)
	c.r.judge(t)
}

// admit brings the board in: its key is in a TPM, and a person lets it in.
func (c *cut) admit() *local.Proc {
	c.t.Helper()
	chip := tpmtest.Start(c.t)
	p := c.start(board, chip.Path(), c.config(c.plant))
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	finger, err := c.Waiting(ctx, board)
	if err != nil {
		c.t.Fatalf("%v\n%s", err, p.Output())
	}
	if err := c.Admit(ctx, board, finger); err != nil {
		c.t.Fatal(err)
	}
	c.linked(board, true)
	return p
}

// before opens the valves and agrees on the keys, while the fleet can be asked.
func (c *cut) before() {
	c.t.Helper()
	c.until("the end of having been alone", time.Minute, func() bool {
		var s onboard.State
		c.must(board, &s, "status")
		return s.Autonomy != nil && s.Autonomy.State == "connected"
	})
	c.until("the commands that the board has", 30*time.Second, func() bool { return len(c.twin(board).Reported["commands"]) > 0 })
	c.wants(board, "begin", map[string]any{"app.fleet": 0, "app.edge": 0, "app.max": 8, "app.min": 8, "app.hold": 0, "app.trip": 1000})
	c.done(c.give(time.Minute, "set-valve-position", `{"valve": "valve.inlet", "percent": 100}`, "work begins", board))
	c.done(c.give(time.Minute, "set-valve-position", `{"valve": "valve.drain", "percent": 50}`, "work begins", board))
	c.until("the twin in sync", 30*time.Second, func() bool { return c.twin(board).InSync })
	if c.plant.stands(inlet) != 100 || c.plant.stands(drain) != 50 {
		c.t.Fatalf("the plant: %v", c.plant.is)
	}
	for _, e := range c.log() { // a board that was not let in yet was alone too
		if e.Actor != "fleet" {
			c.note(e.ID, deed{e.Name, e.Actor, "before", e.State + ": as it came in", "", ""})
		}
	}
	c.plant.forget()
}

func (c *cut) after() string { return time.Since(c.begun).Round(100 * time.Millisecond).String() }

// wait waits until so long after the cut.
func (c *cut) wait(d time.Duration) { time.Sleep(time.Until(c.begun.Add(d))) }

// fromFleet is what the fleet wants of a board that it cannot reach.
func (c *cut) fromFleet() (late, valid string) {
	c.t.Helper()
	late = c.give(5*time.Second, "set-output", `{"output": "lamp.late", "value": 77}`, "soon or never", board)
	valid = c.give(c.cut+10*time.Minute, "set-valve-position", `{"valve": "valve.dose", "percent": 55}`, "when it is back", board)
	c.wants(board, "from the desk", map[string]any{"app.fleet": 1, "app.edge": 1, "app.max": 7, "app.min": 7, "app.hold": 1})
	c.linked(board, false)
	return late, valid
}

// atBoard is what a person does there at once.
func (c *cut) atBoard() {
	c.t.Helper()
	c.set("app.fleet", 2)
	c.set("app.edge", 2)
	c.set("app.max", 9)
	c.set("app.min", 9)
	c.set("app.hold", 2)
	c.person("done", "30 % at the valve", "set-valve-position", "valve=valve.bypass", "percent=30")
	if s := c.person("done", "a reading", "read-sensor-batch", "sensors=synthetic.000"); !strings.Contains(string(s.Value), "synthetic.000") {
		c.t.Errorf("read-sensor-batch gave %s", s.Value)
	}
}

// alone is what happens once the board counts as alone.
func (c *cut) alone() {
	c.t.Helper()
	c.until("the valve closed", c.grace+c.close+20*time.Second, func() bool { return c.plant.stands(inlet) == 0 })
	c.onTime("the valve closed", c.grace+c.close)
	c.ruled("nobody", "set-valve-position", "closed")
	c.ruled("nobody", "read-sensor-batch", "a reading")
	code, said := c.house.local(board, nil, "give", "set-output", "output=lamp.aisle", "value=1")
	c.r.held(code == 22 && strings.Contains(said, "not-allowed-alone"), deed{"set-output lamp.aisle", "a person", c.after(), "refused: not allowed alone", "nothing", ""})

	c.person("done", "all outputs safe", "trigger-safety-shutdown")
	c.person("failed", "nothing moved", "set-valve-position", "valve=valve.bypass", "percent=99")
	c.person("done", "released", "release-safety-shutdown")
	c.person("done", "40 % at the valve", "set-valve-position", "valve=valve.bypass", "percent=40")

	c.set("app.trip", 0) // what is read is above it from now on
	c.ruled("pressure", "trigger-safety-shutdown", "all outputs safe")
	c.person("done", "released", "release-safety-shutdown")
	c.person("done", "45 % at the valve", "set-valve-position", "valve=valve.bypass", "percent=45")
	c.person("done", "50 % at the valve", "set-valve-position", "valve=valve.drain", "percent=50")
	if time.Since(c.begun) > c.grace+c.lease-time.Second {
		c.t.Fatal("this machine is too slow: the lease was over before the drain stood open")
	}
	c.until("the drain closed", c.cut, func() bool { return c.plant.stands(drain) == 0 })
	c.onTime("the drain closed", c.grace+c.lease)
	c.ruled("autonomy", "set-output", "the drain closed, its lease is over")
}

// onTime holds what has just happened to a span after the cut. The board looks at its link
// each second, so it may be early by that; late it is on a machine that has no time.
func (c *cut) onTime(what string, want time.Duration) {
	c.t.Helper()
	if took := time.Since(c.begun); took < want-time.Second || took > want+5*time.Second {
		c.t.Errorf("%s %v after the cut, wants %v", what, took, want)
	}
}

// person gives a command at the board that has to end in a state.
func (c *cut) person(state, effect string, words ...string) (s onboard.Step) {
	c.t.Helper()
	at := c.after()
	code, said := c.house.local(board, &s, append([]string{"give", "--reason", "by hand"}, words...)...)
	if s.ID == "" || s.State != state {
		c.t.Fatalf("fulmar local give %v: exit code %d, %+v: %s", words, code, s, said)
	}
	c.note(s.ID, deed{strings.Join(words, " "), "a person", at, s.State + ": " + effect, "", ""})
	return s
}

func (c *cut) note(id string, d deed) {
	if _, twice := c.given[id]; !twice {
		c.order = append(c.order, id)
	}
	c.given[id] = d
}

// ruled waits until a rule's command is over.
func (c *cut) ruled(rule, name, effect string) {
	c.t.Helper()
	c.until(name+" by "+rule, 20*time.Second, func() bool {
		for _, e := range c.log() {
			if _, before := c.given[e.ID]; !before && e.Actor == "rule/"+rule && e.Name == name && e.State == "done" {
				c.note(e.ID, deed{name, e.Actor, c.after(), "done: " + effect, "", ""})
				return true
			}
		}
		return false
	})
}

// log is the board's own.
func (c *cut) log() (all []onboard.Entry) {
	c.t.Helper()
	c.must(board, &all, "log", "-n", "256")
	return all
}

func (c *cut) set(key string, v int) {
	c.t.Helper()
	c.must(board, nil, "set", fmt.Sprintf("%s=%d", key, v), "--reason", "by hand")
}

// settled holds the fleet's rows to what was done on the board, and the plant to both.
func (c *cut) settled(late, valid string) {
	c.t.Helper()
	c.done(valid)
	c.until("all results at the fleet", 30*time.Second, func() bool {
		n := 0
		for _, row := range c.rows(board) {
			if row.Local && rest.CommandFinal(stateOf(&row)) {
				n++
			}
		}
		return n >= len(c.given)
	})
	time.Sleep(2 * time.Second) // for what comes once too often
	rows := map[string][]rest.Command{}
	for _, row := range c.rows(board) {
		if row.Local {
			id := c.state(row.ID).ID
			rows[id] = append(rows[id], row)
		}
	}
	for _, e := range c.log() {
		if _, known := c.given[e.ID]; !known && strings.Contains(e.Actor, "/") {
			c.r.held(false, deed{e.Name, e.Actor, "?", e.State, "", ""}) // nobody gave it
		}
	}
	for _, id := range c.order {
		d := c.given[id]
		all := rows[id]
		for _, row := range all {
			d.fleet += stateOf(&row) + " "
		}
		want, _, _ := strings.Cut(d.effect, ":")
		d.fleet += fmt.Sprintf("(%d row)", len(all))
		c.r.held(len(all) == 1 && stateOf(&all[0]) == want, d)
		delete(rows, id)
	}
	for id, all := range rows {
		c.r.held(false, deed{all[0].Name, all[0].Actor, "?", "not given on the board", fmt.Sprintf("%d rows of %s", len(all), id), ""})
	}
	var s rest.CommandBoard
	c.until("a last word on the one that came too late", 2*time.Minute, func() bool { s = c.state(late); return rest.CommandFinal(s.State) })
	c.r.held(s.State == rest.CommandExpired, deed{"set-output lamp.late, valid 5s", "the fleet", "0s", "never", s.State, ""})
	s = c.state(valid)
	c.r.held(s.State == rest.CommandDone, deed{"set-valve-position valve.dose 55", "the fleet", "0s", "once", s.State, ""})
	for reg, want := range [][]int{
		inlet:    {0, 0, 0}, // the rule, and two shutdowns
		bypass:   {30, 0, 40, 0, 45},
		drain:    {0, 0, 50, 0}, // two shutdowns, by hand, and the end of the lease
		dose:     {0, 0, 55},
		lateLamp: nil,
		lamp:     nil,
	} {
		got := c.plant.written(uint16(reg))
		c.r.held(slices.Equal(got, want), deed{fmt.Sprintf("register %d", reg), "all of them", "", fmt.Sprintf("written %v", got), fmt.Sprintf("given %v", want), ""})
	}
}

// stateOf is the state of a row of one board.
func stateOf(c *rest.Command) string {
	for s, n := range c.Counts {
		if n > 0 {
			return s
		}
	}
	return ""
}

// twins holds both sides to the same keys, and has a person decide the one that waits.
func (c *cut) twins() {
	c.t.Helper()
	c.until("the twin in sync", 30*time.Second, func() bool { return c.twin(board).InSync })
	conflicts := func() []rest.TwinConflict {
		var l rest.List[rest.TwinConflict]
		if err := c.api.Get(c.t.Context(), "/api/v1/conflicts", &l); err != nil {
			c.t.Fatal(err)
		}
		return l.Items
	}
	all := conflicts()
	ok := len(all) == 1 && all[0].Key == "app.hold" && string(all[0].Fleet.Value) == "1" && string(all[0].Holds) == "2"
	c.same("app.hold", "hold", "2")
	c.post(http.MethodPost, "conflicts/decide", rest.TwinDecision{Board: board, Key: "app.hold", Choose: rest.ChooseFleet, Reason: "asked the shift leader"}, nil)
	c.until("the decision on both sides", 30*time.Second, func() bool {
		var there []onboard.Conflict
		c.must(board, &there, "conflicts")
		return len(there) == 0 && len(conflicts()) == 0 && c.twin(board).InSync
	})
	c.r.held(ok, deed{"app.hold decided for the fleet's", "a person", "", "1 call", fmt.Sprintf("%d conflict before, %d after", len(all), len(conflicts())), ""})
	c.same("app.hold", "decided", "1")
	c.same("app.fleet", "fleet", "1")
	c.same("app.edge", "edge", "2")
	c.same("app.max", "max", "9")
	c.same("app.min", "min", "7")
	c.same("app.trip", "one side", "0")
}

// same holds a key to its value at the board and at the fleet.
func (c *cut) same(key, policy, want string) {
	c.t.Helper()
	var here []onboard.Key
	c.must(board, &here, "twin")
	b, f := "", ""
	for _, k := range here {
		if k.Key == key {
			b = string(k.Value)
		}
	}
	t := c.twin(board)
	for _, k := range t.Keys {
		if k.Key == key {
			f = string(k.Value)
		}
	}
	if len(here) != len(t.Keys) {
		c.t.Errorf("%d keys at the board, %d at the fleet", len(here), len(t.Keys))
	}
	c.r.held(b == want && f == want, deed{key + " set on both sides", policy, "", b, f, ""})
}

// books stops the board and holds the loss ledger to its sum.
func (c *cut) books(p *local.Proc) {
	c.t.Helper()
	if _, err := p.Stop(); err != nil {
		c.t.Fatal(err)
	}
	b, err := c.api.Books(c.t.Context(), board)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, l := range b.Ledger {
		c.r.held(l.Made == l.Arrived && l.Lost == 0 && l.Waiting == 0, deed{"records: " + l.Class, "the board", "", fmt.Sprintf("%d made", l.Made), fmt.Sprintf("%d arrived, %d lost, %d waiting", l.Arrived, l.Lost, l.Waiting), ""})
	}
	if len(b.Ledger) == 0 {
		c.t.Error("there are no books")
	}
}
