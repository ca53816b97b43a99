// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"cmp"
	"context"
	"html/template"
	"net/url"
	"slices"

	"fulmar/fleet/web/ledger"
	"fulmar/fleet/web/live"
	"fulmar/fleet/web/trust"
	"fulmar/fleet/web/words"
	"fulmar/schema"
)

// maxUrgent is how many reports stand under a board's headline; all are below.
const maxUrgent = 3

// boardView is a board's page.
type boardView struct {
	*Board
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
	Keep     bool     // decisions can be made here
	Reports  []Report // worst first
	Urgent   []Report // of those, what explains a board that is not well
}

// chartView is a chart and the live readings under it.
type chartView struct {
	words.Chart
	Drawn  []lineView // with a swatch
	Listed []lineView
}

type lineView struct {
	words.Line
	Path, Band string
	Now        template.HTML
}

// cameraView is one camera: its newest picture and its figures.
type cameraView struct {
	Camera
	Part                        string
	Shot                        *shot
	Seen, Events, Boxes         template.HTML
	Precision, Recall           template.HTML
	PrecisionWords, RecallWords template.HTML
}

func (h *Handler) board(ctx context.Context, p *page, tenant, name string, pd words.Period, ov *Overview) error {
	b := boardOf(ov, name)
	if b == nil {
		return ErrNotFound
	}
	v := &boardView{Board: b, Headline: b.Name + " is " + string(b.State), Seen: p.Ago("seen", b.LastSeen), Period: pd, Periods: words.Periods()}
	if b.Cause != "" && b.State != StateHealthy {
		v.Headline += ": " + b.Cause
	}
	p.Title, p.Data = v.Headline, v
	old := ov.At.Sub(b.LastSeen) > live.StaleAfter
	if old {
		v.Asof = p.Ago("asof", b.LastSeen)
	}
	by := map[string]words.Points{}
	if p.Want("charts") {
		var err error
		if by, err = h.history(ctx, tenant, b, pd, ov.At); err != nil {
			return err
		}
	}
	var names []string
	for _, c := range boardCards(b) {
		cv := chartView{Chart: words.Draw(c, by, ov.At.Add(-pd.Span), ov.At)}
		for i, l := range c.Lines {
			lv := lineView{Line: l, Now: p.reading("r|"+l.Series, find(b.Latest, l.Series), l.Unit)}
			names = append(names, l.Series)
			if i < c.Plotted {
				lv.Path, lv.Band = cv.Paths[i].Path, cv.Paths[i].Band
				cv.Drawn = append(cv.Drawn, lv)
				continue
			}
			cv.Listed = append(cv.Listed, lv)
		}
		v.Charts = append(v.Charts, cv)
	}
	for i := range b.Cameras {
		cv, err := h.camera(ctx, p, tenant, b, i)
		if err != nil {
			return err
		}
		v.Cams = append(v.Cams, cv)
	}
	v.Book = ledger.Build(p.Sheet, bookOf(b))
	key, err := h.trust(ctx, p, tenant, v)
	if err != nil {
		return err
	}
	v.Facts = words.Facts(b.Facts, b.Release, key)
	v.Reports = slices.Clone(b.Reports)
	slices.SortStableFunc(v.Reports, func(a, b Report) int {
		return cmp.Or(cmp.Compare(b.Severity, a.Severity), b.At.Compare(a.At))
	})
	for _, r := range v.Reports {
		if b.State.NeedsYou() && r.Severity >= schema.SeverityAlarm && len(v.Urgent) < maxUrgent {
			v.Urgent = append(v.Urgent, r)
		}
	}
	cams := []string{}
	for i := range b.Cameras {
		cams = append(cams, b.Cameras[i].Name)
	}
	p.Shape("verdict", v.Headline, b.Since, b.Online, b.Release, v.Urgent, v.Proof.Mark())
	p.Shape("charts", names, old, pd.Name)
	p.Shape("cameras", cams)
	p.Shape("reports", b.Reports)
	p.Shape("facts", v.Facts)
	return nil
}

