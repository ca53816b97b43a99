// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rule

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"fulmar/device/rule/cond"
	"fulmar/device/rule/script"
	"fulmar/internal/run"
	"fulmar/schema"
)

const (
	// doTimeout bounds one order: a journal on a slow SD card takes ten flushes in that.
	doTimeout = 10 * time.Second
	// saveWait is how long an order waits for the disk to know of it: one that takes
	// nothing must not keep a valve open.
	saveWait = time.Second
	// stopGrace is how long orders may go on after the stop.
	stopGrace = 5 * time.Second
)

// Config is what a runner is told.
type Config struct {
	// Path is the file of what outlives the program; "": nothing does.
	Path string
	// Do takes an order so that it will be done: it returns nil once it is in the command
	// journal, or the key of the twin is set. An order with an ID that it knows is taken.
	Do func(ctx context.Context, o Order) error
	// Changed is told each change of a rule's state; nil for nobody. It must not block.
	Changed func(s State)
	// Wall is the board's time of day, in its zone, where it is known. Quiet is of
	// [Options].
	Wall  func() (time.Time, bool)
	Quiet func(series string) time.Duration
	Log   *slog.Logger
}

// Runner is the rules at work. Its methods may be called from many goroutines; they never
// wait for a disk or an order.
type Runner struct {
	cfg   Config
	start time.Time
	wake  chan struct{} // cap 1
	ended chan ending
	file  *keeper

	mu sync.Mutex
	e  *Engine
}

type ending struct {
	job Job
	n   int
	err error
}

// Open opens what an earlier life has left. A file that cannot be read is said in the
// log, and the rules begin anew: what they did stays.
func Open(cfg Config) *Runner {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	r := &Runner{cfg: cfg, start: time.Now(), wake: make(chan struct{}, 1), ended: make(chan ending), file: &keeper{path: cfg.Path, log: cfg.Log, wake: make(chan struct{}, 1)}}
	o := Options{Quiet: cfg.Quiet, Nonce: rand.Uint64}
	if cfg.Wall != nil {
		o.Wall = func(time.Duration) (time.Time, bool) { return cfg.Wall() }
	}
	saved, err := r.file.read()
	if err != nil {
		cfg.Log.Error("what rules have done before is not known: a rule that is true fires again", "path", cfg.Path, "err", err)
	}
	r.e = NewEngine(o, saved)
	r.e.Link(0, false, 0)
	return r
}

func (r *Runner) now() time.Duration { return time.Since(r.start) }

// feed lets fn change the engine, and has it stepped.
func (r *Runner) feed(fn func(now time.Duration)) {
	r.mu.Lock()
	fn(r.now())
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Rules puts these rules in force; see [Engine.Set].
func (r *Runner) Rules(programs []*Program) {
	r.feed(func(now time.Duration) { r.e.Set(now, programs) })
}

// Samples takes a batch of readings.
func (r *Runner) Samples(b *schema.Samples) {
	r.feed(func(now time.Duration) {
		for i, series := range b.Series {
			r.e.Reading(now, series, b.Value[i], b.Quality == nil || b.Quality[i] == schema.QualityGood)
		}
	})
}

// Event takes what one frame of a camera showed.
func (r *Runner) Event(ev *schema.Event) {
	r.feed(func(now time.Duration) {
		for class, label := range ev.Labels {
			n := 0
			for i := range ev.Boxes {
				if ev.Boxes[i].Class == class {
					n++
				}
			}
			if n > 0 {
				r.e.Detections(now, ev.Source, label, n)
			}
		}
	})
}

// Camera, Output, App, Link, Alone and Safety are those of [Engine].
func (r *Runner) Camera(name string, running bool) {
	r.feed(func(now time.Duration) { r.e.Camera(now, name, running) })
}

// Output takes what an output is set to; see [Engine.Output].
func (r *Runner) Output(name string, v cond.Value) {
	r.feed(func(now time.Duration) { r.e.Output(now, name, v) })
}

// App takes a key app.NAME of the twin; see [Engine.App].
func (r *Runner) App(name string, v cond.Value) {
	r.feed(func(now time.Duration) { r.e.App(now, name, v) })
}

// Link takes whether the fleet can be asked; see [Engine.Link].
func (r *Runner) Link(up bool, downFor time.Duration) {
	r.feed(func(now time.Duration) { r.e.Link(now, up, downFor) })
}

// Alone takes whether the board counts as alone; see [Engine.Alone].
func (r *Runner) Alone(alone bool) { r.feed(func(time.Duration) { r.e.Alone(alone) }) }

// Safety takes whether a safety shutdown holds; see [Engine.Safety].
func (r *Runner) Safety(active, known bool) {
	r.feed(func(time.Duration) { r.e.Safety(active, known) })
}

// States tells of all rules, by name.
func (r *Runner) States() []State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.e.States(r.now())
}

