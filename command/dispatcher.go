// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"fulmar/internal/run"
	"fulmar/schema"
)

const (
	// MaxLong is how many long commands run at a time.
	MaxLong = 4
	// localLife is how long a command of the board itself may wait to be begun: a person
	// stands there.
	localLife = time.Minute
	// grace is how long a handler may go on after its time or its cancelling; then it is
	// left alone, told as Unknown, and takes no command until it is back.
	grace = 5 * time.Second
	// beat is how often what waits for the time, the disk or the spool is tried again.
	beat = time.Second
	// maxBatch is how many commands are made durable by one flush.
	maxBatch  = 64
	maxNotes  = 16
	stopGrace = 10 * time.Second
)

// Config is what a dispatcher is told.
type Config struct {
	Tenant, Board string
	// Open gives the bytes that an envelope signs, if keys that may give commands did.
	Open func(envelope []byte) ([]byte, error)
	// Now is the fleet's time in milliseconds since 1970, and whether it is known.
	Now      func() (ms uint64, known bool)
	Clock    schema.Clock // stamps results
	Handlers []Handler
	// Log is the journal, Entries what was in it when it was opened.
	Log     Log
	Entries [][]byte
	// Tell takes a result towards the fleet; a final one is told again until it is taken.
	Tell func(ctx context.Context, r Result) error
	Slog *slog.Logger
}

// Dispatcher takes commands and does them. Run must run for the others to return.
type Dispatcher struct {
	cfg      Config
	handlers map[string]*Handler
	l        *ledger
	in       chan submission
	ended    chan ending
	told     chan ID
	tell     chan Result
	notes    chan Result // how far commands are; dropped where nobody takes them
	over     chan struct{}
	runs     map[ID]*running
	stuck    map[string]ID // handlers that do not come back, by name
	waiting  map[ID][]chan<- answer
	deadline map[ID]time.Time // of local commands
	telling  bool
}

// running is one command that is being done.
type running struct {
	lane    Lane
	cancel  context.CancelCauseFunc
	why     *Error    // of the cancelling
	giveUp  time.Time // zero while it has time
	name    string
	started time.Time
	limit   time.Duration
}

type submission struct {
	cmd    *Command // nil: cancel, or wait
	local  bool
	id     ID
	by     string
	wait   bool
	answer chan<- answer
}

type answer struct {
	r   Result
	err error
}

type ending struct {
	id    ID
	name  string
	value []byte
	err   error
}

// ErrNotKnown: no command of that id is remembered here.
var ErrNotKnown = errors.New("no command of that id is known here")

// ErrNotSigned: an envelope that is not signed by a key that may give commands. It is
// not told to the fleet as a result: anybody could send one.
var ErrNotSigned = errors.New("not signed by a key that may give commands")

// New opens a dispatcher. It does nothing before Run.
func New(cfg Config) (*Dispatcher, error) {
	l, err := newLedger(cfg.Log, cfg.Entries)
	if err != nil {
		return nil, err
	}
	d := &Dispatcher{
		cfg: cfg, handlers: map[string]*Handler{}, l: l, in: make(chan submission), ended: make(chan ending),
		told: make(chan ID), tell: make(chan Result, 1), notes: make(chan Result, maxNotes), over: make(chan struct{}), runs: map[ID]*running{}, stuck: map[string]ID{},
		waiting: map[ID][]chan<- answer{}, deadline: map[ID]time.Time{},
	}
	for i := range cfg.Handlers {
		h := &cfg.Handlers[i]
		switch {
		case d.handlers[h.Name] != nil:
			return nil, fmt.Errorf("commands: two handlers for %s", h.Name)
		case !nameForm().MatchString(h.Name) || h.Do == nil || h.Repeat && h.Happened != nil:
			return nil, fmt.Errorf("commands: handler %q is not whole", h.Name)
		}
		d.handlers[h.Name] = h
	}
	return d, nil
}

// Submit takes a signed command. The result says that it is accepted, why it is not, or
// how it ended if it is known; what it says is in the journal. An error means that
// nothing is known of it: the same bytes may be given again.
func (d *Dispatcher) Submit(ctx context.Context, envelope []byte) (Result, error) {
	payload, err := d.cfg.Open(envelope)
	if err != nil {
		return Result{}, fmt.Errorf("%w: %w", ErrNotSigned, err)
	}
	var c Command
	if err := schema.Decode(payload, &c); err != nil {
		return Result{}, err
	}
	return d.send(ctx, submission{cmd: &c})
}

