// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"os"
	"path/filepath"
	"testing"
)

// TestBalloon: it is given up step by step, the lower half for gaps alone, and put back
// by what became free.
func TestBalloon(t *testing.T) {
	t.Parallel()
	b := &Balloon{Path: filepath.Join(t.TempDir(), "balloon")}
	size := func(want int64) {
		t.Helper()
		fi, err := os.Stat(b.Path)
		if err != nil {
			t.Fatal(err)
		}
		if got := Bytes(fi); got != want || b.left != want || b.Held() != (want > 0) {
			t.Errorf("the file takes %d bytes, noted are %d (held: %v); want %d", got, b.left, b.Held(), want)
		}
	}
	if b.Release(false) || b.Held() {
		t.Error("there is something before it was made")
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(b.Refill())
	size(balloonBytes)
	steps := 0
	for b.Release(true) {
		steps++
	}
	size(balloonBytes / 2)
	if steps != balloonBytes/2/balloonStep {
		t.Errorf("the upper half went in %d steps", steps)
	}
	if !b.Release(false) {
		t.Error("the lower half is not for gaps")
	}
	must(b.Return(4096))
	size(balloonBytes/2 - balloonStep + 4096)
	for b.Release(false) {
	}
	size(0)
	must(b.Return(3 * balloonStep))
	size(3 * balloonStep)
	// The next process finds what is left of it.
	next := &Balloon{Path: b.Path}
	must(next.Refill())
	if next.left != balloonBytes {
		t.Errorf("with room it is not whole again: %d bytes", next.left)
	}
	must(next.Return(balloonStep))
	b = next
	size(balloonBytes)
}
