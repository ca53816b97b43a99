// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package promapi

import (
	"context"
	"errors"
	"sync"
)

// gate bounds the requests at work at once, and keeps half of the places from each
// tenant, so that one with a wall of dashboards does not lock out the others.
type gate struct {
	all   chan struct{}
	share int

	mu      sync.Mutex
	tenants map[string]*queue
}

type queue struct {
	places  chan struct{}
	waiting int // or at work
}

func newGate(n int) *gate {
	return &gate{all: make(chan struct{}, n), share: max(n/2, 1), tenants: map[string]*queue{}}
}

var errBusy = errors.New("too many expressions at work; try again")

// maxWaiting bounds the requests of a tenant that wait or work.
const maxWaiting = 64

// enter waits for a place; leave gives it back.
func (g *gate) enter(ctx context.Context, tenant string) (leave func(), err error) {
	g.mu.Lock()
	q := g.tenants[tenant]
	if q == nil {
		q = &queue{places: make(chan struct{}, g.share)}
		g.tenants[tenant] = q
	}
	if q.waiting >= maxWaiting {
		g.mu.Unlock()
		return nil, errBusy
	}
	q.waiting++
	g.mu.Unlock()
	out := func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if q.waiting--; q.waiting == 0 {
			delete(g.tenants, tenant)
		}
	}
	select {
	case q.places <- struct{}{}:
	case <-ctx.Done():
		out()
		return nil, errBusy
	}
	select {
	case g.all <- struct{}{}:
	case <-ctx.Done():
		<-q.places
		out()
		return nil, errBusy
	}
	return func() { <-g.all; <-q.places; out() }, nil
}
