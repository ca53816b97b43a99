// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package boardview is the page of one board: how it is and why, what its cameras see,
// its sensors over time, its ledger, how far it is trusted, and what people say of it.
package boardview

import (
	"cmp"
	"context"
	"encoding/json"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"time"

	"fulmar/fleet/web"
	"fulmar/fleet/web/ledger"
	"fulmar/fleet/web/live"
	"fulmar/fleet/web/trust"
	"fulmar/fleet/web/words"
	"fulmar/schema"
	"fulmar/schema/rest"
)

const (
	// maxUrgent is how many reports stand under a board's headline; all are below.
	maxUrgent = 3
	// maxCards bounds the readings shown of one board; the API has all.
	maxCards = 200
	// maxMeta bounds the form of what people say, in bytes: a few dozen labels.
	maxMeta = 64 << 10
	// readTimeout bounds one read of the source for data of a chart.
	readTimeout = 10 * time.Second
)

// Config is what the page of a board is made from.
type Config struct {
	Source web.Source
	// Keeper decides which boards belong to the fleet; nil shows none that ask.
	Keeper web.Keeper
	// Metas keeps what people say of boards; nil shows no form for it.
	Metas Metas
	// Control: there is a page at /boards/{board}/control.
	Control bool
}

// views is the pages with what they are made from.
type views struct{ cfg Config }

// Pages gives the pages of a board, and those where its place in the fleet is decided.
func Pages(cfg Config) []web.Page {
	v := &views{cfg}
	const path = "/boards/{board}"
	out := []web.Page{
		{Tab: "Fleet", Path: path, Right: rest.BoardsRead, View: &web.View{Name: "board", Templates: []string{"templates/board.html"}, Build: v.build}},
		{Path: path + "/series", Right: rest.BoardsRead, Serve: v.series},
	}
	if cfg.Metas != nil {
		out[0].Act, out[0].ActRight, out[0].MaxForm = v.save, rest.BoardsWrite, maxMeta
	}
	if cfg.Keeper != nil {
		for _, p := range []string{"/requests/{id}", path + "/revoke", path + "/forget"} {
			out = append(out, web.Page{Path: p, Act: v.decide, ActRight: rest.BoardsAdmit})
		}
	}
	return out
}

// boardView is a board's page.
type boardView struct {
	*web.Board
	Headline string
	Seen     template.HTML
	Asof     template.HTML // age of the readings when none of them is fresh
	Period   words.Period
	Periods  []words.Period
	Charts   []chartView
	Cams     []cameraView
	Book     ledger.View
	Facts    []words.Fact
	Proof    *trust.Panel
	Keep     bool         // decisions can be made here
	Reports  []web.Report // worst first
	Urgent   []web.Report // of those, what explains a board that is not well
	Chain    []link       // what happened, one after the other
	About    metaForm     // what people say of it
	Control  bool         // its settings and commands have a page
}

// chartView is a chart and the live readings under it.
type chartView struct {
	words.Chart
	Drawn  []lineView // with a swatch
	Listed []lineView
	Table  words.Table   // the same as numbers
	Budget template.HTML // of the power, "" where none is told
}

type lineView struct {
	words.Line
	Path, Band string
	Now        template.HTML
}

// cameraView is one camera: its newest picture and its figures.
type cameraView struct {
	web.Camera
	Part                        string
	Shot                        *web.Shot
	Seen, Events, Boxes         template.HTML
	Precision, Recall           template.HTML
	PrecisionWords, RecallWords template.HTML
}

