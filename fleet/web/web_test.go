// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image/jpeg"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	. "fulmar/fleet/web"
	"fulmar/fleet/web/fleetview"
	"fulmar/fleet/web/verdict"
	"fulmar/fleet/web/views"
	"fulmar/schema"
	"fulmar/schema/rest"
)

// fixed is the moment of tests that need no clock.
func fixed() time.Time { return time.Date(2026, 11, 21, 14, 2, 11, 0, time.UTC) }

type site struct {
	t    *testing.T
	h    *Handler
	src  *memory
	auth *door
}

// newSite makes the page with an open session.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, src: newMemory(fixed), auth: &door{password: "one-time", open: true}}
	s.with(views.Config{Source: s.src})
	return s
}

// with makes the page anew from other parts.
func (s *site) with(c views.Config) {
	s.t.Helper()
	h, err := New(Config{Zone: time.UTC, Pages: views.Pages(c)}, s.auth)
	if err != nil {
		s.t.Fatal(err)
	}
	s.h = h
}

// ask sends a request as a browser would; edit may change it.
func (s *site) ask(method, target, form string, edit ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(s.t.Context(), method, target, strings.NewReader(form))
	r.Header.Set("Accept", "text/html,*/*")
	r.AddCookie(&http.Cookie{Name: "session", Value: "s1"})
	if form != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, e := range edit {
		e(r)
	}
	w := httptest.NewRecorder()
	s.h.ServeHTTP(w, r)
	return w
}

func (s *site) get(target string) *httptest.ResponseRecorder {
	return s.ask(http.MethodGet, target, "")
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, u := range []string{"/", "/login", "/boards/dock-0001", "/nowhere", "/pictures/dock-0001/cam0-1.jpg", "/assets/none.js"} {
		head := s.get(u).Header()
		csp := head.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'", "require-trusted-types-for 'script'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: policy %q lacks %s", u, csp, want)
			}
		}
		if strings.Contains(csp, "unsafe") || head.Get("X-Content-Type-Options") != "nosniff" || head.Get("Referrer-Policy") == "" {
			t.Errorf("%s: headers %v", u, head)
		}
	}
	if c := s.get("/").Header().Get("Cache-Control"); c != "no-store" {
		t.Errorf("a page may be kept: %q", c)
	}
}

