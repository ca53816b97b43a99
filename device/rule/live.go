// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rule

import (
	"errors"
	"time"

	"fulmar/device/rule/cond"
	"fulmar/device/rule/script"
)

// A rule that fires more often than this is slowed: somebody forgot an end condition, and
// a relay wears out.
const (
	burst     = 10               // firings
	burstSpan = 10 * time.Minute // within
	slowEvery = time.Minute      // then the least time between two
)

// What was not taken is tried again after a second, then after twice that, up to a minute.
const (
	retryFirst = time.Second
	retryMost  = time.Minute
)

// live is a rule at work.
type live struct {
	p     *Program
	slots []*slot
	vals  []cond.Value // scratch for an expression
	dirty bool         // evaluate it, also if no input has changed

	nonce uint64
	fired uint64
	on    bool
	spent bool // its lease is over; it waits for its end
	since time.Duration
	// answers to the conditions, and the error of an unknown one
	yes, end cond.Value
	fault    error

	trueAt   time.Duration // since when it could fire; never
	lastFire time.Duration
	leaseEnd time.Duration
	ring     [burst]time.Duration // of the last firings
	pos      int                  // of the oldest
	slowed   bool

	did  bool // an action of the last firing was taken: there is something to undo
	work *work
	busy bool  // a job is under way
	job  *work // of which list
	gen  uint64
	why  string // an order was not taken

	unknownAt time.Duration // since when its answer is not known; never
	told      mark
}

// work is a list of actions that is being done.
type work struct {
	actions []Action
	ends    bool // of else
	next    int
	attempt uint64
	retryAt time.Duration
	// held: it was begun in an earlier life, and waits for an answer that says whether it
	// is still wanted.
	held bool
}

// step brings a rule to now; it gives when that is to be done again.
func (e *Engine) step(r *live, now time.Duration) time.Duration {
	next := never
	changed := r.dirty
	for _, s := range r.slots {
		v, until := e.now(s, now)
		if v != s.is {
			s.is, changed = v, true
		}
		if until > now {
			next = min(next, until)
		}
	}
	if changed {
		r.dirty = false
		e.evals++
		r.answer()
	}
	yes, end := r.yes, r.end
	if r.p.Alone && !e.alone {
		yes, end = cond.Is(false), cond.Is(true)
	}
	if r.on {
		next = min(next, r.stepOn(now, end))
	} else {
		next = min(next, r.stepOff(now, yes.True() && !end.True()))
	}
	switch {
	case r.on && end.Known() || !r.on && yes.Known():
		r.unknownAt = never
	case r.unknownAt == never:
		r.unknownAt = now
		fallthrough
	default:
		if at := r.unknownAt + undecidedLong; at > now {
			next = min(next, at)
		}
	}
	if r.work != nil && r.work.held && end.Known() {
		r.work.held = false
	}
	return next
}

// answer evaluates the conditions.
func (r *live) answer() {
	r.yes, r.fault = r.eval(r.p.Cond, r.p.CondIn)
	switch {
	case r.p.End != nil:
		var err error
		if r.end, err = r.eval(r.p.End, r.p.EndIn); r.fault == nil {
			r.fault = err
		}
	case r.yes.Known():
		r.end = cond.Is(!r.yes.True())
	default:
		r.end = cond.Value{}
	}
}

func (r *live) eval(x *cond.Expr, at []int) (cond.Value, error) {
	for i, j := range at {
		r.vals[i] = r.slots[j].is
	}
	return x.Eval(r.vals)
}

func (r *live) stepOff(now time.Duration, ready bool) time.Duration {
	if !ready {
		r.trueAt = never
		return never
	}
	if r.trueAt == never {
		r.trueAt = now
	}
	at := r.trueAt + r.p.HoldFor
	if at > now {
		return at
	}
	if at = r.allowed(now); at > now {
		return at
	}
	r.fire(now)
	return r.leaseEnd
}

// allowed is when the rule may fire, by its every and by how often it did.
func (r *live) allowed(now time.Duration) time.Duration {
	at := now
	if r.lastFire != -never {
		at = r.lastFire + r.p.EveryFor
	}
	oldest := r.ring[r.pos]
	if r.slowed = false; oldest == -never || now-oldest >= burstSpan {
		return at
	}
	slow := min(r.lastFire+slowEvery, oldest+burstSpan)
	r.slowed = slow > r.lastFire+r.p.EveryFor
	return max(at, slow)
}

