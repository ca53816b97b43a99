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
	// burst and refill shape the tries of a password of one address: five at once, then
	// one each ten seconds. The password itself has to stand against more than one address.
	burst  = 5
	refill = 10 * time.Second
	// maxAddresses bounds the addresses remembered; the one idle for longest goes.
	maxAddresses = 4096
)

// Limiter is a token bucket for each address (IPv6: each /64).
type Limiter struct {
	burst  float64
	refill time.Duration

	mu   sync.Mutex
	by   map[netip.Addr]*list.Element
	used list.List // of *bucket, newest first
}

type bucket struct {
	addr   netip.Addr
	tokens float64
	at     time.Time
}

// NewLimiter lets each address do something burst times at once and then once each
// refill.
func NewLimiter(burst int, refill time.Duration) *Limiter {
	return &Limiter{burst: float64(burst), refill: refill, by: map[netip.Addr]*list.Element{}}
}

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

// Take uses one try; false means wait.
func (l *Limiter) Take(a netip.Addr, now time.Time) bool {
	a = source(a)
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.by[a]
	if e == nil {
		if l.used.Len() >= maxAddresses {
			old := l.used.Back()
			delete(l.by, l.used.Remove(old).(*bucket).addr)
		}
		e = l.used.PushFront(&bucket{addr: a, tokens: l.burst, at: now})
		l.by[a] = e
	}
	l.used.MoveToFront(e)
	b := e.Value.(*bucket)
	b.tokens = min(l.burst, b.tokens+float64(max(0, now.Sub(b.at)))/float64(l.refill))
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// Forget gives an address its tries back, after a right password.
func (l *Limiter) Forget(a netip.Addr) {
	a = source(a)
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.by[a]; e != nil {
		l.used.Remove(e)
		delete(l.by, a)
	}
}
