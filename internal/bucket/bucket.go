// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package bucket lets bytes through at a rate, with a burst: a token bucket, kept as the
// time at which what was taken is paid for.
package bucket

import (
	"context"
	"sync"
	"time"
)

// Bucket is one bound. The zero value has none. Its methods may be called from several
// goroutines.
type Bucket struct {
	mu    sync.Mutex
	rate  int64 // bytes a second; 0 no bound
	burst time.Duration
	paid  time.Time
}

// New makes one of so many bytes a second (0: no bound), of which so much time's may go at
// once. One piece always may, however large.
func New(rate int64, burst time.Duration) *Bucket { return &Bucket{rate: max(rate, 0), burst: burst} }

// SetRate changes the rate.
func (b *Bucket) SetRate(rate int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rate = max(rate, 0)
}

// Wait tells how long it is until something may go; 0 now.
func (b *Bucket) Wait(now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rate == 0 || b.paid.Before(now) {
		return 0
	}
	return max(0, b.paid.Sub(now)-b.burst)
}

// Take counts bytes that go now, whether they may or not.
func (b *Bucket) Take(n int, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rate == 0 {
		return
	}
	if b.paid.Before(now) {
		b.paid = now
	}
	b.paid = b.paid.Add(time.Duration(float64(n) / float64(b.rate) * float64(time.Second)))
}

// Sleep waits until something may go, and counts it.
func (b *Bucket) Sleep(ctx context.Context, n int) error {
	for {
		now := time.Now()
		wait := b.Wait(now)
		if wait == 0 {
			b.Take(n, now)
			return ctx.Err()
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}
