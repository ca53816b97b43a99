// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"encoding/json"
	"errors"
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

func counted(_ context.Context, _ access.Caller, q string) (rest.QueryCheck, error) {
	if q == "site=hall-4" {
		return rest.QueryCheck{Count: 50}, nil
	}
	return rest.QueryCheck{}, nil
}

type site struct {
	t *testing.T
	h *web.Handler
	*parts
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, parts: newParts(time.Now())}
	var err error
	if s.h, err = web.New(web.Config{Zone: time.UTC, Pages: append([]web.Page{{Path: "/", View: nil, Serve: func(http.ResponseWriter, *http.Request, web.Session) error { return nil }}}, Pages(Config{Commands: s.parts, Twins: s.parts, Problem: problem, Count: counted})...)}, door{}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) ask(who, method, target string, values url.Values) *httptest.ResponseRecorder {
	s.t.Helper()
	r := httptest.NewRequestWithContext(s.t.Context(), method, target, strings.NewReader(values.Encode()))
	r.AddCookie(&http.Cookie{Name: "who", Value: who})
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	w := httptest.NewRecorder()
	s.h.ServeHTTP(w, r)
	return w
}

// TestSays: each page says what there is to know, in words.
func TestSays(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for target, want := range map[string][]string{
		"/commands": {
			"1 command waits for a second person", "1 setting waits for a decision</a>", "set-valve-position percent=40 valve=main", "rule/alone-close, on the board",
			"outcome unknown", "44 done", "Needs somebody", "Under way", "Ended", "smoke at press 2",
		},
		"/commands/c-3": {
			"set-valve-position: 44 done, 2 wait for the board, 3 running, 1 refused", "The door of press 1 is open.", "interlocked", "60&nbsp;%", "percent 40</td>", "boards of site=hall-4",
			"46 more boards are in the API.", "a board may begin it until",
		},
		"/commands/c-4":                 {"waits for a second person", "Not you: you gave it.", "Cancel it"},
		"/boards/dock-1/control":        {"dock-1 has not taken the newest settings yet", "version 3 of 4", "The safety shutdown holds", "By rule/too-hot.", "The line is held by another program.", "1ms: wants 10ms to 24h", "local/eva, on the board, for a time", "set on the board", "too-hot</dt><dd>on, fired 2 times", "39.5&nbsp;%", "0 to 100&nbsp;%", "By API token 7.", "not set since the start", "args=output%3Dmain%0Avalue%3D", "log.level set to debug", "the board went back to the settings before"},
		"/boards/dock-2/control":        {"dock-2 has not spoken of its settings yet"},
		"/boards/dock-4/control":        {"dock-4 does not take 1 setting", "500 is not taken: wants a number from 0.001 to 240; is 500.", "<code>4</code>"},
		"/boards/dock-5/control":        {"dock-5: 1 setting is as somebody set on the board", "The fleet wants 4.", "was alone, and in their safe states until somebody sets them stay: main"},
		"/commands/c-1":                 {"restart on dock-2: outcome unknown", "API token 7"},
		"/commands/new?name=set-output": {"It takes: output, value.", ">output=\nvalue=</textarea>"},
		"/boards/dock-3/control":        {"1 setting waits for a decision", `href="/conflicts"`},
		"/conflicts":                    {"1 setting waits for a decision", "The belt stalls below 50.", "Take the fleet&#39;s 40 for app.setpoint of dock-3", "holds now: 55"},
		"/commands/new?board=dock":      {`value="dock"`, "trigger-safety-shutdown", "A second person has to agree to trigger-safety-shutdown."},
	} {
		page := s.ask("j.roth:operator", http.MethodGet, target, nil)
		for _, w := range want {
			if !strings.Contains(page.Body.String(), w) && !strings.Contains(strings.ReplaceAll(page.Body.String(), "Take the fleet's", "Take the fleet&#39;s"), w) {
				t.Errorf("%s (%d) does not say %q", target, page.Code, w)
			}
		}
	}
	s.commands, s.conflicts = nil, nil
	for target, want := range map[string]string{"/commands": "No commands yet", "/conflicts": "Board and fleet agree everywhere", "/commands/none": "There is no such page"} {
		if page := s.ask("v:viewer", http.MethodGet, target, nil).Body.String(); !strings.Contains(page, want) && target != "/commands/none" {
			t.Errorf("%s does not say %q", target, want)
		}
	}
	s.err = errors.New("disk on fire: /var/lib/secret")
	for _, target := range []string{"/commands", "/conflicts", "/boards/dock-1/control"} {
		if w := s.ask("v:viewer", http.MethodGet, target, nil); w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "fire") {
			t.Errorf("%s with a broken store: %d", target, w.Code)
		}
	}
}

