// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rule

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/device/rule/cond"
	"fulmar/device/rule/script"
	"fulmar/schema"
)

// journal is a command journal: what it knows by its ID it does not do again.
type journal struct {
	mu    sync.Mutex
	known map[[16]byte]bool
	log   []string
	err   error
	hang  map[string]chan struct{} // commands that do not come back
}

func (j *journal) Do(ctx context.Context, o Order) error {
	j.mu.Lock()
	hang, err := j.hang[o.Action.Command], j.err
	j.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.known == nil {
		j.known = map[[16]byte]bool{}
	}
	if !j.known[o.ID] {
		j.known[o.ID] = true
		j.log = append(j.log, script.Words([]Action{o.Action}))
	}
	return nil
}

func (j *journal) take() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := strings.Join(j.log, ", ")
	j.log = nil
	return s
}

type rig struct {
	*Runner
	stop func()
	told []State
}

func start(t *testing.T, cfg Config, specs ...Spec) *rig {
	t.Helper()
	g := &rig{}
	cfg.Changed = func(s State) { g.told = append(g.told, s) }
	g.Runner = Open(cfg)
	g.Rules(programs(t, specs))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- g.Run(ctx) }()
	g.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	synctest.Wait()
	return g
}

func (g *rig) read(v float64) {
	g.Samples(&schema.Samples{Series: []string{"other.x", "x.a"}, Value: []float64{0, v}})
	synctest.Wait()
}

func (g *rig) state(t *testing.T, name string) State {
	t.Helper()
	for _, s := range g.States() {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no rule %s", name)
	return State{}
}

var valve = Spec{
	Name: "valve", When: "x.a > 2", Stale: "1h",
	Do:   []Action{{Command: "close"}, {Set: "app.closed", Value: true}},
	Else: []Action{{Command: "open"}, {Clear: "app.closed"}},
}

// TestRuns: readings in, orders out, with the state told.
func TestRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		spec := valve
		spec.For = "10s"
		g := start(t, Config{Do: j.Do}, spec)
		g.read(3)
		time.Sleep(9 * time.Second)
		if got := j.take(); got != "" || g.state(t, "valve").State != Waiting {
			t.Errorf("after 9 s: %s, %+v", got, g.state(t, "valve"))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := j.take(); got != "close, set app.closed to true" {
			t.Errorf("after 10 s: %s", got)
		}
		g.read(1)
		if got := j.take(); got != "open, clear app.closed" {
			t.Errorf("at its end: %s", got)
		}
		g.Samples(&schema.Samples{Series: []string{"x.a"}, Value: []float64{0}, Quality: []schema.Quality{schema.QualityStale}})
		synctest.Wait()
		var words []string
		for _, s := range g.told {
			words = append(words, s.State)
		}
		if got := strings.Join(words, " "); got != "undecided waiting on off undecided" {
			t.Errorf("told: %s", got)
		}
		if s := g.state(t, "valve"); s.Undecided != "x.a has no good value" || s.Fired != 1 || s.Long {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := g.told[len(g.told)-1]; !s.Long {
			t.Errorf("nothing was told of a minute without an answer: %+v", s)
		}
		g.stop()
	})
}

// TestUnknown: a rule neither fires nor ends while its input is not known, and a gap
// begins its span anew.
func TestUnknown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		spec := valve
		spec.For, spec.Stale = "10s", "5s"
		g := start(t, Config{Do: j.Do}, spec)
		for range 3 { // known for 5 of each 8 seconds
			g.read(3)
			time.Sleep(8 * time.Second)
		}
		if got := j.take(); got != "" {
			t.Errorf("fired over a gap: %s", got)
		}
		for range 4 {
			g.read(3)
			time.Sleep(4 * time.Second)
		}
		if got := j.take(); got != "close, set app.closed to true" {
			t.Errorf("without a gap: %s", got)
		}
		time.Sleep(time.Hour)
		if s := g.state(t, "valve"); j.take() != "" || s.State != On || s.Undecided != "x.a is stale" {
			t.Errorf("ended without an answer: %+v", s)
		}
		g.stop()
	})
}

