// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"fulmar/device/output/interlock"
	"fulmar/device/output/kept"
	"fulmar/device/output/kinds"
	"fulmar/internal/fit"
	"fulmar/schema"
)

// Deps is what a bank works with.
type Deps struct {
	Dir    string           // where safety.json and outputs.json lie
	Values interlock.Values // what interlocks look at; nil: nothing is known
	Clock  schema.Clock
	Log    *slog.Logger // nil discards
	// Changed is called after something of [Bank.States] or [Bank.Safe] has changed. It
	// must not wait; nil for nobody.
	Changed func()
	// Program is fulmard's own executable, which bounds the programs of kind exec.
	Program string
	// Make makes the driver of an output; nil makes the real one.
	Make func(c *Config) (Output, error)

	write kept.WriteFile // tests put a disk there that breaks
}

// Bank holds the outputs of a board. Safe for concurrent use. Nothing moves before Run.
type Bank struct {
	deps   Deps
	log    *slog.Logger
	order  []*channel
	byName map[string]*channel
	drive  kinds.Drivers
	wake   chan struct{} // cap 1: while latched, look at the outputs now

	mu      sync.Mutex
	latch   kept.Latch
	life    uint64          // of the latch: rises with each shutdown
	unsaved bool            // the latch is in memory alone
	driving int             // rounds to safe values that go on
	sets    context.Context // of all sets; ends with a shutdown
	stop    context.CancelCauseFunc

	keepers atomic.Int32
	disk    chan struct{} // holds a token while nobody writes; cap 1
	last    map[string]float64
}

// Open makes a bank of checked outputs. It reads what was latched, and touches no device.
// Run it: until then every set waits.
func Open(cfg []Config, deps Deps) (*Bank, error) {
	if err := kinds.Validate(cfg); err != nil {
		return nil, err
	}
	b := &Bank{deps: deps, log: deps.Log, byName: map[string]*channel{}, wake: make(chan struct{}, 1), disk: make(chan struct{}, 1)}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	if b.deps.write == nil {
		b.deps.write = kept.ToDisk
	}
	b.drive = kinds.Drivers{Program: deps.Program, Log: b.log}
	if b.deps.Make == nil {
		b.deps.Make = b.drive.Make
	}
	b.disk <- struct{}{}
	b.sets, b.stop = context.WithCancelCause(context.Background())
	var err error
	if b.latch, err = kept.ReadLatch(deps.Dir); err != nil {
		b.log.Error("safety shutdown", "err", err)
	}
	if b.last, err = kept.ReadLast(deps.Dir); err != nil {
		b.log.Warn("last values", "err", err)
	}
	if b.latch.Active {
		b.stop(errLatched)
	}
	for i := range cfg {
		full := cfg[i].Full()
		out, err := b.deps.Make(&full)
		if err == nil {
			var c *channel
			if c, err = newChannel(full, out, deps.Clock.Now()); err == nil {
				c.late = b.again
				b.order, b.byName[full.Name] = append(b.order, c), c
				continue
			}
		}
		return nil, errors.Join(fmt.Errorf("output %s: %w", full.Name, err), b.close())
	}
	return b, nil
}

func (b *Bank) changed() {
	if b.deps.Changed != nil {
		b.deps.Changed()
	}
}

func (b *Bank) find(name string) (*channel, error) {
	c := b.byName[name]
	if c == nil {
		return nil, refuse(CodeUnknown, "this board has no output %.70q", name)
	}
	return c, nil
}

// Check tells what of a set would be refused whatever else is: name and range.
func (b *Bank) Check(name string, value float64) error {
	c, err := b.find(name)
	if err != nil {
		return err
	}
	if err := c.check(value); err != nil {
		return refuse(CodeRange, "output %s: %v", name, err)
	}
	return nil
}

