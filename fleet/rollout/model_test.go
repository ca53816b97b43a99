// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/rollout/state"
	"fulmar/schema/rest"
)

// randomSpec is a plan of which everything may be.
func randomSpec(rng *rand.Rand) rest.RolloutSpec {
	some := func() bool { return rng.IntN(3) == 0 }
	s := rest.RolloutSpec{
		Waves:    []rest.WaveSpec{{Count: 1 + rng.IntN(6), SoakS: 60}, {Percent: 30, SoakS: 300, Pause: some()}, {Percent: 100, SoakS: 60}},
		Approval: some(), Undo: []string{"wave", "all", "failed"}[rng.IntN(3)],
		Limits: rest.Limits{AckS: 120, InstallS: 900, TrialS: 600, WaveS: 3600, UndoS: 600},
	}
	if some() {
		s.Waves[0].Unclear, s.Waves[2].Unclear = "continue", "continue"
	}
	if some() {
		s.PerSite = 1 + rng.IntN(3)
	}
	if some() {
		s.Gate.Policy = "point"
	}
	if some() {
		s.Guards = []rest.Guard{{Name: "latency", Expr: "x"}}
	}
	if some() {
		s.Before = &rest.Hook{URL: "https://hook.example/"}
	}
	if some() {
		s.Behind = &rest.Hook{URL: "https://hook.example/"}
	}
	if some() {
		s.Windows = []rest.Window{{From: "22:00", To: "05:00", Zone: "Europe/Berlin"}}
	}
	if some() {
		s.Shadow = &rest.ShadowSpec{Count: 3, SoakS: 120}
	}
	if some() {
		s.After = []string{"r-0"}
	}
	if some() {
		s.Bytes, s.FleetRate = 1000, 100
	}
	return s
}

// person does something, possible or not.
func (w *world) person() {
	who := []Person{{"ann", "ann"}, {"ben", "ben"}, {"token of ann", "ann"}}[w.rng.IntN(3)]
	w.epoch++
	var ev Event
	what := w.rng.IntN(12)
	if w.r.State == state.Waiting && w.rng.IntN(2) == 0 {
		what = 11
	}
	switch what {
	case 0, 1:
		ev = Pause{By: who}
	case 2, 3, 4:
		ev = Resume{By: who}
	case 5:
		if w.rng.IntN(3) > 0 {
			return
		}
		ev = Abort{By: who}
	case 6, 7:
		ev = Approve{By: who}
	case 8:
		ev = Retry{By: who, Epoch: w.epoch, Without: map[string]bool{w.order[0].name: true}}
	case 9:
		ev = Rollback{By: who, Epoch: w.epoch, All: w.rng.IntN(2) == 0}
	case 10:
		ev = Start{By: who, Epoch: w.epoch}
	case 11:
		ev = Dependency{ID: "r-0", State: []state.State{state.InWave, state.Done, state.Done, state.Aborted}[w.rng.IntN(4)]}
	}
	err := w.apply(ev)
	if err != nil && !errors.Is(err, ErrState) && !errors.Is(err, ErrSamePerson) && !strings.Contains(err.Error(), "no board is left") {
		w.fatalf("%T: %v", ev, err)
	}
	if _, ok := ev.(Approve); ok && err == nil && who.Author == "ann" && w.r.Author == "ann" {
		w.fatalf("the author approved it as %s", who.Who)
	}
}