// trust makes the panel of trust, and gives what is left to say of the board's key.
func (h *Handler) trust(ctx context.Context, p *page, tenant string, v *boardView) (key string, err error) {
	asks, err := h.pending(ctx, tenant)
	if err != nil {
		return "", err
	}
	asks = slices.DeleteFunc(asks, func(r trust.Request) bool { return r.Board != v.Name })
	v.Proof, v.Keep = trust.Build(p.Sheet, v.Board.Trust, asks), h.cfg.Keeper != nil
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
func (h *Handler) camera(ctx context.Context, p *page, tenant string, b *Board, i int) (cameraView, error) {
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
	ss, err := h.shots(ctx, DetectionQuery{Tenant: tenant, Board: b.Name, Camera: c.Name, Limit: 1, PicturesOnly: true})
	if err != nil {
		return v, err
	}
	if len(ss) > 0 {
		ss[0].Eager = true
		v.Shot = &ss[0]
	}
	p.Shape(v.Part, ids(ss), c.Model, c.Engine, c.Known)
	return v, nil
}

// bookOf is what a board's ledger is written from.
func bookOf(b *Board) *ledger.Board {
	x := &ledger.Board{Name: b.Name, Classes: b.Ledger, Gaps: b.Gaps, Online: b.Online && b.State != StateUnreachable}
	if !x.Online {
		x.Since = b.Since
	}
	return x
}

// wallView is the wall of pictures.
type wallView struct {
	Headline      string
	Board, Camera string
	All           bool // also detections without a picture
	Boards        []string
	Cameras       []string
	Shots         []shot
	Older, Newest string // links, "" where they lead nowhere
}

// filters are what a wall and the page of one of its pictures share in the URL.
func filters(q url.Values) (DetectionQuery, url.Values) {
	d := DetectionQuery{Board: q.Get("board"), Camera: q.Get("camera"), PicturesOnly: q.Get("all") == ""}
	keep := url.Values{}
	for _, k := range []string{"board", "camera", "all"} {
		if v := q.Get(k); v != "" {
			keep.Set(k, v)
		}
	}
	return d, keep
}

func (h *Handler) wall(ctx context.Context, p *page, tenant string, q url.Values, ov *Overview) error {
	dq, keep := filters(q)
	dq.Tenant, dq.Limit, dq.Before = tenant, wallShots+1, q.Get("before")
	v := &wallView{Board: dq.Board, Camera: dq.Camera, All: !dq.PicturesOnly}
	events, cams := uint64(0), 0
	for i := range ov.Boards {
		b := &ov.Boards[i]
		if len(b.Cameras) > 0 || b.Name == v.Board {
			v.Boards = append(v.Boards, b.Name)
		}
		for _, c := range b.Cameras {
			if v.Board != "" && v.Board != b.Name {
				continue
			}
			if !slices.Contains(v.Cameras, c.Name) {
				v.Cameras = append(v.Cameras, c.Name)
			}
			if v.Camera == "" || v.Camera == c.Name {
				events, cams = events+c.Events, cams+1
			}
		}
	}
	slices.Sort(v.Cameras)
	v.Headline = words.Count(events) + " events in the last hour on " + words.Plural(cams, "camera", "cameras")
	if cams == 0 {
		v.Headline = "No camera has seen anything yet"
	}
	p.Title, p.Data = "Detections", v
	var err error
	if v.Shots, err = h.shots(ctx, dq); err != nil {
		return err
	}
	if len(v.Shots) > wallShots {
		v.Shots = v.Shots[:wallShots]
		older := url.Values{"before": {v.Shots[wallShots-1].ID}}
		for k := range keep {
			older.Set(k, keep.Get(k))
		}
		v.Older = "/detections?" + older.Encode()
	}
	if dq.Before != "" {
		v.Newest = "/detections?" + keep.Encode()
	}
	for i := range v.Shots {
		if len(keep) > 0 {
			v.Shots[i].Link += "?" + keep.Encode()
		}
	}
	p.Shape("headline", v.Headline)
	p.Shape("wall", ids(v.Shots), v.Older)
	return nil
}

// detectionView is one detection.
type detectionView struct {
	shot
	Older, Newer, Wall string
	Latency            string
	Late               string
	Clock              string // of a time that is not exact
}

func (h *Handler) detection(ctx context.Context, p *page, tenant, id string, q url.Values) error {
	ss, err := h.shots(ctx, DetectionQuery{Tenant: tenant, ID: id, Limit: 1})
	if err != nil {
		return err
	}
	if len(ss) != 1 || ss[0].ID != id {
		return ErrNotFound
	}
	dq, keep := filters(q)
	v := &detectionView{shot: ss[0], Wall: "/detections"}
	v.Eager = true
	suffix := ""
	if len(keep) > 0 {
		suffix = "?" + keep.Encode()
		v.Wall += suffix
	}
	dq.Tenant, dq.Limit = tenant, 1
	for _, next := range []struct {
		before, after string
		link          *string
	}{{before: id, link: &v.Older}, {after: id, link: &v.Newer}} {
		dq.Before, dq.After = next.before, next.after
		if ss, err = h.shots(ctx, dq); err != nil {
			return err
		}
		if len(ss) > 0 && ss[0].ID != id {
			*next.link = ss[0].Link + suffix
		}
	}
	if us := v.Event.LatencyUs; us > 0 {
		v.Latency = words.Number(float64(us)/1000, 1) + "\u00a0ms from capture to detections"
	}
	switch v.Timed {
	case "estimated":
		v.Clock = "by the board's own clock, which was right then"
	case "unknown":
		v.Clock = "uncertain: the board's clock was not to be trusted and it was not connected"
	}
	if v.Replayed {
		v.Late = "came late, " + words.Span(v.Arrived.Sub(v.At)) + " after capture, once the link was back"
	}
	p.Title, p.Data = v.Board+" "+v.Event.Source, v
	return nil
}

// Bad tells whether a report is more than information.
func (r Report) Bad() string {
	switch r.Severity {
	case schema.SeverityAlarm:
		return "failing"
	case schema.SeverityWarn:
		return "degraded"
	}
	return "healthy"
}
