// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleetview

import (
	"net/url"
	"testing"
	"time"

	"fulmar/fleet/web"
	"fulmar/schema/rest"
)

// FuzzTable: whatever stands in the page's address, the table has boards of the fleet,
// each once, and all of them without a query.
func FuzzTable(f *testing.F) {
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	ov := &web.Overview{At: now, Boards: []web.Board{
		{Name: "dock-1", State: "healthy", Release: "1.8.2", LastSeen: now, Meta: rest.Meta{Site: "hall-4", Labels: map[string]string{"line": "4"}}},
		{Name: "dock-2", State: "failing", Cause: "too hot", LastSeen: now.Add(-time.Hour)},
		{Name: "gate", State: "never-heard"},
	}}
	for _, q := range []string{"", "q=site%3Dhall-4&sort=-seen", "sort=state&q=not+dock", "q=seen+%3E+2h+ago&sort=x", "q=%ff&sort=%00", "q=((((((((("} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, address string) {
		q, err := url.ParseQuery(address)
		if err != nil {
			return
		}
		list, parsed, err := chosen(ov, q)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, b := range list {
			if seen[b.Name] {
				t.Fatalf("%q: %s twice", address, b.Name)
			}
			seen[b.Name] = true
		}
		if len(list) > len(ov.Boards) || parsed.String() == "" && len(list) != len(ov.Boards) {
			t.Fatalf("%q: %d boards for %q", address, len(list), parsed.String())
		}
		if back, err := url.Parse(to(q)); err != nil || back.Query().Encode() != q.Encode() {
			t.Fatalf("%q: the page's own address is %q: %v", address, to(q), err)
		}
	})
}
