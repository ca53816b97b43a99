// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package output

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"fulmar/device/output/kept"
	"fulmar/internal/fit"
	"fulmar/schema"
)

const (
	// stagger is how long an output may keep the next one of the order waiting, and
	// maxStagger all of them together: a switch answers within 20 ms, and a person beside
	// the machine must not wait longer than a second for the last one to begin.
	stagger    = 250 * time.Millisecond
	maxStagger = time.Second
	// retry is how often outputs that are not safe yet are tried again.
	retry = 5 * time.Second
)

// toSafe brings outputs to their safe values, each in a goroutine of its own, begun in
// their order. It returns when each has answered or had its time; which did not is in the
// error. The caller's context does not end it: half a shutdown is none. held says that it
// is for a shutdown: if that was released meanwhile, nothing is done.
func (b *Bank) toSafe(ctx context.Context, all []*channel, who string, held bool) error {
	ctx = context.WithoutCancel(ctx)
	b.mu.Lock()
	if held && !b.latch.Active {
		b.mu.Unlock()
		return nil
	}
	b.driving++
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.driving--
		b.mu.Unlock()
	}()
	var wg sync.WaitGroup
	errs := make([]error, len(all))
	left := maxStagger
	for i, c := range all {
		done := make(chan struct{})
		hangs := len(c.turn) == 0 // its turn will come; nobody waits for that
		wg.Go(func() {
			defer close(done)
			errs[i] = b.oneSafe(ctx, c, who)
		})
		if i == len(all)-1 || hangs || left <= 0 {
			continue
		}
		begun := time.Now()
		t := time.NewTimer(min(stagger, left))
		select {
		case <-done:
		case <-t.C:
		}
		t.Stop()
		left -= time.Since(begun)
	}
	wg.Wait()
	b.changed()
	return errors.Join(errs...)
}

func (b *Bank) oneSafe(ctx context.Context, c *channel, who string) error {
	defer c.open()
	err := c.set(ctx, *c.cfg.Safe, who, b.deps.Clock, nil)
	c.mu.Lock()
	c.safe = err == nil
	news := err != nil && c.told != err.Error() // it is tried each few seconds, for days perhaps
	if c.told = ""; err != nil {
		c.told = err.Error()
	}
	c.mu.Unlock()
	if news {
		b.log.Error("output not safe", "output", c.cfg.Name, "safe", *c.cfg.Safe, "err", err)
	}
	if err != nil {
		return fmt.Errorf("output %s did not go to its safe value %v: %w", c.cfg.Name, *c.cfg.Safe, err)
	}
	return nil
}

// withSafe are the outputs that have a safe value and are asked for.
func (b *Bank) withSafe(want func(*channel) bool) []*channel {
	var out []*channel
	for _, c := range b.order {
		if c.cfg.Safe != nil && want(c) {
			out = append(out, c)
		}
	}
	return out
}

// Shutdown brings every output that has a safe value there, in the order of the config,
// and latches that until [Bank.Release]: every set is refused, also after a restart. reason
// says who wants it and why. It returns when each output has answered or had its time and
// the latch is on the disk. An error names what did not go there; that is tried again for
// as long as the latch holds.
func (b *Bank) Shutdown(ctx context.Context, reason string) error {
	b.mu.Lock()
	if !b.latch.Active {
		b.latch = kept.Latch{V: 1, Active: true, Since: b.deps.Clock.Now(), By: fit.Text(reason, schema.MaxFact)}
		b.stop(errLatched)
	}
	b.life++
	b.unsaved = true
	by := b.latch.By
	b.mu.Unlock()
	b.log.Warn("safety shutdown", "by", by)
	b.changed()

	kept := b.keep() // the outputs do not wait for the disk
	err := b.toSafe(ctx, b.withSafe(func(*channel) bool { return true }), by, true)
	b.again()
	var disk error
	t := time.NewTimer(retry)
	defer t.Stop()
	select {
	case disk = <-kept:
	case <-t.C:
		disk = errors.New("the disk does not answer")
	}
	switch {
	case err != nil:
		return refuse(CodeFailed, "%s", strings.ReplaceAll(errors.Join(err, disk).Error(), "\n", "; "))
	case disk != nil:
		return refuse(CodeNotDurable, "all outputs are safe; that they have to stay so is not on the disk yet and is tried again: %v", disk)
	}
	return nil
}

// again has Run look at the outputs soon.
func (b *Bank) again() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// maxKeepers is how many may wait for a disk that hangs: one that writes, and one that
// writes what came since.
const maxKeepers = 2

// keep writes the latch as it is when its turn has come, in a goroutine of its own.
func (b *Bank) keep() <-chan error {
	done := make(chan error, 1)
	if b.keepers.Add(1) > maxKeepers {
		b.keepers.Add(-1)
		done <- errors.New("the disk does not answer")
		return done
	}
	go func() {
		defer b.keepers.Add(-1)
		done <- b.write()
	}()
	return done
}

func (b *Bank) write() error {
	<-b.disk
	defer func() { b.disk <- struct{}{} }()
	b.mu.Lock()
	l, life := b.latch, b.life
	b.mu.Unlock()
	if err := l.Write(b.deps.Dir, b.deps.write); err != nil {
		b.log.Error("safety shutdown not kept on disk yet", "err", err)
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.life == life {
		b.unsaved = false
	}
	return nil
}

// Release ends a safety shutdown. who is a person: user/NAME, local/NAME or key/ID; a rule
// or a program is refused. The outputs stay where they are. A bank that is not latched
// says nothing.
func (b *Bank) Release(ctx context.Context, who string) error {
	if !person(who) {
		return refuse(CodePerson, "%.70q may not release a safety shutdown; a person has to: at the fleet's page, at the board (fulmar local), or with an operator's key", who)
	}
	select {
	case <-b.disk:
	case <-ctx.Done():
		return refuse(CodeBusy, "the disk does not answer; the safety shutdown stays")
	}
	defer func() { b.disk <- struct{}{} }()
	b.mu.Lock()
	active, life, driving := b.latch.Active, b.life, b.driving
	b.mu.Unlock()
	switch {
	case !active:
		return nil
	case driving > 0:
		return refuse(CodeBusy, "outputs are on their way to their safe values; release it when they are there")
	}
	if err := (kept.Latch{V: 1, By: clip(who), Since: b.deps.Clock.Now()}).Write(b.deps.Dir, b.deps.write); err != nil {
		b.doubt() // it may be there all the same
		return refuse(CodeNotDurable, "the safety shutdown stays: %v", err)
	}
	if !b.unlatch(life) {
		b.doubt()
		return refuse(CodeShutdown, "another safety shutdown came meanwhile, or outputs were driven to their safe values; it stays latched")
	}
	b.log.Warn("safety shutdown released", "by", clip(who))
	b.changed()
	return nil
}

// doubt notes that the file may say something else than the latch, and has it written anew.
func (b *Bank) doubt() {
	b.mu.Lock()
	b.unsaved = true
	b.mu.Unlock()
	b.again()
}

// unlatch lets sets in again, if nothing has happened since.
func (b *Bank) unlatch(life uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.life != life || b.driving > 0 {
		return false
	}
	b.latch, b.unsaved = kept.Latch{V: 1}, false
	b.sets, b.stop = context.WithCancelCause(context.Background())
	for _, c := range b.order {
		c.mu.Lock()
		c.safe = false
		c.mu.Unlock()
	}
	return true
}

// person tells actors that are people.
func person(who string) bool {
	kind, name, ok := strings.Cut(who, "/")
	return ok && name != "" && (kind == "user" || kind == "local" || kind == "key")
}
