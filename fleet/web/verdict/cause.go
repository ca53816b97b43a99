// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"slices"
	"strings"
	"time"

	"fulmar/fleet/web/words"
)

const (
	// namedInCause is how many boards or sites a cause names; the rest is a number.
	namedInCause = 6
	// wholeSite is how many boards a site needs before all of them being away together is
	// said of the site: two may well be a coincidence.
	wholeSite = 3
)

// Cause is one line of what needs attention: boards that share state and cause. Boards
// that went away with all of their site are one line of that site, whatever else they
// had: one uplink, one word.
type Cause struct {
	State State
	Cause string // as the boards have it
	Text  string // in words for people: for a site's line it says so
	// Site is the one site that all the boards stand at; "" where they stand at several,
	// or nobody has said.
	Site   string
	Sites  []string // by name, at most [namedInCause]
	Boards []string // at most [namedInCause]
	Count  int      // of all boards
	More   int      // boards not named
	Since  time.Time
}

// Grouped gathers the boards that need somebody, worst first, then most boards first.
func Grouped(bs []Board) []Cause {
	dark := cutOff(bs)
	type key struct {
		state       State
		cause, site string
	}
	at, sites := map[key]int{}, map[int]map[string]bool{}
	var out []Cause
	for i := range bs {
		b := &bs[i]
		if !b.State.NeedsYou() {
			continue
		}
		k := key{state: b.State, cause: causeOf(b)}
		if b.Site != "" && dark[b.Site] == k.cause && b.State == Unreachable {
			k.site = b.Site
		}
		j, ok := at[k]
		if !ok {
			j = len(out)
			at[k], sites[j] = j, map[string]bool{}
			out = append(out, Cause{State: b.State, Cause: k.cause, Text: k.cause, Since: b.Since})
		}
		c := &out[j]
		if b.Since.Before(c.Since) {
			c.Since = b.Since
		}
		if c.Count++; len(c.Boards) < namedInCause {
			c.Boards = append(c.Boards, b.Name)
		} else {
			c.More++
		}
		sites[j][b.Site] = true
	}
	for k, j := range at {
		c := &out[j]
		for s := range sites[j] {
			c.Sites = append(c.Sites, s)
		}
		slices.Sort(c.Sites)
		if len(c.Sites) == 1 {
			c.Site = c.Sites[0]
		}
		c.Sites = slices.DeleteFunc(c.Sites, func(s string) bool { return s == "" })
		c.Sites = c.Sites[:min(len(c.Sites), namedInCause)]
		if k.site != "" {
			c.Text = "all of " + k.site + " is cut off: " + k.cause + " on " + words.Plural(c.Count, "board", "boards")
		}
	}
	slices.SortStableFunc(out, func(a, b Cause) int {
		if d := Rank(a.State) - Rank(b.State); d != 0 {
			return d
		}
		if a.Count != b.Count {
			return b.Count - a.Count
		}
		return strings.Compare(a.Text, b.Text)
	})
	return out
}

// cutOff finds the sites of which every board that was ever heard of cannot be reached,
// for one cause, and gives that cause. What was shut out is not counted either way: its
// certificate is no longer good wherever it stands.
func cutOff(bs []Board) map[string]string {
	type tally struct {
		cause     string
		away, all int
	}
	by := map[string]*tally{}
	for i := range bs {
		b := &bs[i]
		if b.Site == "" || b.State == NeverHeard || b.Out {
			continue
		}
		t := by[b.Site]
		if t == nil {
			t = &tally{}
			by[b.Site] = t
		}
		if t.all++; b.State == Unreachable && (t.away == 0 || t.cause == causeOf(b)) {
			t.away, t.cause = t.away+1, causeOf(b)
		}
	}
	out := map[string]string{}
	for site, t := range by {
		if t.away == t.all && t.all >= wholeSite {
			out[site] = t.cause
		}
	}
	return out
}
