// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package output

import (
	"context"
	"errors"
	"math"
	"time"

	"fulmar/device/output/kept"
	"fulmar/device/output/kinds"
)

// stepTime is between two steps of an output with a speed. A bus of 9600 baud takes a
// write each 20 ms; valves and drives follow steps of this length without a jerk.
const stepTime = 200 * time.Millisecond

// move brings an output to a value, in steps where it has a speed. The caller is its writer.
func (b *Bank) move(ctx context.Context, c *channel, target float64, who string) error {
	if err := b.allowed(ctx, c, target); err != nil {
		return err
	}
	now, known := 0.0, false
	if c.cfg.StepPerS > 0 {
		var err error
		if now, known, err = c.look(ctx, b.deps.Clock); err != nil {
			known = false
		}
		if !known && !c.isSafe(target) {
			return refuse(CodeFast, "output %s: nobody knows where it stands, so its speed cannot be kept; set it to its safe value %v first", c.cfg.Name, *c.cfg.Safe)
		}
	}
	if err := b.early(c, target); err != nil {
		return err
	}
	if !known { // no speed, or from an unknown place to the safe one
		return b.say(ctx, c, target, target, who)
	}
	return b.walk(ctx, c, now, target, who)
}

// early refuses a set that comes too soon after the last.
func (b *Bank) early(c *channel, target float64) error {
	c.mu.Lock()
	at := c.setAt
	c.mu.Unlock()
	if at.IsZero() || c.isSafe(target) {
		return nil
	}
	if since := time.Since(at); since < c.cfg.MinInterval {
		return refuse(CodeFast, "output %s: was set %v ago, and only each %v", c.cfg.Name, since.Round(time.Millisecond), c.cfg.MinInterval)
	}
	return nil
}

// walk goes from one value to another, a step at a time, and asks before each.
func (b *Bank) walk(ctx context.Context, c *channel, now, target float64, who string) error {
	pause := max(stepTime, c.cfg.MinInterval)
	step := c.cfg.StepPerS * pause.Seconds()
	steps := math.Ceil(math.Abs(target-now) / step)
	way := time.Duration(max(steps-1, 0)) * pause
	if end, ok := ctx.Deadline(); ok && time.Until(end) < way {
		return refuse(CodeFast, "output %s: from %v to %v takes %v at %v a second, and %v are left; set a nearer value or give more time",
			c.cfg.Name, now, target, way.Round(time.Second), c.cfg.StepPerS, time.Until(end).Round(time.Second))
	}
	if err := b.rest(ctx, c, pause); err != nil { // the last step may have been just now
		return err
	}
	for {
		last := math.Abs(target-now) <= step
		if last {
			return b.say(ctx, c, target, target, who)
		}
		now += math.Copysign(step, target-now)
		if err := b.say(ctx, c, now, target, who); err != nil {
			return err
		}
		c.mu.Lock()
		c.word = StateMoving
		c.mu.Unlock()
		if err := b.rest(ctx, c, pause); err != nil {
			return err
		}
	}
}

// rest waits until the last step is one pause old. An output that stops on its way is set
// where it is.
func (b *Bank) rest(ctx context.Context, c *channel, pause time.Duration) error {
	c.mu.Lock()
	at := c.setAt
	c.mu.Unlock()
	if at.IsZero() {
		return nil
	}
	t := time.NewTimer(time.Until(at.Add(pause)))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return b.ended(ctx, c, "was on its way")
	}
}

// say sets one value on the device, on the way to target.
func (b *Bank) say(ctx context.Context, c *channel, v, target float64, who string) error {
	err := c.set(ctx, v, who, b.deps.Clock, func() error { return b.allowed(ctx, c, target) })
	var refused *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return refused
	case errors.Is(context.Cause(ctx), errLatched):
		return b.latchedError()
	case errors.Is(err, errBusy), errors.Is(err, errNot):
		return refuse(CodeBusy, "output %s: %v; nothing was set", c.cfg.Name, err)
	}
	b.log.Warn("output not set", "output", c.cfg.Name, "value", v, "who", who, "err", err)
	return refuse(CodeFailed, "output %s: set %v: %v; what it does now is not known", c.cfg.Name, v, err)
}

// remember keeps a value that is restored at the next start. The output is set already, so
// a disk that fails is a warning.
func (b *Bank) remember(ctx context.Context, c *channel, v float64) {
	if c.cfg.Restore != kinds.RestoreLast {
		return
	}
	select {
	case <-b.disk:
	case <-ctx.Done():
		return
	}
	defer func() { b.disk <- struct{}{} }()
	if old, ok := b.last[c.cfg.Name]; ok && old == v {
		return
	}
	b.last[c.cfg.Name] = v
	err := kept.WriteLast(b.deps.Dir, b.last, b.deps.write)
	if err != nil {
		delete(b.last, c.cfg.Name) // so that the next set writes it
		b.log.Warn("value for the next start not kept", "output", c.cfg.Name, "err", err)
	}
}
