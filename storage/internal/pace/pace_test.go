// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package pace_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/storage/internal/pace"
)

// TestDueNow: what says that it is due now is done at once, and not looked at again
// and again while the clock runs on. (In simulated time, where it does not run on,
// the fault would not show.)
func TestDueNow(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	asked, done := 0, 0
	pace.Run(ctx, nil, time.Hour, func() {}, pace.Duty{
		Due: func() time.Time {
			if asked++; asked > 1000 {
				cancel()
			}
			if done > 0 {
				return time.Time{}
			}
			return time.Now()
		},
		Do: func() { done++; cancel() },
	})
	if asked != 2 || done != 1 {
		t.Errorf("asked %d times until it was done %d times, want 2 and 1", asked, done)
	}
}

// TestOrder: the first duty that is due goes first, and those that are not wait.
func TestOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		begin := time.Now()
		var did []int
		at := []time.Time{begin.Add(time.Minute), begin, begin}
		duty := func(i int) pace.Duty {
			return pace.Duty{Due: func() time.Time { return at[i] }, Do: func() {
				did, at[i] = append(did, i), time.Time{}
				if len(did) == len(at) {
					cancel()
				}
			}}
		}
		pace.Run(ctx, nil, time.Hour, func() {}, duty(0), duty(1), duty(2))
		if took := time.Since(begin); !slices.Equal(did, []int{1, 2, 0}) || took != time.Minute {
			t.Errorf("did %v in %v, want 1, 2, 0 in a minute", did, took)
		}
	})
}
