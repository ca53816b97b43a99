// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package board

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/cmd/fulmar/remote"
	"fulmar/cmd/fulmar/show"
	"fulmar/internal/cli"
	"fulmar/schema/rest"
)

const aboutSet = `Either one BOARD, or all that -q matches. Only what is given changes; an empty
value takes it away: --site "", --label line=. A board never changes these itself.`

// metaFlags are what board set writes. given tells which options stood there.
type metaFlags struct {
	given           func(name string) bool
	site, text      string
	labels          []string
	at              string
	accuracy, power float64
}

func registerMeta(c *cobra.Command, f *boardFlags) {
	m, fl := &f.meta, c.Flags()
	fl.StringVarP(&f.query, "query", "q", "", "all boards that it matches")
	fl.StringVar(&m.site, "site", "", "where it is: boards of one site are watched and updated with regard to each other")
	fl.StringArrayVar(&m.labels, "label", nil, "a label, or with nothing after = none any more")
	fl.StringVar(&m.text, "description", "", "what it is for")
	fl.StringVar(&m.at, "location", "", "degrees north and east")
	fl.Float64Var(&m.accuracy, "edge-location-accuracy", 0, "metres around the location")
	fl.Float64Var(&m.power, "power-budget-watt", 0, "what it may draw")
	fl.BoolVar(&f.dry, "dry-run", false, "say what would change, and change nothing")
	for flag, value := range map[string]string{
		"query": "QUERY", "site": "NAME", "label": "KEY=VALUE", "description": "TEXT", "location": "LAT,LON", "edge-location-accuracy": "METRES", "power-budget-watt": "WATTS",
	} {
		cli.Takes(c, flag, value)
	}
}

// over lays what was given over what a board has.
func (m *metaFlags) over(old rest.Meta) (rest.Meta, error) {
	next := old
	next.Labels = maps.Clone(old.Labels)
	if m.given("site") {
		next.Site = m.site
	}
	if m.given("description") {
		next.Description = m.text
	}
	if m.given("edge-location-accuracy") {
		next.LocationAccuracy = m.accuracy
	}
	if m.given("power-budget-watt") {
		next.PowerBudget = m.power
	}
	if m.given("location") {
		next.Location = nil
		if m.at != "" {
			lat, lon, ok := strings.Cut(m.at, ",")
			a, e1 := strconv.ParseFloat(strings.TrimSpace(lat), 64)
			o, e2 := strconv.ParseFloat(strings.TrimSpace(lon), 64)
			if !ok || e1 != nil || e2 != nil {
				return next, fmt.Errorf("%w: --location %q is not LAT,LON in degrees, as 48.1374,11.5755", cli.ErrUsage, m.at)
			}
			next.Location = &rest.Location{Lat: a, Lon: o}
		}
	}
	for _, l := range m.labels {
		key, value, ok := strings.Cut(l, "=")
		switch {
		case !ok || key == "":
			return next, fmt.Errorf("%w: --label %q is not KEY=VALUE", cli.ErrUsage, l)
		case value == "":
			delete(next.Labels, key)
		default:
			if next.Labels == nil {
				next.Labels = map[string]string{}
			}
			next.Labels[key] = value
		}
	}
	return next, nil
}

func boardSet(ctx context.Context, fl *remote.Client, f *boardFlags, _, stderr io.Writer) error {
	if (len(f.words) == 1) == (f.query != "") {
		return fmt.Errorf("%w: which boards? one BOARD, or -q QUERY", cli.ErrUsage)
	}
	if _, err := f.meta.over(rest.Meta{}); err != nil {
		return err
	}
	names := f.words
	if f.query != "" {
		all, err := remote.All[rest.BoardSummary](ctx, fl, "/api/v1/boards", url.Values{"q": {f.query}}, 0)
		if err != nil {
			return err
		}
		names = nil
		for _, b := range all {
			names = append(names, b.Board)
		}
		if len(names) == 0 {
			return fault.New(fault.NoBoard, "no board matches %q", f.query)
		}
	}
	for i, name := range names {
		if err := setOne(ctx, fl, f, name); err != nil {
			return fmt.Errorf("%s (%d of %d are done): %w", name, i, len(names), err)
		}
	}
	word := "written"
	if f.dry {
		word = "would be written; nothing was changed"
	}
	fmt.Fprintf(stderr, "%d boards: %s\n", len(names), word)
	return nil
}

func setOne(ctx context.Context, fl *remote.Client, f *boardFlags, name string) error {
	path := "/api/v1/boards/" + url.PathEscape(name) + "/meta"
	var old rest.Meta
	etag, err := fl.Do(ctx, remote.Request{Path: path}, &old)
	if err != nil {
		return err
	}
	next, err := f.meta.over(old)
	if err != nil {
		return err
	}
	r := remote.Request{Method: http.MethodPut, Path: path, Body: next, IfMatch: etag}
	if f.dry {
		r.Query = url.Values{"dry_run": {"true"}}
	}
	_, err = fl.Do(ctx, r, nil)
	return remote.Unsure(err)
}

// meta writes what people said of a board.
func writeMeta(w io.Writer, m rest.Meta) {
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "  %-10s %s\n", name, show.Clean(text))
		}
	}
	line("site", m.Site)
	line("for", m.Description)
	var labels []string
	for k, v := range m.Labels {
		labels = append(labels, k+"="+v)
	}
	line("labels", strings.Join(sorted(labels), "  "))
	if m.Location != nil {
		at := fmt.Sprintf("%.5f, %.5f", m.Location.Lat, m.Location.Lon)
		if m.LocationAccuracy > 0 {
			at += fmt.Sprintf(" within %g m", m.LocationAccuracy)
		}
		line("location", at)
	}
	if m.PowerBudget > 0 {
		line("power", fmt.Sprintf("at most %g W", m.PowerBudget))
	}
}
