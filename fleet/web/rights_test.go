// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/access"
	. "fulmar/fleet/web"
	"fulmar/fleet/web/views"
	"fulmar/schema/rest"
)

// TestEachRole: what each role may see and do on the pages of fleet, board and
// detections; and what it may not do is not offered either.
func TestEachRole(t *testing.T) {
	t.Parallel()
	for _, role := range []rest.Role{rest.Viewer, rest.Operator, rest.Releaser, rest.Admin, "nobody"} {
		s := newSite(t)
		k := newKeeper(time.Now())
		s.with(views.Config{Source: s.src, Keeper: k, Saved: k, Metas: s.src})
		s.auth.role = role
		reads, writes, admits := role != "nobody", role.Rights().Has(rest.BoardsWrite), role == rest.Admin
		for _, u := range []string{"/", "/boards/dock-0001", "/boards/dock-0001/series", "/detections", "/detections/dock-0001/event/00c0ffee00c0ffee/3", "/pictures/dock-0001/cam0-1.jpg", "/boards.csv", "/fleet/check?q=a", "/fleet/dots?site=0"} {
			if w := s.get(u); (w.Code == http.StatusOK) != reads || !reads && w.Code != http.StatusForbidden {
				t.Errorf("%s of %s: %d", role, u, w.Code)
			}
		}
		for _, a := range []struct {
			path, form string
			may        bool
		}{
			{"/boards/dock-0001", "site=hall-9&version=0", writes},
			{"/fleet/queries", "name=a&q=dock", writes},
			{"/requests/4", "decision=approve", admits},
			{"/boards/dock-0001/revoke", "confirm=dock-0001", admits},
			{"/boards/dock-0001/forget", "confirm=dock-0001", admits},
		} {
			if w := s.ask(http.MethodPost, a.path, a.form); (w.Code == http.StatusSeeOther) != a.may || !a.may && w.Code != http.StatusForbidden {
				t.Errorf("%s posts to %s: %d", role, a.path, w.Code)
			}
		}
		if !admits && len(k.did) > 0 || (s.src.boards[0].Meta.Site == "hall-9") != writes || (len(k.kept) == 1) != writes {
			t.Errorf("%s did %q, %q, %v", role, k.did, s.src.boards[0].Meta.Site, k.kept)
		}
		for _, offer := range []struct {
			path, has string
			may       bool
		}{
			{"/boards/dock-0001", `id="edit"`, writes},
			{"/boards/dock-0001", `id="revoke"`, admits},
			{"/boards/dock-0002", "Asks to join under this name", admits},
			{"/", "Boards that ask to join", admits},
			{"/?q=dock", "Save this query", writes},
			{"/detections", `href="/detections" aria-current="page"`, reads},
		} {
			if got := strings.Contains(s.get(offer.path).Body.String(), offer.has); got != offer.may {
				t.Errorf("%s is offered %q: %v", role, offer.has, got)
			}
		}
	}
}

