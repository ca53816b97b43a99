// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package run owns goroutines. A long-lived part of fulmar has a blocking
// Run(ctx) error; a [Group] starts several of them, the first error cancels the
// others, and the wait for their end has a bound. No other package says `go` for
// work that outlives a call.
package run

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// Group runs parts until one fails or the context ends.
type Group struct {
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	running map[string]int
	err     error
	idle    chan struct{} // closed when running is empty; remade on Go
}

// New makes a group whose parts get a context that ends with ctx or with the
// first part that fails.
func New(ctx context.Context) *Group {
	ctx, cancel := context.WithCancelCause(ctx)
	idle := make(chan struct{})
	close(idle)
	return &Group{ctx: ctx, cancel: cancel, running: map[string]int{}, idle: idle}
}

// Context is what the parts get.
func (g *Group) Context() context.Context { return g.ctx }

// Go starts a part. A part that returns nil or the context's error has ended in
// order; any other error, and a panic, ends the group.
func (g *Group) Go(name string, fn func(context.Context) error) {
	g.mu.Lock()
	if len(g.running) == 0 {
		g.idle = make(chan struct{})
	}
	g.running[name]++
	g.mu.Unlock()
	go func() {
		err := guarded(g.ctx, fn)
		g.mu.Lock()
		defer g.mu.Unlock()
		if err != nil && !errors.Is(err, context.Canceled) && g.err == nil {
			g.err = fmt.Errorf("%s: %w", name, err)
			g.cancel(g.err)
		}
		if g.running[name]--; g.running[name] == 0 {
			delete(g.running, name)
		}
		if len(g.running) == 0 {
			close(g.idle)
		}
	}()
}

func guarded(ctx context.Context, fn func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return fn(ctx)
}

// Stop ends the group's context: its parts are to end.
func (g *Group) Stop() { g.cancel(nil) }

// Wait blocks until the context ends, then gives the parts grace to end too. It
// returns the first error, or which parts did not end in time.
func (g *Group) Wait(grace time.Duration) error {
	g.mu.Lock()
	idle := g.idle
	g.mu.Unlock()
	select {
	case <-g.ctx.Done():
	case <-idle:
	}
	g.cancel(nil)
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-idle:
	case <-t.C:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil && len(g.running) > 0 {
		var left []string
		for n := range g.running {
			left = append(left, n)
		}
		return fmt.Errorf("still running %v after the stop: %s", grace, strings.Join(left, ", "))
	}
	return g.err
}
