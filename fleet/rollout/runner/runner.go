// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package runner drives rollouts: boards' words, people's acts and time go into the
// logic, its outcome is stored, and only then are boards told, hooks called and guards
// read. What was not told because the server died is told again: an order is repeated
// until the board has said its last word on it.
package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"fulmar/fleet/rollout"
	"fulmar/fleet/rollout/book"
	"fulmar/fleet/rollout/plan"
	"fulmar/fleet/rollout/state"
	"fulmar/schema"
	"fulmar/schema/ota"
	"fulmar/schema/rest"
)

// Errors that callers act upon, beside those of rollout, plan, book and access.
var (
	// ErrStale: somebody has changed the rollout since it was read.
	ErrStale = errors.New("changed since it was read")
	// ErrTooMany: a bound is reached.
	ErrTooMany = errors.New("too many")
	// ErrQuery: the query is not understood; it wraps the query's own error.
	ErrQuery = errors.New("query is not understood")
)

// errEnded: the server stops; the board says it again to the next one.
var errEnded = errors.New("the server stops")

const (
	// tickEvery is how often time is let pass.
	tickEvery = time.Second
	// resendEvery is how often an order is repeated that is not settled, on average:
	// each tick by chance, so that boards never hear of it all at once.
	resendEvery = time.Minute
	// maxOpen bounds the rollouts that are not over, of all tenants: each holds its
	// boards in memory, 100,000 of them about 60 MB.
	maxOpen = 100
	// maxOver is how many that are over stay in memory, for boards that come late.
	maxOver = 4
	// maxBatch bounds the boards' words in one transaction, maxQueue those that wait:
	// more senders than that are held back.
	maxBatch = 256
	maxQueue = 4096
	// saveTimeout bounds one transaction.
	saveTimeout = 30 * time.Second
)

// Fleet knows the boards.
type Fleet interface {
	// Boards gives those that a query matches, as candidates for a component. What is
	// wrong with the query wraps ErrQuery.
	Boards(ctx context.Context, tenant, query, component string) ([]plan.Candidate, error)
}

// Courier tells a connected board what it shall run. It does not wait, keeps nothing for
// a board that is away, and signs what wants to be signed.
type Courier interface {
	Assign(tenant, board string, a ota.Assignment) error
}

// Releases knows what boards can be brought to.
type Releases interface {
	// Fill fills in what the release of a plan says, and gives what is to be noted of each
	// board: what it lacks for it, and whether it runs there. Its error is a plan.Error where
	// the plan names what there is not.
	Fill(ctx context.Context, tenant string, s *rest.RolloutSpec) (note func(*plan.Candidate), err error)
	// Planned tells that somebody wants a release.
	Planned()
	// Committed tells that boards run the release of a rollout by now.
	Committed(ctx context.Context, tenant, component, release string, boards []string) error
}

// Prover finds out whether what a board says of what it runs is so.
type Prover interface {
	// Level tells how far a board's word can be believed where that is known at once; "" for
	// a board that can prove it.
	Level(ctx context.Context, tenant, board string) (string, error)
	// Prove asks for the proof, and calls [Rollouts.Proven] with what comes. It does not wait,
	// and may be asked again.
	Prove(c Claim)
}

// Claim is a board's word that it has committed an attempt.
type Claim struct {
	Tenant, Rollout, Board, Component, Release string
	Attempt                                    uint64
}

// Sample is one value of a PromQL expression.
type Sample struct {
	Labels map[string]string
	Value  float64
}

// Metrics evaluates PromQL.
type Metrics interface {
	Instant(ctx context.Context, tenant, expr string, at time.Time) ([]Sample, error)
}

// Config joins the runner to the rest.
type Config struct {
	Fleet   Fleet
	Courier Courier
	Metrics Metrics // nil: no guard can be read
	// Releases is nil where any name is taken for one, Prover where boards' words are.
	Releases Releases
	Prover   Prover
	// Private lets hooks call private addresses.
	Private bool
	Changed func(tenant, id string) // told after each change; nil: nobody is
	Log     *slog.Logger
}

type key struct{ tenant, id string }

// word is a board's word that waits to be stored.
type word struct {
	tenant, id string // id "": all open rollouts that the board is in
	ev         rollout.Event
	done       chan error // nil: nobody waits
}

// Rollouts is the rollouts of all tenants.
type Rollouts struct {
	cfg    Config
	book   *book.Book
	client *http.Client

	mu   sync.Mutex
	open map[key]*state.Rollout
	over []*state.Rollout // newest last, at most maxOver
	ctx  context.Context  // of Run
	// about holds estimates of open rollouts.
	about map[key]about

	words chan word
	// resend is how many ticks pass between two tellings of an order, on average; fewer
	// in tests.
	resend int64
	ended  chan struct{} // closed when Run ends
	asks   sync.WaitGroup
}

