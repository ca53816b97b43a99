// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package intake takes what a fleet wants to be installed: it proves each assignment, asks
// the fleet by a nonce whether it is the newest, and hands over the order. What cannot be
// proven is told with its reason; what cannot be proven yet waits.
package intake

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"fulmar/agent/update/floor"
	"fulmar/internal/fit"
	"fulmar/ota"
	"fulmar/ota/prove"
	"fulmar/ota/release"
	"fulmar/schema"
	wire "fulmar/schema/ota"
	"fulmar/trust"
)

const (
	// maxArrived is how many assignments wait to be looked at: a release has at most so many
	// components. More are dropped; the fleet says each again once a minute.
	maxArrived = 16
	// maxPending is how many that cannot be proven yet are remembered, one a component.
	maxPending = 16
	nonceBytes = 16
	// answerTime is how long the fleet has to answer a nonce, and tries how often it is asked
	// before the order waits for another occasion. Its TPM signs a few batches a second.
	answerTime = 20 * time.Second
	tries      = 3
	// retry is how often what waits is looked at again, beside each connection and key set.
	retry = 5 * time.Minute
	// doubt is how long keys that this board does not know may be those of a key set that is
	// on its way: after an absence both come with the connection, in no order.
	doubt = time.Minute
)

// Machine is who brings orders into force: *ota.Updater.
type Machine interface {
	Offer(o ota.Order) error
	Attempts(component string) (attempt uint64, known bool)
}

// Config is what an intake works with.
type Config struct {
	Machine Machine
	// Keys is the key set in force; an error says why there is none.
	Keys func() (*trust.KeySet, error)
	// Name is who the board is; "" before that is known.
	Name func() (tenant, board string)
	// Now is the fleet's time in ms since 1970, and whether it is known.
	Now   func() (ms uint64, known bool)
	Floor trust.Floor
	// Off is why the board takes nothing, "" where it does.
	Off func() string
	// Want sends an encoded Want to the fleet.
	Want func(ctx context.Context, payload []byte) error
	// Tell tells the fleet a word on an assignment that comes to nothing here.
	Tell func(wire.State) error
	Log  *slog.Logger
}

// Intake is that of one board.
type Intake struct {
	cfg     Config
	arrived chan []byte
	again   chan struct{}
	pending map[string]*waiting // by component; the Run goroutine's

	asking sync.Mutex // one question at a time

	mu     sync.Mutex
	answer chan *wire.Proven // of the nonce that is asked; nil: none is
}

// waiting is an assignment that cannot be proven yet.
type waiting struct {
	*wire.Assignment
	// doubted is when its keys were not known first, by key set version; zero: they were.
	doubted time.Time
	version uint64
}

// New makes an intake; it does nothing before Run.
func New(cfg Config) *Intake {
	return &Intake{cfg: cfg, arrived: make(chan []byte, maxArrived), again: make(chan struct{}, 1), pending: map[string]*waiting{}}
}

// Give hands over an encoded assignment without waiting.
func (in *Intake) Give(payload []byte) {
	select {
	case in.arrived <- payload:
	default:
		in.cfg.Log.Warn("assignment dropped: too many wait; the fleet says it again")
	}
}

// Fresh hands over an answer to a nonce without waiting.
func (in *Intake) Fresh(p *wire.Proven) {
	in.mu.Lock()
	defer in.mu.Unlock()
	select {
	case in.answer <- p:
	default: // nobody asked
	}
}

// Again has what waits looked at: there is a connection, or another key set.
func (in *Intake) Again() {
	select {
	case in.again <- struct{}{}:
	default:
	}
}

// Run takes assignments until the context ends.
func (in *Intake) Run(ctx context.Context) error {
	t := time.NewTicker(retry)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case b := <-in.arrived:
			a := new(wire.Assignment)
			if err := schema.Decode(b, a); err != nil {
				in.cfg.Log.Error("assignment not read", "err", err)
				continue
			}
			in.take(ctx, a)
			continue
		case <-in.again:
		case <-t.C:
		}
		for _, name := range slices.Sorted(maps.Keys(in.pending)) {
			in.take(ctx, in.pending[name].Assignment)
		}
	}
}

// errLater: it cannot be proven now, and may be later.
var errLater = errors.New("not yet")

func later(err error) error { return fmt.Errorf("%w: %w", errLater, err) }

// take proves one and hands it over.
func (in *Intake) take(ctx context.Context, a *wire.Assignment) {
	w := &waiting{Assignment: a}
	err := in.prove(ctx, w)
	log := in.cfg.Log.With("rollout", a.Rollout, "component", a.Component, "release", a.Release, "attempt", a.Attempt)
	var no *prove.Refused
	switch {
	case err == nil:
		in.forget(a)
	case ctx.Err() != nil:
	case errors.Is(err, errLater):
		log.Warn("assignment waits", "err", err)
		if old := in.pending[a.Component]; old != nil && old.Attempt <= a.Attempt || old == nil && len(in.pending) < maxPending {
			in.pending[a.Component] = w
		}
	default:
		in.forget(a)
		reason := wire.Refused + ": " + err.Error()
		if errors.As(err, &no) {
			reason = no.Error()
			if errors.Is(err, prove.ErrOld) {
				log.Info("assignment is not the newest", "why", reason)
				return // whoever made the newer one knows
			}
		}
		log.Error("assignment refused", "why", reason)
		s := wire.State{V: schema.Version, Rollout: a.Rollout, Attempt: a.Attempt, Component: a.Component, State: wire.Failed, Reason: clip(reason)}
		if err := in.cfg.Tell(s); err != nil {
			log.Warn("refusal not kept for the fleet", "err", err)
		}
	}
}

