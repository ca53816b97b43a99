// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"fulmar/command"
	"fulmar/internal/run"
	"fulmar/schema"
)

const (
	// MaxLong is how many long commands run at a time.
	MaxLong = 4
	// maxQuick is how many of those that end at once run at a time: they are small, and what
	// waits for one of them is a person.
	maxQuick = 8
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
	// Address is whose board this is; both are "" before it has a name, and then only the
	// board itself gives commands.
	Address func() (tenant, board string)
	// Open gives the bytes that an envelope signs, if keys that may give commands did.
	Open func(envelope []byte) ([]byte, error)
	// Now is the fleet's time in milliseconds since 1970, and whether it is known.
	Now      func() (ms uint64, known bool)
	Clock    schema.Clock // stamps results
	Handlers []command.Handler
	// Log is the journal, Entries what was in it when it was opened.
	Log     Log
	Entries [][]byte
	// Tell takes a report towards the fleet; that of an end is told again until it is taken.
	// Those of commands of the board itself carry the command.
	Tell func(ctx context.Context, r command.Report) error
	// Saw is told of each change at once, for those who look on; nil for nobody. It is
	// called from several goroutines and does not wait. Each report carries the command.
	Saw  func(r command.Report)
	Slog *slog.Logger

	untold int // in tests: instead of maxUntold
}

// Dispatcher takes commands and does them. Run must run for the others to return.
type Dispatcher struct {
	cfg      Config
	handlers map[string]*command.Handler
	l        *ledger
	in       chan submission
	ended    chan ending
	told     chan command.ID
	tell     chan command.Report
	notes    chan command.Report // how far commands are; dropped where nobody takes them
	closing  chan struct{}       // closed when nothing more is taken
	over     chan struct{}       // closed when the loop has ended
	runs     map[command.ID]*running
	away     map[command.ID]string // commands given up whose handlers, by name, are not back
	waiting  map[command.ID][]waiter
	deadline map[command.ID]time.Time // of local commands
	telling  bool
	stopping bool
}

// running is one command that is being done.
type running struct {
	lane    command.Lane
	cancel  context.CancelCauseFunc
	why     *command.Error // of the cancelling
	giveUp  time.Time      // zero while it has time
	name    string
	started time.Time
	limit   time.Duration
}

type submission struct {
	cmd    *command.Command // nil: cancel, or wait
	local  bool
	id     command.ID
	by     string
	wait   bool
	list   int // how many of the newest are wanted
	answer chan<- answer
	ctx    context.Context // of who asks
}

// waiter is told how a command ended, if it is there still.
type waiter struct {
	ctx    context.Context
	answer chan<- answer
}

type answer struct {
	r    command.Result
	err  error
	list []command.Report
}

type ending struct {
	id    command.ID
	name  string
	value []byte
	err   error
}

// ErrNotKnown: no command of that id is remembered here.
var ErrNotKnown = errors.New("no command of that id is known here")

// ErrNotSigned: an envelope that is not signed by a key that may give commands. It is
// not told to the fleet as a result: anybody could send one.
var ErrNotSigned = errors.New("not signed by a key that may give commands")

// errOver: the dispatcher has ended, and what was not accepted was not.
var errOver = errors.New("the board's program is being stopped and takes no commands")

// New opens a dispatcher. It does nothing before Run.
func New(cfg Config) (*Dispatcher, error) {
	d := &Dispatcher{
		cfg: cfg, handlers: map[string]*command.Handler{}, in: make(chan submission), ended: make(chan ending),
		told: make(chan command.ID), tell: make(chan command.Report, 1), notes: make(chan command.Report, maxNotes), closing: make(chan struct{}), over: make(chan struct{}), runs: map[command.ID]*running{}, away: map[command.ID]string{},
		waiting: map[command.ID][]waiter{}, deadline: map[command.ID]time.Time{},
	}
	for i := range cfg.Handlers {
		h := &cfg.Handlers[i]
		switch {
		case d.handlers[h.Name] != nil:
			return nil, fmt.Errorf("commands: two handlers for %s", h.Name)
		case h.Name == command.NameGap:
			return nil, fmt.Errorf("commands: a handler may not be named %s: that stands for results that were dropped", command.NameGap)
		}
		if err := h.Validate(); err != nil {
			return nil, err
		}
		d.handlers[h.Name] = h
	}
	d.l = newLedger(cfg.Log, cfg.Entries, cmp.Or(cfg.untold, maxUntold), func(name string) bool { return d.lane(name) == command.Safety })
	if d.l.strange > 0 {
		cfg.Slog.Error("lines of the journal of commands cannot be read by this release and are left out", "lines", d.l.strange)
	}
	return d, nil
}

// Submit takes a signed command. The result says that it is accepted, why it is not, or
// how it ended if it is known; what it says is in the journal. An error means that
// nothing is known of it: the same bytes may be given again.
func (d *Dispatcher) Submit(ctx context.Context, envelope []byte) (command.Result, error) {
	payload, err := d.cfg.Open(envelope)
	if err != nil {
		return command.Result{}, fmt.Errorf("%w: %w", ErrNotSigned, err)
	}
	var c command.Command
	if err := schema.Decode(payload, &c); err != nil {
		return command.Result{}, err
	}
	return d.send(ctx, submission{cmd: &c})
}

