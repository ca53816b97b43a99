// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rule

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"fulmar/device/rule/cond"
	"fulmar/device/rule/script"
)

// The safety command goes before all others that are to be given at the same moment.
const safetyCommand = "trigger-safety-shutdown"

// Order is one action of a rule, to be done by whoever runs the engine.
type Order struct {
	// ID names this action of this firing: the same one, given again after a crash, has
	// the same ID.
	ID [16]byte
	// Actor is rule/NAME.
	Actor string
	// Why is the condition that held, for those who read the log.
	Why    string
	Action Action
}

// Job is what one rule wants done now, in this order. Tell [Engine.Done] how it went.
type Job struct {
	Rule   string
	Orders []Order
	gen    uint64
}

// Safety tells whether it holds a safety shutdown.
func (j *Job) Safety() bool {
	return slices.ContainsFunc(j.Orders, func(o Order) bool { return o.Action.Command == safetyCommand })
}

// Engine is the rules of a board and what they are evaluated on. Times are those of one
// clock that only rises and stands for time that the board runs. Not safe for concurrent
// use.
type Engine struct {
	rules   []*live // by name
	by      map[string][]*slot
	counts  []*slot
	linkUp  bool
	downAt  time.Duration
	alone   bool
	safety  cond.Value
	cameras map[string]time.Duration // running until
	outputs map[string]cond.Value
	apps    map[string]cond.Value
	wall    func(now time.Duration) (time.Time, bool)
	quiet   func(series string) time.Duration
	nonce   func() uint64
	evals   uint64 // evaluations of conditions, for tests
	gen     uint64
	past    map[string]Saved // of an earlier life, not taken up yet
}

// Options are what an engine asks. Nil functions know nothing.
type Options struct {
	// Wall is the board's time of day where it is known.
	Wall func(now time.Duration) (time.Time, bool)
	// Quiet is the longest silence of a series that is thinned (on_change); 0 for others.
	Quiet func(series string) time.Duration
	// Nonce names the life of a rule: a number that is never used twice.
	Nonce func() uint64
}

// maxCameras bounds the cameras whose state is kept: as many as a config may have.
const maxCameras = 64

// NewEngine makes an engine without rules. saved is what [Engine.Save] gave in an earlier
// life.
func NewEngine(o Options, saved []Saved) *Engine {
	e := &Engine{
		by: map[string][]*slot{}, cameras: map[string]time.Duration{}, outputs: map[string]cond.Value{}, apps: map[string]cond.Value{},
		wall: o.Wall, quiet: o.Quiet, nonce: o.Nonce, past: map[string]Saved{},
	}
	if e.wall == nil {
		e.wall = func(time.Duration) (time.Time, bool) { return time.Time{}, false }
	}
	if e.quiet == nil {
		e.quiet = func(string) time.Duration { return 0 }
	}
	for _, s := range saved {
		e.past[s.Name] = s
	}
	return e
}

// Set puts these rules in force, at most [MaxRules]. One that is unchanged keeps its
// state and what it has seen; one that is gone or changed is dropped where it stands, and
// what it did stays. Names must differ.
func (e *Engine) Set(now time.Duration, programs []*Program) {
	old := map[string]*live{}
	for _, r := range e.rules {
		old[r.p.Name] = r
	}
	e.rules = nil
	for _, p := range programs[:min(len(programs), MaxRules)] {
		r := old[p.Name]
		if r == nil || r.p.Hash() != p.Hash() {
			r = e.begin(now, p)
		}
		e.rules = append(e.rules, r)
	}
	clear(e.past)
	slices.SortFunc(e.rules, func(a, b *live) int { return strings.Compare(a.p.Name, b.p.Name) })
	clear(e.by)
	e.counts = nil
	for _, r := range e.rules {
		for _, s := range r.slots {
			if s.in.Window > 0 {
				e.counts = append(e.counts, s)
			} else {
				e.by[s.in.Name] = append(e.by[s.in.Name], s)
			}
		}
	}
}

// begin makes a rule's state, of what an earlier life saved or new.
func (e *Engine) begin(now time.Duration, p *Program) *live {
	r := &live{p: p, dirty: true, since: now, trueAt: never, lastFire: -never, leaseEnd: never, unknownAt: never}
	for i := range r.ring {
		r.ring[i] = -never
	}
	for _, in := range p.Inputs {
		s := &slot{in: in, stale: p.StaleFor, quiet: e.quiet(in.Name), first: int64(now / max(in.Window/buckets, 1))}
		if name, ok := strings.CutPrefix(in.Name, script.PrefixOutput); ok {
			s.value = e.outputs[name]
		} else if name, ok := strings.CutPrefix(in.Name, script.PrefixApp); ok {
			s.value = e.apps[name]
		}
		s.seen = s.value.Known()
		r.slots = append(r.slots, s)
	}
	r.vals = make([]cond.Value, len(p.Inputs))
	if s, ok := e.past[p.Name]; ok && s.Hash == p.Hash() {
		r.load(now, s)
	} else if e.nonce != nil {
		r.nonce = e.nonce()
	}
	return r
}