// TestPages: what another package brings is shown, refused and answered as it says.
func TestPages(t *testing.T) {
	t.Parallel()
	mk := func(tab, path string, right rest.Right) Page {
		return Page{
			Tab: tab, Path: path, Right: right, View: &View{Name: "error", Templates: []string{"templates/error.html"}, Build: func(_ context.Context, p *Shown) error {
				p.Title, p.Data = "t", map[string]string{"What": tab + " " + p.Value("id"), "Do": p.Query.Get("x")}
				return nil
			}},
			Act: func(_ context.Context, p *Shown, r *http.Request) (string, error) {
				switch r.PostForm.Get("do") {
				case "again":
					p.Title, p.Data = "t", map[string]string{"What": "wrong field", "Do": "mend it"}
					return "", ErrAgain
				case "problem":
					return "", &Problem{Code: http.StatusTeapot, What: "a teapot", Do: "brew"}
				case "stale":
					return "", fmt.Errorf("x: %w", ErrStale)
				case "forbidden":
					return "", fmt.Errorf("x: %w", access.ErrNotAllowed)
				case "fault":
					return "", errors.New("disk on fire")
				}
				return r.PostForm.Get("next"), nil
			}, ActRight: rest.UsersWrite,
		}
	}
	auth := &door{open: true, known: true, role: rest.Operator}
	pages := []Page{mk("Fleet", "/", ""), mk("Audit", "/audit", rest.AuditRead), mk("Audit", "/audit/{id}", rest.AuditRead), mk("Audit", "/audit/new", rest.AuditRead), mk("People", "/people", rest.UsersWrite), mk("Files", "/files/{path...}", "")}
	h, err := New(Config{Pages: pages}, auth)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, h: h, auth: auth}
	has := func(u string, code int, want ...string) {
		t.Helper()
		w := s.get(u)
		if w.Code != code {
			t.Errorf("%s: %d, want %d", u, w.Code, code)
		}
		for _, x := range want {
			if out, no := strings.CutPrefix(x, "!"); strings.Contains(w.Body.String(), out) == no {
				t.Errorf("%s: %q", u, x)
			}
		}
	}
	has("/audit?x=%3Cb%3E", 200, "Audit ", "&lt;b&gt;", `href="/audit" aria-current="page"`, "!/people")
	has("/audit/a%2Fb", 200, "Audit a/b")
	has("/audit/new", 200, "Audit ")
	has("/files/a/b%20c/d", 200, "Files")
	has("/people", 403, "Your role may not do this")
	has("/live?view=/people", 404)
	auth.role = rest.Admin
	has("/people", 200, `href="/people"`)
	for do, code := range map[string]int{"again": 422, "problem": 418, "stale": 409, "forbidden": 403, "fault": 503, "": 303} {
		w := s.ask(http.MethodPost, "/audit", url.Values{"do": {do}, "next": {"/audit/1"}}.Encode())
		if w.Code != code || strings.Contains(w.Body.String(), "fire") {
			t.Errorf("%q: %d, want %d", do, w.Code, code)
		}
	}
	if w := s.ask(http.MethodPost, "/audit", "next=//evil.example"); w.Header().Get("Location") != "/" {
		t.Errorf("a form leads to %q", w.Header().Get("Location"))
	}
	if w := s.ask(http.MethodPost, "/audit", "x="+strings.Repeat("y", MaxForm)); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("a large form: %d", w.Code)
	}
	auth.role = rest.Operator
	if w := s.ask(http.MethodPost, "/audit", "do=again"); w.Code != http.StatusForbidden {
		t.Errorf("an act without its right: %d", w.Code)
	}
	if _, err := New(Config{Pages: append(pages, mk("x", "/audit", ""))}, auth); err == nil {
		t.Error("two pages share a path")
	}
}

// TestFilters narrows the wall by what the boards, the times and the pictures are.
func TestFilters(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.src.boards[0].Meta.Site, s.src.boards[2].Meta.Site = "hall-4", "hall 5"
	count := func(q url.Values) int {
		return strings.Count(s.get("/detections?"+q.Encode()).Body.String(), `class="tile"`)
	}
	all := count(nil)
	for _, c := range []struct {
		q    url.Values
		some bool
		only string
	}{
		{url.Values{"site": {"hall-4"}}, true, "dock-0001"},
		{url.Values{"site": {"hall 5"}}, true, "dock-0003"},
		{url.Values{"site": {"nowhere"}}, false, ""},
		{url.Values{"q": {"state=degraded"}}, true, "dock-0003"},
		{url.Values{"q": {"site=nowhere"}}, false, ""},
		{url.Values{"camera": {"yard"}}, true, "dock-0001"},
		{url.Values{"class": {"Tube"}}, true, ""},
		{url.Values{"class": {"whale"}}, false, ""},
		{url.Values{"model": {"parcels@1"}}, true, ""},
		{url.Values{"model": {"parcels@2"}}, false, ""},
		{url.Values{"score": {"100"}}, false, ""},
		{url.Values{"from": {fixed().Add(-2 * time.Minute).Format("2006-01-02T15:04")}}, true, ""},
		{url.Values{"to": {"2020-01-01T00:00"}}, false, ""},
	} {
		body := s.get("/detections?" + c.q.Encode()).Body.String()
		n := strings.Count(body, `class="tile"`)
		if (n > 0) != c.some || n > all {
			t.Errorf("%v: %d of %d", c.q, n, all)
		}
		if c.only != "" && strings.Count(body, "<b>"+c.only+"</b>") != n {
			t.Errorf("%v shows others than %s", c.q, c.only)
		}
		if !c.some && (!strings.Contains(body, "Clear the filters") || !strings.Contains(body, "it is quiet") && !strings.Contains(body, "No camera") && !strings.Contains(body, "not well")) {
			t.Errorf("%v: nothing says why it is empty", c.q)
		}
	}
	for _, bad := range []url.Values{{"score": {"many"}}, {"from": {"yesterday"}}, {"q": {"sate=x"}}, {"class": {strings.Repeat("x", 200)}}} {
		if body := s.get("/detections?" + bad.Encode()).Body.String(); !strings.Contains(body, `class="why" role="alert"`) || strings.Contains(body, `class="tile"`) {
			t.Errorf("%v is taken", bad)
		}
	}
	// The neighbours of a detection go through the same filter.
	body := s.get("/detections/dock-0001/event/00c0ffee00c0ffee/20?camera=yard&site=hall-4").Body.String()
	if !strings.Contains(body, "camera=yard&amp;site=hall-4") || !strings.Contains(body, "Why it is here") {
		t.Errorf("neighbours: %.200s", body)
	}
	if bars := s.get("/detections").Body.String(); !strings.Contains(bars, "detections with a picture in 24 hours") {
		t.Error("no hours")
	}
}

