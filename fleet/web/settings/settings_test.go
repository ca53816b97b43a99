// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/web"
	"fulmar/fleet/web/form"
	"fulmar/schema/rest"
)

// door lets everybody in: the cookie names who, and in which role.
type door struct{ web.Auth }

func (door) Session(r *http.Request) (web.Session, bool) {
	c, err := r.Cookie("who")
	if err != nil {
		return web.Session{}, false
	}
	user, role, _ := strings.Cut(c.Value, ":")
	return web.Session{Tenant: "main", User: user, Role: rest.Role(role)}, true
}

type site struct {
	t *testing.T
	h *web.Handler
	o *office
}

func all(o *office) Config {
	return Config{
		Accounts: o, Logins: o, Alerts: o, Hooks: o, Joins: o, Problem: problem, SecondFactor: "/second-factor", Here: func(web.Session) string { return "s1" },
		Count: func(_ context.Context, _ access.Caller, q string) (rest.QueryCheck, error) {
			return rest.QueryCheck{Count: len(q)}, nil
		},
	}
}

func newSite(t *testing.T) *site {
	t.Helper()
	o := newOffice(time.Now())
	h, err := web.New(web.Config{Zone: time.UTC, Pages: Pages(all(o))}, door{})
	if err != nil {
		t.Fatal(err)
	}
	return &site{t, h, o}
}

func (s *site) ask(who, method, target string, v url.Values, edit ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(s.t.Context(), method, target, strings.NewReader(v.Encode()))
	r.Header.Set("Accept", "text/html")
	if v != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r.AddCookie(&http.Cookie{Name: "who", Value: who})
	for _, e := range edit {
		e(r)
	}
	w := httptest.NewRecorder()
	s.h.ServeHTTP(w, r)
	return w
}

func (s *site) get(who, target string) string {
	return s.ask(who, http.MethodGet, target, nil).Body.String()
}

func (s *site) post(who, target string, pairs ...string) *httptest.ResponseRecorder {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return s.ask(who, http.MethodPost, target, v)
}

// TestOnce: a secret is in the answer that made it, under no other address, in no
// address, and never again.
func TestOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, c := range []struct {
		path, secret, did string
		form              []string
	}{
		{"/settings/users", oneTime, "add n.ew releaser by m.kern", []string{"do", "add", "user", "n.ew", "role", "releaser"}},
		{"/settings/users", oneTime, "reset a.wolff", []string{"do", "reset", "user", "a.wolff"}},
		{"/settings/tokens", tokenWord, `token robot [boards:read, audit:read] "site=hall-4" 30 by m.kern`, []string{"do", "make", "name", "robot", "days", "30", "boards", "site=hall-4", "rights", "boards:read", "rights", "audit:read"}},
		{"/settings/webhooks", hookSecret, `hook "" chat https://x.example/h [alert.firing] internal=false off=false v=0 by m.kern`, []string{"do", "put", "name", "chat", "url", "https://x.example/h", "kind", "webhook", "events", "alert.firing"}},
		{"/settings/boards", command, `join "" 5 24h0m0s by m.kern`, []string{"do", "make", "boards", "5", "hours", "24"}},
		{"/settings/boards", command, `join "dock-0001" 1 1h0m0s by m.kern`, []string{"do", "make", "boards", "5", "hours", "1", "board", "dock-0001"}},
	} {
		s.o.did = nil
		w := s.post("m.kern:admin", c.path, c.form...)
		if w.Code != http.StatusOK || strings.Count(w.Body.String(), c.secret) != 1 || !slices.Equal(s.o.did, []string{c.did}) {
			t.Errorf("%s %v: %d, the secret %d times, done %q", c.path, c.form, w.Code, strings.Count(w.Body.String(), c.secret), s.o.did)
		}
		if w.Header().Get("Cache-Control") != "no-store" || strings.Contains(w.Header().Get("Location"), c.secret) {
			t.Errorf("%s: headers %v", c.path, w.Header())
		}
		for _, tab := range tabs() {
			if page := s.get("m.kern:admin", tab.Path+"?hook=h1&edit=hot"); strings.Contains(page, c.secret) {
				t.Errorf("%s shows a secret of %s", tab.Path, c.path)
			}
		}
	}
}