// TestNothingWithoutSession holds every route but the door and its assets shut.
func TestNothingWithoutSession(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	shut := []string{"/", "/boards/dock-0001", "/boards/dock-0001/series", "/detections", "/detections/dock-0001/event/00c0ffee00c0ffee/3", "/pictures/dock-0001/cam0-1.jpg", "/live?view=/", "/nowhere"}
	for _, state := range []func(){func() { s.auth.open = false }, func() { s.auth.open, s.auth.must = true, true }} {
		state()
		for _, u := range shut {
			w := s.get(u)
			if w.Code != http.StatusSeeOther || !strings.HasPrefix(w.Header().Get("Location"), "/login") && w.Header().Get("Location") != "/password" {
				t.Errorf("%s as a page: %d to %q", u, w.Code, w.Header().Get("Location"))
			}
			w = s.ask(http.MethodGet, u, "", func(r *http.Request) { r.Header.Set("Accept", "*/*") })
			if w.Code != http.StatusUnauthorized || strings.Contains(w.Body.String(), "dock-0001") {
				t.Errorf("%s for a script: %d %.80q", u, w.Code, w.Body)
			}
		}
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.auth.open, s.auth.must = false, true
	if w := s.ask(http.MethodPost, "/login", "password=guess&next=/detections"); w.Code != http.StatusUnauthorized || !strings.Contains(w.Body.String(), `value="/detections"`) || strings.Contains(w.Body.String(), "guess") {
		t.Errorf("wrong password: %d", w.Code)
	}
	for next, want := range map[string]string{"/boards/a?range=1h": "/boards/a?range=1h", "//evil.example": "/", "https://evil.example": "/", `/\evil.example`: "/", "": "/"} {
		s.auth.tries = 0
		w := s.ask(http.MethodPost, "/login", url.Values{"password": {"one-time"}, "next": {next}}.Encode())
		if w.Code != http.StatusSeeOther || w.Header().Get("Location") != want {
			t.Errorf("next %q leads to %d %q, want %q", next, w.Code, w.Header().Get("Location"), want)
		}
	}
	for _, c := range []struct{ old, fresh, again, says string }{
		{"one-time", "qwz4", "qwz4", "at least 15 characters"},
		{"one-time", "long enough a word", "long enough a sword", "differ"},
		{"wrong", "long enough a word", "long enough a word", "not the password"},
		{"one-time", "database is away", "database is away", "cannot be done right now"},
	} {
		w := s.ask(http.MethodPost, "/password", url.Values{"old": {c.old}, "new": {c.fresh}, "again": {c.again}}.Encode())
		if w.Code < 400 || !strings.Contains(w.Body.String(), c.says) || strings.Contains(w.Body.String(), c.fresh) {
			t.Errorf("%+v: %d", c, w.Code)
		}
	}
	if w := s.ask(http.MethodPost, "/password", url.Values{"old": {"one-time"}, "new": {"fünfzehn Zeichen"}, "again": {"fünfzehn Zeichen"}}.Encode()); w.Code != http.StatusSeeOther || s.auth.must {
		t.Errorf("a good password: %d", w.Code)
	}
	s.auth.tries = 99
	if w := s.ask(http.MethodPost, "/login", "password=x"); w.Code != http.StatusTooManyRequests {
		t.Errorf("after too many tries: %d", w.Code)
	}
	if w := s.ask(http.MethodPost, "/logout", ""); w.Code != http.StatusSeeOther || s.auth.open {
		t.Errorf("log out: %d, open %v", w.Code, s.auth.open)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.auth.open = false
	if w := s.ask(http.MethodPost, "/login", "password="+strings.Repeat("x", MaxForm)); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("a form over %d bytes: %d", MaxForm, w.Code)
	}
	s.auth.open = true
	if w := s.get("/?q=" + strings.Repeat("x", MaxQuery)); w.Code != http.StatusRequestURITooLong {
		t.Errorf("a query over %d bytes: %d", MaxQuery, w.Code)
	}
	for _, origin := range []string{"cross-site", "same-site"} {
		w := s.ask(http.MethodPost, "/logout", "", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", origin) })
		if w.Code != http.StatusForbidden || !s.auth.open {
			t.Errorf("a form from %s: %d", origin, w.Code)
		}
	}
	for _, c := range []struct{ method, path string }{{http.MethodDelete, "/boards/dock-0001"}, {http.MethodGet, "/logout"}, {http.MethodPut, "/login"}} {
		if w := s.ask(c.method, c.path, ""); w.Code < 400 {
			t.Errorf("%s %s: %d", c.method, c.path, w.Code)
		}
	}
	for _, view := range []string{"", "//evil.example/", "http://evil.example/", "/boards/nobody", "/pictures/dock-0001/cam0-1.jpg", "/%zz"} {
		w := s.get("/live?view=" + url.QueryEscape(view))
		if view != "" && w.Code < 400 {
			t.Errorf("a stream of %q: %d", view, w.Code)
		}
	}
	s.src.broken = errors.New("disk on fire: /var/lib/secret")
	if w := s.get("/"); w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "fire") {
		t.Errorf("with a broken store: %d", w.Code)
	}
}

func TestTheme(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	w := s.ask(http.MethodPost, "/theme", "theme=dark&back=/boards/dock-0001")
	c := w.Result().Cookies()
	if w.Header().Get("Location") != "/boards/dock-0001" || len(c) != 1 || c[0].Value != "dark" || !c[0].HttpOnly {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	dark := s.ask(http.MethodGet, "/", "", func(r *http.Request) { r.AddCookie(c[0]) })
	if !strings.Contains(dark.Body.String(), `data-theme="dark"`) {
		t.Error("the cookie does not make the page dark")
	}
	odd := s.ask(http.MethodGet, "/", "", func(r *http.Request) { r.AddCookie(&http.Cookie{Name: ThemeCookie, Value: "x onload=y"}) })
	if strings.Contains(odd.Body.String(), "onload") {
		t.Error("a made-up theme is written into the page")
	}
}

func TestPicture(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	w := s.get("/pictures/dock-0001/cam0-1.jpg")
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "image/jpeg" || w.Header().Get("Cache-Control") != "private, max-age=31536000, immutable" {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	if !bytes.Equal(w.Body.Bytes(), s.src.pictures["dock-0001/cam0-1.jpg"]()) {
		t.Error("the picture was touched")
	}
	if img, err := jpeg.Decode(w.Body); err != nil || img.Bounds().Dx() != picW {
		t.Errorf("not the picture: %v", err)
	}
	part := s.ask(http.MethodGet, "/pictures/dock-0001/cam0-1.jpg", "", func(r *http.Request) { r.Header.Set("Range", "bytes=2-9") })
	if part.Code != http.StatusPartialContent || part.Body.Len() != 8 {
		t.Errorf("a range: %d, %d bytes", part.Code, part.Body.Len())
	}
	same := s.ask(http.MethodGet, "/pictures/dock-0001/cam0-1.jpg", "", func(r *http.Request) { r.Header.Set("If-None-Match", w.Header().Get("ETag")) })
	if same.Code != http.StatusNotModified {
		t.Errorf("the same again: %d", same.Code)
	}
	for _, u := range []string{"/pictures/dock-0001/none.jpg", "/pictures/dock-0002/cam0-1.jpg", "/pictures/dock-0001/..%2f..%2fetc%2fpasswd"} {
		if w := s.get(u); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", u, w.Code)
		}
	}
}

// TestHostileBoard: whatever a board says about itself stays text.
func TestHostileBoard(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(2)>'` + "`{{.}}"
	b := &s.src.boards[2]
	b.Name, b.Cause, b.Release, b.KeyMode = "dock"+evil, evil, evil, evil
	b.Facts = map[string]string{"model": evil, evil: evil}
	b.Reports = []Report{{evil, evil, schema.SeverityAlarm, evil, fixed()}}
	b.Gaps = []Gap{{Class: evil, Reason: evil, First: 1, Last: 2, Count: 2}}
	b.Ledger = []Ledger{{Class: evil, Made: 3, Arrived: 1, Lost: 2}}
	b.Latest = append(b.Latest, Reading{Series: "thermal." + evil + "_celsius", Value: 1, At: fixed()})
	b.Cameras = []Camera{{Name: evil, Model: evil, Engine: evil, Known: true}}
	s.src.shots = slices.Insert(s.src.shots, 0, Detection{
		ID: b.Name + "/event/" + evil + "/1", Board: b.Name, At: fixed(), HasPicture: true,
		Event: schema.Event{Source: evil, Model: evil, Engine: evil, Snapshot: evil, Width: 10, Height: 10, Labels: map[uint16]string{0: evil}, Boxes: []schema.Box{{X1: 5, Y1: 5, Match: schema.MatchFalse}}, Truth: []schema.Box{{X1: 5, Y1: 5, Match: schema.MatchMissed}}},
	})
	for _, u := range []string{"/", "/boards/" + url.PathEscape(b.Name), "/detections", NewShot(s.src.shots[0]).Link, "/detections?board=" + url.QueryEscape(evil), "/login?next=" + url.QueryEscape("/"+evil)} {
		w := s.get(u)
		if w.Code != http.StatusOK && w.Code != http.StatusSeeOther {
			t.Errorf("%.60s: %d", u, w.Code)
		}
		scripts := 0
		for z := html.NewTokenizer(w.Body); z.Next() != html.ErrorToken; {
			tok := z.Token()
			if tok.Type != html.StartTagToken && tok.Type != html.SelfClosingTagToken {
				continue
			}
			if tok.Data == "script" {
				scripts++
			}
			for _, a := range tok.Attr {
				if strings.HasPrefix(a.Key, "on") || (a.Key == "src" || a.Key == "href") && !strings.HasPrefix(a.Val, "/") && !strings.HasPrefix(a.Val, "#") {
					t.Errorf("%.60s: a board made <%s %s=%q>", u, tok.Data, a.Key, a.Val)
				}
			}
		}
		own := 1
		if u == "/" {
			own = 2
		}
		if w.Code == http.StatusOK && scripts != own {
			t.Errorf("%.60s has %d scripts, its own are %d", u, scripts, own)
		}
	}
}

// TestOneSnapshot: headline, chips, causes, rows and the JSON of one overview agree.
func TestOneSnapshot(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for n := range 240 { // many boards, all states
		b := s.src.boards[n%3]
		b.Name = fmt.Sprintf("dock-%04d", n+10)
		if n%7 == 0 {
			b.State, b.Cause = StateFailing, "no detections for 11 min"
		}
		if n%50 == 3 {
			b.State, b.Cause, b.LastSeen = StateNeverHeard, "enrolled, not heard from yet", time.Time{}
		}
		s.src.boards = append(s.src.boards, b)
	}
	ov, _ := s.src.Overview(t.Context(), "main")
	var wire Overview
	j, _ := json.Marshal(ov)
	if err := json.Unmarshal(j, &wire); err != nil {
		t.Fatal(err)
	}
	n := verdict.Tally(fleetview.Judge(wire.Boards))
	body := s.get("/").Body.String()
	if !strings.Contains(body, "<h1>"+verdict.Headline(fleetview.Judge(ov.Boards))+"</h1>") {
		t.Errorf("the page does not say %q", verdict.Headline(fleetview.Judge(ov.Boards)))
	}
	if want := fmt.Sprintf("%d boards need you; %d others are healthy", len(wire.Boards)-n[StateHealthy]-n[StateNeverHeard], n[StateHealthy]); verdict.Headline(fleetview.Judge(ov.Boards)) != want {
		t.Errorf("headline %q, JSON says %q", verdict.Headline(fleetview.Judge(ov.Boards)), want)
	}
	caused := 0
	for _, c := range verdict.Grouped(fleetview.Judge(ov.Boards)) {
		caused += len(c.Boards) + c.More
	}
	if caused != len(wire.Boards)-n[StateHealthy]-n[StateNeverHeard] {
		t.Errorf("causes name %d boards", caused)
	}
	rows := map[State]int{}
	for next := "/"; next != ""; {
		body := s.get(next).Body.String()
		for _, st := range verdict.States() {
			rows[st] += strings.Count(body, `<tr data-state="`+string(st)+`"`)
		}
		next = ""
		if before, _, more := strings.Cut(body, `" rel="next">Next boards`); more {
			next = strings.ReplaceAll(before[strings.LastIndex(before, `"`)+1:], "&amp;", "&")
		}
	}
	for _, st := range verdict.States() {
		if want := fmt.Sprintf(`data-chip="%s">%d</b>`, st, n[st]); !strings.Contains(body, want) {
			t.Errorf("no chip %s", want)
		}
		if rows[st] != n[st] {
			t.Errorf("%d rows %s, JSON has %d", rows[st], st, n[st])
		}
	}
}

func TestHeadline(t *testing.T) {
	t.Parallel()
	b := func(name string, s State, cause string) Board { return Board{Name: name, State: s, Cause: cause} }
	well := b("a", StateHealthy, "")
	for want, bs := range map[string][]Board{
		"No boards yet":                                        nil,
		"Your 1 board is healthy":                              {well},
		"All 2 boards are healthy":                             {well, well},
		"1 board needs you: worker restarting on dock-0001":    {well, b("dock-0001", StateDegraded, "worker restarting")},
		"All 2 boards need you: uplink down":                   {b("a", StateUnreachable, "uplink down"), b("b", StateUnreachable, "uplink down")},
		"2 boards need you; 1 other is healthy":                {well, b("b", StateFailing, "x"), b("c", StateDegraded, "y")},
		"1 board is enrolled and not heard from yet":           {b("a", StateNeverHeard, "")},
		"1 board is healthy; 1 has not been heard from yet":    {well, b("b", StateNeverHeard, "")},
		"1 board needs you: unreachable on b":                  {b("b", StateUnreachable, "")},
		"2 boards need you":                                    {b("a", StateFailing, "x"), b("b", StateDegraded, "y"), b("c", StateNeverHeard, "")},
		"1 board needs you: a state of tomorrow on tomorrow-1": {well, b("tomorrow-1", "a state of tomorrow", "")},
	} {
		if got := verdict.Headline(fleetview.Judge(bs)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestParts: a part asked for alone is the same as on the whole page, and costs no
// history that it does not show.
func TestParts(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	whole := s.get("/boards/dock-0001").Body.String()
	one := s.get("/boards/dock-0001?parts=camera+cam0").Body.String()
	i := strings.Index(one, `<section data-part="camera cam0"`)
	if i < 0 || strings.Contains(one, `data-part="charts"`) {
		t.Fatalf("asked for one part: %.300s", one)
	}
	part := one[i : i+strings.Index(one[i:], "</section>")]
	if !strings.Contains(whole, part) {
		t.Error("the part differs from the page it belongs to")
	}
	if w := s.get("/?parts=" + strings.Repeat("a,", MaxParts+1)); !strings.Contains(w.Body.String(), `data-part="rows"`) {
		t.Error("too many parts are not the whole page")
	}
}

// TestStreamIsPage: the live sheet of a view has the very texts the page shows.
func TestStreamIsPage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, u := range []string{"/", "/?q=state%3Ddegraded", "/?q=oops+%3D", "/boards/dock-0001", "/boards/dock-0002?range=1h", "/detections?board=dock-0001"} {
		body := s.get(u).Body.String()
		p, err := s.h.LiveSheet(t.Context(), Session{Tenant: "main", User: "admin", Role: rest.Admin}, mustURL(u))
		if err != nil {
			t.Fatal(err)
		}
		texts := map[string]string{}
		key := ""
		for z := html.NewTokenizer(strings.NewReader(body)); z.Next() != html.ErrorToken; {
			switch tok := z.Token(); tok.Type {
			case html.StartTagToken:
				key = ""
				for _, a := range tok.Attr {
					if a.Key == "data-v" {
						key = a.Val
					}
				}
			case html.TextToken:
				if key != "" {
					texts[key] = tok.Data
				}
			case html.EndTagToken:
				key = ""
			}
		}
		if len(texts) == 0 && u != "/detections?board=dock-0001" {
			t.Errorf("%s has no live text", u)
		}
		for k, v := range p.Vals {
			if v.Text != "" && texts[k] != v.Text {
				t.Errorf("%s: %s is %q live and %q on the page", u, k, v.Text, texts[k])
			}
		}
		for part, hash := range p.Hash {
			if !strings.Contains(body, fmt.Sprintf(`data-part="%s" data-h="%s"`, part, hash)) {
				t.Errorf("%s: part %s differs from the stream's", u, part)
			}
		}
	}
}

func mustURL(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}

func TestSeries(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	w := s.get("/boards/dock-0001/series?range=1h")
	var got struct {
		At, Span, Hole int64
		Series         []Series
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Span != 3600_000 || len(got.Series) == 0 {
		t.Fatalf("%v %d %.200s", err, w.Code, w.Body)
	}
	for _, x := range got.Series {
		if len(x.T) != len(x.V) || len(x.T) == 0 || len(x.T) > 300 {
			t.Errorf("%s has %d points", x.Name, len(x.T))
		}
	}
	if w := s.get("/boards/nobody/series"); w.Code != http.StatusNotFound {
		t.Errorf("of a board that is not: %d", w.Code)
	}
}

func TestDetectionPages(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	seen := 0
	for next := "/detections?board=dock-0001"; next != ""; {
		body := s.get(next).Body.String()
		seen += strings.Count(body, `class="tile"`)
		next = ""
		if _, rest, ok := strings.Cut(body, `<p class="pager">`); ok {
			for _, a := range strings.Split(rest, "<a ")[1:] {
				if link, _, ok := strings.Cut(strings.TrimPrefix(a, `href="`), `" rel="next">Older`); ok {
					next = strings.ReplaceAll(link, "&amp;", "&")
				}
			}
		}
	}
	want := 0
	for _, d := range s.src.shots {
		if d.Board == "dock-0001" {
			want++
		}
	}
	if seen != want || want <= 24 {
		t.Errorf("paging shows %d of %d detections", seen, want)
	}
	if w := s.get("/detections/dock-0001/event/00c0ffee00c0ffee/999"); w.Code != http.StatusNotFound {
		t.Errorf("a detection that is not: %d", w.Code)
	}
}

// TestAssets: every asset has a hash in its name and is the whole of what pages load.
func TestAssets(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.auth.open = false
	body := s.get("/login").Body.String()
	for _, ext := range []string{".css", ".js", ".svg"} {
		i := strings.Index(body, "/assets/")
		for i >= 0 && !strings.Contains(body[i:i+strings.IndexByte(body[i:], '"')], ext) {
			j := strings.Index(body[i+1:], "/assets/")
			if j < 0 {
				i = -1
				break
			}
			i += 1 + j
		}
		if i < 0 {
			t.Fatalf("no %s on the page", ext)
		}
		u := body[i : i+strings.IndexByte(body[i:], '"')]
		w := s.get(u)
		if w.Code != http.StatusOK || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") || w.Body.Len() == 0 {
			t.Errorf("%s: %d %v", u, w.Code, w.Header())
		}
	}
	for _, u := range []string{"/", "/boards/dock-0001", "/detections"} {
		s.auth.open = true
		if b := s.get(u).Body.String(); strings.Contains(b, " style=") || strings.Contains(b, "<style") || strings.Contains(b, " onclick") {
			t.Errorf("%s has something inline that its own policy forbids", u)
		}
	}
}
