// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rule

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"fulmar/device/rule/cond"
)

// tick is the grid on which everything of these schedules happens.
const tick = 100 * time.Millisecond

// event is one input of a schedule at a tick.
type event struct {
	at    int
	name  string // reading, app.x, link, alone, cam (running), seen (detections)
	v     float64
	known bool
}

type schedule struct {
	rules  []Spec
	events []event
	ticks  int
	by     map[string][]event // the same by name
	deaf   map[string]bool    // "tick rule": who is asked there takes nothing
}

func at(n int) time.Duration { return time.Duration(n) * tick }

// drawn makes a schedule: readings that wander over a threshold and go bad or silent, a
// link that goes and comes, detections.
func drawn(seed uint64) schedule {
	r := rand.New(rand.NewPCG(seed, 77))
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	s := schedule{ticks: 700 + 8000*int((seed%20)/19), deaf: map[string]bool{}, by: map[string][]event{}}
	whens := []string{
		"x.a > 2", "x.a > 2 and x.b < 2", "x.a > 2 or x.b > 2", "not known(x.a)", "app.x == 1", "link.down_for >= 3", "not link.up and x.a > 1",
		`count("c", "p", 6) >= 3`, `count("*", "*", 6) >= 3 and x.a > 1`, "x.a / x.b > 1", "x.a > 2 and app.x == 1",
	}
	for i := range 3 {
		rule := Spec{
			Name: fmt.Sprintf("r%d", i), When: whens[r.IntN(len(whens))], For: pick("", "", "300ms", "1s", "4s"), Every: pick("", "", "2s", "9s"),
			Lease: pick("", "", "2s", "5s"), Stale: pick("", "1s", "2s"), Alone: r.IntN(4) == 0, Do: []Action{{Command: "do-1"}, {Command: "do-2"}},
		}
		if r.IntN(2) == 0 {
			rule.Else = []Action{{Command: "else-1"}}
		}
		if r.IntN(3) == 0 {
			rule.Until = pick("x.a < 1", "x.b < 1", "app.x == 0", "link.up")
		}
		s.rules = append(s.rules, rule)
	}
	calm := 1 + r.IntN(30) // some schedules are so wild that rules are slowed
	for t := range s.ticks {
		for _, name := range []string{"x.a", "x.b"} {
			if r.IntN(8) == 0 && (t/100)%3 != 2 { // then nothing comes for ten seconds
				s.events = append(s.events, event{t, name, float64(r.IntN(4)), r.IntN(12) != 0})
			}
		}
		if r.IntN(calm+5) == 0 {
			name := pick("app.x", "link", "alone", "cam", "seen", "seen")
			s.events = append(s.events, event{t, name, float64(r.IntN(2)), r.IntN(10) != 0})
		}
		for _, rule := range s.rules {
			if r.IntN(6) == 0 {
				s.deaf[fmt.Sprint(t, " ", rule.Name)] = true
			}
		}
	}
	for _, ev := range s.events {
		s.by[ev.name] = append(s.by[ev.name], ev)
	}
	return s
}

// played is what the engine does in a schedule: it is only woken when something comes or
// when it asked for it.
func played(t *testing.T, s schedule) (log []string, evals uint64) {
	e := NewEngine(Options{}, nil)
	e.Set(0, programs(t, s.rules))
	e.Link(0, false, 0)
	next, events := time.Duration(0), s.events
	for n := range s.ticks {
		now, due := at(n), false
		for ; len(events) > 0 && events[0].at == n; events = events[1:] {
			feed(e, now, events[0])
			due = true
		}
		if !due && next > now {
			continue
		}
		if next < now {
			t.Fatalf("asked to be woken at %v, between two ticks", next)
		}
		for more := true; more; {
			var jobs []Job
			jobs, next = e.Step(now)
			more = len(jobs) > 0
			slices.SortFunc(jobs, func(a, b Job) int { return strings.Compare(a.Rule, b.Rule) })
			for _, j := range jobs {
				if s.deaf[fmt.Sprint(n, " ", j.Rule)] {
					e.Done(now, j, 0, errors.New("deaf"))
					continue
				}
				for _, o := range j.Orders {
					log = append(log, fmt.Sprint(now, " ", j.Rule, " ", o.Action.Command))
				}
				e.Done(now, j, len(j.Orders), nil)
			}
		}
	}
	return log, e.evals
}

