// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleetview

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"fulmar/fleet/query"
	"fulmar/fleet/query/boards"
	"fulmar/fleet/web"
	"fulmar/schema/rest"
)

const (
	// readTimeout bounds one read of the source.
	readTimeout = 10 * time.Second
	// maxCompletions bounds what is offered while a query is typed.
	maxCompletions = 12
)

// csv gives all boards of a query as a table for other programs, in the page's order.
func (h *views) csv(w http.ResponseWriter, r *http.Request, s web.Session) error {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	ov, err := h.cfg.Source.Overview(ctx, s.Tenant)
	if err != nil {
		return err
	}
	list, _, err := chosen(ov, r.URL.Query())
	if err != nil {
		return queryProblem(err)
	}
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="boards.csv"`)
	c := csv.NewWriter(w)
	_ = c.Write([]string{"name", "site", "state", "cause", "since", "last_seen", "release", "cpu_percent", "memory_percent", "hottest_celsius", "cameras", "events_last_hour"}) // Flush tells
	when := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format("2006-01-02T15:04:05.000Z")
	}
	num := func(r *web.Reading) string {
		if r == nil {
			return ""
		}
		return strconv.FormatFloat(r.Value, 'f', 1, 64)
	}
	for _, b := range list {
		_ = c.Write([]string{
			text(b.Name), text(b.Meta.Site), b.State.Word(), text(b.Cause), when(b.Since), when(b.LastSeen), text(b.Release),
			num(good(b, "cpu.load_percent")), num(good(b, "memory.used_percent")), num(hottest(b)), strconv.Itoa(len(b.Cameras)), strconv.FormatUint(events(b), 10),
		}) // Flush tells
	}
	c.Flush()
	return nil // the reader has gone: nobody is left to tell
}

// text keeps a spreadsheet from running what a board or a person wrote as a formula.
func text(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}

// queryProblem says of a query what is wrong with it.
func queryProblem(err error) error {
	var wrong *query.Error
	if !errors.As(err, &wrong) {
		return err
	}
	do := wrong.Do
	if do == "" {
		do = "Go back and change the query there."
	}
	return &web.Problem{Code: http.StatusBadRequest, What: "The query cannot be read: column " + strconv.Itoa(wrong.Column) + ", " + wrong.What, Do: do}
}

// reply is what check says of a query: how many boards it gives, or where it is wrong.
type reply struct {
	Count    *int     `json:"count,omitempty"`
	Column   int      `json:"column,omitempty"` // of the first wrong character, from 1
	What     string   `json:"what,omitempty"`
	Do       string   `json:"do,omitempty"`
	Hint     string   `json:"hint,omitempty"` // no error, but likely a slip
	Complete []string `json:"complete,omitempty"`
}

// check counts the boards of a query while it is typed.
func (h *views) check(w http.ResponseWriter, r *http.Request, s web.Session) error {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	ov, err := h.cfg.Source.Overview(ctx, s.Tenant)
	if err != nil {
		return err
	}
	q := r.URL.Query().Get("q")
	known := func(f string) []string { return boards.Known(ov, f) }
	out := reply{Complete: query.Complete(q, known, maxCompletions)}
	parsed, err := query.Parse(q)
	var wrong *query.Error
	switch {
	case errors.As(err, &wrong):
		out.Column, out.What, out.Do = wrong.Column, wrong.What, wrong.Do
	case err != nil:
		return err
	default:
		n := len(boards.Select(ov, parsed))
		out.Count = &n
		if hints := parsed.Hints(known); len(hints) > 0 {
			out.Hint = hints[0].What
			if hints[0].Do != "" {
				out.Hint += "; " + hints[0].Do
			}
		}
	}
	return answer(w, out)
}

// dot is a board of the drawing: its name and, where it is not healthy, how it is.
type dot struct {
	Name string `json:"n"`
	How  string `json:"h,omitempty"`
}

// names gives the boards of a site in the order that they are drawn in.
func (h *views) names(w http.ResponseWriter, r *http.Request, s web.Session) error {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	ov, err := h.cfg.Source.Overview(ctx, s.Tenant)
	if err != nil {
		return err
	}
	names, by := bySite(ov)
	at, err := strconv.Atoi(r.URL.Query().Get("site"))
	if err != nil || at < 0 || at >= len(names) {
		return web.ErrNotFound
	}
	list := by[names[at]]
	out := make([]dot, len(list))
	for i, b := range list {
		out[i].Name = b.Name
		if b.State != web.StateHealthy {
			out[i].How = string(b.State)
			if b.Cause != "" {
				out[i].How += ": " + b.Cause
			}
		}
	}
	return answer(w, out)
}

func answer(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the reader has gone: nobody is left to tell
	return nil
}

// keep saves the query of a form under a name, or forgets one.
func (h *views) keep(ctx context.Context, p *web.Shown, r *http.Request) (string, error) {
	name, q := strings.TrimSpace(r.PostForm.Get("name")), r.PostForm.Get("q")
	if r.PostForm.Get("do") == "forget" {
		return to(url.Values{}), h.cfg.Saved.RemoveQuery(ctx, p.Session.Caller(), name)
	}
	saved, err := h.cfg.Saved.SaveQuery(ctx, p.Session.Caller(), rest.SavedQuery{Name: name, Query: q})
	if err != nil {
		return "", queryProblem(err)
	}
	return to(url.Values{"q": {saved.Query}}), nil
}
