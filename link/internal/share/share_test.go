// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package share

import (
	"math/rand/v2"
	"testing"
)

// serve lets who has something send pieces of drawn sizes, so many bytes together.
func serve(q *Queue, has []bool, bytes int) []int {
	draw := rand.New(rand.NewPCG(1, 2))
	sent := make([]int, len(has))
	for bytes > 0 {
		tried := make([]bool, len(has))
		for i, ok := q.Next(tried); ok; i, ok = q.Next(tried) {
			if tried[i] = true; has[i] {
				n := 1 + draw.IntN(64<<10)
				q.Served(i, n)
				sent[i] += n
				bytes -= n
				break
			}
		}
	}
	return sent
}

// TestShares: with all full the line is divided by weight, to a percent; who was
// idle for long gets its part from then on, not the time it slept; who is alone
// has all.
func TestShares(t *testing.T) {
	t.Parallel()
	const all = 100 << 20
	for _, weights := range [][]int64{{7, 3}, {4, 2, 1}} {
		q := New(weights...)
		has := make([]bool, len(weights))
		has[0] = true
		if sent := serve(q, has, all); sent[0] < all {
			t.Errorf("alone it had %d of %d", sent[0], all)
		}
		total := int64(0)
		for i, w := range weights {
			has[i] = true
			total += w
		}
		for i, n := range serve(q, has, all) {
			if d := int64(n) - all*weights[i]/total; d < -all/100 || d > all/100 {
				t.Errorf("weight %d of %v had %d of %d bytes", weights[i], weights, n, all)
			}
		}
	}
}