// build makes the page of a board.
func (h *views) build(ctx context.Context, p *web.Shown) error {
	ov, err := h.cfg.Source.Overview(ctx, p.Session.Tenant)
	if err != nil {
		return err
	}
	p.Moment(ov.At)
	tenant, pd := p.Session.Tenant, words.ParsePeriod(p.Query.Get("range"))
	b := ov.Board(p.Value("board"))
	if b == nil {
		return web.ErrNotFound
	}
	v := &boardView{Board: b, Headline: b.Name + " is " + string(b.State), Control: h.cfg.Control, Seen: p.Ago("seen", b.LastSeen), Period: pd, Periods: words.Periods()}
	if b.Cause != "" && b.State != web.StateHealthy {
		v.Headline += ": " + b.Cause
	}
	p.Title, p.Data = v.Headline, v
	old := ov.At.Sub(b.LastSeen) > live.StaleAfter
	if old {
		v.Asof = p.Ago("asof", b.LastSeen)
	}
	if err := h.charts(ctx, p, tenant, v, old); err != nil {
		return err
	}
	for i := range b.Cameras {
		cv, err := h.camera(ctx, p, tenant, b, i)
		if err != nil {
			return err
		}
		v.Cams = append(v.Cams, cv)
	}
	v.Book = ledger.Build(p.Sheet, b.Book())
	key, err := h.trust(ctx, p, tenant, v)
	if err != nil {
		return err
	}
	v.Facts = words.Facts(b.Facts, b.Release, key)
	v.Reports = slices.Clone(b.Reports)
	slices.SortStableFunc(v.Reports, func(a, b web.Report) int {
		return cmp.Or(cmp.Compare(b.Severity, a.Severity), b.At.Compare(a.At))
	})
	for _, r := range v.Reports {
		if b.State.NeedsYou() && r.Severity >= schema.SeverityAlarm && len(v.Urgent) < maxUrgent {
			v.Urgent = append(v.Urgent, r)
		}
	}
	v.Chain = chain(b, ov.At)
	v.About = formOf(&b.Meta)
	v.About.Edit = h.cfg.Metas != nil && p.May(rest.BoardsWrite)
	cams := []string{}
	for i := range b.Cameras {
		cams = append(cams, b.Cameras[i].Name)
	}
	p.Shape("verdict", v.Headline, b.Since, b.Online, b.Release, v.Urgent, v.Chain, v.Proof.Mark())
	p.Shape("cameras", cams)
	p.Shape("reports", b.Reports)
	p.Shape("facts", v.Facts)
	if len(v.About.Facts) > 0 || v.About.Edit {
		p.Shape("about", v.About.Version, v.About.Edit)
	}
	return nil
}

// charts draws the sensors, and lists those that are not drawn.
func (h *views) charts(ctx context.Context, p *web.Shown, tenant string, v *boardView, old bool) (err error) {
	b, pd := v.Board, v.Period
	by := map[string]words.Points{}
	if p.Want("charts") {
		if by, err = h.history(ctx, tenant, b, pd, p.At); err != nil {
			return err
		}
	}
	var names []string
	for _, c := range boardCards(b) {
		cv := chartView{Chart: words.Draw(c, by, p.At.Add(-pd.Span), p.At)}
		for i, l := range c.Lines {
			lv := lineView{Line: l, Now: p.Sent("r|"+l.Series, b.Reading(l.Series), l.Unit)}
			names = append(names, l.Series)
			if i < c.Plotted {
				lv.Path, lv.Band = cv.Paths[i].Path, cv.Paths[i].Band
				cv.Drawn = append(cv.Drawn, lv)
				continue
			}
			cv.Listed = append(cv.Listed, lv)
		}
		if c.Plotted > 0 {
			cv.Table = words.Tabled(c, by, p.At.Add(-pd.Span), p.At)
		}
		if c.Unit == words.UnitWatts {
			cv.Budget = budget(p, b)
		}
		v.Charts = append(v.Charts, cv)
	}
	p.Shape("charts", names, old, pd.Name, b.Meta.PowerBudget)
	return nil
}

// budget holds what a board draws against what it may draw.
func budget(p *web.Shown, b *web.Board) template.HTML {
	total := b.Reading("power.total_watts")
	if total == nil {
		total = b.Reading("power.sum_watts")
	}
	if b.Meta.PowerBudget <= 0 || total == nil || total.Quality != schema.QualityGood {
		return ""
	}
	share := words.Number(total.Value/b.Meta.PowerBudget*100, 0) + "\u00a0% of the " + number(b.Meta.PowerBudget) + "\u00a0W" + " that it may draw"
	if total.Value > b.Meta.PowerBudget {
		return p.Text("budget", "Over its budget: "+share)
	}
	return p.Text("budget", share)
}