// New makes a runner. Nothing moves before Run.
func New(cfg Config, b *book.Book) *Rollouts {
	return &Rollouts{
		cfg: cfg, book: b, client: hookClient(cfg.Private), open: map[key]*state.Rollout{}, about: map[key]about{},
		words: make(chan word, maxQueue), ended: make(chan struct{}), resend: int64(resendEvery / tickEvery),
	}
}

// Run drives the rollouts until the context ends.
func (x *Rollouts) Run(ctx context.Context) error {
	defer x.asks.Wait()
	defer close(x.ended)
	if err := x.load(ctx); err != nil {
		return fmt.Errorf("read rollouts: %w", err)
	}
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			x.tick(ctx)
		case w := <-x.words:
			x.take(ctx, w)
		}
	}
}

// load reads what is open and asks again for what it waits for. What somebody has
// worked on before is newer than what is read.
func (x *Rollouts) load(ctx context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ctx = ctx
	open, err := x.book.Open(ctx)
	if err != nil {
		return err
	}
	for _, r := range open {
		if k := (key{r.Tenant, r.ID}); x.open[k] == nil {
			x.open[k] = r
		}
	}
	for _, r := range x.open {
		x.prove(ctx, r, rollout.Asks(r))
		x.ask(r, rollout.Asks(r))
	}
	return nil
}

// tick lets time pass in all rollouts, and repeats orders.
func (x *Rollouts) tick(ctx context.Context) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for k, r := range x.open {
		if err := x.apply(ctx, r, false, rollout.Tick{}); err != nil {
			x.cfg.Log.Error("rollout does not go on; tried again", "rollout", k.id, "error", err.Error())
			continue
		}
		for i := range r.Boards {
			if r.Unsettled(i) && rand.N(x.resend) == 0 {
				x.tell(r, i)
			}
		}
	}
}

