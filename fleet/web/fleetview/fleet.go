// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package fleetview is the page of the fleet: how it is in one sentence, what needs
// somebody by cause, every board as a dot by site, and a table that a query narrows.
//
// All its numbers are counted from one overview, so the sentence, the counts, the dots
// and the rows cannot disagree.
package fleetview

import (
	"cmp"
	"context"
	"html/template"
	"log/slog"
	"net/url"

	"fulmar/fleet/access"
	"fulmar/fleet/web"
	"fulmar/fleet/web/ledger"
	"fulmar/fleet/web/trust"
	"fulmar/fleet/web/verdict"
	"fulmar/schema/rest"
)

const (
	fleetShots = 6  // newest pictures
	maxCauses  = 12 // lines of what needs attention: a screen; the rest is a number
	maxSaved   = 50 // saved queries shown
	fewBoards  = 8  // up to here the table alone is enough
)

// Saved keeps queries with names. Its errors are *[web.Problem] where a name or a query
// cannot be kept.
type Saved interface {
	Queries(ctx context.Context, tenant string) ([]rest.SavedQuery, error)
	SaveQuery(ctx context.Context, by access.Caller, q rest.SavedQuery) (rest.SavedQuery, error)
	RemoveQuery(ctx context.Context, by access.Caller, name string) error
}

// Config is what the page of the fleet is made from.
type Config struct {
	Source web.Source
	// JoinPage is where who may admit boards makes a join token: the empty fleet leads
	// there. "" tells how it is done on the server. The fleet's own page makes none: a
	// look at it would leave a token behind.
	JoinPage string
	// Keeper decides which boards belong to the fleet; nil shows none that ask.
	Keeper web.Keeper
	// Saved keeps queries; nil shows none.
	Saved Saved
	Log   *slog.Logger // nil: says nothing
}

// views is the pages with what they are made from.
type views struct{ cfg Config }

// Pages gives the page of the fleet and what belongs to it.
func Pages(cfg Config) []web.Page {
	v := &views{cfg}
	if v.cfg.Log == nil {
		v.cfg.Log = slog.New(slog.DiscardHandler)
	}
	out := []web.Page{
		{Tab: "Fleet", Path: "/", Right: rest.BoardsRead, View: &web.View{Name: "fleet", Templates: []string{"templates/fleet.html"}, Assets: []string{"fleet.js"}, Build: v.build}},
		{Path: "/boards.csv", Right: rest.BoardsRead, Serve: v.csv},
		{Path: "/fleet/check", Right: rest.BoardsRead, Serve: v.check},
		{Path: "/fleet/dots", Right: rest.BoardsRead, Serve: v.names},
	}
	if cfg.Saved != nil {
		out = append(out, web.Page{Path: "/fleet/queries", Act: v.keep, ActRight: rest.BoardsWrite})
	}
	return out
}

// chip is one count by state.
type chip struct {
	State  web.State
	Count  int
	Link   string
	Active bool
}

// causeLine is one line of what needs attention.
type causeLine struct {
	verdict.Cause
	Link string // to the rows behind it; "" where no query finds them
}

// view is the fleet's page.
type view struct {
	Headline   string
	Total      int
	Chips      []chip
	Causes     []causeLine
	MoreCauses int
	MoreBoards int // behind those causes
	Sites      []site
	Dots       bool // they are worth drawing
	Table      table
	Shots      []web.Shot
	Join       string        // where a join token is made; "": not by this person
	Book       template.HTML // the ledgers of all boards in a sentence
	Trust      template.HTML // and how the boards are known
	Asks       []trust.Ask
	MoreAsks   int // boards not shown
	Waiting    int // boards undecided
}

