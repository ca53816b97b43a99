// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"testing"
)

func TestQueue(t *testing.T) {
	t.Parallel()
	var q Queue
	for n := range 10 {
		it := &Item{Seq: uint64(n), Payload: make([]byte, 10)}
		if fits := q.Fits(it, 8, 65); fits != (n < 6) {
			t.Errorf("record %d fits: %v", n, fits)
		}
		q.Push(it)
	}
	if q.Fits(&Item{}, 10, 1000) {
		t.Error("an eleventh record fits into ten")
	}
	for _, k := range []struct{ n, bytes, want int }{{3, 1000, 3}, {100, 1000, 10}, {100, 35, 3}, {100, 30, 3}, {100, 1, 1}, {0, 1, 0}} {
		if got := q.Peek(nil, k.n, k.bytes); len(got) != k.want {
			t.Errorf("Peek(%d, %d) gives %d records, want %d", k.n, k.bytes, len(got), k.want)
		}
	}
	q.Pop(4)
	if q.Len() != 6 || q.Bytes() != 60 || q.First().Seq != 4 {
		t.Errorf("%d records, %d bytes, first %d", q.Len(), q.Bytes(), q.First().Seq)
	}
	q.Pop(6)
	if q.Len() != 0 || q.Bytes() != 0 {
		t.Errorf("%d records, %d bytes", q.Len(), q.Bytes())
	}
}