// TestRights: who only looks changes nothing, whatever is posted.
func TestRights(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	posts := map[string]url.Values{
		"/commands/new":          {"name": {"restart"}, "boards": {"dock-1"}, "do": {"give"}},
		"/commands/c-3":          {"do": {"cancel"}},
		"/commands/c-4":          {"do": {"approve"}},
		"/boards/dock-1/control": {"version": {"4"}, "key": {"log.level"}, "value": {"info"}},
		"/conflicts":             {"board": {"dock-3"}, "key": {"app.setpoint"}, "side": {"fleet"}},
	}
	for target, values := range posts {
		for _, who := range []string{"v:viewer", "x:root"} {
			if w := s.ask(who, http.MethodPost, target, values); w.Code != http.StatusForbidden {
				t.Errorf("%s posts to %s: %d", who, target, w.Code)
			}
		}
	}
	for _, target := range []string{"/commands", "/commands/c-3", "/boards/dock-1/control", "/conflicts"} {
		if page := s.ask("v:viewer", http.MethodGet, target, nil); page.Code != http.StatusOK || strings.Contains(page.Body.String(), "<form method=\"post\" action=\"/c") || strings.Contains(page.Body.String(), "<form method=\"post\" action=\"/b") {
			t.Errorf("%s offers a viewer something to press (%d)", target, page.Code)
		}
	}
	if len(s.did) > 0 || len(s.given) > 0 {
		t.Errorf("something was done: %v %v", s.did, s.given)
	}
	if w := s.ask("j.roth:operator", http.MethodPost, "/commands/c-4", url.Values{"do": {"approve"}}); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "Nothing was done") {
		t.Errorf("one's own command approved: %d", w.Code)
	}
}

// TestDoes: what is pressed reaches the part, and what it refuses stands beside the field.
func TestDoes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const who = "m.kern:operator"
	for _, c := range []struct {
		target string
		values url.Values
		code   int
		want   string
	}{
		{"/commands/new", url.Values{"name": {"set-valve-position"}, "boards": {"dock-1, dock-2"}, "args": {"valve=main\npercent = 40\nnote=\"7\""}, "valid": {"10"}, "why": {"leak"}, "do": {"give"}}, 303, ""},
		{"/commands/new", url.Values{"name": {"restart"}, "query": {"site=hall-4"}, "args": {`{"part":"worker"}`}, "do": {"check"}}, 303, ""},
		{"/commands/new", url.Values{"name": {"restart"}, "do": {"give"}}, 422, "Name boards, or give a query."},
		{"/commands/new", url.Values{"name": {"restart"}, "boards": {"a"}, "query": {"b"}, "do": {"give"}}, 422, "Boards or a query, not both."},
		{"/commands/new", url.Values{"name": {"restart"}, "boards": {"a"}, "args": {"worker"}}, 422, "write name=value"},
		{"/commands/new", url.Values{"name": {"restart"}, "boards": {"a"}, "args": {"{"}}, 422, "This is no JSON object."},
		{"/commands/new", url.Values{"name": {"set-output"}, "boards": {"a"}, "args": {"output=x\nvalue="}}, 422, "has no value: write one"},
		{"/commands/new", url.Values{"name": {"fly"}, "boards": {"a"}}, 422, "No board has a command of this name."},
		{"/commands/c-3", url.Values{"do": {"cancel"}, "why": {"wrong hall"}}, 303, ""},
		{"/commands/c-4", url.Values{"do": {"approve"}}, 303, ""},
		{"/commands/none", url.Values{"do": {"cancel"}}, 404, ""},
		{"/boards/dock-1/control", url.Values{"version": {"4"}, "key": {"log.level"}, "value": {"loud"}}, 422, "Wants debug, info, warn or error."},
		{"/boards/dock-1/control", url.Values{"version": {"3"}, "key": {"log.level"}, "value": {"info"}}, 412, "Somebody changed it meanwhile."},
		{"/boards/dock-1/control", url.Values{"version": {"4"}, "key": {"app.x"}, "value": {"12.5"}, "why": {"try"}}, 303, ""},
		{"/boards/dock-1/control", url.Values{"version": {"5"}, "key": {"app.x"}, "do": {"unset"}}, 303, ""},
		{"/boards/dock-1/control", url.Values{"version": {"6"}, "key": {"app.x"}}, 422, "This is needed."},
		{"/boards/none/control", url.Values{"version": {"6"}, "key": {""}, "value": {"1"}}, 404, ""},
		{"/conflicts", url.Values{"board": {"dock-3"}, "key": {"app.setpoint"}, "side": {"board"}}, 303, ""},
		{"/conflicts", url.Values{"board": {"dock-3"}, "key": {"app.setpoint"}, "side": {"board"}}, 422, "This conflict is decided already."},
	} {
		w := s.ask(who, http.MethodPost, c.target, c.values)
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s %v: %d, wants %d with %q", c.target, c.values, w.Code, c.code, c.want)
		}
	}
	want := []string{"cancel wrong hall", "approve ", "set app.x 12.5 try", "set app.x null ", "decide dock-3 app.setpoint board"}
	if !slices.Equal(s.did, want) {
		t.Errorf("done: %q, want %q", s.did, want)
	}
	if len(s.given) != 2 || string(s.given[0].Args) != `{"note":"7","percent":40,"valve":"main"}` || s.given[0].ValidS != 600 || !s.given[1].DryRun || s.given[1].ValidS != 300 || !slices.Equal(s.given[0].Boards, []string{"dock-1", "dock-2"}) {
		t.Errorf("given: %+v", s.given)
	}
}

// FuzzArgs: whatever is typed becomes a JSON object or is refused.
func FuzzArgs(f *testing.F) {
	for _, s := range []string{"a=1", "a=b\nc=[1,2]", `{"a":null}`, "=", "a==b", "{", "a=\"\nb=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		fm := form.New("args", text)
		raw := args(fm)
		var m map[string]json.RawMessage
		if fm.OK() && len(raw) > 0 && json.Unmarshal(raw, &m) != nil {
			t.Errorf("%q became %q", text, raw)
		}
		_, _, _ = argWords(raw), value(raw), inWords(raw)
		_, _ = newOutput("x", raw)
	})
}
