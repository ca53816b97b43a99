// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package presence

import "testing"

// TestComings: a board that went and came again is told from the one that it was, and one that
// is found away by what was sent before it came again stays.
func TestComings(t *testing.T) {
	t.Parallel()
	var b Boards
	k, other := Board{"default", "b1"}, Board{"default", "b2"}
	fresh := func() (n int) {
		b.Fresh(func(Board) { n++ })
		return n
	}
	if _, is := b.Here(k); is || fresh() != 0 {
		t.Error("one that never came is there")
	}
	b.Came(k)
	first, is := b.Here(k)
	if !is || fresh() != 1 || fresh() != 0 {
		t.Errorf("%d, %v", first, is)
	}
	b.Gone(k, first)
	if _, is := b.Here(k); is {
		t.Error("it is there still")
	}
	b.Came(other)
	b.Came(k)
	second, _ := b.Here(k)
	if second == first {
		t.Errorf("both comings are %d", first)
	}
	b.Gone(k, first) // late
	if n, is := b.Here(k); !is || n != second || fresh() != 2 {
		t.Errorf("%d, %v", n, is)
	}
}
