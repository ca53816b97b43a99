// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math"
	"slices"

	"fulmar/schema/rest"
)

// ErrNoBoards: nothing is left to give the release to.
var ErrNoBoards = errors.New("no board is left in the plan")

// Candidate is a board that the query gives.
type Candidate struct {
	Board string
	Site  string
	Zone  string // IANA name of the site's
	// Facts are what boards are told apart by: model, os, site, label.x.
	Facts     map[string]string
	Release   string // of the component, running now; "" unknown
	Able      bool   // takes assignments
	Reachable bool
	Busy      string // the rollout of the same component that it is in; "" none
	Lacks     string // what it lacks for the release, a sentence; "" nothing
}

// Board is one board of a plan.
type Board struct {
	Candidate
	Wave   int // from 1
	Shadow bool
}

// Wave is one wave of a plan, in the order of the plan's boards.
type Wave struct {
	N      int // 0 is the shadow phase
	Boards int
	Sites  int
}

// Plan is which board gets it when.
type Plan struct {
	Boards  []Board // in the order they are taken
	Waves   []Wave  // the shadow phase, if there is one, first
	LeftOut []rest.LeftOut
}

// Reasons to leave a board out.
const (
	outUnable  = "no updates possible, the program is too old for them"
	outHas     = "this release runs there already"
	outSilent  = "unreachable, and the plan says never"
	outBusy    = "in another rollout of this component"
	outUnknown = "no board of this name in the query"
	// namesShown bounds the names beside a reason.
	namesShown = 20
)

// Make gives each board its wave. The order is fixed by a hash of the boards' names,
// one board of each site in turn: so the same boards come first in a forecast and in
// the rollout, and a wave meets as many sites as it can. Boards that are not reachable
// come last, in the last wave, or not at all.
func Make(s rest.RolloutSpec, all []Candidate) (*Plan, error) {
	p := &Plan{}
	left := map[string][]string{}
	listed := map[string]bool{} // by the plan; true: found
	for _, b := range s.Boards {
		listed[b] = false
	}
	now, later := make([]Candidate, 0, len(all)), []Candidate(nil)
	for _, c := range all {
		if len(listed) > 0 {
			if _, ok := listed[c.Board]; !ok {
				continue
			}
			listed[c.Board] = true
		}
		switch why := reason(&s, &c); {
		case why != "":
			left[why] = append(left[why], c.Board)
		case c.Reachable:
			now = append(now, c)
		default:
			later = append(later, c)
		}
	}
	for b, found := range listed {
		if !found {
			left[outUnknown] = append(left[outUnknown], b)
		}
	}
	p.LeftOut = summary(left)
	if len(now)+len(later) > MaxBoards {
		return nil, wrong("/query", "gives %d boards, at most %d", len(now)+len(later), MaxBoards)
	}
	if len(now)+len(later) == 0 {
		return p, ErrNoBoards
	}
	reachable := len(now)
	p.Boards = make([]Board, 0, len(now)+len(later))
	for _, c := range append(spread(now), spread(later)...) {
		p.Boards = append(p.Boards, Board{Candidate: c})
	}
	p.cut(s, reachable)
	return p, nil
}

func reason(s *rest.RolloutSpec, c *Candidate) string {
	switch {
	case !c.Able:
		return outUnable
	case c.Release == s.Release:
		return outHas
	case c.Lacks != "":
		return c.Lacks
	case c.Busy != "":
		return outBusy + ": " + c.Busy
	case !c.Reachable && s.Unreachable == Never:
		return outSilent
	}
	return ""
}

// summary puts reasons with most boards first.
func summary(left map[string][]string) (out []rest.LeftOut) {
	for why, names := range left {
		slices.Sort(names)
		out = append(out, rest.LeftOut{Reason: why, Boards: len(names), Names: names[:min(len(names), namesShown)]})
	}
	slices.SortFunc(out, func(a, b rest.LeftOut) int {
		return cmp.Or(cmp.Compare(b.Boards, a.Boards), cmp.Compare(a.Reason, b.Reason))
	})
	return out
}

// spread orders boards: the first of each site by hash, then the second of each.
func spread(list []Candidate) []Candidate {
	type ranked struct {
		hash uint64
		rank int
		at   int
	}
	r := make([]ranked, len(list))
	for i, c := range list {
		sum := sha256.Sum256([]byte(c.Board))
		r[i] = ranked{hash: binary.BigEndian.Uint64(sum[:8]), at: i}
	}
	byHash := func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(list[a.at].Board, list[b.at].Board))
	}
	slices.SortFunc(r, byHash)
	seen := map[string]int{}
	for i := range r {
		site := list[r[i].at].Site
		r[i].rank = seen[site]
		seen[site]++
	}
	slices.SortStableFunc(r, func(a, b ranked) int { return cmp.Compare(a.rank, b.rank) })
	out := make([]Candidate, len(r))
	for i := range r {
		out[i] = list[r[i].at]
	}
	return out
}

// cut cuts the ordered boards into waves. Shares are of the boards reachable now. In a
// small fleet a wave may stay empty; it is passed over.
func (p *Plan) cut(s rest.RolloutSpec, reachable int) {
	if sh := s.Shadow; sh != nil {
		n := min(size(sh.Percent, sh.Count, reachable), reachable)
		for i := range n {
			p.Boards[i].Shadow = true
		}
		if n > 0 {
			p.Waves = append(p.Waves, Wave{N: 0, Boards: n, Sites: sites(p.Boards[:n])})
		}
	}
	at := 0
	for i, w := range s.Waves {
		n := size(w.Percent, w.Count, reachable)
		if i == len(s.Waves)-1 {
			n = len(p.Boards)
		}
		end := min(at+n, reachable)
		if i == len(s.Waves)-1 {
			end = len(p.Boards)
		}
		for j := at; j < end; j++ {
			p.Boards[j].Wave = i + 1
		}
		p.Waves = append(p.Waves, Wave{N: i + 1, Boards: end - at, Sites: sites(p.Boards[at:end])})
		at = end
	}
}

// size gives how many boards a share or a count is: at least one.
func size(percent float64, count, of int) int {
	if count > 0 {
		return count
	}
	return max(1, int(math.Ceil(percent*float64(of)/100-1e-9)))
}

func sites(boards []Board) int {
	seen := map[string]bool{}
	for i := range boards {
		seen[boards[i].Site] = true
	}
	return len(seen)
}