// TestChange: a rule that did not change keeps its state when others do; one that did
// begins anew and what it did stays.
func TestChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		other := Spec{Name: "other", When: "x.a > 1", Do: []Action{{Command: "other"}}}
		g := start(t, Config{Do: j.Do}, valve, other)
		g.read(3)
		if got := j.take(); !strings.Contains(got, "close") || !strings.Contains(got, "other") {
			t.Error(got)
		}
		other.When = "x.a > 0"
		g.Rules(programs(t, []Spec{other, valve}))
		g.read(3)
		if got := j.take(); got != "other" || g.state(t, "valve").State != On {
			t.Errorf("%s, %+v", got, g.States())
		}
		g.Rules(nil)
		g.read(0)
		if got := j.take(); got != "" || len(g.States()) != 0 {
			t.Error(got)
		}
		g.stop()
	})
}

// TestRestart: over a stop and a start a rule that is on stays on, does nothing again,
// ends, and its lease goes on.
func TestRestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		cfg := Config{Do: j.Do, Path: filepath.Join(t.TempDir(), "rules")}
		leased := valve
		leased.Name, leased.Lease = "leased", "10m"
		leased.Do, leased.Else = []Action{{Command: "take"}}, []Action{{Command: "give-back"}}
		g := start(t, cfg, valve, leased)
		g.read(3)
		time.Sleep(4 * time.Minute)
		g.stop()
		j.take()
		time.Sleep(24 * time.Hour) // no time that the board runs
		g = start(t, cfg, valve, leased)
		time.Sleep(time.Minute)
		if g.state(t, "valve").State != On || g.state(t, "valve").Fired != 1 {
			t.Errorf("%+v", g.States())
		}
		g.read(3)
		time.Sleep(5*time.Minute - time.Second)
		if got := j.take(); got != "" {
			t.Errorf("again: %s", got)
		}
		time.Sleep(2 * time.Second)
		if got := j.take(); got != "give-back" || g.state(t, "leased").State != Spent {
			t.Errorf("when the lease ends: %s, %+v", got, g.States())
		}
		g.read(1)
		if got := j.take(); got != "open, clear app.closed" || g.state(t, "leased").State != Off {
			t.Errorf("at the end: %s, %+v", got, g.States())
		}
		g.stop()
	})
}

// TestTrouble: an order that is refused is tried again; one that hangs keeps no other
// from being given, and safety goes first.
func TestTrouble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{err: errors.New("the queue is full"), hang: map[string]chan struct{}{"slow": make(chan struct{})}}
		g := start(t, Config{Do: j.Do},
			Spec{Name: "a", When: "x.a > 2", Do: []Action{{Command: "slow"}}},
			Spec{Name: "b", When: "x.a > 2", Do: []Action{{Command: "quick"}}},
			Spec{Name: "c", When: "x.a > 2", Do: []Action{{Command: safetyCommand}}})
		g.read(3)
		if s := g.state(t, "b"); s.Failing != "quick: the queue is full" || s.State != On {
			t.Errorf("%+v", s)
		}
		j.mu.Lock()
		j.err = nil
		j.mu.Unlock()
		time.Sleep(1100 * time.Millisecond)
		got := j.take()
		if (got != safetyCommand+", quick" && got != "quick, "+safetyCommand) || g.state(t, "b").Failing != "" {
			t.Errorf("%s, %+v", got, g.States())
		}
		time.Sleep(20 * time.Second)
		if s := g.state(t, "a"); s.Failing != "slow: context deadline exceeded" {
			t.Errorf("%+v", s)
		}
		g.stop()
	})
	e := NewEngine(Options{}, nil)
	e.Set(0, programs(t, []Spec{{Name: "a", When: "x.a > 2", Do: []Action{{Command: "quick"}}}, {Name: "b", When: "x.a > 2", Do: []Action{{Command: safetyCommand}}}}))
	e.Reading(1, "x.a", 3, true)
	if jobs, _ := e.Step(1); len(jobs) != 2 || jobs[0].Rule != "b" {
		t.Errorf("safety is not first: %+v", jobs)
	}
}

// TestFailingDisk: what the disk does not take is done all the same.
func TestFailingDisk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		g := start(t, Config{Do: j.Do, Path: "/nowhere/rules"}, valve)
		g.read(3)
		if got := j.take(); got != "close, set app.closed to true" {
			t.Error(got)
		}
		g.stop()
	})
}

