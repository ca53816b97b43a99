// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package beside

import (
	"sync"
	"time"
)

const (
	// strikes is how many connections in a row have to end at a message before it is
	// held back, as for a record (internal/suspect): one end proves nothing, and each
	// costs a reconnect.
	strikes = 3
	// holdFor is how long it is held back: a fleet that cannot store one kind of
	// message is mended in minutes to hours, and a try costs a connection.
	holdFor = 15 * time.Minute
	// maxHeld bounds what is held back; beyond it the one that ends soonest is let go.
	maxHeld = 16
)

// Blame knows at which messages the broker ended connections. The zero value is ready.
type Blame struct {
	mu    sync.Mutex
	last  Key
	count int
	held  map[Key]time.Time // until when
}

// Ended notes that the broker hung up while a message was the oldest without a PUBACK;
// true where it is held back from now on.
func (b *Blame) Ended(key Key, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if key != b.last {
		b.last, b.count = key, 0
	}
	if b.count++; b.count < strikes {
		return false
	}
	b.count = strikes - 1 // the next try after the time is the last for another
	if b.held == nil {
		b.held = map[Key]time.Time{}
	}
	for len(b.held) >= maxHeld {
		var soonest Key
		var at time.Time
		for k, t := range b.held {
			if at.IsZero() || t.Before(at) {
				soonest, at = k, t
			}
		}
		delete(b.held, soonest)
	}
	b.held[key] = now.Add(holdFor)
	return true
}

// Acked notes that the broker took a message.
func (b *Blame) Acked(key Key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if key == b.last {
		b.count = 0
	}
	delete(b.held, key)
}

// Held tells for how long a message is held back; 0 where it is not.
func (b *Blame) Held(key Key, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	until, ok := b.held[key]
	if !ok {
		return 0
	}
	if !now.Before(until) {
		delete(b.held, key)
		return 0
	}
	return until.Sub(now)
}