// trust makes the panel of trust, and gives what is left to say of the board's key.
func (h *views) trust(ctx context.Context, p *web.Shown, tenant string, v *boardView) (key string, err error) {
	var asks []trust.Request
	if h.cfg.Keeper != nil && p.May(rest.BoardsAdmit) {
		if asks, err = h.cfg.Keeper.Pending(ctx, tenant); err != nil {
			return "", err
		}
	}
	asks = slices.DeleteFunc(asks, func(r trust.Request) bool { return r.Board != v.Name })
	v.Proof, v.Keep = trust.Build(p.Sheet, v.Board.Trust, asks), h.cfg.Keeper != nil && p.May(rest.BoardsAdmit)
	if v.Proof == nil {
		return v.KeyMode, nil
	}
	if v.Keep {
		p.Shape("standing", v.Proof.Revoked, v.Proof.Since)
	}
	p.Shape("asks", trust.Shape(v.Proof.Asks))
	return "", nil
}

// camera sums up one camera and finds its newest picture.
func (h *views) camera(ctx context.Context, p *web.Shown, tenant string, b *web.Board, i int) (cameraView, error) {
	c := b.Cameras[i]
	k := "cam|" + c.Name + "|"
	v := cameraView{
		Camera: c, Part: "camera " + c.Name, Seen: p.Ago(k+"seen", c.Last),
		Events: p.Text(k+"events", words.Count(c.Events)), Boxes: p.Text(k+"boxes", words.Count(c.Boxes)),
	}
	if c.Known {
		v.Precision = p.Text(k+"precision", words.Share(c.True, c.True+c.False))
		v.PrecisionWords = p.Text(k+"precision words", words.Count(c.True)+" of "+words.Count(c.True+c.False)+" detections were right")
		v.Recall = p.Text(k+"recall", words.Share(c.True, c.True+c.Missed))
		v.RecallWords = p.Text(k+"recall words", words.Count(c.True)+" of "+words.Count(c.True+c.Missed)+" objects were found")
	}
	ss, err := web.Shots(ctx, h.cfg.Source, web.DetectionQuery{Tenant: tenant, Board: b.Name, Camera: c.Name, Limit: 1, PicturesOnly: true})
	if err != nil {
		return v, err
	}
	if len(ss) > 0 {
		ss[0].Eager = true
		v.Shot = &ss[0]
	}
	p.Shape(v.Part, web.ShotIDs(ss), c.Model, c.Engine, c.Known)
	return v, nil
}

// series serves the history behind a board's charts as JSON.
func (h *views) series(w http.ResponseWriter, r *http.Request, s web.Session) error {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	ov, err := h.cfg.Source.Overview(ctx, s.Tenant)
	if err != nil {
		return err
	}
	b := ov.Board(r.PathValue("board"))
	if b == nil {
		return web.ErrNotFound
	}
	pd := words.ParsePeriod(r.URL.Query().Get("range"))
	by, err := h.history(ctx, s.Tenant, b, pd, ov.At)
	if err != nil {
		return err
	}
	ss := make([]web.Series, 0, len(by))
	for _, name := range slices.Sorted(maps.Keys(by)) {
		pts := by[name]
		ss = append(ss, web.Series{Name: name, T: pts.T, V: pts.V, Lo: pts.Lo, Hi: pts.Hi})
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(struct { // the reader has gone: nobody is left to tell
		At     int64        `json:"at"`
		Span   int64        `json:"span"`
		Hole   int64        `json:"hole"`
		Series []web.Series `json:"series"`
	}{ov.At.UnixMilli(), pd.Span.Milliseconds(), words.Hole(pd.Span).Milliseconds(), ss})
	return nil
}

// history reads the series that a board's charts draw.
func (h *views) history(ctx context.Context, tenant string, b *web.Board, pd words.Period, at time.Time) (map[string]words.Points, error) {
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
	ss, err := h.cfg.Source.Series(ctx, web.SeriesQuery{Tenant: tenant, Board: b.Name, Series: names, From: at.Add(-pd.Span), To: at, Points: words.ChartPoints})
	if err != nil {
		return nil, err
	}
	for _, s := range ss {
		by[s.Name] = words.Points{T: s.T, V: s.V, Lo: s.Lo, Hi: s.Hi}
	}
	return by, nil
}

func boardCards(b *web.Board) []words.Card {
	var names []string
	for i := range b.Latest[:min(len(b.Latest), maxCards)] {
		names = append(names, b.Latest[i].Series)
	}
	return words.Cards(names)
}