// Set brings an output to a value and returns when the device has taken it, which for one
// with a speed is after its way; ctx bounds that. who is the actor, for the record. Its
// errors are *Error. Only the safe value is exempt from interlocks and the least interval.
func (b *Bank) Set(ctx context.Context, name string, value float64, who string) error {
	if err := b.Check(name, value); err != nil {
		return err
	}
	c := b.byName[name]
	ctx, cancel, err := b.setting(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	select {
	case <-c.writer:
	case <-ctx.Done():
		return b.ended(ctx, c, "waited for an earlier set to end")
	}
	defer func() { c.writer <- struct{}{} }()
	defer b.changed()
	if err := b.move(ctx, c, value, clip(who)); err != nil {
		return err
	}
	b.remember(ctx, c, value)
	return nil
}

// SetSafe brings an output to its safe value, as Set does: for a lease that is over. One
// without a safe value stays where it is.
func (b *Bank) SetSafe(ctx context.Context, name, who string) error {
	c := b.byName[name]
	if c == nil {
		return b.Check(name, 0)
	}
	if c.cfg.Safe == nil {
		return nil
	}
	return b.Set(ctx, name, *c.cfg.Safe, who)
}

// NoLimit narrows nothing.
func NoLimit() Limit { return Limit{math.NaN(), math.NaN()} }

// clip bounds an actor's name.
func clip(who string) string { return fit.Text(who, schema.MaxName) }

// errLatched is the cause of the end of sets.
var errLatched = errors.New("a safety shutdown is latched")

// setting gives the context of one set: it ends with the caller's, and with a shutdown.
func (b *Bank) setting(ctx context.Context) (context.Context, func(), error) {
	b.mu.Lock()
	sets := b.sets
	b.mu.Unlock()
	if sets.Err() != nil {
		return nil, nil, b.latchedError()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	off := context.AfterFunc(sets, func() { cancel(errLatched) })
	return ctx, func() { off(); cancel(nil) }, nil
}

func (b *Bank) latchedError() *Error {
	_, _, by := b.Safe()
	return refuse(CodeShutdown, "a safety shutdown is latched (%s); a person has to release it", by)
}

// ended says why a set's context did.
func (b *Bank) ended(ctx context.Context, c *channel, doing string) *Error {
	if errors.Is(context.Cause(ctx), errLatched) {
		return b.latchedError()
	}
	return refuse(CodeBusy, "output %s: %s until the time was over; nothing more was done", c.cfg.Name, doing)
}

// allowed asks what may change while a set goes on. The safe value is always allowed, but
// for a shutdown, which brings it there itself.
func (b *Bank) allowed(ctx context.Context, c *channel, target float64) error {
	// The latch itself is asked: the context's end may still be on its way here.
	if active, _, _ := b.Safe(); active || errors.Is(context.Cause(ctx), errLatched) {
		return b.latchedError()
	}
	if c.isSafe(target) {
		return nil
	}
	if err := c.check(target); err != nil { // the twin may have narrowed it meanwhile
		return refuse(CodeRange, "output %s: %v", c.cfg.Name, err)
	}
	for i, when := range c.locks {
		l := c.cfg.Interlocks[i]
		holds, unknown := when.Holds(func(n string) (float64, bool) { return b.value(n, l.MaxAge) })
		if unknown != "" {
			return refuse(CodeInterlock, "output %s: interlock %q: %s is not known or too old, which is not safe; only the safe value may be set", c.cfg.Name, l.When, unknown)
		}
		if holds && l.Message != "" {
			return refuse(CodeInterlock, "output %s: %s (%s)", c.cfg.Name, l.Message, l.When)
		}
		if holds {
			return refuse(CodeInterlock, "output %s: interlock %q holds", c.cfg.Name, l.When)
		}
	}
	return nil
}

// value gives what an interlock looks at.
func (b *Bank) value(name string, oldest time.Duration) (float64, bool) {
	if name == "safety" {
		if active, _, _ := b.Safe(); active {
			return 1, true
		}
		return 0, true
	}
	if o, ok := strings.CutPrefix(name, "output."); ok {
		return b.byName[o].present() // it is there: Validate
	}
	if b.deps.Values == nil {
		return 0, false
	}
	if oldest == 0 {
		oldest = interlock.DefaultAge
	}
	v, age, ok := b.deps.Values.Value(name)
	return v, ok && age <= oldest
}

// Read asks an output where it stands. known is false where it cannot be asked and nothing
// was set since the start.
func (b *Bank) Read(ctx context.Context, name string) (value float64, known bool, err error) {
	c, err := b.find(name)
	if err != nil {
		return 0, false, err
	}
	defer b.changed()
	value, known, err = c.look(ctx, b.deps.Clock)
	if err != nil {
		return 0, false, refuse(CodeFailed, "output %s: read it: %v", name, err)
	}
	return value, known, nil
}

// Holds asks the device whether an output is at a value: for who was interrupted and does
// not know whether a set had its effect. known is false where the device cannot be asked.
func (b *Bank) Holds(ctx context.Context, name string, value float64) (holds, known bool, err error) {
	v, known, err := b.Read(ctx, name)
	if err != nil || !known {
		return false, false, err
	}
	c := b.byName[name]
	c.mu.Lock()
	read := c.read
	c.mu.Unlock()
	return c.near(v, value), read, nil
}

// Limit is a range within an output's own. A NaN is the config's.
type Limit struct{ Min, Max float64 }

// SetLimits narrows ranges, as the twin says; outputs that are not named get their own
// range back. A limit that leaves nothing, or that is of an output that is not there, is
// an error; an output with one that leaves nothing stays as it was, and all others are
// narrowed: one bad limit must not open the rest. What stands outside is not moved.
func (b *Bank) SetLimits(limits map[string]Limit) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		if b.byName[name] == nil {
			errs = append(errs, fmt.Errorf("limit.%s: this board has no such output", name))
		}
	}
	for _, c := range b.order {
		l, ok := limits[c.cfg.Name]
		if !ok {
			l = NoLimit()
		}
		lo, hi := c.narrow(l)
		if lo > hi {
			errs = append(errs, fmt.Errorf("limit.%s: %v to %v leaves nothing of %v to %v", c.cfg.Name, l.Min, l.Max, c.cfg.Min, c.cfg.Max))
			continue
		}
		c.mu.Lock()
		c.min, c.max = lo, hi
		c.mu.Unlock()
	}
	b.changed()
	return errors.Join(errs...)
}

func (c *channel) narrow(l Limit) (lo, hi float64) {
	lo, hi = c.cfg.Min, c.cfg.Max
	if l.Min > lo {
		lo = l.Min
	}
	if l.Max < hi {
		hi = l.Max
	}
	return lo, hi
}

// close gives back what drivers keep open. The outputs stay as they are.
func (b *Bank) close() error {
	var errs []error
	for _, c := range b.order {
		if k, ok := c.out.(io.Closer); ok {
			errs = append(errs, k.Close())
		}
	}
	return errors.Join(append(errs, b.drive.Close())...)
}
