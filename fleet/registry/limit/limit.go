// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package limit bounds how often somebody may do something: a token bucket for each
// key, for as many keys as memory is given for.
package limit

import (
	"container/list"
	"net/netip"
	"sync"
	"time"
)

// maxKeys bounds the keys remembered, about 100 bytes each; the one idle for longest
// goes.
const maxKeys = 4096

// Limiter is a token bucket for each key.
type Limiter[K comparable] struct {
	burst  float64
	refill time.Duration

	mu   sync.Mutex
	by   map[K]*list.Element
	used list.List // of *bucket[K], newest first
}

type bucket[K comparable] struct {
	key    K
	tokens float64
	at     time.Time
}

// New lets each key do something burst times at once and then once each refill.
func New[K comparable](burst int, refill time.Duration) *Limiter[K] {
	return &Limiter[K]{burst: float64(burst), refill: refill, by: map[K]*list.Element{}}
}

// Source reduces an address to what one customer has: IPv6 to its /64.
func Source(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if a.Is6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// Take uses one try; false means wait.
func (l *Limiter[K]) Take(k K, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.by[k]
	if e == nil {
		if l.used.Len() >= maxKeys {
			old := l.used.Back()
			delete(l.by, l.used.Remove(old).(*bucket[K]).key)
		}
		e = l.used.PushFront(&bucket[K]{key: k, tokens: l.burst, at: now})
		l.by[k] = e
	}
	l.used.MoveToFront(e)
	b := e.Value.(*bucket[K])
	b.tokens = min(l.burst, b.tokens+float64(max(0, now.Sub(b.at)))/float64(l.refill))
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// Return gives one try back, which was none: a right password. The others stay used,
// or who has an account of their own could guess at that of another for ever.
func (l *Limiter[K]) Return(k K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.by[k]; e != nil {
		b := e.Value.(*bucket[K])
		b.tokens = min(l.burst, b.tokens+1)
	}
}