func programs(t testing.TB, specs []Spec) (out []*Program) {
	t.Helper()
	for _, s := range specs {
		p, err := Compile(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

func feed(e *Engine, now time.Duration, ev event) {
	switch ev.name {
	case "link":
		if up := ev.v == 1; up != e.linkUp {
			e.Link(now, up, 0)
		}
	case "alone":
		e.Alone(ev.v == 1)
	case "cam":
		e.Camera(now, "c", ev.v == 1)
	case "seen":
		e.Detections(now, "c", "p", 1)
	case "app.x":
		v := cond.Value{}
		if ev.known {
			v = cond.Num(ev.v)
		}
		e.App(now, "x", v)
	default:
		e.Reading(now, ev.name, ev.v, ev.known)
	}
}

// reference is the same in the words of the documentation, without any care for cost: at
// each tick all is computed from all that ever came.
type reference struct {
	s    schedule
	spec Spec
	p    *Program
	// what it did
	fires, ends []int
	spent       bool
	todo        []string
	ofElse, did bool
	tries       int
	retry       int
	log         []string
	readyAt     []bool
}

// before gives the newest event of a name up to a tick, the one before it, and how many.
func (r *reference) before(n int, name string) (newest, second event, count int) {
	all := r.s.by[name]
	count = sort.Search(len(all), func(i int) bool { return all[i].at > n })
	if count > 0 {
		newest = all[count-1]
	}
	if count > 1 {
		second = all[count-2]
	}
	return newest, second, count
}

func (r *reference) value(in cond.Input, n int) cond.Value {
	now := at(n)
	if in.Window > 0 {
		total := 0.0
		for _, ev := range r.s.by["seen"] {
			if ev.at <= n && at(ev.at)/(in.Window/60) > now/(in.Window/60)-60 {
				total++
			}
		}
		if cam, _, count := r.before(n, "cam"); count == 0 || cam.v == 0 || now >= at(cam.at)+10*time.Second {
			return cond.Value{}
		}
		return cond.Num(total)
	}
	switch in.Name {
	case "link.up":
		link, _, _ := r.before(n, "link")
		return cond.Is(link.v == 1)
	case "link.down_for":
		down, up := 0, false // since when
		for _, ev := range r.s.by["link"] {
			if ev.at > n {
				break
			}
			if up && ev.v == 0 {
				down = ev.at
			}
			up = ev.v == 1
		}
		if up {
			return cond.Num(0)
		}
		return cond.Num(float64((now - at(down)) / time.Second))
	}
	newest, second, count := r.before(n, in.Name)
	if count == 0 || !newest.known {
		return cond.Value{}
	}
	if in.Name == "app.x" {
		return cond.Num(newest.v)
	}
	life := 3 * time.Minute
	if count > 1 {
		life = max(5*time.Second, 3*at(newest.at-second.at))
	}
	if r.p.StaleFor > 0 {
		life = r.p.StaleFor
	}
	if now >= at(newest.at)+life {
		return cond.Value{}
	}
	return cond.Num(newest.v)
}

func (r *reference) answer(e *cond.Expr, n int) cond.Value {
	in := make([]cond.Value, len(e.Inputs))
	for i := range in {
		in[i] = r.value(e.Inputs[i], n)
	}
	v, _ := e.Eval(in)
	return v
}

func last(ticks []int) int {
	if len(ticks) == 0 {
		return -1
	}
	return ticks[len(ticks)-1]
}

// step is one tick.
func (r *reference) step(n int) {
	yes := r.answer(r.p.Cond, n)
	end := cond.Value{}
	switch {
	case r.p.End != nil:
		end = r.answer(r.p.End, n)
	case yes.Known():
		end = cond.Is(!yes.True())
	}
	if alone, _, _ := r.before(n, "alone"); r.spec.Alone && alone.v == 0 {
		yes, end = cond.Is(false), cond.Is(true)
	}
	r.readyAt = append(r.readyAt, yes.True() && !end.True())
	if on := len(r.fires) > len(r.ends); on && end.True() {
		if !r.spent {
			r.undo(n)
		}
		r.ends = append(r.ends, n)
	} else if on && !r.spent && r.p.LeaseFor > 0 && at(n) >= at(last(r.fires))+r.p.LeaseFor {
		r.spent = true
		r.undo(n)
	} else if !on && r.mayFire(n) {
		r.fires = append(r.fires, n)
		r.spent, r.did = false, false
		r.start([]string{"do-1", "do-2"}, false, n)
	}
	if len(r.todo) > 0 && n >= r.retry {
		if r.s.deaf[fmt.Sprint(n, " ", r.spec.Name)] {
			r.retry = n + int(min(time.Second<<r.tries, time.Minute)/tick)
			r.tries++
			return
		}
		for _, what := range r.todo {
			r.log = append(r.log, fmt.Sprint(at(n), " ", r.spec.Name, " ", what))
		}
		r.todo, r.did = nil, r.did || !r.ofElse
	}
}

func (r *reference) mayFire(n int) bool {
	hold := int(r.p.HoldFor / tick)
	for i := n - hold; i <= n; i++ {
		if i < 0 || !r.readyAt[i] || i <= last(r.ends) {
			return false
		}
	}
	if len(r.fires) > 0 && at(n) < at(last(r.fires))+r.p.EveryFor {
		return false
	}
	lately := 0
	for _, f := range r.fires {
		if at(n-f) < 10*time.Minute {
			lately++
		}
	}
	return lately < 10 || at(n-last(r.fires)) >= time.Minute
}

func (r *reference) undo(n int) {
	r.todo = nil
	if r.did && len(r.spec.Else) > 0 {
		r.start([]string{"else-1"}, true, n)
	}
}

func (r *reference) start(what []string, ofElse bool, n int) {
	r.todo, r.ofElse, r.tries, r.retry = what, ofElse, 0, n
}

// TestAgainstReference plays random schedules on the engine and on the reference.
func TestAgainstReference(t *testing.T) {
	t.Parallel()
	n := 2000
	if testing.Short() {
		n = 100
	}
	total, slowed, kinds := 0, 0, map[string]int{}
	for seed := range uint64(n) {
		s := drawn(seed)
		got, evals := played(t, s)
		var want []string
		for _, spec := range s.rules {
			ref := &reference{s: s, spec: spec, p: programs(t, []Spec{spec})[0]}
			for i := range s.ticks {
				ref.step(i)
			}
			want = append(want, ref.log...)
			if len(ref.fires) >= 11 {
				slowed++
			}
		}
		mine := slices.Clone(got)
		slices.Sort(mine)
		slices.Sort(want)
		if !slices.Equal(mine, want) {
			t.Fatalf("schedule %d:\nrules %+v\nengine    %v\nreference %v", seed, s.rules, mine, want)
		}
		if evals > uint64(len(s.rules)*s.ticks/2) {
			t.Errorf("schedule %d: %d evaluations in %d ticks: more than what changed", seed, evals, s.ticks)
		}
		for _, l := range got {
			kinds[l[strings.LastIndex(l, " ")+1:]]++
			total++
		}
	}
	t.Logf("%d schedules, %d actions: %v, %d rules fired more than ten times", n, total, kinds, slowed)
	if total < 5*n || kinds["else-1"] < n/2 || slowed == 0 {
		t.Errorf("the schedules do too little")
	}
}