func (r *live) fire(now time.Duration) {
	r.fired++
	r.on, r.spent, r.since, r.did = true, false, now, false
	r.trueAt, r.lastFire = never, now
	r.ring[r.pos] = now
	r.pos = (r.pos + 1) % burst
	r.leaseEnd = never
	if r.p.LeaseFor > 0 {
		r.leaseEnd = now + r.p.LeaseFor
	}
	r.start(r.p.Do, false)
}

func (r *live) stepOn(now time.Duration, end cond.Value) time.Duration {
	if end.True() {
		if !r.spent {
			r.undo()
		}
		r.on, r.spent, r.since, r.leaseEnd = false, false, now, never
		return never
	}
	if now >= r.leaseEnd {
		r.spent, r.leaseEnd = true, never
		r.undo()
	}
	return r.leaseEnd
}

// undo does else, if there is something to undo, or may be when what is under way is done.
func (r *live) undo() {
	if r.did || r.busy && !r.job.ends {
		r.start(r.p.Else, true)
		return
	}
	r.work = nil
}

func (r *live) start(actions []Action, ends bool) {
	r.work = nil
	if len(actions) > 0 {
		r.work = &work{actions: actions, ends: ends}
	}
}

// done takes how the last job went; it may be of a list that is no longer wanted.
func (r *live) done(now time.Duration, n int, err error) {
	was := r.job
	r.busy, r.job = false, nil
	if n > 0 && !was.ends {
		r.did = true
	}
	w := r.work
	if w != was {
		if w != nil && w.ends && !r.did {
			r.work = nil // nothing of do was taken before the rule ended
		}
		return
	}
	w.next += n
	if err == nil && w.next >= len(w.actions) {
		r.work, r.why = nil, ""
		return
	}
	if err == nil {
		err = errShort
	}
	r.why = err.Error()
	w.retryAt = now + min(retryFirst<<min(w.attempt, 10), retryMost)
	w.attempt++
}

// errShort: whoever does a job did less than all and said nothing.
var errShort = errors.New("an action was not taken")

// words of a State.
const (
	Off       = "off"
	Waiting   = "waiting" // true, not for long enough yet, or too soon after the last firing
	Undecided = "undecided"
	On        = "on"
	Spent     = "spent" // its lease is over; it waits for its end
)

// State is how a rule is.
type State struct {
	Name  string
	State string
	Since time.Duration // when it went on or off
	Fired uint64
	// Undecided is why its answer is not known; "" where it is. Long is set when that
	// lasts for more than a minute.
	Undecided string
	Long      bool
	// Failing is what is wrong: a condition without a result, or an action that is not
	// taken; "" for nothing.
	Failing string
	Slowed  bool // it fires too often
	Actions string
}

// undecidedLong is how long a rule may be undecided before that is told: a sensor that
// misses some ticks is no news.
const undecidedLong = time.Minute

// mark is what a change of makes news.
type mark struct {
	word          string
	fired         uint64
	unknown, long bool
	fault         error
	why           string
	slowed        bool
}

func (r *live) mark(now time.Duration) mark {
	m := mark{word: Off, fired: r.fired, unknown: r.unknownAt != never, fault: r.fault, why: r.why, slowed: r.slowed}
	m.long = m.unknown && now >= r.unknownAt+undecidedLong
	switch {
	case r.on && r.spent:
		m.word = Spent
	case r.on:
		m.word = On
	case r.trueAt != never:
		m.word = Waiting
	case m.unknown:
		m.word = Undecided
	}
	return m
}

func (e *Engine) state(r *live, now time.Duration) State {
	m := r.mark(now)
	s := State{Name: r.p.Name, State: m.word, Since: r.since, Fired: r.fired, Long: m.long, Slowed: r.slowed, Failing: r.why, Actions: script.Words(r.p.Do)}
	if m.unknown {
		s.Undecided = e.unknown(r)
	}
	if r.fault != nil {
		s.Failing = r.fault.Error()
	}
	return s
}

// unknown says why there is no answer.
func (e *Engine) unknown(r *live) string {
	if r.fault != nil {
		return r.fault.Error()
	}
	for _, s := range r.slots {
		if !s.is.Known() {
			return e.missing(s)
		}
	}
	return "its condition has no answer"
}
