// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleetview

import (
	"cmp"
	"context"
	"errors"
	"html/template"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"fulmar/fleet/query"
	"fulmar/fleet/query/boards"
	"fulmar/fleet/web"
	"fulmar/fleet/web/verdict"
	"fulmar/fleet/web/words"
	"fulmar/schema"
	"fulmar/schema/rest"
)

const (
	rowsPerPage = 50 // boards in one table: a screen or two, not ten thousand
	maxHints    = 3  // misspelt values that are named
)

// table is the boards that a query gives, one page of them.
type table struct {
	Q        string
	Wrong    *query.Error // the query cannot be read; then the table has no rows
	Hints    []query.Error
	Heads    []head
	Rows     []row
	Matching int
	Parts    []chip // the matching boards by state; "" where no query is given
	From, To int    // of the rows, counted from 1
	Back     string // links, "" where they lead nowhere
	More     string
	CSV      string
	Command  string
	Saved    []savedLink
	CanSave  bool
	Sort     string
	Orders   [][2]string // for a menu: the address's word and what it is called
	Fields   []query.FieldDoc
}

// head is one column that the table can be sorted by.
type head struct {
	Word, Link, Class string
	Sorted            string // aria-sort; "" for another column
}

type savedLink struct {
	rest.SavedQuery
	Link   string
	Active bool
}

// row is one board in the table.
type row struct {
	*web.Board
	Seen, CPU, Memory, Heat, Eyes template.HTML
}

// column is a column that the table is sorted by: what it is called in the address, and
// the order, which begins with what is asked for most.
type column struct {
	key, word, class string
	by               func(a, b *web.Board) int
}

