// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package anchor

import (
	"testing"
	"time"

	"fulmar/schema"
)

// TestAnchors walks a wall clock through what happens to one: 1970 at the start,
// NTP, slewing, a suspend, 50 years either way, and somebody who turns it all day.
func TestAnchors(t *testing.T) {
	t.Parallel()
	const year = int64(365 * 24 * 3600 * 1000)
	var a anchors
	now := schema.Time{Boot: 1, Mono: int64(20 * time.Second), Wall: 20_000}
	pass := func(d time.Duration) { now.Mono += int64(d); now.Wall += d.Milliseconds() }
	expect := func(what string, synced bool, want *schema.Anchor) {
		t.Helper()
		got := a.check(now, synced)
		if (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Fatalf("%s: %+v, want %+v", what, got, want)
		}
		if again := a.check(now, synced); again != nil {
			t.Fatalf("%s: said twice", what)
		}
	}
	expect("start", false, &schema.Anchor{Start: true})
	pass(time.Hour)
	expect("an hour of nothing", false, nil)
	now.Wall += 900
	expect("a slew of 900 ms", false, nil)
	now.Wall += 56*year - 900
	expect("NTP", true, &schema.Anchor{New: 56 * year, Synced: true})
	pass(8 * time.Hour) // suspended: both clocks go on
	expect("a suspend", true, nil)
	now.Wall -= 50 * year
	expect("50 years back", false, &schema.Anchor{Old: 56 * year, New: 6 * year})
	now.Wall += 100 * year
	expect("100 years on", false, &schema.Anchor{Old: 6 * year, New: 106 * year})
	now.Wall -= 50 * year
	expect("and right again", true, &schema.Anchor{Old: 106 * year, New: 56 * year, Synced: true})

	pass(24 * time.Hour)
	n := 0
	for i := range 24 * 720 { // a day, each 5 s another year
		pass(5 * time.Second)
		now.Wall += year * int64(1-i%2*2)
		if a.check(now, false) != nil {
			n++
		}
	}
	if bound := anchorBurst + 24*6; n < 24 || n > bound {
		t.Errorf("%d anchors in a day of turning the clock, want at most %d", n, bound)
	}
}
