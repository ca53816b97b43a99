// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package releases is the pages of releases: what boards can be updated to, who signed it,
// how it travels, which boards run it, and which patches are being made. What stands
// against a release comes first. Releases are brought with the command line, which holds
// the objects; the page says how.
package releases

import (
	"context"
	"embed"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"fulmar/fleet/access"
	"fulmar/fleet/web"
	"fulmar/fleet/web/form"
	"fulmar/fleet/web/live"
	"fulmar/fleet/web/words"
	"fulmar/schema/rest"
)

//go:embed templates
var files embed.FS

const (
	maxName = 64  // bytes of a release's name
	maxRows = 100 // releases in the list
	maxMiss = 20  // missing objects that are shown
)

// Releases is what the pages need of the releases.
type Releases interface {
	List(ctx context.Context, by access.Caller) ([]rest.Release, error)
	Get(ctx context.Context, by access.Caller, name string) (*rest.Release, error)
	Complete(ctx context.Context, by access.Caller, name string) (*rest.Release, error)
	Remove(ctx context.Context, by access.Caller, name string) error
}

// Config shapes the pages.
type Config struct {
	Releases Releases
	// Problem puts an error of Releases into words.
	Problem form.Explain
}

type pages struct{ cfg Config }

// Pages gives the pages of releases.
func Pages(cfg Config) []web.Page {
	p := &pages{cfg}
	view := func(name string, build func(context.Context, *web.Shown) error) *web.View {
		return &web.View{Name: "rel-" + name, Files: form.With(files), Templates: []string{form.Pieces, "templates/" + name + ".html"}, Assets: form.Assets(), Build: build}
	}
	return []web.Page{
		{Tab: "Releases", Path: "/releases", Right: rest.BoardsRead, View: view("list", p.list)},
		{Tab: "Releases", Path: "/releases/{release}", Right: rest.BoardsRead, View: view("one", p.one), Act: p.act, ActRight: rest.ReleasesWrite},
	}
}

// listView is the list of all releases.
type listView struct {
	Headline string
	Rows     []row
	More     int
	Write    bool
}

// row is one release in the list.
type row struct {
	Name, Word, Tone, Say, What, Size, Boards, Who string
	Since                                          any
}

func (p *pages) list(ctx context.Context, s *web.Shown) error {
	all, err := p.cfg.Releases.List(ctx, s.Session.Caller())
	if err != nil {
		return err
	}
	v := &listView{Headline: headline(all), Write: s.May(rest.ReleasesWrite)}
	slices.SortStableFunc(all, func(a, b rest.Release) int { return rank(&a) - rank(&b) })
	if len(all) > maxRows {
		v.More, all = len(all)-maxRows, all[:maxRows]
	}
	shape := []any{v.Headline, v.More}
	for i := range all {
		r := newRow(s.Sheet, &all[i])
		v.Rows = append(v.Rows, r)
		shape = append(shape, r.Name, r.Word, r.Say, r.Boards)
	}
	s.Shape("verdict", v.Headline)
	s.Shape("rows", shape...)
	s.Title, s.Data = v.Headline, v
	return nil
}

// rank puts first what somebody has to look at.
func rank(r *rest.Release) int {
	switch {
	case !r.Trusted:
		return 0
	case r.State != rest.ReleaseReady || len(r.Missing) > 0:
		return 1
	}
	return 2
}

func headline(all []rest.Release) string {
	stale, part := 0, 0
	for i := range all {
		switch rank(&all[i]) {
		case 0:
			stale++
		case 1:
			part++
		}
	}
	switch {
	case len(all) == 0:
		return "No release is here yet"
	case stale > 0:
		return words.Plural(stale, "release is", "releases are") + " refused by boards"
	case part > 0:
		return words.Plural(part, "release is", "releases are") + " not complete"
	}
	return words.Plural(len(all), "release can", "releases can") + " be rolled out"
}

// standing says how a release stands: its word, its tone, and the sentence.
func standing(r *rest.Release) (word, tone, say string) {
	switch rank(r) {
	case 0:
		return "refused", "failing", "The key set in force does not hold the keys that signed it any more: boards refuse it. Sign it anew under another name."
	case 1:
		return "incomplete", "degraded", share(r.Have, r.Bytes) + " of " + size(r.Bytes) + " is here. Go on with the upload: what came is kept."
	}
	if r.Boards == 0 {
		return "ready", "healthy", "No board runs it."
	}
	return "ready", "healthy", words.Plural(r.Boards, "board runs", "boards run") + " it."
}

func newRow(s *live.Sheet, r *rest.Release) row {
	out := row{Name: r.Release, Size: size(r.Bytes), Boards: strconv.Itoa(r.Boards), Who: r.Author, Since: s.Ago(r.Release+"|since", r.Created)}
	out.Word, out.Tone, out.Say = standing(r)
	var names []string
	for i := range r.Components {
		names = append(names, r.Components[i].Name+" "+r.Components[i].Version)
	}
	out.What = strings.Join(names, ", ")
	return out
}

func size(n int64) string { return words.Quantity(float64(n), words.UnitBytes) }

func share(part, whole int64) string {
	if whole <= 0 {
		return "0\u00a0%"
	}
	if part > 0 && part < whole { // never a whole number that is not true
		return strconv.FormatFloat(min(99, max(1, float64(part)/float64(whole)*100)), 'f', 0, 64) + "\u00a0%"
	}
	return strconv.FormatInt(part*100/whole, 10) + "\u00a0%"
}

func (p *pages) one(ctx context.Context, s *web.Shown) error { return p.build(ctx, s, form.New()) }

func (p *pages) build(ctx context.Context, s *web.Shown, f *form.Form) error {
	name := s.Value("release")
	if len(name) > maxName {
		return web.ErrNotFound
	}
	r, err := p.cfg.Releases.Get(ctx, s.Session.Caller(), name)
	if err != nil {
		return p.cfg.Problem.Gone(err)
	}
	v := newOne(s, r, f)
	s.Title, s.Data = "Release "+r.Release, v
	return nil
}

func (p *pages) act(ctx context.Context, s *web.Shown, r *http.Request) (string, error) {
	f, err := form.Read(r)
	if err != nil {
		return "", err
	}
	name, by := s.Value("release"), s.Session.Caller()
	next := "/releases"
	switch f.Raw("do") {
	case "remove":
		err = p.cfg.Releases.Remove(ctx, by, name)
	case "complete":
		_, err = p.cfg.Releases.Complete(ctx, by, name)
		next += "/" + url.PathEscape(name)
	default:
		f.Refuse("Nothing was done: the form asks for nothing that can be done here.", "Press one of the buttons.")
	}
	if err == nil && f.OK() {
		return next, nil
	}
	if err != nil {
		var ok bool
		if s.Code, ok = p.cfg.Problem.Refused(f, err, func(string) string { return "" }); !ok {
			return "", p.cfg.Problem.Gone(err)
		}
	}
	if err := p.build(ctx, s, f); err != nil {
		return "", err
	}
	return "", web.ErrAgain
}