// take stores boards' words, as many as wait, in one transaction for each rollout.
func (x *Rollouts) take(ctx context.Context, first word) {
	batch := []word{first}
	for len(batch) < maxBatch {
		select {
		case w := <-x.words:
			batch = append(batch, w)
			continue
		default:
		}
		break
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	events := map[*state.Rollout][]rollout.Event{}
	waits := map[*state.Rollout][]chan error{}
	for _, w := range batch {
		list, err := x.concerned(ctx, w)
		if len(list) == 0 {
			answer(w.done, err)
		}
		for _, r := range list {
			events[r] = append(events[r], w.ev)
			if w.done != nil {
				waits[r] = append(waits[r], w.done)
			}
		}
	}
	for r, evs := range events {
		err := x.apply(ctx, r, false, evs...)
		for _, done := range waits[r] {
			answer(done, err)
		}
	}
}

func answer(done chan error, err error) {
	if done != nil {
		done <- err
	}
}

// concerned gives the rollouts that a word is about.
func (x *Rollouts) concerned(ctx context.Context, w word) (out []*state.Rollout, err error) {
	if w.id != "" {
		// A board may name any rollout: one that is only in the database is read for those
		// that owe it a word, not for everybody.
		if e, ok := w.ev.(rollout.Report); ok && !x.inMemory(w.tenant, w.id) {
			if owes, err := x.book.Tried(ctx, w.tenant, w.id, e.Board); err != nil || !owes {
				if errors.Is(err, book.ErrUnknown) {
					err = nil
				}
				return nil, err
			}
		}
		r, err := x.find(ctx, w.tenant, w.id)
		if errors.Is(err, book.ErrUnknown) {
			return nil, nil // of a rollout that is kept no more: nothing can be made of it
		}
		if err != nil {
			return nil, err
		}
		return []*state.Rollout{r}, nil
	}
	here, ok := w.ev.(rollout.Here)
	for k, r := range x.open {
		if _, in := r.Has(here.Board); ok && in && k.tenant == w.tenant {
			out = append(out, r)
		}
	}
	return out, nil
}

// find gives a rollout, from memory where it is there.
func (x *Rollouts) find(ctx context.Context, tenant, id string) (*state.Rollout, error) {
	if r := x.open[key{tenant, id}]; r != nil {
		return r, nil
	}
	for _, r := range x.over {
		if r.Tenant == tenant && r.ID == id {
			return r, nil
		}
	}
	r, err := x.book.Get(ctx, tenant, id)
	if err == nil {
		x.keep(r)
	}
	return r, err
}

func (x *Rollouts) inMemory(tenant, id string) bool {
	return x.open[key{tenant, id}] != nil || slices.ContainsFunc(x.over, func(r *state.Rollout) bool { return r.Tenant == tenant && r.ID == id })
}

// keep puts a rollout where it belongs.
func (x *Rollouts) keep(r *state.Rollout) {
	x.forget(r)
	if !r.State.Over() {
		x.open[key{r.Tenant, r.ID}] = r
		return
	}
	if x.over = append(x.over, r); len(x.over) > maxOver {
		x.over = x.over[1:]
	}
}

func (x *Rollouts) forget(r *state.Rollout) {
	delete(x.open, key{r.Tenant, r.ID})
	delete(x.about, key{r.Tenant, r.ID})
	for i, o := range x.over {
		if o.Tenant == r.Tenant && o.ID == r.ID {
			x.over = append(x.over[:i:i], x.over[i+1:]...)
			return
		}
	}
}

// clean tells whether an error of the logic has left everything as it was.
func clean(err error) bool {
	return errors.Is(err, rollout.ErrState) || errors.Is(err, rollout.ErrSamePerson) || errors.Is(err, plan.ErrNoBoards)
}

// apply lets a rollout take events, stores the outcome, and then acts on it. What could
// not be stored has not happened: the rollout is read again.
func (x *Rollouts) apply(ctx context.Context, r *state.Rollout, claim bool, evs ...rollout.Event) (err error) {
	fx := rollout.Effects{Changed: map[int]bool{}}
	now := time.Now().UTC().Truncate(time.Millisecond) // as it is kept
	for _, ev := range evs {
		one, err := rollout.Apply(r, ev, now)
		if err != nil {
			if len(evs) > 1 || !clean(err) {
				x.reread(r)
			}
			return err
		}
		merge(&fx, one)
	}
	if len(fx.Changed) > 0 || len(fx.Steps) > 0 || fx.Head {
		save, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
		defer cancel()
		if err := x.book.Save(save, r, fx, claim); err != nil {
			x.reread(r)
			return err
		}
	}
	for _, i := range fx.Send {
		x.tell(r, i)
	}
	x.prove(ctx, r, fx)
	x.ask(r, fx)
	if len(fx.Steps) > 0 {
		x.keep(r)
		x.depend(ctx, r)
		if x.cfg.Changed != nil {
			x.cfg.Changed(r.Tenant, r.ID)
		}
	}
	return nil
}

func merge(fx *rollout.Effects, one rollout.Effects) {
	for i := range one.Changed {
		fx.Changed[i] = true
	}
	fx.Prove, fx.Good = append(fx.Prove, one.Prove...), append(fx.Good, one.Good...)
	fx.Send, fx.Steps, fx.Head = append(fx.Send, one.Send...), append(fx.Steps, one.Steps...), fx.Head || one.Head
	if one.Hook != nil {
		fx.Hook = one.Hook
	}
	if one.Guards != nil {
		fx.Guards, fx.Baseline = one.Guards, one.Baseline
	}
}

// reread takes what is stored for true. Where that cannot be read either, the rollout
// is gone from memory and read by the next one who asks for it, or at the next start.
func (x *Rollouts) reread(r *state.Rollout) {
	x.forget(r)
	ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
	defer cancel()
	if again, err := x.book.Get(ctx, r.Tenant, r.ID); err == nil {
		x.keep(again)
	} else {
		x.cfg.Log.Error("rollout cannot be read; it stands still until it can", "rollout", r.ID, "error", err.Error())
	}
}

// depend tells rollouts that wait for this one how it stands.
func (x *Rollouts) depend(ctx context.Context, r *state.Rollout) {
	for _, o := range x.open {
		for _, id := range o.Spec.After {
			if id != r.ID || o.Tenant != r.Tenant || o == r {
				continue
			}
			if err := x.apply(ctx, o, false, rollout.Dependency{ID: r.ID, State: r.State}); err != nil {
				x.cfg.Log.Error("rollout not told of the one before it", "rollout", o.ID, "error", err.Error())
			}
		}
	}
}

// tell gives a board its order.
func (x *Rollouts) tell(r *state.Rollout, i int) {
	act, attempt, deadline, ok := r.Order(i)
	if !ok {
		return
	}
	b := &r.Boards[i]
	a := ota.Assignment{
		V: schema.Version, Rollout: r.ID, Component: r.Spec.Component, Release: r.Spec.Release, Attempt: attempt, Act: uint8(act), Before: b.Was,
	}
	if !deadline.IsZero() {
		a.Deadline = deadline.UnixMilli()
	}
	if act != state.ActUndo {
		a.Envelope = r.Spec.Envelope
	}
	if err := x.cfg.Courier.Assign(r.Tenant, b.Name, a); err != nil {
		x.cfg.Log.Warn("board not told; told again", "rollout", r.ID, "board", b.Name, "error", err.Error())
	}
}

// Connected tells that a board has connected: it hears again what holds for it. Where
// more boards come than can be dealt with, the timer tells them.
func (x *Rollouts) Connected(tenant, board string) {
	select {
	case x.words <- word{tenant: tenant, ev: rollout.Here{Board: board}}:
	default:
	}
}
