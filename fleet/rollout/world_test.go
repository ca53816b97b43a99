// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"fulmar/fleet/rollout/plan"
	"fulmar/fleet/rollout/state"
	"fulmar/schema/ota"
	"fulmar/schema/rest"
)

// What a board makes of the release.
const (
	takes      = iota
	goesBack   // fails its trial and is back by itself
	breaks     // says failed
	hangs      // stays in its trial
	dies       // never says anything again once it has begun
	lies       // says committed and runs something else
	forges     // says committed, and its TPM signs that it runs something else
	shy        // says committed, and its TPM signs nothing
	numFates   = iota
	oldVersion = "1.8"
	newVersion = "1.9"
)

// device is a simulated board.
type device struct {
	name     string
	fate     int
	running  string
	seen     uint64 // highest attempt
	act      state.Act
	phase    int // steps since the order
	away     bool
	dead     bool
	stubborn bool // does not go back
	plain    bool // has no TPM: its word is all there is
}

// world drives one rollout with simulated boards and holds it to its promises.
type world struct {
	t      testing.TB
	r      *state.Rollout
	rng    *rand.Rand
	now    time.Time
	boards map[string]*device
	order  []*device
	epoch  uint64
	arrows map[string]bool // taken
	states map[state.State]bool
	inbox  []Event
	guard  func(have bool) float64
	hookNo bool
	mute   bool // neither hooks nor guards answer
	log    []string
	told   map[string]uint64 // highest attempt that went out
}

func newWorld(t testing.TB, seed uint64, s rest.RolloutSpec, boards, sites int, fate func(i int, rng *rand.Rand) int) *world {
	t.Helper()
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 77)), now: time.Date(2026, 7, 1, 20, 0, 0, 0, time.UTC), boards: map[string]*device{},
		arrows: map[string]bool{}, states: map[state.State]bool{}, told: map[string]uint64{},
	}
	s.Component, s.Release = "model/parcels", newVersion
	s, err := plan.Complete(s)
	if err != nil {
		t.Fatal(err)
	}
	var c []plan.Candidate
	for i := range boards {
		d := &device{name: fmt.Sprintf("b%03d", i), fate: fate(i, w.rng), running: oldVersion}
		d.plain = d.fate != forges && d.fate != shy && i%3 == 0
		w.boards[d.name], w.order = d, append(w.order, d)
		model := "nx16"
		if d.fate != takes {
			model = "nx8"
		}
		c = append(c, plan.Candidate{Board: d.name, Site: fmt.Sprint("s", i%sites), Able: true, Reachable: true, Release: oldVersion, Facts: map[string]string{"model": model, "os": "JetPack 6"}})
	}
	p, err := plan.Make(s, c)
	if err != nil {
		t.Fatal(err)
	}
	if w.r, err = New("r-1", "default", "ann", s, p, w.now); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	for _, l := range w.log {
		w.t.Log(l)
	}
	w.t.Fatalf(format, args...)
}

// apply lets the rollout take an event and does what it asks for.
func (w *world) apply(ev Event) error {
	w.t.Helper()
	before := w.r.State
	fx, err := Apply(w.r, ev, w.now)
	if err != nil {
		if w.r.State != before {
			w.fatalf("%T changed the state with an error: %v", ev, err)
		}
		return err
	}
	for _, s := range fx.Steps {
		w.log = append(w.log, fmt.Sprintf("%s %s %s -> %s: %s", s.At.Format("02 15:04:05"), s.Who, s.From, s.To, s.Say))
		if s.From != "" {
			w.arrows[s.From+">"+s.To+" on "+string(ev.cause())] = true
		}
		w.states[state.State(s.To)] = true
	}
	w.check()
	for _, i := range fx.Send {
		w.deliver(i)
	}
	for _, i := range fx.Prove {
		w.attest(i)
	}
	for _, i := range fx.Good {
		if b := &w.r.Boards[i]; b.Level == "" || b.State != state.BoardGood || w.boards[b.Name].fate == forges || w.boards[b.Name].fate == shy {
			w.fatalf("%s counts as good: %+v", b.Name, b)
		}
	}
	if fx.Guards != nil && !w.mute && w.rng.IntN(20) > 0 { // now and then they cannot be read
		m := Measured{Baseline: fx.Baseline, Values: map[string]map[string]float64{}}
		for _, g := range fx.Guards {
			m.Values[g.Name] = map[string]float64{}
			for _, d := range w.order {
				m.Values[g.Name][d.name] = w.guard(d.running == newVersion)
			}
		}
		if err := w.apply(m); err != nil {
			w.fatalf("guards: %v", err)
		}
	}
	if fx.Hook != nil && !w.mute && w.rng.IntN(20) > 0 {
		if err := w.apply(Hooked{OK: !w.hookNo, Say: "as it was told"}); err != nil {
			w.fatalf("hook: %v", err)
		}
	}
	return nil
}