// TestActs holds each form to what it does.
func TestActs(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, c := range []struct {
		path, did string
		form      []string
	}{
		{"/settings/users", "role a.wolff operator", []string{"do", "role", "user", "a.wolff", "role", "operator"}},
		{"/settings/users", "disable a.wolff true", []string{"do", "out", "user", "a.wolff"}},
		{"/settings/users", "disable a.wolff false", []string{"do", "in", "user", "a.wolff"}},
		{"/settings/users", "unfactor a.wolff", []string{"do", "unfactor", "user", "a.wolff"}},
		{"/settings/users", "remove a.wolff", []string{"do", "remove", "user", "a.wolff", "confirm", "a.wolff"}},
		{"/settings/users", `require "releaser"`, []string{"do", "require", "from", "releaser"}},
		{"/settings/users", `require ""`, []string{"do", "require", "from", "nobody"}},
		{"/settings/tokens", "revoke t2 by m.kern", []string{"do", "revoke", "id", "t2"}},
		{"/settings/boards", "revoke join j1 by m.kern", []string{"do", "revoke", "id", "j1"}},
		{"/settings/account", "end s2 of m.kern", []string{"do", "end", "id", "s2"}},
		{"/settings/alerts", `rule full map[] q="disk > 90" promql="" for=10m by=[site cause] off=false v=0 by m.kern`, []string{"do", "put", "id", "full", "summary", "disk full", "severity", "warning", "query", "disk > 90", "for", "10m", "by", "site, cause"}},
		{"/settings/alerts", `rule hot map[team:cooling] q="" promql="fulmar_thermal_tj_celsius > 85" for=5m by=[] off=true v=3 by m.kern`, []string{"do", "off", "id", "hot", "version", "3"}},
		{"/settings/alerts", `rule hot map[team:cooling] q="" promql="x > 1" for= by=[] off=false v=3 by m.kern`, []string{"do", "put", "id", "hot", "version", "3", "summary", "hot", "severity", "warning", "promql", "x > 1"}},
		{"/settings/alerts", "remove rule hot", []string{"do", "remove", "id", "hot"}},
		{"/settings/webhooks", `hook "h1" chat https://chat.example/hooks/8s1k [alert.firing rollout.*] internal=false off=true v=1 by m.kern`, []string{"do", "off", "id", "h1", "version", "1"}},
		{"/settings/webhooks", "remove hook h1", []string{"do", "remove", "id", "h1"}},
		{"/settings/webhooks?hook=h1", "again 11", []string{"do", "again", "id", "h1", "delivery", "11"}},
	} {
		s.o.did = nil
		w := s.post("m.kern:admin", c.path, c.form...)
		if w.Code != http.StatusSeeOther || w.Header().Get("Location") != c.path || !slices.Equal(s.o.did, []string{c.did}) {
			t.Errorf("%s %v: %d to %q, done %q", c.path, c.form, w.Code, w.Header().Get("Location"), s.o.did)
		}
	}
}

