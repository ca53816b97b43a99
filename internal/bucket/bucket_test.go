// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package bucket

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestRate: over a minute no more goes than the rate and one burst, and no less.
func TestRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := New(1000, 2*time.Second)
		begin, n := time.Now(), 0
		for time.Since(begin) < time.Minute {
			if err := b.Sleep(t.Context(), 100); err != nil {
				t.Fatal(err)
			}
			n += 100
		}
		if n < 62_000 || n > 62_300 {
			t.Errorf("%d bytes in a minute", n)
		}
		b.SetRate(0)
		if w := b.Wait(time.Now()); w != 0 {
			t.Errorf("without a bound: %v", w)
		}
		b.SetRate(1)
		b.Take(1000, time.Now())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Sleep(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}
