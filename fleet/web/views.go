// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"context"
	"encoding/json"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"fulmar/fleet/web/ledger"
	"fulmar/fleet/web/live"
	"fulmar/fleet/web/trust"
	"fulmar/fleet/web/verdict"
	"fulmar/fleet/web/words"
	"fulmar/schema"
)

const (
	rowsPerPage = 100 // boards in one table: a screen or three, not ten thousand
	fleetShots  = 6   // newest pictures on the fleet's page
	wallShots   = 24  // pictures on one page of the wall
	maxCards    = 200 // readings shown of one board; the API has all
)

// build makes the view of a URL from one overview. only names the parts that will
// be rendered; nil all.
func (h *Handler) build(ctx context.Context, tenant string, u *url.URL, ov *Overview, only map[string]bool) (*page, error) {
	p := h.blank("", "")
	p.Sheet, p.only = live.NewSheet(ov.At.In(h.cfg.Zone)), only
	q := u.Query()
	q.Del("parts")
	p.View = u.EscapedPath()
	if e := q.Encode(); e != "" {
		p.View += "?" + e
	}
	if name, ok := strings.CutPrefix(u.Path, "/boards/"); ok {
		p.Name, p.Tab = "board", "fleet"
		return p, h.board(ctx, p, tenant, name, words.ParsePeriod(q.Get("range")), ov)
	}
	if id, ok := strings.CutPrefix(u.Path, "/detections/"); ok {
		p.Name, p.Tab = "detection", "detections"
		return p, h.detection(ctx, p, tenant, id, q)
	}
	switch u.Path {
	case "/":
		p.Name, p.Tab = "fleet", "fleet"
		return p, h.fleet(ctx, p, tenant, q, ov)
	case "/detections":
		p.Name, p.Tab = "detections", "detections"
		return p, h.wall(ctx, p, tenant, q, ov)
	}
	return nil, ErrNotFound
}

// chip is one count by state.
type chip struct {
	State  State
	Count  int
	Link   string
	Active bool
}

// boardRow is one board in the fleet's table.
type boardRow struct {
	*Board
	Seen, CPU, Memory, Heat, Eyes template.HTML
}

// fleetView is the fleet's page.
type fleetView struct {
	Headline string
	Total    int
	Chips    []chip
	Causes   []verdict.Cause
	Filter   State
	Rows     []boardRow
	Matching int
	More     string // link to the next rows, "" at the end
	Shots    []shot
	Enrol    string
	Book     template.HTML // the ledgers of all boards in a sentence
	Trust    template.HTML // and how the boards are known
	Asks     []trust.Ask
	MoreAsks int // boards not shown
	Waiting  int // boards undecided
}

func (h *Handler) fleet(ctx context.Context, p *page, tenant string, q url.Values, ov *Overview) error {
	judged := judge(ov.Boards)
	v := &fleetView{Headline: verdict.Headline(judged), Total: len(ov.Boards), Causes: verdict.Grouped(judged), Filter: State(q.Get("state"))}
	p.Title, p.Data = v.Headline, v
	n := verdict.Tally(judged)
	for _, s := range verdict.States() {
		if n[s] > 0 {
			v.Chips = append(v.Chips, chip{s, n[s], "/?" + url.Values{"state": {string(s)}}.Encode(), s == v.Filter})
		}
	}
	bs := slices.Clone(ov.Boards)
	if v.Filter != "" {
		bs = slices.DeleteFunc(bs, func(b Board) bool { return b.State != v.Filter })
	}
	slices.SortStableFunc(bs, func(a, b Board) int { return verdict.Rank(a.State) - verdict.Rank(b.State) })
	v.Matching = len(bs)
	at, _ := strconv.Atoi(q.Get("page"))
	at = min(max(at, 0), len(bs)/rowsPerPage)
	bs = bs[at*rowsPerPage:]
	if len(bs) > rowsPerPage {
		bs = bs[:rowsPerPage]
		v.More = "/?" + url.Values{"state": {string(v.Filter)}, "page": {strconv.Itoa(at + 1)}}.Encode()
	}
	books, trusts := make([]ledger.Board, len(ov.Boards)), make([]*Trust, len(ov.Boards))
	for i := range ov.Boards {
		books[i], trusts[i] = *bookOf(&ov.Boards[i]), ov.Boards[i].Trust
	}
	v.Book = p.Text("books", ledger.Fleet(books))
	v.Trust = p.Text("trusts", trust.Fleet(trusts))
	shape := make([]string, 0, len(bs)*4)
	for i := range bs {
		v.Rows = append(v.Rows, p.boardRow(&bs[i]))
		shape = append(shape, bs[i].Name, string(bs[i].State), bs[i].Cause, bs[i].Release)
	}
	pending, err := h.pending(ctx, tenant)
	if err != nil {
		return err
	}
	v.Asks, v.Waiting = trust.Asks(p.Sheet, pending), trust.Waiting(pending)
	v.MoreAsks = len(pending) - len(v.Asks)
	if len(ov.Boards) > 0 {
		if v.Shots, err = h.shots(ctx, DetectionQuery{Tenant: tenant, Limit: fleetShots, PicturesOnly: true}); err != nil {
			return err
		}
	} else if h.cfg.EnrolCommand != nil && p.Want("rows") {
		if v.Enrol, err = h.cfg.EnrolCommand(ctx, tenant); err != nil {
			h.cfg.Log.Error("no enrol command", "err", err)
		}
	}
	p.Shape("verdict", v.Headline, n, v.Causes)
	p.Shape("asks", trust.Shape(v.Asks), v.MoreAsks, v.Waiting)
	p.Shape("rows", len(ov.Boards), shape, v.More)
	p.Shape("shots", ids(v.Shots))
	return nil
}

