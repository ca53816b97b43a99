// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package clones

import (
	"fmt"
	"testing"
	"time"

	"fulmar/fleet/ingest"
)

// TestClones: what tells two boards, and what a single one does.
func TestClones(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		boots string // one letter a hello, a minute apart; _ is two hours
		found string // x where it is found out
		two   bool   // at the end
	}{
		"one board":                  {"AAABBBCDEFGHIJK", "...............", false},
		"put back once":              {"ABA", "...", false},
		"two at once":                {"ABAB", "...x", true},
		"two, one restarts":          {"ABACAC", "....x.", true},
		"three":                      {"ABCABC", "....x.", true},
		"two, told of once":          {"ABABABAB", "...x....", true},
		"put back twice, long apart": {"ABA_B", ".....", false},
		"over, and found again":      {"ABAB_ABAB", "...x..x..", true},
		"over":                       {"ABAB_", "...x.", false},
		"a board that tells no boot": {"\x00A\x00A\x00A", "......", false},
	} {
		now := time.Unix(1_000_000, 0)
		w := New()
		w.now = func() time.Time { return now }
		key := ingest.BoardKey{Tenant: "default", Board: "b1"}
		got := ""
		for _, r := range c.boots {
			now = now.Add(time.Minute)
			if r == '_' {
				now = now.Add(2 * time.Hour)
				got += "."
				continue
			}
			if w.Heard(key, uint64(r)) {
				got += "x"
			} else {
				got += "."
			}
		}
		two := w.Clones("default")
		if got != c.found || (len(two) == 1) != c.two {
			t.Errorf("%s: %s\nfound %s\nwants %s, %v", name, c.boots, got, c.found, two)
		}
		if len(w.Clones("other")) != 0 {
			t.Error("another tenant is told")
		}
		w.Forget(key)
		if len(w.Clones("default")) != 0 {
			t.Error("a board that was removed is told of")
		}
	}
}

// TestBound: no more boards are remembered than may connect.
func TestBound(t *testing.T) {
	t.Parallel()
	w := New()
	for i := range maxBoards + 10 {
		w.Heard(ingest.BoardKey{Board: fmt.Sprint(i)}, 1)
	}
	if len(w.by) != maxBoards {
		t.Errorf("%d boards", len(w.by))
	}
}