func (h *views) build(ctx context.Context, p *web.Shown) error {
	tenant := p.Session.Tenant
	ov, err := h.cfg.Source.Overview(ctx, tenant)
	if err != nil {
		return err
	}
	p.Moment(ov.At)
	judged := Judge(ov.Boards)
	v := &view{Headline: verdict.Headline(judged), Total: len(ov.Boards)}
	p.Title, p.Data = v.Headline, v
	n := verdict.Tally(judged)
	v.chips(n, p.Query.Get("q"))
	v.causes(verdict.Grouped(judged))
	v.Sites = dots(ov)
	v.Dots = v.Total > fewBoards || len(v.Sites) > 1
	if v.Table, err = h.table(ctx, p, ov); err != nil {
		return err
	}
	books, trusts := make([]ledger.Board, len(ov.Boards)), make([]*web.Trust, len(ov.Boards))
	for i := range ov.Boards {
		books[i], trusts[i] = *ov.Boards[i].Book(), ov.Boards[i].Trust
	}
	v.Book = p.Text("books", ledger.Fleet(books))
	v.Trust = p.Text("trusts", trust.Fleet(trusts))
	if h.cfg.Keeper != nil && p.May(rest.BoardsAdmit) {
		pending, err := h.cfg.Keeper.Pending(ctx, tenant)
		if err != nil {
			return err
		}
		v.Asks, v.Waiting = trust.Asks(p.Sheet, pending), trust.Waiting(pending)
		v.MoreAsks = len(pending) - len(v.Asks)
	}
	if err := h.rest(ctx, p, v); err != nil {
		return err
	}
	p.Shape("verdict", v.Headline, n, v.Causes, v.MoreCauses)
	p.Shape("asks", trust.Shape(v.Asks), v.MoreAsks, v.Waiting)
	p.Shape("dots", v.Sites)
	p.Shape("rows", len(ov.Boards), v.Table.shape())
	p.Shape("shots", web.ShotIDs(v.Shots))
	return nil
}

// rest reads what does not come from the overview.
func (h *views) rest(ctx context.Context, p *web.Shown, v *view) (err error) {
	if v.Total > 0 {
		v.Shots, err = web.Shots(ctx, h.cfg.Source, web.DetectionQuery{Tenant: p.Session.Tenant, Limit: fleetShots, PicturesOnly: true})
		return err
	}
	if p.May(rest.BoardsAdmit) {
		v.Join = h.cfg.JoinPage
	}
	return nil
}

// chips are the counts by state of all boards. Each leads to its rows.
func (v *view) chips(n map[web.State]int, q string) {
	for _, s := range verdict.States() {
		if n[s] > 0 {
			want := "state=" + s.Word()
			v.Chips = append(v.Chips, chip{s, n[s], to(url.Values{"q": {want}}), q == want})
		}
	}
}

// causes are the lines of what needs attention.
func (v *view) causes(all []verdict.Cause) {
	for i, c := range all {
		if i >= maxCauses {
			v.MoreCauses, v.MoreBoards = v.MoreCauses+1, v.MoreBoards+c.Count
			continue
		}
		q := "state=" + c.State.Word()
		if c.Cause != string(c.State) {
			q += " and cause=" + Quote(c.Cause)
		}
		if c.Site != "" {
			q += " and site=" + Quote(c.Site)
		}
		v.Causes = append(v.Causes, causeLine{c, to(url.Values{"q": {q}})})
	}
}

// to is the address of the fleet's page with a query, at its table: on a phone that is
// some screens down.
func to(q url.Values) string {
	if len(q) == 0 {
		return "/"
	}
	return "/?" + q.Encode() + "#boards"
}

// Judge is what the verdict on a fleet is made from.
func Judge(bs []web.Board) []verdict.Board {
	out := make([]verdict.Board, len(bs))
	for i := range bs {
		b := &bs[i]
		out[i] = verdict.Board{
			Name: b.Name, State: b.State, Cause: b.Cause, Since: b.Since, Site: b.Meta.Site,
			Out: b.Trust != nil && !b.Trust.Revoked.IsZero(),
		}
	}
	return out
}

// byName orders boards, for where two are equal otherwise.
func byName(a, b *web.Board) int { return cmp.Compare(a.Name, b.Name) }