// judge is what the verdict on a fleet is made from.
func judge(bs []Board) []verdict.Board {
	out := make([]verdict.Board, len(bs))
	for i := range bs {
		out[i] = verdict.Board{Name: bs[i].Name, State: bs[i].State, Cause: bs[i].Cause, Since: bs[i].Since}
	}
	return out
}

func (p *page) boardRow(b *Board) boardRow {
	k := b.Name + "|"
	events := uint64(0)
	for _, c := range b.Cameras {
		events += c.Events
	}
	eyes := "no camera"
	if len(b.Cameras) > 0 {
		eyes = words.Plural(len(b.Cameras), "camera", "cameras") + ", " + words.Count(events) + " events/h"
	}
	var hot *Reading
	for i := range b.Latest {
		r := &b.Latest[i]
		if prefix, _, u := words.ParseSeries(r.Series); prefix == "thermal" && u == words.UnitCelsius && r.Quality == schema.QualityGood && (hot == nil || r.Value > hot.Value) {
			hot = r
		}
	}
	return boardRow{
		Board: b, Seen: p.Ago(k+"seen", b.LastSeen), Eyes: p.Text(k+"eyes", eyes),
		CPU:    p.reading(k+"cpu", find(b.Latest, "cpu.load_percent"), words.UnitPercent),
		Memory: p.reading(k+"mem", find(b.Latest, "memory.used_percent"), words.UnitPercent),
		Heat:   p.reading(k+"hot", hot, words.UnitCelsius),
	}
}

// find gives the newest reading of a series, nil when there is none.
func find(rs []Reading, series string) *Reading {
	if i := slices.IndexFunc(rs, func(r Reading) bool { return r.Series == series }); i >= 0 {
		return &rs[i]
	}
	return nil
}

// shots reads detections and prepares them.
func (h *Handler) shots(ctx context.Context, q DetectionQuery) ([]shot, error) {
	ds, err := h.src.Detections(ctx, q)
	if err != nil {
		return nil, err
	}
	out := make([]shot, len(ds))
	for i := range ds {
		out[i] = newShot(ds[i])
	}
	return out, nil
}

// ids is the shape of a list of shots.
func ids(ss []shot) []string {
	out := make([]string, len(ss))
	for i := range ss {
		out[i] = ss[i].ID + strconv.FormatBool(ss[i].HasPicture)
	}
	return out
}

// series serves the history behind a board's charts as JSON.
func (h *Handler) series(w http.ResponseWriter, r *http.Request, s Session) {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	ov, err := h.src.Overview(ctx, s.Tenant)
	if err != nil {
		h.failed(w, r, err)
		return
	}
	b := boardOf(ov, r.PathValue("board"))
	if b == nil {
		h.failed(w, r, ErrNotFound)
		return
	}
	pd := words.ParsePeriod(r.URL.Query().Get("range"))
	by, err := h.history(ctx, s.Tenant, b, pd, ov.At)
	if err != nil {
		h.failed(w, r, err)
		return
	}
	ss := make([]Series, 0, len(by))
	for _, name := range slices.Sorted(maps.Keys(by)) {
		pts := by[name]
		ss = append(ss, Series{Name: name, T: pts.T, V: pts.V, Lo: pts.Lo, Hi: pts.Hi})
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(struct { // the reader has gone: nobody is left to tell
		At     int64    `json:"at"`
		Span   int64    `json:"span"`
		Hole   int64    `json:"hole"`
		Series []Series `json:"series"`
	}{ov.At.UnixMilli(), pd.Span.Milliseconds(), words.Hole(pd.Span).Milliseconds(), ss})
}

// history reads the series that a board's charts draw.
func (h *Handler) history(ctx context.Context, tenant string, b *Board, pd words.Period, at time.Time) (map[string]words.Points, error) {
	var names []string
	for _, c := range boardCards(b) {
		for _, l := range c.Lines[:c.Plotted] {
			names = append(names, l.Series)
		}
	}
	by := map[string]words.Points{}
	if len(names) == 0 {
		return by, nil
	}
	ss, err := h.src.Series(ctx, SeriesQuery{Tenant: tenant, Board: b.Name, Series: names, From: at.Add(-pd.Span), To: at, Points: words.ChartPoints})
	if err != nil {
		return nil, err
	}
	for _, s := range ss {
		by[s.Name] = words.Points{T: s.T, V: s.V, Lo: s.Lo, Hi: s.Hi}
	}
	return by, nil
}

func boardOf(ov *Overview, name string) *Board {
	if i := slices.IndexFunc(ov.Boards, func(b Board) bool { return b.Name == name }); i >= 0 {
		return &ov.Boards[i]
	}
	return nil
}

func boardCards(b *Board) []words.Card {
	var names []string
	for i := range b.Latest[:min(len(b.Latest), maxCards)] {
		names = append(names, b.Latest[i].Series)
	}
	return words.Cards(names)
}