// TestRandomRollouts: random fleets, releases, failures, partitions, restarts and acts of
// people. What must hold after every event stands in check; here also that every state
// is left when time passes, and that every arrow of the table is taken by some of them.
func TestRandomRollouts(t *testing.T) {
	t.Parallel()
	taken, seen := map[string]bool{}, map[state.State]bool{}
	seeds := uint64(2000)
	if testing.Short() {
		seeds = 300
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 5))
		badness := []float64{0, 0.02, 0.2, 0.9}[rng.IntN(4)]
		w := newWorld(t, seed, randomSpec(rng), 3+rng.IntN(30), 1+rng.IntN(5), func(_ int, r *rand.Rand) int {
			if r.Float64() < badness {
				return 1 + r.IntN(numFates-1)
			}
			return takes
		})
		w.guard = func(have bool) float64 {
			if have && badness == 0.2 {
				return 20
			}
			return 10
		}
		w.hookNo = rng.IntN(8) == 0
		for _, d := range w.order {
			d.stubborn = d.fate == breaks && rng.IntN(3) == 0
		}
		acts := rng.IntN(12)
		for range 60 + rng.IntN(120) {
			w.step()
			if rng.IntN(4) == 0 {
				w.flap()
			}
			if rng.IntN(100) < acts*2 || w.r.State == state.Planned || w.r.State == state.Approval || w.r.State == state.Waiting {
				w.person()
			}
			if rng.IntN(30) == 0 {
				w.restart()
			}
		}
		w.finish()
		if w.r.State == state.Done && rng.IntN(2) == 0 { // and once more, for those it did not get to
			if rng.IntN(2) == 0 { // what comes first is tried again too
				_ = w.apply(Dependency{ID: "r-0", State: state.InWave})
			}
			w.epoch++
			if w.apply(Retry{By: Person{"ann", "ann"}, Epoch: w.epoch}) == nil {
				w.finish()
			}
		}
		for a := range w.arrows {
			taken[a] = true
		}
		for s := range w.states {
			seen[s] = true
		}
	}
	if testing.Short() {
		return
	}
	for _, w := range append(corners(t), lastBoardSettles(t)) {
		for a := range w.arrows {
			taken[a] = true
		}
	}
	for _, tr := range state.Table() {
		for _, c := range tr.On {
			if arrow := string(tr.From) + ">" + string(tr.To) + " on " + string(c); !taken[arrow] {
				t.Errorf("no rollout took %s: the table has an arrow too many, or the test too few", arrow)
			}
		}
	}
}

// finish lets nobody act any more: every state has to end by its deadline.
func (w *world) finish() {
	for steps := 0; !w.r.State.Over(); steps++ {
		if steps > 3000 {
			w.fatalf("%s since %s, deadline %s, never over: %+v", w.r.State, w.r.Since, w.r.Deadline, w.r.Total())
		}
		if left := w.r.Deadline.Sub(w.now); left > 2*time.Hour { // nothing but time passes
			w.now = w.now.Add(left - time.Hour)
		}
		w.step()
	}
	// A board that has gone back by itself runs the old release; one that has it runs the
	// new one. Only boards that are named to people may differ.
	for i := range w.r.Boards {
		b := &w.r.Boards[i]
		d := w.boards[b.Name]
		switch {
		case b.State == state.BoardGood && d.running != newVersion && !d.dead && w.r.State == state.Done && d.act == state.ActInstall:
			w.fatalf("%s is good and runs %s", b.Name, d.running)
		case (b.State == state.BoardUndone || b.State == state.BoardFailed) && d.running != oldVersion && !d.dead:
			w.fatalf("%s is %s and runs %s", b.Name, b.State, d.running)
		}
	}
	if w.r.State == state.Halted && !strings.Contains(w.r.Sentence, "halted") {
		w.fatalf("halted, and says %q", w.r.Sentence)
	}
}