// TestSaysOfBoard keeps what a person says, refuses what is no number, and does not
// overwrite what somebody else said meanwhile.
func TestSaysOfBoard(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.with(views.Config{Source: s.src, Metas: s.src})
	full := url.Values{"version": {"0"}, "site": {" hall-4 "}, "description": {"by the gate"}, "labels": {"line=4\r\nshift = night\r\n\r\n"}, "lat": {"48,2"}, "lon": {"-11.5"}, "accuracy": {"25"}, "power": {"15"}}
	if w := s.ask(http.MethodPost, "/boards/dock-0001", full.Encode()); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/boards/dock-0001#about" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	m := s.src.boards[0].Meta
	if m.Site != "hall-4" || m.Labels["line"] != "4" || m.Labels["shift"] != "night" || m.Location == nil || m.Location.Lat != 48.2 || m.Location.Lon != -11.5 || m.LocationAccuracy != 25 || m.PowerBudget != 15 {
		t.Errorf("kept %+v", m)
	}
	body := strings.ReplaceAll(s.get("/boards/dock-0001").Body.String(), "\u00a0", " ")
	for _, want := range []string{"<dd>hall-4</dd>", "48.20000, -11.50000, within 25 m", "of the 15 W that it may draw", "line=4\nshift=night", `name="version" value="1"`} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if w := s.ask(http.MethodPost, "/boards/dock-0001", full.Encode()); w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "Somebody else changed this") {
		t.Errorf("an old version: %d", w.Code)
	}
	for _, bad := range []url.Values{{"lat": {"91"}, "lon": {"1"}}, {"lat": {"NaN"}, "lon": {"1"}}, {"lat": {"1"}}, {"power": {"-1"}}, {"power": {"lots"}}, {"labels": {"line"}}, {"labels": {"a=1\na=2"}}, {"accuracy": {"3"}}, {"site": {strings.Repeat("x", 65)}}} {
		bad.Set("version", "1")
		if w := s.ask(http.MethodPost, "/boards/dock-0001", bad.Encode()); w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), `class="why"`) || s.src.boards[0].Meta.Version != 1 {
			t.Errorf("%v: %d", bad, w.Code)
		}
	}
}

// TestTable sorts, pages and gives the same boards to other programs.
func TestTable(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.src = newTown(fixed, 120)
	s.src.boards[5].Cause = "=HYPERLINK(evil)"
	s.src.boards[5].State = StateFailing
	s.with(views.Config{Source: s.src})
	csv := s.get("/boards.csv?q=site%3Dquarry&sort=name").Body.String()
	body := s.get("/?q=site%3Dquarry&sort=name").Body.String()
	lines := strings.Split(strings.TrimSpace(csv), "\n")
	if n := strings.Count(body, "<tr data-state="); len(lines) < 5 || len(lines)-1 != n {
		t.Errorf("%d lines, %d rows", len(lines), n)
	}
	if !strings.Contains(body, "fulmar board list -q &#39;site = quarry&#39;") && !strings.Contains(body, "fulmar board list -q &#39;site=quarry&#39;") {
		t.Errorf("no command: %.300s", body[strings.Index(body, `id="command"`):])
	}
	if all := s.get("/boards.csv").Body.String(); strings.Contains(all, ",=HYPERLINK") || !strings.Contains(all, "'=HYPERLINK") {
		t.Error("a spreadsheet would run what a board wrote")
	}
	first := func(sort string) string {
		_, row, _ := strings.Cut(s.get("/?sort="+sort).Body.String(), `<th scope="row" title="`)
		name, _, _ := strings.Cut(row, `"`)
		return name
	}
	if a, z := first("name"), first("-name"); a != s.src.boards[0].Name || z != s.src.boards[len(s.src.boards)-1].Name {
		t.Errorf("by name: %s first, %s last", a, z)
	}
	if w := s.get("/boards.csv?q=sate%3Dx"); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "column 1") {
		t.Errorf("a wrong query: %d", w.Code)
	}
	for _, page := range []string{"-1", "999999999999999999999", "x", "2"} {
		if w := s.get("/?page=" + page); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "<tr data-state=") {
			t.Errorf("page %s: %d", page, w.Code)
		}
	}
	if s.get("/fleet/dots?site=-1").Code != 404 || s.get("/fleet/dots?site=99").Code != 404 {
		t.Error("a site that is not")
	}
}
