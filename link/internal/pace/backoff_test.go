// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package pace

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestThousandBoardsComeBack: over their window, and over the ones that follow
// failures, in no second more than twice the fair share, in 99 of 100 cases. Of a
// uniform spread over 30 s a second has 33 on average and its standard deviation is
// under 6, so the bound is more than five of those away.
func TestThousandBoardsComeBack(t *testing.T) {
	t.Parallel()
	const boards, seeds = 1000, 500
	for try, span := range map[int]time.Duration{0: 30 * time.Second, 1: time.Minute} {
		crowded := 0
		for seed := range uint64(seeds) {
			rng := rand.New(rand.NewPCG(seed, 3))
			perSecond := map[time.Duration]int{}
			for range boards {
				d := Backoff(30*time.Second, try, rng.Float64())
				if d < 0 || d >= span {
					t.Fatalf("try %d: a board comes after %v, the window is %v", try, d, span)
				}
				perSecond[d/time.Second]++
			}
			for _, n := range perSecond {
				if float64(n) > 2*boards/span.Seconds() {
					crowded++
					break
				}
			}
		}
		if crowded > seeds/100 {
			t.Errorf("try %d: a crowded second in %d of %d cases", try, crowded, seeds)
		}
	}
}
