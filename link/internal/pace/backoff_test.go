// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package pace

import (
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// seeds is how many draws there are: in a soak thousands, said by FULMAR_SIM_SEEDS.
func seeds() int {
	if n, err := strconv.Atoi(os.Getenv("FULMAR_SIM_SEEDS")); err == nil && n > 0 {
		return n
	}
	return 500
}

// TestThousandBoardsComeBack: over their window, and over twice the window after a
// failure, in no second more than twice the fair share, in 99 of 100 cases. That can
// hold only while the fair share is large: over 30 s it is 33 a second and twice that
// is five standard deviations away, over 60 s 17 and four. Over the minutes of later
// tries a fair share is a few boards a second, and chance alone doubles it. The windows
// are those that a fleet of 8, 2 and 1 cores tells a thousand boards, and the one of a
// board that was told none.
func TestThousandBoardsComeBack(t *testing.T) {
	t.Parallel()
	const boards = 1000
	n := seeds()
	for _, window := range []time.Duration{2500 * time.Millisecond, 10 * time.Second, 20 * time.Second, 30 * time.Second} {
		for try := range 2 {
			span := window << try
			crowded, worst := 0, 0
			for seed := range uint64(n) {
				rng := rand.New(rand.NewPCG(seed, 3))
				perSecond := make([]int, span/time.Second+1)
				for range boards {
					d := Backoff(window, try, rng.Float64())
					if d < 0 || d >= span {
						t.Fatalf("window %v, try %d: a board comes after %v", window, try, d)
					}
					perSecond[d/time.Second]++
				}
				most := slices.Max(perSecond)
				worst = max(worst, most)
				if float64(most) > 2*boards/span.Seconds() {
					crowded++
				}
			}
			t.Logf("over %v: %d of %d seeds have a crowded second, the fullest has %d of a fair %.0f", span, crowded, n, worst, boards/span.Seconds())
			if crowded > n/100 {
				t.Errorf("window %v, try %d: a crowded second in %d of %d cases", window, try, crowded, n)
			}
		}
	}
}
