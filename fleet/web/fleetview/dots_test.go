// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleetview

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"fulmar/fleet/web"
	"fulmar/fleet/web/verdict"
	"fulmar/schema/rest"
)

// TestDots: the strokes of each site have exactly one cell for each board, at the place
// where the names say it is, and none sticks out of the picture.
func TestDots(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(7, 7))
	for _, c := range []struct{ boards, sites int }{{1, 1}, {12, 1}, {13, 1}, {500, 3}, {3000, 200}, {10000, 1}} {
		ov := &web.Overview{}
		states := verdict.States()
		for i := range c.boards {
			st := web.StateHealthy
			if r.IntN(5) == 0 {
				st = states[r.IntN(len(states))]
			}
			ov.Boards = append(ov.Boards, web.Board{Name: fmt.Sprintf("b%05d", i), State: st, Meta: rest.Meta{Site: fmt.Sprintf("s%d", r.IntN(c.sites))[:r.IntN(2)+1]}})
			if c.sites == 200 {
				ov.Boards[i].Meta.Site = fmt.Sprintf("s%d", r.IntN(c.sites))
			}
		}
		names, by := bySite(ov)
		sites, all := dots(ov), 0
		if len(sites) != len(names) || len(sites) > maxSites {
			t.Fatalf("%v: %d sites drawn, %d named", c, len(sites), len(names))
		}
		for k, s := range sites {
			list := by[names[k]]
			all += len(list)
			cells := map[int]web.State{}
			for _, stroke := range s.Strokes {
				for _, run := range strings.Split(stroke.D, "M")[1:] {
					var x, y, w int
					if _, err := fmt.Sscanf(run, "%d %dh%d", &x, &y, &w); err != nil || x+w > s.W || y > s.H {
						t.Fatalf("%v: stroke %q of %d x %d: %v", c, run, s.W, s.H, err)
					}
					for i := range (w + 1) / s.Cell {
						at := y/s.Cell*s.Across + x/s.Cell + i
						if _, twice := cells[at]; twice {
							t.Errorf("%v: cell %d is drawn twice", c, at)
						}
						cells[at] = stroke.State
					}
				}
			}
			if len(cells) != len(list) || s.Count != len(list) {
				t.Errorf("%v, %q: %d cells for %d boards", c, s.Name, len(cells), len(list))
			}
			for i, b := range list {
				if cells[i] != b.State {
					t.Errorf("%v: cell %d is %s, %s is %s", c, i, cells[i], b.Name, b.State)
				}
			}
		}
		if all != c.boards {
			t.Errorf("%v: %d drawn", c, all)
		}
	}
}