// corners takes the arrows that chance takes too seldom.
func corners(t *testing.T) (out []*world) {
	fresh := func(change func(s *rest.RolloutSpec)) *world {
		s := quick()
		change(&s)
		w := newWorld(t, uint64(len(out)+1), s, 30, 2, func(int, *rand.Rand) int { return takes })
		out = append(out, w)
		return w
	}
	until := func(w *world, s state.State) {
		for range 500 {
			if w.r.State == s {
				return
			}
			w.step()
		}
		w.fatalf("never %s", s)
	}
	must := func(w *world, ev Event) {
		if err := w.apply(ev); err != nil {
			w.fatalf("%T: %v", ev, err)
		}
	}
	ann := Person{"ann", "ann"}
	fresh(func(*rest.RolloutSpec) {}).finish() // nobody starts it
	w := fresh(func(s *rest.RolloutSpec) { s.Before = &rest.Hook{URL: "https://x"} })
	w.mute = true
	w.start()
	must(w, Abort{By: ann})
	// A person takes it back while its guards are read.
	w = fresh(func(s *rest.RolloutSpec) { s.Guards = []rest.Guard{{Name: "g", Expr: "g"}} })
	w.mute = true
	w.start()
	until(w, state.Judging)
	must(w, Rollback{By: ann, Epoch: w.epoch + 1, All: true})
	w.finish()
	// Boards that were good fail later: that halts it wherever it stands.
	for _, at := range []state.State{state.Soak, state.Judging, state.Held, state.Paused} {
		w := fresh(func(s *rest.RolloutSpec) {
			s.Guards = []rest.Guard{{Name: "g", Expr: "g"}}
			s.Waves[0].Unclear = "wait"
		})
		w.mute = true
		w.start()
		if at == state.Paused {
			until(w, state.Soak)
			must(w, Pause{By: ann})
		}
		until(w, at)
		for i := range w.r.Boards {
			if b := &w.r.Boards[i]; b.State == state.BoardGood && !w.r.State.Over() {
				w.boards[b.Name].running, w.boards[b.Name].dead = oldVersion, true
				must(w, Report{Board: b.Name, Attempt: b.Attempt, Word: "rolled-back", Reason: "out of memory", Release: oldVersion})
			}
		}
		w.finish()
		if w.r.State != state.Halted {
			w.fatalf("%s: %s", at, w.r.Sentence)
		}
	}
	// Late boards join in the soak and hang.
	w = fresh(func(s *rest.RolloutSpec) { s.Waves[0].SoakS, s.Limits.WaveS, s.Limits.TrialS = 7200, 300, 300 })
	for i := range 2 {
		d := w.boards[w.r.Boards[i].Name]
		d.away, d.fate = true, hangs
	}
	w.start()
	until(w, state.Soak)
	for i := range 2 {
		b := &w.r.Boards[i]
		w.boards[b.Name].away = false
		must(w, Report{Board: b.Name, Attempt: b.Attempt, Word: "fetching", Release: oldVersion})
	}
	w.finish()
	if w.r.State != state.Halted {
		w.fatalf("%s", w.r.Sentence)
	}
	// A person lets the last wave be enough while a board is still to go back.
	w = fresh(func(s *rest.RolloutSpec) {
		s.Waves[2].Unclear, s.Limits.InstallS, s.Limits.UndoS = "wait", 120, 36_000
		s.Waves[2].SoakS = 60
	})
	last := w.boards[w.r.Boards[29].Name]
	last.fate = dies
	w.start()
	until(w, state.Held)
	must(w, Resume{By: ann})
	if w.r.State != state.Stopping {
		w.fatalf("%s", w.r.State)
	}
	must(w, Report{Board: last.name, Attempt: w.r.Boards[29].Attempt, Word: "rolled-back", Release: oldVersion})
	if w.r.State != state.Done {
		w.fatalf("%s", w.r.State)
	}
	return out
}

// lastBoardSettles: the last wave is judged while a board that died is still to go back.
func lastBoardSettles(t *testing.T) *world {
	s := quick()
	s.Limits.InstallS = 120
	w := newWorld(t, 1, s, 30, 1, func(int, *rand.Rand) int { return takes })
	w.boards[w.r.Boards[29].Name].fate = dies
	w.start()
	w.finish()
	if w.r.State != state.Done || w.r.Boards[29].State != state.BoardStuck || !w.states[state.Stopping] || !strings.Contains(w.r.Sentence, "1 board for you to look at") {
		w.fatalf("%s: %s", w.r.State, w.r.Sentence)
	}
	// It is told to go back when it is there again, and is then listed no more.
	d := w.boards[w.r.Boards[29].Name]
	d.dead = false
	fx, err := Apply(w.r, Here{d.name}, w.now)
	if err != nil || len(fx.Send) != 1 || fx.Send[0] != 29 {
		w.fatalf("a stuck board that is back is told %v, %v", fx.Send, err)
	}
	if err := w.apply(Report{Board: d.name, Attempt: w.r.Boards[29].Attempt, Word: "rolled-back", Release: oldVersion}); err != nil || w.r.Boards[29].State != state.BoardFailed {
		w.fatalf("a stuck board that went back is %s, %v", w.r.Boards[29].State, err)
	}
	return w
}