// SubmitLocal takes a command of a person or a rule on the board, whom the caller knows.
// Its Seq is given here: the next one of its actor; and so is whose board it is for.
func (d *Dispatcher) SubmitLocal(ctx context.Context, c command.Command) (command.Result, error) {
	c.Seq = 1
	c.Tenant, c.Board = d.cfg.Address()
	if err := c.Validate(); err != nil {
		return command.Result{}, err
	}
	if !ownActor(c.Actor) {
		return command.Result{}, fmt.Errorf("command %s: %q is no actor of the board's own: %s/USER, %s/NAME or %s/ID", c.Name, c.Actor, command.ActorLocal, command.ActorRule, command.ActorKey)
	}
	return d.send(ctx, submission{cmd: &c, local: true})
}

// Cancel ends a command that waits or runs.
func (d *Dispatcher) Cancel(ctx context.Context, id command.ID, by string) (command.Result, error) {
	return d.send(ctx, submission{id: id, by: by})
}

// Wait gives the result of a command once it is final.
func (d *Dispatcher) Wait(ctx context.Context, id command.ID) (command.Result, error) {
	return d.send(ctx, submission{id: id, wait: true})
}

// List gives the newest n commands that are remembered, those that are not ended last,
// each with its command.
func (d *Dispatcher) List(ctx context.Context, n int) ([]command.Report, error) {
	a := d.ask(ctx, submission{list: max(n, 1)})
	return a.list, a.err
}

func (d *Dispatcher) send(ctx context.Context, s submission) (command.Result, error) {
	a := d.ask(ctx, s)
	return a.r, a.err
}

func (d *Dispatcher) ask(ctx context.Context, s submission) answer {
	out := make(chan answer, 1)
	s.answer, s.ctx = out, ctx
	select {
	case d.in <- s:
	case <-d.closing: // not the whole of the caller's time: it keeps a stop from its end
		return answer{err: errOver}
	case <-ctx.Done():
		return answer{err: ctx.Err()}
	}
	select {
	case a := <-out:
		return a
	case <-d.over:
	case <-ctx.Done():
		return answer{err: ctx.Err()}
	}
	select { // its last word
	case a := <-out:
		return a
	default:
		return answer{err: errOver}
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
		var r command.Report
		select {
		case <-ctx.Done():
			return nil
		case r = <-d.notes:
			_ = d.cfg.Tell(ctx, r) // the next word or the result says more
			continue
		case r = <-d.tell:
		}
		for len(d.notes) > 0 { // what was before the end is told before it
			_ = d.cfg.Tell(ctx, <-d.notes)
		}
		id, begin := r.Result.ID, time.Now()
		if err := d.cfg.Tell(ctx, r); err != nil {
			d.cfg.Slog.Warn("result of a command not told, tried again", "command", id.String(), "err", err)
			id = command.ID{}
		}
		for time.Since(begin) >= beat && len(d.notes) > 0 {
			<-d.notes // it waited for a connection: how far something was then is no news
		}
		select {
		case <-ctx.Done():
			return nil
		case d.told <- id:
		}
	}
}

// note says how far a command is, if somebody listens. It is called from handlers too.
func (d *Dispatcher) note(r command.Report) {
	r.V, r.Result.V, r.Result.Time = schema.Version, schema.Version, d.cfg.Clock.Now()
	d.saw(r)
	if !ownActor(r.Command.Actor) {
		r.Command = nil // the fleet knows what it gave
	}
	select {
	case d.notes <- r:
	default:
	}
}

func (d *Dispatcher) saw(r command.Report) {
	if d.cfg.Saw != nil {
		d.cfg.Saw(r)
	}
}

func (d *Dispatcher) lane(name string) command.Lane {
	if h := d.handlers[name]; h != nil {
		return h.Lane
	}
	return command.Normal
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
			d.l.telling = command.ID{}
			if d.telling = false; id != (command.ID{}) {
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
	if r, ok := d.l.nextReport(); ok {
		d.telling, d.l.telling = true, r.Result.ID
		d.tell <- r
	}
}

// stop cancels what runs and writes down how it ended, as far as that is quick.
func (d *Dispatcher) stop() error {
	d.stopping = true
	close(d.closing)
	for _, r := range d.runs {
		d.cancel(r, &command.Error{Code: command.CodeCrashed, Text: "the program on the board was stopped"})
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

// class is whose queue a lane's commands stand in.
func class(l command.Lane) int {
	if l == command.Safety {
		return 1
	}
	return 0
}

// ownActor tells whether only the board itself may speak for an actor.
func ownActor(name string) bool {
	kind, _, ok := strings.Cut(name, "/")
	return ok && (kind == command.ActorLocal || kind == command.ActorRule || kind == command.ActorKey) || name == command.ActorBoard
}

// signed counts the actors beside the fleet.
func signed(high map[string]uint64) int {
	n := len(high)
	if _, ok := high[command.ActorFleet]; ok {
		n--
	}
	return n
}

// lost is how many safety commands were given up whose handlers are not back.
func (d *Dispatcher) lost() (n int) {
	for _, name := range d.away {
		if d.lane(name) == command.Safety {
			n++
		}
	}
	return n
}

// stuck gives a command of the name whose handler does not come back.
func (d *Dispatcher) stuck(name string) (command.ID, bool) {
	for id, n := range d.away {
		if n == name {
			return id, true
		}
	}
	return command.ID{}, false
}

// count is how many run in each lane.
func (d *Dispatcher) count() (n [command.Quick + 1]int) {
	for _, r := range d.runs {
		n[r.lane]++
	}
	return n
}
