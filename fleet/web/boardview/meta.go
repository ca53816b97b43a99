// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package boardview

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"fulmar/fleet/access"
	"fulmar/fleet/web"
	"fulmar/fleet/web/words"
	"fulmar/schema/rest"
)

// Metas keeps what people say of boards.
type Metas interface {
	// Set replaces what is said of a board if its version is still ifVersion; else its
	// error wraps [web.ErrStale]. The error of a value that cannot be kept is a
	// *[web.Problem], and nothing was kept.
	Set(ctx context.Context, by access.Caller, board string, m rest.Meta, ifVersion int64) (rest.Meta, error)
}

// metaForm is the form of what people say of a board, as it was typed.
type metaForm struct {
	Site, Labels, Description, Lat, Lon, Accuracy, Power string

	Version int64
	Wrong   map[string]string // by field: what is wrong with it
	Problem string            // of all of it
	Edit    bool              // the person may change it
	Open    bool
	Facts   []words.Fact
}

// number writes one as people type it; 0 is nothing.
func number(f float64) string {
	if f == 0 {
		return ""
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}

// formOf fills the form in from what is kept.
func formOf(m *rest.Meta) metaForm {
	f := metaForm{Site: m.Site, Description: m.Description, Accuracy: number(m.LocationAccuracy), Power: number(m.PowerBudget), Version: m.Version}
	var labels []string
	for _, k := range slices.Sorted(maps.Keys(m.Labels)) {
		labels = append(labels, k+"="+m.Labels[k])
	}
	f.Labels = strings.Join(labels, "\n")
	if l := m.Location; l != nil {
		f.Lat, f.Lon = strconv.FormatFloat(l.Lat, 'f', -1, 64), strconv.FormatFloat(l.Lon, 'f', -1, 64)
	}
	add := func(name, text string) {
		if text != "" {
			f.Facts = append(f.Facts, words.Fact{Name: name, Text: text})
		}
	}
	add("Site", m.Site)
	add("About it", m.Description)
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		add("Label "+k, v)
	}
	if m.Location != nil {
		where := fmt.Sprintf("%.5f, %.5f", m.Location.Lat, m.Location.Lon)
		if m.LocationAccuracy > 0 {
			where += ", within " + words.Number(m.LocationAccuracy, 0) + "\u00a0m"
		}
		add("Place", where)
	}
	if m.PowerBudget > 0 {
		add("May draw", words.Quantity(m.PowerBudget, words.UnitWatts))
	}
	return f
}

// parse reads the form. What is wrong stands in Wrong.
func (f *metaForm) parse(v url.Values) (m rest.Meta) {
	f.Wrong = map[string]string{}
	line := func(k string) string { return strings.TrimSpace(strings.ReplaceAll(v.Get(k), "\r\n", "\n")) }
	f.Site, f.Labels, f.Description = line("site"), line("labels"), line("description")
	f.Lat, f.Lon, f.Accuracy, f.Power = line("lat"), line("lon"), line("accuracy"), line("power")
	f.Version, _ = strconv.ParseInt(v.Get("version"), 10, 64) // a wrong one is a stale one
	m.Site, m.Description = f.Site, f.Description
	for l := range strings.Lines(f.Labels) {
		if l = strings.TrimSpace(l); l == "" {
			continue
		}
		k, val, ok := strings.Cut(l, "=")
		k, val = strings.TrimSpace(k), strings.TrimSpace(val)
		if !ok || k == "" {
			f.Wrong["labels"] = "Each line is one label: name=value."
			continue
		}
		if m.Labels == nil {
			m.Labels = map[string]string{}
		}
		if _, twice := m.Labels[k]; twice {
			f.Wrong["labels"] = "The label " + k + " stands there twice."
		}
		m.Labels[k] = val
	}
	num := func(k, s string, low, high float64, want string) float64 {
		if s == "" {
			return 0
		}
		n, err := strconv.ParseFloat(strings.Replace(s, ",", ".", 1), 64)
		if err != nil || !(n >= low && n <= high) {
			f.Wrong[k] = want
		}
		return n
	}
	lat := num("lat", f.Lat, -90, 90, "Degrees from -90 to 90, as 48.13714.")
	lon := num("lon", f.Lon, -180, 180, "Degrees from -180 to 180, as 11.57540.")
	m.LocationAccuracy = num("accuracy", f.Accuracy, 0, 1e7, "Metres, as 25.")
	m.PowerBudget = num("power", f.Power, 0, 1e5, "Watts, as 25.")
	switch {
	case (f.Lat == "") != (f.Lon == ""):
		f.Wrong["lat"] = "Latitude and longitude go together: fill in both, or none."
	case f.Lat != "":
		m.Location = &rest.Location{Lat: lat, Lon: lon}
	case f.Accuracy != "":
		f.Wrong["accuracy"] = "Only with a place."
	}
	return m
}

// save keeps what a person says of a board.
func (h *views) save(ctx context.Context, p *web.Shown, r *http.Request) (string, error) {
	name := p.Value("board")
	var f metaForm
	m := f.parse(r.PostForm)
	again := func(problem string) (string, error) {
		f.Problem = problem
		if err := h.fill(ctx, p, &f); err != nil {
			return "", err
		}
		return "", web.ErrAgain
	}
	if len(f.Wrong) > 0 {
		return again("")
	}
	_, err := h.cfg.Metas.Set(ctx, p.Session.Caller(), name, m, f.Version)
	var no *web.Problem
	switch {
	case errors.As(err, &no):
		return again(no.What + ". " + no.Do)
	case err != nil:
		return "", err
	}
	return "/boards/" + url.PathEscape(name) + "#about", nil
}

// fill builds the page around a form that was sent.
func (h *views) fill(ctx context.Context, p *web.Shown, f *metaForm) error {
	if err := h.build(ctx, p); err != nil {
		return err
	}
	v := p.Data.(*boardView) //nolint:forcetypeassert // build has set it
	f.Facts, f.Edit, f.Open = v.About.Facts, true, true
	v.About = *f
	return nil
}