// Run evaluates the rules until ctx ends.
func (r *Runner) Run(ctx context.Context) error {
	g := run.New(ctx)
	g.Go("file", r.file.run)
	g.Go("rules", func(ctx context.Context) error { return r.loop(ctx, g) })
	err := g.Wait(stopGrace)
	r.mu.Lock()
	b, _ := r.snapshot(true)
	r.mu.Unlock()
	r.file.write(b)
	return err
}

func (r *Runner) loop(ctx context.Context, g *run.Group) error {
	t := time.NewTimer(0)
	defer t.Stop()
	save := time.NewTicker(saveEvery)
	defer save.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-t.C:
		case e := <-r.ended:
			r.mu.Lock()
			r.e.Done(r.now(), e.job, e.n, e.err)
			b, _ := r.snapshot(false)
			r.mu.Unlock()
			if e.err == nil {
				r.file.put(b)
			}
		case <-save.C:
			r.mu.Lock()
			b, running := r.snapshot(false)
			r.mu.Unlock()
			if running {
				r.file.put(b)
			}
		}
		if next := r.step(g); next < never {
			t.Reset(max(next-r.now(), 0))
		}
	}
}

// step evaluates, and starts what is to be done.
func (r *Runner) step(g *run.Group) time.Duration {
	r.mu.Lock()
	now := r.now()
	jobs, next := r.e.Step(now)
	changed := r.e.Changed(now)
	var b []byte
	if len(jobs) > 0 || len(changed) > 0 {
		b, _ = r.snapshot(false)
	}
	r.mu.Unlock()
	var saved <-chan struct{}
	if b != nil {
		saved = r.file.put(b)
	}
	for _, j := range jobs {
		g.Go("rule "+j.Rule, func(ctx context.Context) error { return r.do(ctx, j, saved) })
	}
	if r.cfg.Changed != nil {
		for _, s := range changed {
			r.cfg.Changed(s)
		}
	}
	return next
}

// do gives the orders of a job, once the disk knows of them. Safety waits for no disk.
func (r *Runner) do(ctx context.Context, j Job, saved <-chan struct{}) error {
	if !j.Safety() {
		t := time.NewTimer(saveWait)
		select {
		case <-saved:
		case <-t.C:
			r.cfg.Log.Warn("a rule's order is given before the disk knows of it", "rule", j.Rule)
		}
		t.Stop()
	}
	e := ending{job: j}
	// Not the group's context: what was begun when the program stops gets its time.
	below := context.WithoutCancel(ctx)
	for _, o := range j.Orders {
		if e.err = r.one(below, o); e.err != nil {
			break
		}
		e.n++
	}
	select {
	case r.ended <- e:
	case <-ctx.Done():
		r.mu.Lock()
		r.e.Done(r.now(), e.job, e.n, e.err)
		r.mu.Unlock()
	}
	return nil
}

// one gives one order. What panics in it is that order's failure.
func (r *Runner) one(ctx context.Context, o Order) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: panic: %v", script.Words([]Action{o.Action}), p)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, doTimeout)
	defer cancel()
	if err := r.cfg.Do(ctx, o); err != nil {
		return fmt.Errorf("%s: %w", script.Words([]Action{o.Action}), err)
	}
	return nil
}

// snapshot is what outlives the program, in bytes. It must be called with the lock.
func (r *Runner) snapshot(clean bool) (b []byte, running bool) {
	saved, running := r.e.Save(r.now())
	b, err := schema.Encode(&kept{V: schema.Version, Clean: clean, Rules: saved})
	if err != nil { // 32 rules of 100 bytes: only a broken build gets here
		r.cfg.Log.Error("the state of rules cannot be written", "err", err)
	}
	return b, running
}
