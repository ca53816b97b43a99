// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package pace

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestThousandBoardsComeBack: over their window, and over twice the window after a
// failure, in no second more than twice the fair share, in 99 of 100 cases. That can
// hold only while the fair share is large: over 30 s it is 33 a second and twice that
// is five standard deviations away, over 60 s 17 and four. Over the minutes of later
// tries a fair share is a few boards a second, and chance alone doubles it.
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