// attest is what a board's TPM says to the question.
func (w *world) attest(i int) {
	b := &w.r.Boards[i]
	d := w.boards[b.Name]
	switch {
	case d.plain:
		w.fatalf("%s has no TPM and is asked to prove what it says", b.Name)
	case d.fate == shy || d.away || d.dead:
	case d.fate == forges:
		w.inbox = append(w.inbox, Proven{Board: b.Name, Attempt: b.Attempt, Why: "runs another program"})
	default:
		w.inbox = append(w.inbox, Proven{Board: b.Name, Attempt: b.Attempt, Level: "bound"})
	}
}

func (w *world) deliver(i int) {
	act, attempt, _, ok := w.r.Order(i)
	if !ok {
		return // what was to be sent has been overtaken by the next step
	}
	b := &w.r.Boards[i]
	if attempt < w.told[b.Name] {
		w.fatalf("%s is told attempt %d after %d", b.Name, attempt, w.told[b.Name])
	}
	w.told[b.Name] = attempt
	if act != state.ActUndo && w.r.Group(b) > w.r.Wave {
		w.fatalf("%s of wave %d gets it in wave %d", b.Name, w.r.Group(b), w.r.Wave)
	}
	d := w.boards[b.Name]
	if d.away || d.dead || w.rng.IntN(10) == 0 { // lost on the way
		return
	}
	if attempt > d.seen {
		d.seen, d.act, d.phase = attempt, act, 0
	}
	w.say(d)
}

// say puts a board's word about what it does on its way.
func (w *world) say(d *device) {
	if d.seen == 0 || d.dead {
		return
	}
	r := Report{Board: d.name, Attempt: d.seen, Release: d.running}
	switch {
	case d.act == state.ActUndo && d.stubborn:
		r.Word, r.Reason = ota.Failed, "no room for what ran before"
	case d.act == state.ActUndo:
		d.running = oldVersion
		r.Word, r.Release = ota.RolledBack, d.running
	case d.phase < 2:
		r.Word, r.Progress = ota.Fetching, 40*d.phase
	case d.phase < 4 || d.fate == hangs:
		r.Word = ota.Trial
	case d.fate == goesBack:
		r.Word, r.Reason = ota.RolledBack, "worker crashed 3 times"
	case d.fate == breaks:
		r.Word, r.Reason = ota.Failed, "no space"
	case d.fate == lies && d.act == state.ActInstall:
		r.Word = ota.Committed
	default:
		if d.act == state.ActInstall {
			d.running = newVersion
		}
		r.Word, r.Release = ota.Committed, d.running
	}
	if d.plain && r.Word == ota.Committed {
		r.Level = "claimed"
	}
	w.inbox = append(w.inbox, r)
}

// step lets a minute or so pass.
func (w *world) step() {
	w.t.Helper()
	w.now = w.now.Add(time.Duration(20+w.rng.IntN(60)) * time.Second)
	for _, d := range w.order {
		if d.seen > 0 && !d.away && !d.dead {
			d.phase++
			if d.fate == dies && d.phase == 2 && d.act != state.ActUndo {
				d.dead = true
			}
			if d.phase <= 5 || w.rng.IntN(10) == 0 {
				w.say(d)
			}
		}
	}
	w.rng.Shuffle(len(w.inbox), func(i, j int) { w.inbox[i], w.inbox[j] = w.inbox[j], w.inbox[i] })
	inbox := w.inbox
	w.inbox = nil // what is said meanwhile comes with the next step
	for _, r := range inbox {
		if w.rng.IntN(20) == 0 {
			continue // lost
		}
		if err := w.apply(r); err != nil {
			w.fatalf("report: %v", err)
		}
	}
	if err := w.apply(Tick{}); err != nil {
		w.fatalf("tick: %v", err)
	}
	for i := range w.r.Boards { // a courier repeats what is not settled
		if w.r.Unsettled(i) && w.rng.IntN(3) == 0 {
			w.deliver(i)
		}
	}
}

