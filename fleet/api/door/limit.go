// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package door

import (
	"container/list"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

const (
	// burst and perSecond shape what one caller may ask: a page of charts at once, and
	// then as much as a poll of ten things twice a second.
	burst     = 400
	perSecond = 20
	// fromBurst and fromPerSecond are of one address, behind which many callers may be,
	// and of requests that no caller stands behind.
	fromBurst     = 1600
	fromPerSecond = 80
	// maxKeys bounds the callers, and the addresses, that are remembered; the one idle
	// for longest goes.
	maxKeys = 4096
)

// rates is a token bucket for each key.
type rates struct {
	burst, perSecond float64

	mu   sync.Mutex
	by   map[string]*list.Element
	used list.List // of *bucket, newest first
}

type bucket struct {
	key    string
	tokens float64
	at     time.Time
}

func newRates(burst, perSecond float64) *rates {
	return &rates{burst: burst, perSecond: perSecond, by: map[string]*list.Element{}}
}

// take uses one request of key's share and gives what is left; below 0 there was none.
func (l *rates) take(key string, now time.Time) (left float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.by[key]
	if e == nil {
		if l.used.Len() >= maxKeys {
			delete(l.by, l.used.Remove(l.used.Back()).(*bucket).key)
		}
		e = l.used.PushFront(&bucket{key: key, tokens: l.burst, at: now})
		l.by[key] = e
	}
	l.used.MoveToFront(e)
	b := e.Value.(*bucket)
	b.tokens = min(l.burst, b.tokens+max(0, now.Sub(b.at)).Seconds()*l.perSecond)
	b.at = now
	if b.tokens < 1 {
		return b.tokens - 1
	}
	b.tokens--
	return b.tokens
}

// tell writes the headers of a share: its size, what is left, and the seconds until it
// is whole again.
func (l *rates) tell(h http.Header, left float64) {
	left = max(0, left)
	h.Set("RateLimit-Limit", strconv.Itoa(int(l.burst)))
	h.Set("RateLimit-Remaining", strconv.Itoa(int(left)))
	h.Set("RateLimit-Reset", strconv.Itoa(1+int((l.burst-left)/l.perSecond)))
}

// Remote gives the address a request comes from; the zero address where that is not
// known: all those share one limit.
func Remote(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}

// customer reduces an address to what one customer has: IPv6 to its /64.
func customer(a netip.Addr) string {
	if a.Is6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}
