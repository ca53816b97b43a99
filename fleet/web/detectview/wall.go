// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package detectview is what the cameras see: a wall of pictures, newest first, that
// filters narrow, one detection with why it is one, and the pictures themselves.
package detectview

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"fulmar/fleet/query"
	"fulmar/fleet/query/boards"
	"fulmar/fleet/web"
	"fulmar/fleet/web/words"
	"fulmar/schema/rest"
)

const (
	wallShots = 24 // pictures on one page of the wall
	// scanPage and maxScan bound what one page reads to find pictures that a filter lets
	// through: filters by class, model and confidence look into each detection.
	scanPage = 200
	maxScan  = 4000
	// maxNamed bounds the boards and cameras that a filter lists; the query finds all.
	maxNamed = 500
	// maxWord bounds a filter's value, in bytes: the longest name of the wire.
	maxWord = 128
	// histogramHours is how far back the bars go: a day and its night.
	histogramHours = 24
)

// Counter counts detections by the hour. A [web.Source] that is one gets a histogram.
type Counter interface {
	// Hours counts the detections of a query by hour, at most [web.MaxCounted] of the
	// newest; more tells that there are others, older than these. ID, Before, After and
	// Limit of the query are ignored.
	Hours(ctx context.Context, q web.DetectionQuery) (hours []web.Hour, more bool, err error)
}

// Config is what the pages of detections are made from.
type Config struct{ Source web.Source }

type views struct{ cfg Config }

// Pages gives the wall, one detection, and pictures.
func Pages(cfg Config) []web.Page {
	v := &views{cfg}
	return []web.Page{
		{Tab: "Detections", Path: "/detections", Right: rest.BoardsRead, View: &web.View{Name: "detections", Templates: []string{"templates/detections.html"}, Build: v.wall}},
		{Tab: "Detections", Path: "/detections/{id...}", Right: rest.BoardsRead, View: &web.View{Name: "detection", Templates: []string{"templates/detection.html"}, Build: v.one}},
		{Path: "/pictures/{board}/{blob}", Right: rest.BoardsRead, Serve: v.picture},
	}
}

// wallView is the wall of pictures.
type wallView struct {
	Headline string
	F        filter
	Wrong    string // what a filter cannot be read as
	Narrow   bool   // anything is filtered
	Boards   []string
	Sites    []string
	Cameras  []string
	Models   []string
	Shots    []web.Shot
	Looked   string // how far back was looked, where the filter let little through
	Older    string // links, "" where they lead nowhere
	Newest   string
	Bars     bars
	Empty    string // why nothing is shown
}

// names of the filters in the address, in the order of the form.
func filterNames() []string {
	return []string{"board", "site", "camera", "model", "class", "score", "from", "to", "q", "all"}
}

// filter is what a wall and the page of one of its pictures share in the address.
type filter struct {
	Board, Site, Camera, Model, Class, Score, From, To, Q string

	All  bool // also detections without a picture
	keep url.Values

	least    float32
	from, to time.Time
	query    *query.Query
}

// read takes the filters from an address; wrong says which cannot be read.
func read(q url.Values, zone *time.Location) (f filter, wrong string) {
	f.keep = url.Values{}
	get := func(k string) string {
		v := strings.TrimSpace(q.Get(k))
		if k != "q" && len(v) > maxWord {
			wrong = "A filter is too long."
			return ""
		}
		if v != "" {
			f.keep.Set(k, v)
		}
		return v
	}
	f.Board, f.Site, f.Camera, f.Model, f.Class = get("board"), get("site"), get("camera"), get("model"), get("class")
	f.Score, f.From, f.To, f.Q, f.All = get("score"), get("from"), get("to"), get("q"), get("all") != ""
	if f.Score != "" {
		n, err := strconv.Atoi(strings.TrimSuffix(f.Score, "%"))
		if err != nil || n < 0 || n > 100 {
			wrong = "The confidence is a whole number from 0 to 100."
		}
		f.least = float32(n) / 100
	}
	moment := func(s string) (t time.Time) {
		if s == "" {
			return t
		}
		for _, form := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05", "2006-01-02 15:04", time.DateOnly} {
			if t, err := time.ParseInLocation(form, s, zone); err == nil {
				return t
			}
		}
		wrong = "A time is written as 2026-11-26T14:00."
		return t
	}
	f.from, f.to = moment(f.From), moment(f.To)
	var err error
	if f.query, err = query.Parse(f.Q); err != nil {
		wrong = words.Sentence(err.Error()) + "."
	}
	return f, wrong
}

// lets tells whether a detection passes what only its content tells. Where class and
// confidence are both given, one box must have both.
func (f *filter) lets(d *web.Detection) bool {
	if f.Model != "" && d.Event.Model != f.Model {
		return false
	}
	if f.Class == "" && f.least == 0 {
		return true
	}
	for _, b := range d.Event.Boxes {
		name := d.Event.Labels[b.Class]
		if name == "" {
			name = "class " + strconv.Itoa(int(b.Class))
		}
		if b.Score >= f.least && (f.Class == "" || strings.EqualFold(name, f.Class)) {
			return true
		}
	}
	return false
}

// deep tells whether detections must be looked into.
func (f *filter) deep() bool { return f.Model != "" || f.Class != "" || f.least > 0 }

// ask is the query to the source. Boards is nil where all boards are asked for; none
// tells that no board is.
func (f *filter) ask(tenant string, ov *web.Overview) (d web.DetectionQuery, none bool) {
	d = web.DetectionQuery{Tenant: tenant, Board: f.Board, Camera: f.Camera, PicturesOnly: !f.All, From: f.from, To: f.to}
	if f.Site == "" && f.query.All() {
		return d, false
	}
	d.Boards = []string{}
	for _, b := range boards.Select(ov, f.query) {
		if (f.Site == "" || b.Meta.Site == f.Site) && (f.Board == "" || b.Name == f.Board) {
			d.Boards = append(d.Boards, b.Name)
		}
	}
	return d, len(d.Boards) == 0
}