// TestGuardsAreOfTheWave: values of boards of an earlier wave count on neither side.
func TestGuardsAreOfTheWave(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, quick(), 40, 2, func(int, *rand.Rand) int { return takes })
	w.start()
	for w.r.Wave < 2 || w.r.State != state.Soak {
		w.step()
	}
	values := map[string]float64{"no board of it": 9}
	for i := range w.r.Boards {
		values[w.r.Boards[i].Name] = float64(w.r.Boards[i].Wave)
	}
	have, others := split(w.r, values)
	if len(have) != 20 || slices.Min(have) != 2 || slices.Max(have) != 2 || len(others) != 15 || slices.Min(others) != 3 {
		t.Errorf("%v against %v", have, others)
	}
}

// quick is a plan without people: three waves.
func quick() rest.RolloutSpec {
	return rest.RolloutSpec{
		Waves:  []rest.WaveSpec{{Count: 5, SoakS: 60, Unclear: "continue"}, {Count: 20, SoakS: 60, Unclear: "continue"}, {Percent: 100, SoakS: 60, Unclear: "continue"}},
		Limits: rest.Limits{AckS: 120, InstallS: 1800, TrialS: 600, WaveS: 7200, UndoS: 600},
	}
}

// TestGoodReleaseFinishes: a release that all boards take gets done on every board that
// is ever there, whatever is lost on the way.
func TestGoodReleaseFinishes(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		s := quick() // an absence is no failure: the limits are longer than any
		s.Limits.InstallS, s.Limits.TrialS = 3*3600, 3*3600
		w := newWorld(t, seed, s, 60, 4, func(int, *rand.Rand) int { return takes })
		w.start()
		for range 80 {
			w.step()
			if w.rng.IntN(3) == 0 {
				w.flap()
			}
			if w.rng.IntN(20) == 0 {
				w.restart()
			}
		}
		for _, d := range w.order {
			if d.away {
				d.away = false
				_ = w.apply(Here{d.name})
			}
		}
		w.finish()
		if w.r.State != state.Done {
			w.fatalf("seed %d: a good release ends %s: %s", seed, w.r.State, w.r.Sentence)
		}
		if n := w.r.Total().N[state.BoardGood] + w.r.Total().N[state.BoardUnreached]; n != 60 {
			w.fatalf("seed %d: %+v", seed, w.r.Total())
		}
	}
}

func (w *world) start() {
	w.epoch++
	if err := w.apply(Start{By: Person{"ann", "ann"}, Epoch: w.epoch}); err != nil {
		w.fatalf("%v", err)
	}
}

// TestBadReleaseStaysInItsWave: of a release that no board takes, the first wave is all
// that ever gets it, and at the end no board but those named runs it.
func TestBadReleaseStaysInItsWave(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		w := newWorld(t, seed, quick(), 100, 4, func(_ int, r *rand.Rand) int { return 1 + r.IntN(numFates-1) })
		w.start()
		w.finish()
		if w.r.State != state.Halted || w.r.Wave != 1 {
			w.fatalf("seed %d: %s in wave %d: %s", seed, w.r.State, w.r.Wave, w.r.Sentence)
		}
		if n := len(w.told); n > 5 {
			w.fatalf("seed %d: %d boards were told, the first wave has 5", seed, n)
		}
		if n := w.r.Total().N[state.BoardWaiting]; n != 95 {
			w.fatalf("seed %d: %d boards untouched", seed, n)
		}
		if !strings.Contains(w.r.Sentence, "95 boards untouched") || !strings.Contains(w.r.Sentence, "at best") {
			w.fatalf("seed %d: %s", seed, w.r.Sentence)
		}
	}
}