// Reading takes a reading of a series; one that is not good is no value.
func (e *Engine) Reading(now time.Duration, series string, v float64, good bool) {
	for _, s := range e.by[series] {
		if good {
			s.take(now, cond.Num(v))
		} else {
			s.take(now, cond.Value{})
		}
	}
}

// Output takes what an output is set to.
func (e *Engine) Output(now time.Duration, name string, v cond.Value) {
	e.keep(now, e.outputs, script.PrefixOutput, name, v)
}

// App takes a key app.NAME of the twin; the zero Value where it is not set any more.
func (e *Engine) App(now time.Duration, name string, v cond.Value) {
	e.keep(now, e.apps, script.PrefixApp, name, v)
}

func (e *Engine) keep(now time.Duration, all map[string]cond.Value, prefix, name string, v cond.Value) {
	if v.Known() {
		all[name] = v
	} else {
		delete(all, name)
	}
	for _, s := range e.by[prefix+name] {
		s.take(now, v)
	}
}

// Detections takes how often a label was seen in one frame of a camera.
func (e *Engine) Detections(now time.Duration, camera, label string, n int) {
	for _, s := range e.counts {
		if (s.in.Camera == "*" || s.in.Camera == camera) && (s.in.Label == "*" || s.in.Label == label) {
			s.add(now, n)
		}
	}
}

// Camera takes whether a camera is looked at.
func (e *Engine) Camera(now time.Duration, name string, running bool) {
	_, have := e.cameras[name]
	switch {
	case !running:
		delete(e.cameras, name)
	case have || len(e.cameras) < maxCameras:
		e.cameras[name] = now + cameraLife
	}
}

// Link takes whether the fleet can be asked, and if not for how long it could not before
// now.
func (e *Engine) Link(now time.Duration, up bool, downFor time.Duration) {
	e.linkUp, e.downAt = up, now-downFor
}

// Alone takes whether the board counts as alone: the rules that are for that alone fire.
func (e *Engine) Alone(alone bool) { e.alone = alone }

// Safety takes whether a safety shutdown holds.
func (e *Engine) Safety(active, known bool) {
	if e.safety = cond.Is(active); !known {
		e.safety = cond.Value{}
	}
}

// Step evaluates what has changed, and gives what is to be done. next is when Step has to
// be called again if nothing is taken before.
func (e *Engine) Step(now time.Duration) (jobs []Job, next time.Duration) {
	next = never
	for _, r := range e.rules {
		at := e.step(r, now)
		if j, ok := e.job(r, now); ok {
			jobs = append(jobs, j)
		}
		if r.work != nil && !r.busy && !r.work.held {
			at = min(at, r.work.retryAt)
		}
		next = min(next, at)
	}
	slices.SortStableFunc(jobs, func(a, b Job) int {
		switch {
		case a.Safety() == b.Safety():
			return 0
		case a.Safety():
			return -1
		}
		return 1
	})
	return jobs, next
}

// job gives what a rule still has to do, if it is time and nothing of it is under way.
func (e *Engine) job(r *live, now time.Duration) (Job, bool) {
	w := r.work
	if w == nil || r.busy || w.held || now < w.retryAt {
		return Job{}, false
	}
	e.gen++
	r.busy, r.job, r.gen = true, w, e.gen
	j := Job{Rule: r.p.Name, gen: e.gen}
	why := r.p.When
	if w.ends && r.p.Until != "" {
		why = r.p.Until
	} else if w.ends {
		why = "no more: " + why
	}
	for i := w.next; i < len(w.actions); i++ {
		j.Orders = append(j.Orders, Order{ID: r.id(w, i), Actor: "rule/" + r.p.Name, Why: why, Action: w.actions[i]})
	}
	return j, true
}

// id names an action. The attempt is part of it: an order that was refused is another one
// when it is tried again.
func (r *live) id(w *work, i int) [16]byte {
	h := sha256.New()
	h.Write([]byte("fulmar rule " + r.p.Name + "\x00"))
	hash := r.p.Hash()
	h.Write(hash[:])
	ends := uint64(0)
	if w.ends {
		ends = 1
	}
	for _, n := range []uint64{r.nonce, r.fired, ends, uint64(i), w.attempt} {
		h.Write(binary.BigEndian.AppendUint64(nil, n))
	}
	return [16]byte(h.Sum(nil))
}

// Done takes how a job went: n of its orders were taken, err is why the next one was not.
func (e *Engine) Done(now time.Duration, j Job, n int, err error) {
	i := slices.IndexFunc(e.rules, func(r *live) bool { return r.p.Name == j.Rule })
	if i < 0 || !e.rules[i].busy || e.rules[i].gen != j.gen {
		return // another rule by now
	}
	e.rules[i].done(now, n, err)
}

// States tells of all rules, by name.
func (e *Engine) States(now time.Duration) []State {
	out := make([]State, len(e.rules))
	for i, r := range e.rules {
		out[i] = e.state(r, now)
	}
	return out
}

// Changed gives the states that are other ones than when it was last asked. Why a rule is
// undecided alone is no change.
func (e *Engine) Changed(now time.Duration) (out []State) {
	for _, r := range e.rules {
		if m := r.mark(now); m != r.told {
			r.told = m
			out = append(out, e.state(r, now))
		}
	}
	return out
}