// find reads detections that the filter lets through, at most n of them, from where q
// begins. Next is where to go on, "" at the end; looked how many were read.
func (h *views) find(ctx context.Context, f *filter, q web.DetectionQuery, n int) (out []web.Detection, next string, looked int, err error) {
	back := q.After == ""
	for looked < maxScan {
		q.Limit = n - len(out) + 1
		if f.deep() {
			q.Limit = scanPage
		}
		list, err := h.cfg.Source.Detections(ctx, q)
		if err != nil {
			return nil, "", looked, err
		}
		for i := range list {
			looked++
			if !f.lets(&list[i]) {
				next = list[i].ID
				continue
			}
			if len(out) == n {
				return out, out[n-1].ID, looked, nil
			}
			out = append(out, list[i])
			next = list[i].ID
		}
		if len(list) < q.Limit {
			return out, "", looked, nil
		}
		if q.Before, q.After = next, ""; !back {
			q.Before, q.After = "", next
		}
	}
	return out, next, looked, nil
}

func (h *views) wall(ctx context.Context, p *web.Shown) error {
	ov, err := h.cfg.Source.Overview(ctx, p.Session.Tenant)
	if err != nil {
		return err
	}
	p.Moment(ov.At)
	v := &wallView{}
	p.Title, p.Data = "Detections", v
	v.F, v.Wrong = read(p.Query, p.At.Location())
	v.Narrow = len(v.F.keep) > 0
	if v.Wrong != "" {
		v.F.query = nil
	}
	quiet := v.about(ov)
	link := func(set, value string) string {
		u := url.Values{}
		for k := range v.F.keep {
			u.Set(k, v.F.keep.Get(k))
		}
		if u.Set(set, value); value == "" {
			u.Del(set)
		}
		if len(u) == 0 {
			return "/detections"
		}
		return "/detections?" + u.Encode()
	}
	dq, none := v.F.ask(p.Session.Tenant, ov)
	if v.Wrong == "" && !none {
		dq.Before = p.Query.Get("before")
		found, next, looked, err := h.find(ctx, &v.F, dq, wallShots)
		if err != nil {
			return err
		}
		for i := range found {
			s := web.NewShot(found[i])
			if v.Narrow {
				s.Link += "?" + v.F.keep.Encode()
			}
			v.Shots = append(v.Shots, s)
		}
		if next != "" {
			v.Older = link("before", next)
			if looked >= maxScan && len(found) < wallShots {
				v.Looked = words.Count(uint64(looked)) + " detections were looked through"
			}
		}
		if dq.Before != "" {
			v.Newest = link("", "")
		}
		if c, ok := h.cfg.Source.(Counter); ok && p.Want("bars") {
			if err := v.count(ctx, c, dq, p.At, link); err != nil {
				return err
			}
		}
	}
	if len(v.Shots) == 0 {
		v.Empty = quiet
	}
	p.Shape("headline", v.Headline)
	p.Shape("wall", web.ShotIDs(v.Shots), v.Older, v.Wrong, v.Empty)
	return nil
}

// about counts the cameras, lists what can be filtered by, and says what an empty wall
// means: quiet and broken are two things.
func (v *wallView) about(ov *web.Overview) (quiet string) {
	events, cams, away, sites := uint64(0), 0, 0, map[string]bool{}
	var last time.Time
	add := func(list *[]string, s string) {
		if s != "" && len(*list) < maxNamed && !slices.Contains(*list, s) {
			*list = append(*list, s)
		}
	}
	for i := range ov.Boards {
		b := &ov.Boards[i]
		add(&v.Sites, b.Meta.Site)
		if len(b.Cameras) > 0 || b.Name == v.F.Board {
			if len(v.Boards) < maxNamed {
				v.Boards = append(v.Boards, b.Name)
			}
		}
		mine := (v.F.Board == "" || v.F.Board == b.Name) && (v.F.Site == "" || v.F.Site == b.Meta.Site) && (v.F.query.All() || v.F.query.Match(boards.Of(b), ov.At))
		if !mine {
			continue
		}
		for _, c := range b.Cameras {
			add(&v.Cameras, c.Name)
			add(&v.Models, c.Model)
			if v.F.Camera != "" && v.F.Camera != c.Name {
				continue
			}
			events, cams, sites[b.Meta.Site] = events+c.Events, cams+1, true
			if b.State == web.StateUnreachable || b.State == web.StateFailing {
				away++
			}
			if c.Last.After(last) {
				last = c.Last
			}
		}
	}
	for _, l := range []*[]string{&v.Sites, &v.Cameras, &v.Models} {
		slices.Sort(*l)
	}
	v.Headline = words.Count(events) + " events in the last hour on " + words.Plural(cams, "camera", "cameras")
	if len(sites) > 1 {
		v.Headline += " at " + words.Plural(len(sites), "site", "sites")
	}
	if cams == 0 {
		v.Headline = "No camera has seen anything yet"
		return "Pictures appear here as soon as a camera sends one."
	}
	switch quiet = fmt.Sprintf("The newest event of %s came %s.", words.Plural(cams, "camera", "cameras"), words.Age(ov.At.Sub(last))); {
	case away == cams:
		quiet += " None of their boards is well: this is broken, not quiet."
	case away > 0:
		quiet += fmt.Sprintf(" %s on boards that are not well; the others are delivering, and quiet.", words.Plural(away, "is", "are"))
	default:
		quiet += " All their boards are well: it is quiet."
	}
	return quiet
}