// TestRefused: what is wrong stands beside the field, what was typed stays, nothing is
// done.
func TestRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, c := range []struct {
		path, says string
		code       int
		form       []string
	}{
		{"/settings/users", "This is needed.", 422, []string{"do", "add", "role", "viewer"}},
		{"/settings/users", "Choose one of the list.", 422, []string{"do", "add", "user", "x", "role", "root"}},
		{"/settings/users", "The name is taken.", 409, []string{"do", "add", "user", "m.kern", "role", "viewer"}},
		{"/settings/users", "the name does not match", 422, []string{"do", "remove", "user", "a.wolff", "confirm", "a.wolf"}},
		{"/settings/users", "nothing that can be done", 400, []string{"do", "promote", "user", "a.wolff"}},
		{"/settings/users", "Too long", 422, []string{"do", "add", "user", strings.Repeat("x", 65), "role", "viewer"}},
		{"/settings/users", "Choose one of the list.", 422, []string{"do", "require", "from", "everybody"}},
		{"/settings/tokens", "Choose at least one right.", 422, []string{"do", "make", "name", "x"}},
		{"/settings/tokens", "Choose rights of the list.", 422, []string{"do", "make", "name", "x", "rights", "boards:eat"}},
		{"/settings/tokens", "A number from 1 to 366.", 422, []string{"do", "make", "name", "x", "days", "1000", "rights", "boards:read"}},
		{"/settings/alerts", "one of the two", 422, []string{"do", "put", "id", "x", "summary", "y"}},
		{"/settings/alerts", "one of the two", 422, []string{"do", "put", "id", "x", "summary", "y", "query", "a", "promql", "b"}},
		{"/settings/alerts", "Somebody changed it meanwhile", 412, []string{"do", "put", "id", "x", "summary", "<b>", "query", "a", "version", "1"}},
		{"/settings/alerts", "not there any more", 404, []string{"do", "off", "id", "nothing", "version", "1"}},
		{"/settings/webhooks", "begins with https://", 422, []string{"do", "put", "name", "x", "url", "javascript:alert(1)"}},
		{"/settings/webhooks", "without a password", 422, []string{"do", "put", "name", "x", "url", "https://a:b@c.example/"}},
		{"/settings/webhooks", "not there any more", 404, []string{"do", "again", "id", "h1", "delivery", "x"}},
		{"/settings/boards", "A number from 1 to", 422, []string{"do", "make", "boards", "0", "hours", "1"}},
		{"/settings/boards", "Choose one of the list.", 422, []string{"do", "make", "boards", "1", "hours", "9999"}},
		{"/settings/account", "One field is not right", 422, []string{"do", "end"}},
	} {
		w := s.post("m.kern:admin", c.path, c.form...)
		page := w.Body.String()
		if w.Code != c.code || !strings.Contains(page, c.says) || strings.Contains(page, `value="<b>"`) {
			t.Errorf("%s %.60v: %d, wants %d and %q", c.path, c.form, w.Code, c.code, c.says)
		}
	}
	if len(s.o.did) > 0 {
		t.Errorf("done: %q", s.o.did)
	}
	if page := s.post("m.kern:admin", "/settings/alerts", "do", "put", "id", "mine", "summary", "so it was").Body.String(); !strings.Contains(page, `value="so it was"`) || !strings.Contains(page, `value="mine"`) {
		t.Error("what was typed is gone")
	}
	for _, tab := range tabs() {
		if w := s.post("m.kern:admin", tab.Path, "do", strings.Repeat("x", form.Max)); w.Code != http.StatusRequestEntityTooLarge {
			t.Errorf("%s takes a form over its bound: %d", tab.Path, w.Code)
		}
		if w := s.ask("m.kern:admin", http.MethodDelete, tab.Path, nil); w.Code < 400 {
			t.Errorf("DELETE %s: %d", tab.Path, w.Code)
		}
	}
	s.o.err = errBroken
	for _, tab := range tabs()[:5] {
		if w := s.ask("m.kern:admin", http.MethodGet, tab.Path, nil); w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "fire") {
			t.Errorf("%s with a broken store: %d", tab.Path, w.Code)
		}
	}
}

