// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package output

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"fulmar/device/output/interlock"
	"fulmar/device/output/kinds"
	"fulmar/schema"
)

// Output is a driver, see [kinds.Driver].
type Output = kinds.Driver

// Config is one output's, see [kinds.Config].
type Config = kinds.Config

// channel is one output of a bank.
type channel struct {
	cfg   Config
	out   Output
	locks []*interlock.Condition // as cfg.Interlocks
	late  func()                 // a call has come back that was left alone

	writer chan struct{} // holds a token while nobody sets; cap 1; empty until open
	opened sync.Once
	turn   chan struct{} // holds a token while nobody speaks with the device; cap 1

	mu       sync.Mutex
	min, max float64 // as the twin narrows them
	value    float64
	known    bool
	read     bool // the value was read, not only set
	wanted   float64
	was      bool // wanted was set, since the start
	by       string
	since    schema.Time // of value or state
	setAt    time.Time   // last word of a set to the device
	word     string      // one of the States
	why      string
	safe     bool   // while latched: its safe value was taken
	told     string // why it was not, as the log has it
}

func newChannel(cfg Config, out Output, now schema.Time) (*channel, error) {
	c := &channel{
		cfg: cfg, out: out, min: cfg.Min, max: cfg.Max, since: now, word: StateUnknown,
		writer: make(chan struct{}, 1), turn: make(chan struct{}, 1),
	}
	c.turn <- struct{}{}
	for _, l := range cfg.Interlocks {
		when, err := interlock.Parse(l.When)
		if err != nil {
			return nil, fmt.Errorf("output %s: interlock %w", cfg.Name, err)
		}
		c.locks = append(c.locks, when)
	}
	return c, nil
}

// errLate: the device did not answer in time; whether it heard is not known.
var errLate = errors.New("the device did not answer in time")

// errBusy: an earlier word with the device has not ended; nothing was said to it.
var errBusy = errors.New("it still hangs in an earlier call")

// errNot: the set was given up while it waited for its turn.
var errNot = errors.New("nothing was said to it")

// comeBack is how long a driver may take to come back after its context has ended; one
// that does tells more than that the time was over, and was not left alone.
const comeBack = 20 * time.Millisecond

// speak calls the driver, in a goroutine of its own: do gets a context that ends with ctx
// or the output's timeout. speak returns by then, also where do does not; the output's turn
// is taken until it has, and then c.late is called.
func (c *channel) speak(ctx context.Context, do func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	select {
	case <-c.turn:
	case <-ctx.Done():
		cancel()
		return errBusy
	}
	done := make(chan error, 1)
	var left atomic.Bool
	go func() {
		defer cancel()
		err := guarded(ctx, do)
		c.turn <- struct{}{}
		done <- err
		if left.Load() {
			c.late()
		}
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	t := time.NewTimer(comeBack)
	defer t.Stop()
	select {
	case err := <-done:
		return err
	case <-t.C:
	}
	left.Store(true)
	select { // it may just have come back
	case err := <-done:
		return err
	default:
		return errLate
	}
}

// guarded makes an error of a driver's panic: an output must not end the agent.
func guarded(ctx context.Context, do func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("its driver panicked: %v\n%.600s", p, debug.Stack())
		}
	}()
	return do(ctx)
}

// set says one value to the device and remembers how that went. may is asked when its turn
// has come: a shutdown may have taken place while it waited. nil is always.
func (c *channel) set(ctx context.Context, v float64, by string, clock schema.Clock, may func() error) error {
	begun := false
	err := c.speak(ctx, func(ctx context.Context) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if may != nil {
			if err := may(); err != nil {
				return err
			}
		}
		c.mu.Lock()
		begun, c.setAt = true, time.Now()
		c.mu.Unlock()
		return c.out.Set(ctx, v)
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		c.value, c.known, c.read, c.why, c.word = v, true, false, "", StateSet
	case begun:
		c.known, c.why, c.word = false, err.Error(), StateFailed
	case errors.Is(err, errBusy): // nothing was said to it: it stands where it stood
		c.why = err.Error()
		return err
	default:
		return fmt.Errorf("%w: %w", errNot, err)
	}
	c.wanted, c.was, c.by, c.since = v, true, by, clock.Now()
	return err
}

// look asks the device where it stands. What cannot be asked stays as it was remembered.
func (c *channel) look(ctx context.Context, clock schema.Clock) (v float64, known bool, err error) {
	var got float64 // looked at only where the call came back
	var ok bool
	err = c.speak(ctx, func(ctx context.Context) (err error) {
		got, ok, err = c.out.Get(ctx)
		return err
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil:
		if c.read || !c.known { // what was set and not contradicted is still what was set
			c.known, c.word = false, StateUnknown
		}
		c.why = "cannot be read: " + err.Error()
		return 0, false, err
	case !ok || math.IsNaN(got):
		return c.value, c.known, nil
	}
	if !c.known || c.value != got {
		c.since = clock.Now()
	}
	c.value, c.known, c.read, c.why = got, true, true, ""
	if c.word == StateUnknown || c.word == StateFailed {
		c.word = StateSet
	}
	if c.was && math.Abs(got-c.wanted) > c.cfg.Tolerance {
		c.why = fmt.Sprintf("stands at %.6g, %.6g was set by %s", got, c.wanted, c.by)
	}
	return got, true, nil
}

// near tells whether a value is one that was wanted.
func (c *channel) near(v, want float64) bool { return math.Abs(v-want) <= c.cfg.Tolerance }

// present is what is known of the output, without asking it.
func (c *channel) present() (float64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.value, c.known
}

// open lets sets in: where it is to be after the start has been said to it.
func (c *channel) open() { c.opened.Do(func() { c.writer <- struct{}{} }) }

// isSafe tells whether v is its safe value.
func (c *channel) isSafe(v float64) bool { return c.cfg.Safe != nil && v == *c.cfg.Safe }

// check is the config's, and within what the twin leaves of it; the safe value always is.
func (c *channel) check(v float64) error {
	c.mu.Lock()
	lo, hi := c.min, c.max
	c.mu.Unlock()
	if err := c.cfg.Check(v); err != nil {
		return err
	}
	if (v < lo || v > hi) && !c.isSafe(v) {
		return fmt.Errorf("%v is not within %v and %v, to which the twin narrows it", v, lo, hi)
	}
	return nil
}