// TestDetectionsAndTime: counts of a camera that is looked at, and the time of day.
func TestDetectionsAndTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		zone := time.FixedZone("here", 2*3600)
		g := start(t, Config{Do: j.Do, Wall: func() (time.Time, bool) { return time.Now().In(zone), true }},
			Spec{Name: "crowd", When: `count("dock", "person", 30) >= 3`, Do: []Action{{Command: "light"}}, Else: []Action{{Command: "dark"}}},
			Spec{Name: "late", When: "time.hour == 3 and time.minute >= 30 and time.weekday == 6", Do: []Action{{Command: "late"}}})
		seen := &schema.Event{Source: "dock", Labels: map[uint16]string{0: "person", 1: "dog"}, Boxes: []schema.Box{{Class: 0}, {Class: 1}, {Class: 0}}}
		g.Event(seen)
		time.Sleep(10 * time.Second)
		g.Event(seen)
		synctest.Wait()
		if s := g.state(t, "crowd"); j.take() != "" || s.Undecided != `count("dock", "person", 30): camera dock is not looked at` {
			t.Errorf("%+v", s)
		}
		for range 25 {
			g.Camera("dock", true)
			time.Sleep(time.Second)
		}
		if got := j.take(); got != "light, dark" { // four at 0 and 10 s, two after 30 s
			t.Error(got)
		}
		time.Sleep(90*time.Minute - 35*time.Second)
		synctest.Wait() // since midnight UTC, a Saturday: 03:30 there
		if got := j.take(); got != "late" {
			t.Errorf("%q at %v", got, time.Now().In(zone))
		}
		g.stop()
	})
}

// TestPowerCuts: wherever the power goes, each action of a firing has its effect once.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	cuts := 0
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 5))
		j := &journal{}
		var disk []byte
		cut := false
		power := func() bool { // false: it goes
			cut = cut || r.IntN(9) == 0
			return !cut
		}
		var e *Engine
		now := time.Duration(1)
		save := func() {
			if power() {
				s, _ := e.Save(now)
				disk, _ = schema.Encode(&kept{V: schema.Version, Rules: s})
			}
		}
		boot := func() {
			var old []Saved
			if disk != nil {
				var err error
				if old, err = parseKept(disk); err != nil {
					t.Fatal(err)
				}
			}
			e = NewEngine(Options{Nonce: r.Uint64}, old)
			e.Set(now, programs(t, []Spec{valve}))
			save()
		}
		// live feeds a reading until nothing is left to do.
		live := func(v float64) {
			for step := 0; step < 50; step++ {
				if cut {
					cut = false
					cuts++
					boot()
					continue
				}
				e.Reading(now, "x.a", v, true)
				jobs, _ := e.Step(now)
				if len(jobs) == 0 {
					return
				}
				save()
				n := 0
				for _, o := range jobs[0].Orders {
					if !power() {
						break
					}
					_ = j.Do(context.Background(), o)
					n++
				}
				if power() {
					e.Done(now, jobs[0], n, nil)
					save()
				}
				now += time.Second
			}
		}
		boot()
		for range 2 {
			live(3)
			live(1)
		}
		want := strings.Repeat("close, set app.closed to true, open, clear app.closed, ", 2)
		if got := j.take(); got+", " != want {
			t.Fatalf("seed %d: %s", seed, got)
		}
	}
	t.Logf("%d power cuts", cuts)
	if cuts < 3000 {
		t.Error("too few power cuts")
	}
}

// TestSlowed: a rule without an end condition that follows a noisy reading.
func TestSlowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		g := start(t, Config{Do: j.Do}, Spec{Name: "noisy", When: "x.a > 2", Do: []Action{{Command: "click"}}})
		for range 600 {
			g.read(3)
			time.Sleep(500 * time.Millisecond)
			g.read(1)
			time.Sleep(500 * time.Millisecond)
		}
		if n := strings.Count(j.take(), "click"); n < 18 || n > 20 {
			t.Errorf("%d clicks in ten minutes of a flapping reading", n)
		}
		if i := slices.IndexFunc(g.told, func(s State) bool { return s.Slowed }); i < 0 {
			t.Error("nothing was told of it")
		}
		g.stop()
	})
}

func FuzzKept(f *testing.F) {
	e := NewEngine(Options{Nonce: func() uint64 { return 7 }}, nil)
	e.Set(0, programs(f, []Spec{valve}))
	e.Reading(1, "x.a", 3, true)
	e.Step(1)
	s, _ := e.Save(2)
	b, err := schema.Encode(&kept{V: schema.Version, Rules: s})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		saved, err := parseKept(b)
		if err != nil {
			return
		}
		for i := range saved {
			saved[i].Name, saved[i].Hash = valve.Name, programs(t, []Spec{valve})[0].Hash()
		}
		e := NewEngine(Options{}, saved)
		e.Set(0, programs(t, []Spec{valve}))
		for n := range 50 {
			e.Reading(at(n), "x.a", float64(n%5), true)
			e.Step(at(n))
		}
	})
}

