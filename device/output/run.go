// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package output

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"fulmar/device/output/kinds"
	"fulmar/schema"
)

const (
	// poll is how often a bank looks where its outputs stand.
	poll = 30 * time.Second
	// A value that is restored waits this long for its interlocks: sensors are read for the
	// first time within ten seconds of a start.
	restoreWait  = time.Minute
	restoreEvery = 2 * time.Second
)

// byStart is who sets an output at the start.
const byStart = "start"

// Run drives the outputs of a latched bank to their safe values before anything else,
// restores the others as the config says, and keeps looking at all until ctx ends. Then
// the outputs stay as they are.
func (b *Bank) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer func() {
		wg.Wait()
		if err := b.close(); err != nil {
			b.log.Warn("outputs not closed", "err", err)
		}
	}()
	b.restore(ctx, &wg)
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.wake:
		case <-t.C:
		}
		if active, _, _ := b.Safe(); active {
			b.hold(ctx)
			t.Reset(retry)
			continue
		}
		b.lookAll(ctx)
		t.Reset(poll)
	}
}

// restore brings the outputs to where they are to be after a start, and opens them for sets.
func (b *Bank) restore(ctx context.Context, wg *sync.WaitGroup) {
	active, _, by := b.Safe()
	last := maps.Clone(b.last) // before the first output is open: sets change it
	todo := b.withSafe(func(c *channel) bool {
		_, have := last[c.cfg.Name]
		return active || c.cfg.Restore == kinds.RestoreSafe || c.cfg.Restore == kinds.RestoreLast && !have
	})
	if !active {
		by = byStart
	}
	for _, c := range b.order {
		if !slices.Contains(todo, c) {
			c.open()
		}
		if v, ok := last[c.cfg.Name]; !active && ok && c.cfg.Restore == kinds.RestoreLast {
			wg.Go(func() { b.restoreLast(ctx, c, v) })
		}
	}
	_ = b.toSafe(ctx, todo, by, active) // told in the log and in their states
}

// restoreLast sets what was set last. Its interlocks may have to wait for their sensors;
// it ends when somebody else sets the output, and goes to the safe value where it may not
// go back.
func (b *Bank) restoreLast(ctx context.Context, c *channel, v float64) {
	ctx, cancel := context.WithTimeout(ctx, restoreWait)
	defer cancel()
	for {
		c.mu.Lock()
		touched := c.was
		c.mu.Unlock()
		if touched {
			return
		}
		err := b.Set(ctx, c.cfg.Name, v, byStart)
		var refused *Error
		if err == nil || errors.As(err, &refused) && refused.Code == CodeShutdown {
			return
		}
		select {
		case <-time.After(restoreEvery):
			continue
		case <-ctx.Done():
		}
		c.mu.Lock()
		touched = c.was
		c.mu.Unlock()
		if touched { // in the last seconds: it is on its way, and not ours any more
			return
		}
		b.log.Warn("output not brought back to its last value", "output", c.cfg.Name, "value", v, "err", err)
		if c.cfg.Safe != nil && !errors.Is(context.Cause(ctx), context.Canceled) {
			_ = b.toSafe(ctx, []*channel{c}, byStart, false)
		}
		return
	}
}

// hold keeps a latched bank safe: what is not there yet, or no more, is driven again, and
// a latch that is not on the disk is written.
func (b *Bank) hold(ctx context.Context) {
	var wg sync.WaitGroup
	// One that hangs wakes us when it comes back.
	all := b.withSafe(func(c *channel) bool { return len(c.turn) > 0 })
	for _, c := range all {
		wg.Go(func() {
			v, known, err := c.look(ctx, b.deps.Clock)
			if err != nil || !known || !c.near(v, *c.cfg.Safe) {
				c.mu.Lock()
				c.safe = false
				c.mu.Unlock()
			}
		})
	}
	wg.Wait()
	b.mu.Lock()
	unsaved, by := b.unsaved && b.latch.Active, b.latch.By
	b.mu.Unlock()
	if unsaved {
		b.keep() // told in the log
	}
	all = slices.DeleteFunc(all, func(c *channel) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.safe
	})
	if len(all) > 0 {
		_ = b.toSafe(ctx, all, by, true)
	}
}

// lookAll asks every output where it stands, each beside the others.
func (b *Bank) lookAll(ctx context.Context) {
	var wg sync.WaitGroup
	for _, c := range b.order {
		wg.Go(func() {
			if ctx.Err() == nil {
				_, _, _ = c.look(ctx, b.deps.Clock) // kept in its state
			}
		})
	}
	wg.Wait()
	b.changed()
}

// Safe tells whether a safety shutdown is latched, since when and by whom.
func (b *Bank) Safe() (active bool, since schema.Time, by string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.latch.Active, b.latch.Since, b.latch.By
}
