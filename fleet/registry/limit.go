// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"container/list"
	"net/netip"
	"sync"
	"time"
)

const (
	// burst and refill shape the tries of one address: five at once, then one each
	// ten seconds. The password itself has to stand against more than one address.
	burst  = 5
	refill = 10 * time.Second
	// maxAddresses bounds the addresses remembered; the one idle for longest goes.
	maxAddresses = 4096
)

// limiter is a token bucket for each address.
type limiter struct {
	mu   sync.Mutex
	by   map[netip.Addr]*list.Element
	used list.List // of *bucket, newest first
}

type bucket struct {
	addr   netip.Addr
	tokens float64
	at     time.Time
}

func newLimiter() *limiter { return &limiter{by: map[netip.Addr]*list.Element{}} }

// source reduces an address to what one customer has: IPv6 to its /64.
func source(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if a.Is6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// take uses one try; false means wait.
func (l *limiter) take(a netip.Addr, now time.Time) bool {
	a = source(a)
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.by[a]
	if e == nil {
		if l.used.Len() >= maxAddresses {
			old := l.used.Back()
			delete(l.by, l.used.Remove(old).(*bucket).addr)
		}
		e = l.used.PushFront(&bucket{addr: a, tokens: burst, at: now})
		l.by[a] = e
	}
	l.used.MoveToFront(e)
	b := e.Value.(*bucket)
	b.tokens = min(burst, b.tokens+float64(now.Sub(b.at))/float64(refill))
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// forget gives an address its tries back, after a right password.
func (l *limiter) forget(a netip.Addr) {
	a = source(a)
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.by[a]; e != nil {
		l.used.Remove(e)
		delete(l.by, a)
	}
}
