// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleetview

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"fulmar/fleet/web"
	"fulmar/fleet/web/verdict"
)

const (
	// maxSites bounds the sites drawn apart; the smallest of more are drawn as one.
	maxSites = 60
	// maxAcross bounds the boards in one line of a site: at the smallest size as wide as
	// a page.
	maxAcross = 170
)

// site is all boards of a place, drawn as one line per state: a dash is a board. Runs of
// boards in one state are one stroke, so ten thousand boards are a few hundred strokes.
type site struct {
	Name    string // "" where nobody has said
	Count   int
	Sick    int
	Across  int // boards in one line
	Cell    int // of one board, in px
	W, H    int // in px
	Strokes []stroke
	Words   string // for those who cannot see it
}

// stroke is all boards of a site in one state.
type stroke struct {
	State web.State
	D     string // path, see [site]
}

// bySite gives the boards of each site, by name of the site and of the board; those
// without a site last.
func bySite(ov *web.Overview) (names []string, by map[string][]*web.Board) {
	by = map[string][]*web.Board{}
	for i := range ov.Boards {
		b := &ov.Boards[i]
		by[b.Meta.Site] = append(by[b.Meta.Site], b)
	}
	for s := range by {
		names = append(names, s)
	}
	slices.SortFunc(names, func(a, b string) int {
		if (a == "") != (b == "") {
			return strings.Compare(b, a)
		}
		return strings.Compare(a, b)
	})
	if len(names) > maxSites {
		slices.SortStableFunc(names, func(a, b string) int { return len(by[b]) - len(by[a]) })
		var rest []*web.Board
		for _, s := range names[maxSites-1:] {
			rest = append(rest, by[s]...)
			delete(by, s)
		}
		slices.SortFunc(rest, byName)
		names = append(names[:maxSites-1], otherSites)
		by[otherSites] = rest
	}
	return names, by
}

// otherSites stands for all sites that are not drawn apart. It is no site's name: those
// hold no control characters.
const otherSites = "\x00"

// dots draws all boards by site.
func dots(ov *web.Overview) []site {
	cell := 14
	switch n := len(ov.Boards); {
	case n > 2500:
		cell = 7
	case n > 400:
		cell = 10
	}
	names, by := bySite(ov)
	out := make([]site, 0, len(names))
	for _, name := range names {
		out = append(out, draw(name, by[name], cell))
	}
	return out
}

// draw draws one site, about three times as wide as it is high.
func draw(name string, bs []*web.Board, cell int) site {
	s := site{Name: name, Count: len(bs), Cell: cell, Across: min(len(bs), maxAcross, max(12, int(math.Ceil(math.Sqrt(float64(len(bs))*3)))))}
	s.W, s.H = s.Across*cell, (len(bs)+s.Across-1)/s.Across*cell
	paths := map[web.State]*strings.Builder{}
	n := map[web.State]int{}
	for i := 0; i < len(bs); {
		st, end := bs[i].State, i+1
		for end < len(bs) && end%s.Across != 0 && bs[end].State == st {
			end++
		}
		if paths[st] == nil {
			paths[st] = &strings.Builder{}
		}
		d := paths[st]
		d.WriteString("M" + strconv.Itoa(i%s.Across*cell) + " " + strconv.Itoa(i/s.Across*cell+cell/2) + "h" + strconv.Itoa((end-i)*cell-1))
		n[st] += end - i
		i = end
	}
	var parts []string
	for _, st := range verdict.States() {
		if n[st] > 0 {
			s.Strokes = append(s.Strokes, stroke{st, paths[st].String()})
			parts = append(parts, strconv.Itoa(n[st])+" "+string(st))
		}
		if st.NeedsYou() {
			s.Sick += n[st]
		}
	}
	s.Words = strings.Join(parts, ", ")
	if name == otherSites {
		s.Name = "other sites"
	}
	return s
}