// TestRoles holds each page and each form to each role.
func TestRoles(t *testing.T) {
	t.Parallel()
	from := func(r rest.Role) map[rest.Role]bool {
		out := map[rest.Role]bool{}
		for i := slices.Index(rest.Roles(), r); i < len(rest.Roles()); i++ {
			out[rest.Roles()[i]] = true
		}
		return out
	}
	for _, c := range []struct {
		path     string
		see, act rest.Role
		form     []string
	}{
		{"/settings/account", rest.Viewer, rest.Viewer, []string{"do", "end", "id", "s2"}},
		{"/settings/alerts", rest.Viewer, rest.Operator, []string{"do", "remove", "id", "hot"}},
		{"/settings/webhooks", rest.Operator, rest.Operator, []string{"do", "remove", "id", "h1"}},
		{"/settings/tokens", rest.Viewer, rest.Viewer, []string{"do", "make", "name", "x", "rights", "boards:read"}},
		{"/settings/users", rest.Admin, rest.Admin, []string{"do", "role", "user", "a.wolff", "role", "admin"}},
		{"/settings/boards", rest.Admin, rest.Admin, []string{"do", "make", "boards", "1"}},
	} {
		for _, role := range append(rest.Roles(), "nobody", "") {
			s := newSite(t)
			who := "a.wolff:" + string(role)
			if w := s.ask(who, http.MethodGet, c.path, nil); (w.Code == http.StatusOK) != from(c.see)[role] || w.Code != http.StatusOK && w.Code != http.StatusForbidden {
				t.Errorf("%s as %q: %d", c.path, role, w.Code)
			}
			w := s.post(who, c.path, c.form...)
			if (w.Code != http.StatusForbidden) != from(c.act)[role] || (len(s.o.did) > 0) != from(c.act)[role] {
				t.Errorf("POST %s as %q: %d, done %q", c.path, role, w.Code, s.o.did)
			}
			s.o.did = nil
			w = s.ask(who, http.MethodPost, c.path, url.Values{"do": {"end"}}, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") })
			if w.Code != http.StatusForbidden || len(s.o.did) > 0 {
				t.Errorf("POST %s from another site: %d", c.path, w.Code)
			}
			if page := s.get(who, "/settings/account"); role == rest.Viewer && (strings.Contains(page, "/settings/users") || strings.Contains(page, "/settings/webhooks")) {
				t.Error("a viewer is shown what they may not see")
			}
		}
	}
	s := newSite(t)
	if w := s.post("a.wolff:releaser", "/settings/tokens", "do", "make", "name", "x", "rights", "users:write"); w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), "You cannot give what you do not have.") {
		t.Errorf("a right that the maker has not: %d", w.Code)
	}
	if w := s.post("a.wolff:releaser", "/settings/tokens", "do", "revoke", "id", "t1"); w.Code != http.StatusForbidden || len(s.o.did) > 0 {
		t.Errorf("somebody else's token: %d, done %q", w.Code, s.o.did)
	}
	if page := s.get("a.wolff:releaser", "/settings/tokens"); strings.Contains(page, "line-4 dashboard") || !strings.Contains(page, "old script") {
		t.Error("a releaser sees the tokens of others, or not their own")
	}
	if page := s.get("v:viewer", "/settings/alerts"); strings.Contains(page, `name="do"`) {
		t.Error("a viewer gets buttons")
	}
	if page := s.get("m.kern:operator", "/settings/webhooks"); strings.Contains(page, `name="internal"`) {
		t.Error("an operator may allow private addresses")
	}
}

// TestParts: what is not there is not shown.
func TestParts(t *testing.T) {
	t.Parallel()
	h, err := web.New(web.Config{Zone: time.UTC, Pages: Pages(Config{})}, door{})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t, h, nil}
	for _, tab := range tabs()[1:] {
		if w := s.ask("m.kern:admin", http.MethodGet, tab.Path, nil); w.Code != http.StatusNotFound {
			t.Errorf("%s without its part: %d", tab.Path, w.Code)
		}
	}
	if page := s.get("m.kern:admin", "/settings/account"); strings.Contains(page, "/settings/users") || strings.Contains(page, "Second factor") || strings.Contains(page, "logged in") {
		t.Error("the account promises what is not there")
	}
}
