// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package pace

import (
	"sync"
	"time"
)

const (
	first = 16 << 10 // bytes in flight on a new connection: a few small messages
	step  = 16 << 10 // bytes, added for each window that was acknowledged
	floor = 8 << 10  // bytes: two small messages, so that the line is never idle for a round trip
	// allowance is the queueing that is no sign of a full line: a commit of the fleet
	// and a scheduler's slice. Without it a line of 0.2 ms would be halved by noise.
	allowance = 20 * time.Millisecond
	// recent is how long the shortest round trip is remembered, once to twice: routes
	// change.
	recent = 15 * time.Second
	// maxDebt bounds what alarms, which do not wait, take from the others' rate.
	maxDebt = 10 * time.Second
)

// Pace is the pace of one connection.
type Pace struct {
	mu     sync.Mutex
	most   int // bytes in flight
	limit  int
	flying int // bytes without PUBACK
	acked  int // bytes since the limit grew
	least  [2]time.Duration
	turned time.Time // when least began anew
	halved time.Time

	rate   int64 // bytes a second, 0 none
	tokens float64
	at     time.Time // of tokens
}

// New makes the pace of a connection with at most so many bytes in flight.
func New(most int) *Pace { return &Pace{most: most, limit: min(first, most)} }

// Limit is how many bytes may be in flight now.
func (p *Pace) Limit() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.limit
}

// SetRate bounds the rate in bytes a second; 0 or less lifts the bound.
func (p *Pace) SetRate(rate int64, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if rate = max(rate, 0); rate != p.rate {
		p.rate, p.tokens, p.at = rate, 0, now
	}
}

// Go tells whether a message may go now; where it is the rate that says no, wait is
// how long it will. One message may go over the limit, and one may always go alone:
// how large it will be is not known yet.
func (p *Pace) Go(now time.Time) (ok bool, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rate > 0 {
		p.refill(now)
		if p.tokens < 0 {
			return false, max(time.Duration(-p.tokens/float64(p.rate)*float64(time.Second)), time.Millisecond)
		}
	}
	return p.flying < p.limit, 0
}

// refill gives the tokens of the time that has passed, at most one second's.
func (p *Pace) refill(now time.Time) {
	p.tokens += now.Sub(p.at).Seconds() * float64(p.rate)
	p.tokens, p.at = min(p.tokens, float64(p.rate)), now
}

// Sent notes a message that goes onto the line.
func (p *Pace) Sent(size int, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flying += size
	if p.rate > 0 {
		p.refill(now)
		// A message larger than the debt goes, too, and is waited for.
		p.tokens = max(p.tokens-float64(size), -float64(size)-maxDebt.Seconds()*float64(p.rate))
	}
}

// Answered notes that the acknowledgement of so many bytes took so long.
func (p *Pace) Answered(took time.Duration, size int, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flying -= size
	if now.Sub(p.turned) > recent {
		p.least[1], p.least[0], p.turned = p.least[0], took, now
	}
	p.least[0] = min(p.least[0], took)
	least := p.least[0]
	if p.least[1] > 0 {
		least = min(least, p.least[1])
	}
	if took > 2*least+allowance {
		// What was sent before the last halving says nothing new.
		if now.Add(-took).After(p.halved) {
			p.limit, p.halved, p.acked = max(p.limit/2, min(floor, p.most)), now, 0
		}
		return
	}
	if p.acked += size; p.acked >= p.limit {
		p.limit, p.acked = min(p.limit+step, p.most), 0
	}
}