// many are 32 rules of three inputs each.
func many(b *testing.B) []*Program {
	var specs []Spec
	for i := range MaxRules {
		specs = append(specs, Spec{
			Name: fmt.Sprintf("r%d", i), For: "10s", Do: []Action{{Command: "c"}},
			When: fmt.Sprintf("s.v%d > 1000 and (s.v%d < 3 or link.down_for > 60 or app.mode == 'x')", i%30, (i+7)%30),
		})
	}
	return programs(b, specs)
}

// BenchmarkBatch is one batch of 30 readings, all of them new, with 32 rules that read
// two each: what a second costs.
func BenchmarkBatch(b *testing.B) {
	r := Open(Config{})
	r.Rules(many(b))
	batch := &schema.Samples{}
	for i := range 30 {
		batch.Series, batch.Value = append(batch.Series, fmt.Sprintf("s.v%d", i)), append(batch.Value, 0)
	}
	b.ReportAllocs()
	n := 0.0
	for b.Loop() {
		n++
		for i := range batch.Value {
			batch.Value[i] = n
		}
		r.Samples(batch)
		r.e.Step(r.now())
		r.e.Changed(r.now())
	}
}

// BenchmarkToOrder is from a reading that makes one of 32 rules true to its order, with
// the state on the disk before.
func BenchmarkToOrder(b *testing.B) {
	given := make(chan struct{})
	r := Open(Config{Path: filepath.Join(b.TempDir(), "rules"), Do: func(context.Context, Order) error { given <- struct{}{}; return nil }})
	p := many(b)[1:]
	fire := programs(b, []Spec{{Name: "fire", When: "x.a > 2", Until: "app.never == 1", Do: []Action{{Command: "c"}}}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	for b.Loop() {
		b.StopTimer()
		r.Rules(p) // the rule is made anew each time, or it would be slowed
		r.Rules(append(slices.Clone(p), fire...))
		r.App("never", cond.Num(0))
		time.Sleep(20 * time.Millisecond)
		b.StartTimer()
		r.Samples(&schema.Samples{Series: []string{"x.a"}, Value: []float64{3}})
		<-given
	}
	cancel()
	<-ended
}

// TestWantedNoMore: what was to be done when the power went is not done when the rule has
// ended meanwhile; else is, because nobody knows whether some of it was done.
func TestWantedNoMore(t *testing.T) {
	t.Parallel()
	e := NewEngine(Options{}, nil)
	e.Set(1, programs(t, []Spec{valve}))
	e.Reading(1, "x.a", 3, true)
	if jobs, _ := e.Step(1); len(jobs) != 1 {
		t.Fatal(jobs)
	}
	saved, _ := e.Save(1)
	for v, want := range map[float64]string{3: "close", 1: "open"} {
		e := NewEngine(Options{}, saved)
		e.Set(1, programs(t, []Spec{valve}))
		if jobs, _ := e.Step(1); len(jobs) != 0 {
			t.Errorf("done without an answer: %+v", jobs)
		}
		e.Reading(2, "x.a", v, true)
		if jobs, _ := e.Step(2); len(jobs) != 1 || jobs[0].Orders[0].Action.Command != want {
			t.Errorf("with %v: %+v, want %s", v, jobs, want)
		}
	}
}

// TestSafetyWaitsForNoDisk: the order of a safety shutdown is given while a disk hangs,
// another after a second.
func TestSafetyWaitsForNoDisk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		r := Open(Config{Do: j.Do})
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		for name, want := range map[string]time.Duration{safetyCommand: 0, "quick": time.Second} {
			begin := time.Now()
			_ = r.do(ctx, Job{Orders: []Order{{ID: [16]byte{byte(len(name))}, Action: Action{Command: name}}}}, make(chan struct{}))
			if got := time.Since(begin); got != want || j.take() != name {
				t.Errorf("%s after %v, want %v", name, got, want)
			}
		}
	})
}

// TestKeeperHangs: while the disk hangs, what waits for it does not grow.
func TestKeeperHangs(t *testing.T) {
	t.Parallel()
	k := &keeper{wake: make(chan struct{}, 1)}
	first := k.put([]byte{1})
	for range 10 {
		if k.put([]byte{2}) != first {
			t.Fatal("each that waits has a channel of its own")
		}
	}
}