// TestCommonIsNamed: the sentence names what the failed have in common.
func TestCommonIsNamed(t *testing.T) {
	t.Parallel()
	s := quick()
	s.Waves[0].Count = 20
	w := newWorld(t, 2, s, 60, 4, func(i int, _ *rand.Rand) int {
		if i%6 == 0 {
			return goesBack
		}
		return takes
	})
	w.start()
	w.finish()
	if w.r.State != state.Halted || !strings.Contains(w.r.Sentence, "model nx8 (0 of ") || !strings.Contains(w.r.Common, "nx8") {
		w.fatalf("%s: %s", w.r.State, w.r.Sentence)
	}
	v := w.r.View()
	if len(v.Reasons) == 0 || v.Reasons[0].Reason != "worker crashed 3 times" || v.Verdict == nil || v.Verdict.Outcome != "bad" || !slices.Contains(v.Actions, "retry") {
		t.Errorf("%+v", v)
	}
}

// TestNeverReachedIsApart: boards that never answer are no failures.
func TestNeverReachedIsApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, quick(), 60, 4, func(int, *rand.Rand) int { return takes })
	for _, d := range w.order[:10] {
		d.away = true
	}
	w.start()
	w.finish()
	if n := w.r.Total(); w.r.State != state.Done || n.N[state.BoardUnreached] != 10 || n.Bad != 0 || n.N[state.BoardGood] != 50 {
		w.fatalf("%s %+v: %s", w.r.State, n, w.r.Sentence)
	}
	if !strings.Contains(w.r.Sentence, "10 boards never reached") {
		t.Error(w.r.Sentence)
	}
	// One comes late: it is told nothing new, and its word is taken.
	d := w.order[0]
	i, _ := w.r.Has(d.name)
	d.away = false
	_ = w.apply(Here{d.name})
	_ = w.apply(Report{Board: d.name, Attempt: w.r.Boards[i].Attempt, Word: "committed", Release: newVersion, Level: "claimed"})
	if w.r.Boards[i].State != state.BoardGood {
		t.Errorf("a late board is %s", w.r.Boards[i].State)
	}
}

// TestSecondPerson: neither the author nor the one who started it, nor a token of theirs.
func TestSecondPerson(t *testing.T) {
	t.Parallel()
	s := quick()
	s.Approval = true
	w := newWorld(t, 1, s, 10, 2, func(int, *rand.Rand) int { return takes })
	w.epoch++
	if err := w.apply(Start{By: Person{"ben", "ben"}, Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	for _, p := range []Person{{"ann", "ann"}, {"ben", "ben"}, {"token line-4", "ann"}, {"token x", "ben"}, {"", ""}} {
		if err := w.apply(Approve{By: p}); !errors.Is(err, ErrSamePerson) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	if err := w.apply(Approve{By: Person{"token y", "cleo"}}); err != nil || w.r.State != state.InWave {
		t.Errorf("%v, %s", err, w.r.State)
	}
	// Where the gate cannot tell, neither of the two lets it go on alone.
	w.r.Waves[0].Verdict = &rest.Verdict{Outcome: "unclear"}
	w.r.State = state.Held
	for _, p := range []Person{{"ann", "ann"}, {"token x", "ben"}} {
		if err := w.apply(Resume{By: p}); !errors.Is(err, ErrSamePerson) {
			t.Errorf("%+v goes on: %v", p, err)
		}
	}
	if err := w.apply(Resume{By: Person{"cleo", "cleo"}}); err != nil || w.r.Wave != 2 {
		t.Errorf("%v, wave %d", err, w.r.Wave)
	}
}