// columns are the columns in their order.
func columns() []column {
	reading := func(of func(*web.Board) *web.Reading) func(a, b *web.Board) int {
		return func(a, b *web.Board) int { // the highest first, those without at the end
			x, y := of(a), of(b)
			switch {
			case x == nil || y == nil:
				return cmp.Compare(btoi(x == nil), btoi(y == nil))
			}
			return cmp.Compare(y.Value, x.Value)
		}
	}
	return []column{
		{"name", "Board", "", byName},
		{"site", "Site", "site", func(a, b *web.Board) int { return cmp.Compare(a.Meta.Site, b.Meta.Site) }},
		{"state", "State", "", func(a, b *web.Board) int { return verdict.Rank(a.State) - verdict.Rank(b.State) }},
		{"cpu", "CPU", "n", reading(func(b *web.Board) *web.Reading { return good(b, "cpu.load_percent") })},
		{"memory", "Memory", "n", reading(func(b *web.Board) *web.Reading { return good(b, "memory.used_percent") })},
		{"heat", "Hottest", "n", reading(hottest)},
		{"cameras", "Cameras", "", func(a, b *web.Board) int { return cmp.Compare(events(b), events(a)) }},
		{"seen", "Last seen", "n", func(a, b *web.Board) int { return a.LastSeen.Compare(b.LastSeen) }}, // the longest silent first
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// chosen are the boards of an address in its order. The query's error is a *[query.Error].
func chosen(ov *web.Overview, q url.Values) (list []*web.Board, parsed *query.Query, err error) {
	if parsed, err = query.Parse(q.Get("q")); err != nil {
		return nil, nil, err
	}
	list = boards.Select(ov, parsed)
	key, down := strings.CutPrefix(q.Get("sort"), "-")
	cols := columns()
	i := slices.IndexFunc(cols, func(c column) bool { return c.key == key })
	if i < 0 {
		i = slices.IndexFunc(cols, func(c column) bool { return c.key == "state" })
	}
	slices.SortStableFunc(list, func(a, b *web.Board) int { // they come by name
		if down {
			return cols[i].by(b, a)
		}
		return cols[i].by(a, b)
	})
	return list, parsed, nil
}

// table makes the table of an address.
func (h *views) table(ctx context.Context, p *web.Shown, ov *web.Overview) (table, error) {
	q := p.Query
	t := table{Q: strings.TrimSpace(q.Get("q")), Sort: q.Get("sort"), CanSave: h.cfg.Saved != nil && p.May(rest.BoardsWrite), Fields: query.Fields()}
	with := func(key, value string) string { // the address with one thing changed
		u := url.Values{}
		for _, k := range []string{"q", "sort"} {
			if v := q.Get(k); v != "" {
				u.Set(k, v)
			}
		}
		if u.Set(key, value); value == "" {
			u.Del(key)
		}
		return to(u)
	}
	t.heads(with)
	if err := h.saved(ctx, p, &t); err != nil {
		return t, err
	}
	list, parsed, err := chosen(ov, q)
	if err != nil {
		if errors.As(err, &t.Wrong) {
			return t, nil
		}
		return t, err
	}
	if hints := parsed.Hints(func(f string) []string { return boards.Known(ov, f) }); len(hints) > 0 {
		t.Hints = hints[:min(len(hints), maxHints)]
	}
	t.Matching = len(list)
	if !parsed.All() {
		t.Command = " -q " + shell(parsed.String())
		t.parts(list, parsed)
	}
	t.Command = "fulmar board list" + t.Command
	t.CSV = "/boards.csv" + strings.TrimSuffix(strings.TrimPrefix(with("page", ""), "/"), "#boards")
	at, _ := strconv.Atoi(q.Get("page"))
	last := max(len(list)-1, 0) / rowsPerPage
	at = min(max(at, 0), last)
	if at > 0 {
		t.Back = with("page", strconv.Itoa(at-1))
	}
	if at < last {
		t.More = with("page", strconv.Itoa(at+1))
	}
	list = list[at*rowsPerPage:]
	list = list[:min(len(list), rowsPerPage)]
	t.From, t.To = at*rowsPerPage+1, at*rowsPerPage+len(list)
	for _, b := range list {
		t.Rows = append(t.Rows, newRow(p, b))
	}
	return t, nil
}

// heads are the columns; each sorts, and the one in use turns round.
func (t *table) heads(with func(key, value string) string) {
	key, down := strings.CutPrefix(t.Sort, "-")
	if key == "" {
		key = "state"
	}
	t.Orders = [][2]string{{"", "Worst first"}}
	for _, c := range columns() {
		if c.key != "state" {
			t.Orders = append(t.Orders, [2]string{c.key, "By " + words.Lower(c.word)})
		}
		x := head{Word: c.word, Class: c.class, Link: with("sort", c.key)}
		if c.key == key {
			x.Sorted = "ascending"
			if down {
				x.Sorted = "descending"
			} else {
				x.Link = with("sort", "-"+c.key)
			}
		}
		t.Heads = append(t.Heads, x)
	}
}

// parts counts the matching boards by state; each leads to those of them.
func (t *table) parts(list []*web.Board, q *query.Query) {
	n := map[web.State]int{}
	for _, b := range list {
		n[b.State]++
	}
	for _, s := range verdict.States() {
		if n[s] == 0 {
			continue
		}
		only, err := query.Parse("state=" + s.Word())
		if err != nil {
			continue // a state without a word of the language: shown nowhere else either
		}
		t.Parts = append(t.Parts, chip{State: s, Count: n[s], Link: to(url.Values{"q": {query.And(q, only).String()}})})
	}
}

// saved lists the saved queries.
func (h *views) saved(ctx context.Context, p *web.Shown, t *table) error {
	if h.cfg.Saved == nil || !p.Want("rows") {
		return nil
	}
	list, err := h.cfg.Saved.Queries(ctx, p.Session.Tenant)
	if err != nil {
		return err
	}
	for _, s := range list[:min(len(list), maxSaved)] {
		t.Saved = append(t.Saved, savedLink{s, to(url.Values{"q": {s.Query}}), s.Query == t.Q})
	}
	return nil
}

// shape is all of the table that is no live text.
func (t *table) shape() []any {
	out := []any{t.Matching, t.More, t.Back, t.Hints, t.Parts}
	for i := range t.Rows {
		b := t.Rows[i].Board
		out = append(out, b.Name, b.State, b.Cause, b.Release, b.Meta.Site)
	}
	return out
}

func newRow(p *web.Shown, b *web.Board) row {
	k := b.Name + "|"
	eyes := "no camera"
	if len(b.Cameras) > 0 {
		eyes = words.Plural(len(b.Cameras), "camera", "cameras") + ", " + words.Count(events(b)) + " events/h"
	}
	return row{
		Board: b, Seen: p.Ago(k+"seen", b.LastSeen), Eyes: p.Text(k+"eyes", eyes),
		CPU:    p.Sent(k+"cpu", b.Reading("cpu.load_percent"), words.UnitPercent),
		Memory: p.Sent(k+"mem", b.Reading("memory.used_percent"), words.UnitPercent),
		Heat:   p.Sent(k+"hot", hottest(b), words.UnitCelsius),
	}
}

// events are those of all cameras in the last hour.
func events(b *web.Board) (n uint64) {
	for i := range b.Cameras {
		n += b.Cameras[i].Events
	}
	return n
}

// good gives a reading that is a number.
func good(b *web.Board, series string) *web.Reading {
	if r := b.Reading(series); r != nil && r.Quality == schema.QualityGood {
		return r
	}
	return nil
}

// hottest gives the highest good temperature of a board's zones; nil without one.
func hottest(b *web.Board) (hot *web.Reading) {
	for i := range b.Latest {
		r := &b.Latest[i]
		if strings.HasPrefix(r.Series, "thermal.") && strings.HasSuffix(r.Series, "_celsius") && r.Quality == schema.QualityGood && (hot == nil || r.Value > hot.Value) {
			hot = r
		}
	}
	return hot
}

// Quote writes a value of a query in quotes.
func Quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// shell writes an argument for a shell: in single quotes, which hold all but themselves.
func shell(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
