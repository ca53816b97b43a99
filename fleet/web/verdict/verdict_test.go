// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"testing"
	"time"
)

// TestGrouped: one dead uplink is one line of its site, whatever else happens with the
// same words elsewhere; and each board that needs somebody is on one line.
func TestGrouped(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 21, 14, 0, 0, 0, time.UTC)
	var bs []Board
	add := func(n int, s State, cause, site string, since time.Duration) {
		for range n {
			bs = append(bs, Board{Name: fmt.Sprintf("b-%03d", len(bs)), State: s, Cause: cause, Site: site, Since: at.Add(-since)})
		}
	}
	add(11, Unreachable, "connection lost", "quarry", time.Hour) // all of it
	add(1, NeverHeard, "enrolled", "quarry", 0)
	add(1, Unreachable, "connection lost", "hall", 2*time.Hour) // one of many
	add(9, Healthy, "", "hall", 0)
	add(2, Unreachable, "connection lost", "hut", time.Minute) // all of it, but only two
	add(2, Failing, "worker: dead", "hall", time.Hour)
	add(3, Failing, "worker: dead", "", time.Hour)
	bs = append(bs, Board{Name: "stolen", State: Unreachable, Cause: "shut out: its certificate was revoked", Site: "quarry", Out: true, Since: at})
	got := Grouped(bs)
	want := []struct {
		text  string
		count int
		site  string
	}{
		{"worker: dead", 5, ""},
		{"all of quarry is cut off: connection lost on 11 boards", 11, "quarry"},
		{"connection lost", 3, ""},
		{"shut out: its certificate was revoked", 1, "quarry"},
	}
	if len(got) != len(want) {
		t.Fatalf("%d lines: %+v", len(got), got)
	}
	for i, w := range want {
		if g := got[i]; g.Text != w.text || g.Count != w.count || g.Site != w.site || len(g.Boards)+g.More != g.Count {
			t.Errorf("line %d: %+v, want %+v", i, g, w)
		}
	}
	if c := got[2]; !c.Since.Equal(at.Add(-2*time.Hour)) || len(c.Sites) != 2 {
		t.Errorf("the lost ones: since %v at %v", c.Since, c.Sites)
	}
	// One board of the site that is well, and nothing is said of the site.
	bs = append(bs, Board{Name: "alive", State: Healthy, Site: "quarry"})
	if g := Grouped(bs); g[1].Text != "connection lost" || g[1].Count != 14 {
		t.Errorf("with one alive: %+v", g[1])
	}
}
