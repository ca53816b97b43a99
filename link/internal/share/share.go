// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package share divides a line between queues by weight and bytes: whoever has had
// least for its weight is next, and who has nothing to send leaves its part to the
// others. It is deficit round robin with the deficits on one scale, so that no round
// has to be waited for.
package share

// Queue is the order of a fixed few. It belongs to one goroutine.
type Queue struct {
	weights []int64
	due     []int64 // place of each: bytes over weight
	// at is the place up to which all were served. Who had nothing to send for long
	// begins here, not where it stopped, or it would have the line for itself until it
	// caught up.
	at int64
}

// scale keeps what a division by a weight would cut off.
const scale = 1 << 10

// New makes an order of as many as there are weights, each 1 or more.
func New(weights ...int64) *Queue {
	return &Queue{weights: weights, due: make([]int64, len(weights))}
}

// Next gives who is next of those that are not tried yet; false where all are.
func (q *Queue) Next(tried []bool) (int, bool) {
	best, found := 0, false
	for i := range q.weights {
		if !tried[i] && (!found || max(q.due[i], q.at) < max(q.due[best], q.at)) {
			best, found = i, true
		}
	}
	return best, found
}

// Served moves one back by the bytes it had.
func (q *Queue) Served(i, size int) {
	q.at = max(q.at, q.due[i])
	q.due[i] = q.at + int64(size)*scale/q.weights[i]
}