// flap lets boards come and go.
func (w *world) flap() {
	d := w.order[w.rng.IntN(len(w.order))]
	if d.away = !d.away; !d.away {
		if err := w.apply(Here{d.name}); err != nil {
			w.fatalf("here: %v", err)
		}
	}
}

// restart loses what is only in memory.
func (w *world) restart() {
	head, err := json.Marshal(w.r)
	if err != nil {
		w.fatalf("%v", err)
	}
	boards, err := json.Marshal(w.r.Boards)
	if err != nil {
		w.fatalf("%v", err)
	}
	r := new(state.Rollout)
	if err := json.Unmarshal(head, r); err != nil {
		w.fatalf("%v", err)
	}
	if err := json.Unmarshal(boards, &r.Boards); err != nil {
		w.fatalf("%v", err)
	}
	if err := r.Wake(); err != nil {
		w.fatalf("%v", err)
	}
	w.r = r
	fx := Asks(r)
	if fx.Hook != nil {
		_ = w.apply(Hooked{OK: !w.hookNo})
	}
	for _, i := range fx.Prove {
		w.attest(i)
	}
}

// check holds what must hold after every event.
func (w *world) check() {
	w.t.Helper()
	r := w.r
	if over := r.State.Over(); over != r.Deadline.IsZero() {
		w.fatalf("%s with the deadline %v", r.State, r.Deadline)
	}
	if r.State.Over() && r.Sentence == "" {
		w.fatalf("%s without a sentence", r.State)
	}
	if r.Approver != "" && (r.Approver == r.Author || r.Approver == r.Starter) {
		w.fatalf("%s approved what they began", r.Approver)
	}
	if r.Spec.Approval && r.Approver == "" && r.State != state.Planned && r.State != state.Approval && r.State != state.Stopping && !r.State.Over() { // what is taken back needs nobody's yes
		w.fatalf("%s without an approval", r.State)
	}
	var kept []state.Tally
	for i := range len(r.Spec.Waves) + 1 {
		kept = append(kept, r.Tally(i))
	}
	r.Recount()
	for i := range kept {
		if kept[i] != r.Tally(i) {
			w.fatalf("the tally of wave %d is %+v, counted it is %+v", i, kept[i], r.Tally(i))
		}
	}
	if r.State.Over() && !r.Settled() {
		w.fatalf("%s with %d boards in between", r.State, r.Between())
	}
	flying := map[string]int{}
	for i := range r.Boards {
		b := &r.Boards[i]
		if b.State.Flying() {
			flying[b.Site]++
		}
		if (b.State.Flying() || b.State == state.BoardUndoing) == b.Deadline.IsZero() {
			w.fatalf("%s is %s with the deadline %v", b.Name, b.State, b.Deadline)
		}
		if b.Proving && b.State != state.BoardTrial && b.State != state.BoardUnreached {
			w.fatalf("%s is %s, and its proof is waited for", b.Name, b.State)
		}
		if b.State == state.BoardGood && b.Level == "" && r.Group(b) != 0 && !b.Shadowing {
			w.fatalf("%s is good without a level", b.Name)
		}
		if r.Group(b) > r.Wave && b.State.Flying() {
			w.fatalf("%s of wave %d was told in wave %d", b.Name, b.Wave, r.Wave)
		}
	}
	for s, n := range flying {
		if r.Spec.PerSite > 0 && n > r.Spec.PerSite+w.lateAt(s) {
			w.fatalf("%d boards of site %s on their way, at most %d", n, s, r.Spec.PerSite)
		}
	}
}

// lateAt counts the boards of a site that answered after they were given up: those come
// on top.
func (w *world) lateAt(site string) (n int) {
	for i := range w.r.Boards {
		if b := &w.r.Boards[i]; b.Site == site && b.Tries > 0 && b.Acked {
			n++
		}
	}
	return n
}
