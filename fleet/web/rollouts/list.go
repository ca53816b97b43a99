// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollouts

import (
	"cmp"
	"html/template"
	"slices"
	"time"

	"fulmar/fleet/web/live"
	"fulmar/fleet/web/words"
	"fulmar/schema/rest"
)

// maxList bounds the rollouts in one list: those that are not over come first.
const maxList = 100

// listView is the list of all rollouts.
type listView struct {
	Headline string
	Groups   []group
	More     int  // not shown
	Plan     bool // this person may plan one
}

// group is what needs somebody, what runs, what has ended.
type group struct {
	Title string
	Rows  []row
}

// row is one rollout in the list.
type row struct {
	ID, Name, What, Word, Tone, Sentence, Where, Who string
	Bar                                              []segment
	BarWords                                         string
	Boards                                           string
	Left                                             template.HTML // countdown of the state
	Since                                            template.HTML
}

// list builds the list; the live texts go into the sheet.
func list(s *live.Sheet, rs []rest.Rollout) *listView {
	slices.SortStableFunc(rs, func(a, b rest.Rollout) int { return b.Created.Compare(a.Created) })
	v := &listView{Headline: headline(rs, s.At)}
	groups := []group{{Title: "Needs somebody"}, {Title: "Under way"}, {Title: "Ended"}}
	at := func(r *rest.Rollout) int {
		switch {
		case r.Over:
			return 2
		case r.State == held || r.State == approval || r.State == paused:
			return 0
		}
		return 1
	}
	slices.SortStableFunc(rs, func(a, b rest.Rollout) int { return cmp.Compare(at(&a), at(&b)) })
	if len(rs) > maxList {
		v.More, rs = len(rs)-maxList, rs[:maxList]
	}
	shape := []any{v.Headline, v.More}
	for i := range rs {
		g := &groups[at(&rs[i])]
		g.Rows = append(g.Rows, newRow(s, &rs[i]))
		r := &g.Rows[len(g.Rows)-1]
		shape = append(shape, r.ID, r.Name, r.Word, r.Sentence, r.Where, r.BarWords)
	}
	for _, g := range groups {
		if len(g.Rows) > 0 {
			v.Groups = append(v.Groups, g)
		}
	}
	s.Shape("verdict", v.Headline)
	s.Shape("rows", shape...)
	return v
}

func newRow(s *live.Sheet, r *rest.Rollout) row {
	n := 0
	for i := range r.Waves {
		if !r.Waves[i].Shadow {
			n += r.Waves[i].Boards
		}
	}
	k := r.ID + "|"
	out := row{
		ID: r.ID, Name: name(r), What: r.Spec.Component + " " + r.Spec.Release, Word: stateWord(r.State), Tone: tone(r.State), Sentence: words.Sentence(r.Sentence),
		Where: where(r), Who: r.Author, Bar: bar(r.Counts, n), Boards: words.Plural(n, "board", "boards"), Since: s.Ago(k+"since", r.Since),
	}
	out.BarWords = spoken(out.Bar)
	if !r.Over && r.Deadline != nil {
		out.Left = s.Text(k+"left", left(r.Deadline, s.At))
	}
	return out
}

// stamp writes a moment in the page's zone.
func stamp(s *live.Sheet, t time.Time) string { return words.Stamp(t.In(s.At.Location()), s.At) }
