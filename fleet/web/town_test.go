// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	. "fulmar/fleet/web"
	"fulmar/schema"
	"fulmar/schema/rest"
)

// newTown makes a larger fleet: n boards at sites of which one is cut off, and a model
// that kills its workers at two others. The three boards of the small fleet are among
// them.
func newTown(now func() time.Time, n int) *memory {
	m := newMemory(now)
	t := now()
	sites := []string{"hall-4", "hall-5", "harbour", "quarry", "yard-north", "yard-south", "depot"}
	like := m.boards[0]
	like.Cameras, like.Gaps, like.Reports = like.Cameras[:1], nil, nil
	for i := range n {
		b := like
		b.Name = fmt.Sprintf("%s-%04d", []string{"dock", "gate", "lane"}[i%3], i+100)
		b.Meta = rest.Meta{Site: sites[(i*7+i/9)%len(sites)], Version: 1}
		b.Trust = nil
		switch {
		case b.Meta.Site == "quarry":
			b.State, b.Cause, b.Since, b.LastSeen, b.Online = StateUnreachable, "connection lost", t.Add(-41*time.Minute), t.Add(-41*time.Minute), false
		case b.Meta.Site == "hall-4" && i%5 == 0 || b.Meta.Site == "hall-5" && i%11 == 0:
			b.State, b.Cause, b.Since = StateFailing, "worker: killed by model forklift@7", t.Add(-19*time.Minute)
			b.Reports = []Report{{Subject: "worker", State: "quarantined", Severity: schema.SeverityAlarm, Text: "Model forklift@7 killed the worker 3 times (out of GPU memory) and was stopped.", At: t.Add(-19 * time.Minute)}}
		case i%29 == 7:
			b.State, b.Cause, b.Since = StateDegraded, "2 sensors give no good value: power.total_watts (stale), thermal.tj_celsius (stale)", t.Add(-3*time.Hour)
		case i%41 == 3:
			b.State, b.Cause, b.LastSeen, b.Latest, b.Cameras = StateNeverHeard, "enrolled, but has not connected yet", time.Time{}, nil, nil
		}
		m.boards = append(m.boards, b)
	}
	for i := range 3 {
		m.boards[i].Meta = rest.Meta{Site: sites[i], Version: 1}
	}
	m.boards[0].Meta = rest.Meta{
		Site: "hall-4", Labels: map[string]string{"line": "4", "shift": "night"}, Description: "Above the belt at gate 2", PowerBudget: 25,
		Location: &rest.Location{Lat: 48.13714, Lon: 11.5754}, LocationAccuracy: 12, Version: 3,
	}
	slices.SortFunc(m.boards, func(a, b Board) int { return strings.Compare(a.Name, b.Name) })
	return m
}