// SubmitLocal takes a command of a person or a rule on the board, whom the caller knows.
func (d *Dispatcher) SubmitLocal(ctx context.Context, c Command) (Result, error) {
	if err := c.Validate(); err != nil {
		return Result{}, err
	}
	return d.send(ctx, submission{cmd: &c, local: true})
}

// Cancel ends a command that waits or runs.
func (d *Dispatcher) Cancel(ctx context.Context, id ID, by string) (Result, error) {
	return d.send(ctx, submission{id: id, by: by})
}

// Wait gives the result of a command once it is final.
func (d *Dispatcher) Wait(ctx context.Context, id ID) (Result, error) {
	return d.send(ctx, submission{id: id, wait: true})
}

func (d *Dispatcher) send(ctx context.Context, s submission) (Result, error) {
	out := make(chan answer, 1)
	s.answer = out
	select {
	case d.in <- s:
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
	select {
	case a := <-out:
		return a.r, a.err
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
}

// Run does commands until ctx ends. What runs then is cancelled and, if it does not end
// in time, judged by the next start.
func (d *Dispatcher) Run(ctx context.Context) error {
	g := run.New(ctx)
	g.Go("teller", d.teller)
	g.Go("loop", func(ctx context.Context) error { return d.loop(ctx, g) })
	return g.Wait(stopGrace)
}

// teller brings results out, one at a time, so that the loop never waits for the spool.
func (d *Dispatcher) teller(ctx context.Context) error {
	for {
		var r Result
		select {
		case <-ctx.Done():
			return nil
		case r = <-d.notes:
			_ = d.cfg.Tell(ctx, r) // the next word or the result says more
			continue
		case r = <-d.tell:
		}
		id := r.ID
		if err := d.cfg.Tell(ctx, r); err != nil {
			d.cfg.Slog.Warn("result of a command not told, tried again", "command", r.ID.String(), "err", err)
			id = ID{}
		}
		select {
		case <-ctx.Done():
			return nil
		case d.told <- id:
		}
	}
}

// note says how far a command is, if somebody listens.
func (d *Dispatcher) note(r Result) {
	r.V, r.Time = schema.Version, d.cfg.Clock.Now()
	select {
	case d.notes <- r:
	default:
	}
}

func (d *Dispatcher) loop(ctx context.Context, g *run.Group) error {
	defer close(d.over)
	t := time.NewTicker(beat)
	defer t.Stop()
	tellAfter := time.Time{} // the spool refused: not before the next beat
	for {
		d.begin(g)
		d.tellNext(tellAfter)
		select {
		case <-ctx.Done():
			return d.stop()
		case s := <-d.in:
			d.take(d.batch(s))
		case e := <-d.ended:
			d.end(e)
		case id := <-d.told:
			if d.telling = false; id != (ID{}) {
				d.l.later(line{Op: opTold, ID: id})
				d.l.forget()
			} else {
				tellAfter = time.Now().Add(beat)
			}
		case <-t.C:
			_ = d.l.write(true)
			d.overdue(time.Now())
		}
	}
}

// batch collects what else wants to be taken now: one flush for all.
func (d *Dispatcher) batch(first submission) []submission {
	out := []submission{first}
	for len(out) < maxBatch {
		select {
		case s := <-d.in:
			out = append(out, s)
		default:
			return out
		}
	}
	return out
}

func (d *Dispatcher) tellNext(after time.Time) {
	if d.telling || time.Now().Before(after) {
		return
	}
	if len(d.l.untold) > 0 {
		d.telling = true
		d.tell <- d.l.untold[0].result
	}
}

// stop cancels what runs and writes down how it ended, as far as that is quick.
func (d *Dispatcher) stop() error {
	for _, r := range d.runs {
		d.cancel(r, &Error{CodeCrashed, "the program on the board was stopped"})
	}
	t := time.NewTimer(grace)
	defer t.Stop()
	defer func() { _ = d.l.write(true) }()
	for len(d.runs) > 0 {
		select {
		case e := <-d.ended:
			d.end(e)
		case <-t.C:
			return nil // begun and not ended: the next start judges
		}
	}
	return nil
}