// forget forgets what waits of it; an older one takes nothing from a newer one.
func (in *Intake) forget(a *wire.Assignment) {
	if old := in.pending[a.Component]; old != nil && old.Attempt <= a.Attempt {
		delete(in.pending, a.Component)
	}
}

func (in *Intake) prove(ctx context.Context, w *waiting) error {
	a := w.Assignment
	if why := in.cfg.Off(); why != "" {
		return errors.New(why)
	}
	b, set, err := in.board()
	if err != nil {
		return err
	}
	if !release.ComponentName(a.Component) {
		return fmt.Errorf("component %.80q", a.Component)
	}
	o, err := prove.Assignment(set, a, b)
	if errors.Is(err, trust.ErrSignatures) && a.Directive != nil && in.mayBe(w, set.Version) {
		return later(err)
	}
	if err != nil {
		return err
	}
	if known, sure := in.cfg.Machine.Attempts(o.Component); !sure || o.Attempt != known {
		if err := in.newest(ctx, set, o, b); err != nil {
			return err
		}
	}
	switch err := in.cfg.Machine.Offer(*o); {
	case errors.Is(err, ota.ErrFull):
		return later(err)
	case errors.Is(err, ota.ErrOld):
		return &prove.Refused{Refusal: ota.Refusal{Reason: wire.Superseded, Text: err.Error()}, Err: prove.ErrOld}
	default:
		return err
	}
}

// mayBe tells whether the keys of an assignment may be those of a key set that is to come.
func (in *Intake) mayBe(w *waiting, version uint64) bool {
	w.doubted, w.version = time.Now(), version
	if old := in.pending[w.Component]; old != nil && old.Attempt == w.Attempt && !old.doubted.IsZero() {
		w.doubted, w.version = old.doubted, old.version
	}
	return w.version == version && time.Since(w.doubted) < doubt
}

// board is who asks, with what it has to know to ask.
func (in *Intake) board() (b prove.Board, set *trust.KeySet, err error) {
	b.Tenant, b.Name = in.cfg.Name()
	if b.Name == "" {
		return b, nil, later(errors.New("the board has no name yet"))
	}
	if set, err = in.cfg.Keys(); err != nil {
		return b, nil, later(err)
	}
	if b.Floor, err = in.cfg.Floor.Floor(); err != nil {
		if errors.Is(err, floor.ErrLost) {
			return b, nil, err // a person has to look
		}
		return b, nil, later(err)
	}
	b.Attempts = func(component string) uint64 {
		n, _ := in.cfg.Machine.Attempts(component)
		return n
	}
	if ms, known := in.cfg.Now(); known {
		b.Now = time.UnixMilli(int64(ms))
	}
	return b, set, nil
}

// newest asks the fleet whether an order is the newest, and raises the floor to what the
// fleet remembers of this board.
func (in *Intake) newest(ctx context.Context, set *trust.KeySet, o *ota.Order, b prove.Board) error {
	f, err := in.ask(ctx, set, b)
	if err != nil {
		return err
	}
	if f.KeySet > set.Version {
		return later(fmt.Errorf("key set %d is in force, and this board knows %d; it comes with the next connection", f.KeySet, set.Version))
	}
	if f.Floor > b.Floor {
		in.cfg.Log.Warn("the fleet remembers a higher floor than this board: it is raised", "floor", f.Floor, "was", b.Floor)
		if err := in.cfg.Floor.Raise(f.Floor); err != nil {
			return later(fmt.Errorf("raise the floor to what the fleet remembers: %w", err))
		}
	}
	return prove.Newest(set, o, f)
}

// Ask asks the fleet what is newest, for who has no order at hand.
func (in *Intake) Ask(ctx context.Context) (*release.Fresh, error) {
	set, err := in.cfg.Keys()
	if err != nil {
		return nil, err
	}
	var b prove.Board
	if b.Tenant, b.Name = in.cfg.Name(); b.Name == "" {
		return nil, errors.New("the board has no name yet")
	}
	return in.ask(ctx, set, b)
}

func (in *Intake) ask(ctx context.Context, set *trust.KeySet, b prove.Board) (*release.Fresh, error) {
	in.asking.Lock()
	defer in.asking.Unlock()
	var last error
	for range tries {
		nonce := make([]byte, nonceBytes)
		_, _ = rand.Read(nonce) // never fails: crypto/rand ends the process instead
		f, err := in.askOnce(ctx, set, nonce, b)
		if err == nil || ctx.Err() != nil {
			return f, err
		}
		last = err
	}
	return nil, later(last)
}

func (in *Intake) askOnce(ctx context.Context, set *trust.KeySet, nonce []byte, b prove.Board) (*release.Fresh, error) {
	want, err := schema.Encode(&wire.Want{V: schema.Version, Nonce: nonce})
	if err != nil {
		return nil, err
	}
	answer := make(chan *wire.Proven, 1)
	in.mu.Lock()
	in.answer = answer
	in.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if err := in.cfg.Want(ctx, want); err != nil {
		return nil, fmt.Errorf("ask the fleet what is newest: %w", err)
	}
	for {
		select {
		case p := <-answer:
			f, err := prove.Fresh(set, p, nonce, b)
			if err == nil {
				return f, nil
			}
			// It may be the answer to an earlier nonce, which came late.
			in.cfg.Log.Warn("answer on what is newest not taken", "err", err)
		case <-ctx.Done():
			return nil, fmt.Errorf("the fleet has not answered within %v what is newest", answerTime)
		}
	}
}

func clip(s string) string {
	return fit.Text(s, schema.MaxText)
}
