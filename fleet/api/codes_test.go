// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/registry/idem"
	"fulmar/schema/rest"
)

// problemIn reads a problem and checks that it is one of the table.
func problemIn(t *testing.T, w *httptest.ResponseRecorder) rest.Problem {
	t.Helper()
	var p rest.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("%v: %d %s", err, w.Code, w.Body)
	}
	row := rest.Code(p.Code).Row()
	if string(row.Code) != p.Code || row.Status != w.Code || row.Status != p.Status || row.Title != p.Title || p.Type != "urn:fulmar:problem:"+p.Code ||
		p.Request == "" || p.Request != w.Header().Get("X-Request-Id") || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("not as the table has it: %d %s", w.Code, w.Body)
	}
	return p
}

// TestCodes: each code of the table is reached by a request, and no other.
func TestCodes(t *testing.T) {
	t.Parallel()
	reached := map[rest.Code]bool{}
	see := func(want rest.Code, w *httptest.ResponseRecorder) {
		t.Helper()
		if p := problemIn(t, w); p.Code != string(want) {
			t.Errorf("wants %s: %s", want, w.Body)
		}
		reached[want] = true
	}
	s := newTown()
	h := open(t, s)
	ruleBody, spec := bodyOf("put-alert-rule"), bodyOf("create-rollout")
	for _, c := range []struct {
		want                      rest.Code
		method, path, token, body string
		headers                   []string
	}{
		{rest.CodeNotLoggedIn, "GET", "me", "", "", nil},
		{rest.CodeNotAllowed, "POST", "boards/b1/revoke", "viewer", "", nil},
		{rest.CodeNoRoute, "GET", "nothing", "viewer", "", nil},
		{rest.CodeNotFound, "GET", "boards/b9", "viewer", "", nil},
		{rest.CodeMethod, "PATCH", "boards/b1", "viewer", "", nil},
		{rest.CodeParameter, "GET", "boards?page_size=0", "viewer", "", nil},
		{rest.CodeBody, "POST", "boards/b1/revoke", "admin", `{"why":5}`, nil},
		{rest.CodeBody, "POST", "rollouts", "admin", ``, nil},
		{rest.CodeTooLarge, "POST", "boards/b1/revoke", "admin", strings.Repeat(" ", 65<<10), nil},
		{rest.CodeTooLarge, "GET", "boards?q=" + strings.Repeat("x", 9<<10), "admin", "", nil},
		{rest.CodeMediaType, "POST", "boards/b1/revoke", "admin", "why=5", []string{"Content-Type", "application/x-www-form-urlencoded"}},
		{rest.CodeQuery, "GET", "boards?q=site%3D%3F", "viewer", "", nil},
		{rest.CodePageToken, "GET", "boards?page_token=xyz", "viewer", "", nil},
		{rest.CodeLimited, "GET", "alerts", "limited", "", nil},
		{rest.CodeNoIfMatch, "PUT", "boards/b1/meta", "admin", `{"version":0}`, nil},
		{rest.CodeStale, "PUT", "boards/b1/meta", "admin", `{"version":0}`, []string{"If-Match", `"v6"`}},
		{rest.CodeStale, "PUT", "boards/b1/meta", "admin", `{"site":"raced","version":0}`, []string{"If-Match", `"v7"`}},
		{rest.CodeStale, "PUT", "alert-rules/new", "admin", ruleBody, []string{"If-Match", `"v1"`}},
		{rest.CodeConfirm, "DELETE", "boards/b1", "admin", "", nil},
		{rest.CodeRefused, "POST", "rollouts", "admin", `{"name":"wrong","component":"agent","release":"2"}`, nil},
		{rest.CodeConflict, "POST", "rollouts/r-1/pause?dry_run=true", "admin", "", []string{"If-Match", "*"}},
		{rest.CodeFull, "POST", "boards/full/revoke", "admin", "", nil},
		{rest.CodeElsewhere, "POST", "requests/8/approve", "admin", "", nil},
		{rest.CodeTargetEmpty, "POST", "rollouts", "admin", `{"component":"agent","release":"2","query":"nobody"}`, nil},
		{rest.CodeSecondPerson, "POST", "rollouts/r-1/approve", "releaser", "", []string{"If-Match", "*"}},
		{rest.CodeTwinKey, "PATCH", "boards/b1/twin", "admin", `{"set":{"app.X":1}}`, []string{"If-Match", "*"}},
		{rest.CodeNoConflict, "POST", "conflicts/decide", "admin", `{"board":"b1","key":"app.rate","choose":"fleet"}`, nil},
		{rest.CodeCommandSame, "POST", "commands/c-1/actions", "operator", `{"action":"approve"}`, nil},
		{rest.CodeCommandForm, "POST", "commands", "operator", `{"name":"wrong","boards":["b1"]}`, nil},
		{rest.CodeCommandsOpen, "POST", "commands", "operator", `{"name":"flood","boards":["b1"]}`, nil},
		{rest.CodeKeyReused, "POST", "rollouts", "admin", spec, []string{"Idempotency-Key", "k"}},
		{rest.CodeKeySpent, "POST", "tokens", "admin", bodyOf("make-token"), []string{"Idempotency-Key", "t"}},
	} {
		switch c.want { // the same before, with another body or the same one
		case rest.CodeKeyReused:
			ask(h, c.method, c.path, c.token, strings.Replace(c.body, "1.9.0", "1.9.1", 1), c.headers...)
		case rest.CodeKeySpent:
			if w := ask(h, c.method, c.path, c.token, c.body, c.headers...); w.Code != http.StatusCreated || !strings.Contains(w.Body.String(), "fk1_secret") {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		}
		see(c.want, ask(h, c.method, c.path, c.token, c.body, c.headers...))
	}
	w := get(h, "boards?sort=state&page_size=1", "viewer-1")
	next := nextIn(t, w)
	for range 16 {
		get(h, "boards?sort=state&page_size=1", "viewer-2")
	}
	see(rest.CodeListingOver, get(h, "boards?sort=state&page_size=1&page_token="+next, "viewer-1"))
	s.broken = context.DeadlineExceeded
	see(rest.CodeSlowRequest, get(h, "boards", "viewer"))
	s.broken = fmt.Errorf("the disk is gone")
	see(rest.CodeInternal, get(h, "boards", "viewer"))
	s.broken = idem.ErrFull // as the table of keys has it
	see(rest.CodeKeysFull, get(h, "boards", "viewer"))
	s.broken = nil
	for i := 0; ; i++ {
		if w := get(h, "me", "viewer-greedy"); w.Code != 200 {
			see(rest.CodeTooMany, w)
			if i < 300 || w.Header().Get("Retry-After") == "" || w.Header().Get("RateLimit-Remaining") != "0" {
				t.Errorf("after %d requests: %v", i, w.Header())
			}
			break
		} else if i > 1000 {
			t.Fatal("nobody is too greedy")
		}
	}
	if w := get(h, "me", "viewer-modest"); w.Code != 200 || w.Header().Get("RateLimit-Remaining") != "399" {
		t.Errorf("another caller pays for it: %d %v", w.Code, w.Header())
	}
	seeWaiting(t, see)
	for _, row := range rest.Codes() {
		if !reached[row.Code] {
			t.Errorf("%s is not reached: %s", row.Code, row.Title)
		}
	}
}

// seeWaiting reaches the codes of requests that others stand before.
func seeWaiting(t *testing.T, see func(rest.Code, *httptest.ResponseRecorder)) {
	t.Helper()
	s := newTown()
	s.slow = make(chan struct{})
	hub := NewHub()
	h := openWith(t, s, hub)
	ended := make(chan *httptest.ResponseRecorder, 100)
	approve := func(who string, headers ...string) {
		go func() { ended <- ask(h, "POST", "requests/7/approve", who, "", headers...) }()
	}
	underway := func(n int) {
		for began := time.Now(); h.door.Underway() < n; time.Sleep(time.Millisecond) {
			if time.Since(began) > 10*time.Second {
				t.Fatal("they do not begin")
			}
		}
	}
	approve("admin", "Idempotency-Key", "k")
	underway(1)
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		w := ask(h, "POST", "requests/7/approve", "admin", "", "Idempotency-Key", "k", "Prefer", "x")
		if w.Code == http.StatusConflict {
			see(rest.CodeKeyInFlight, w)
			break
		}
		if time.Since(began) > 10*time.Second {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	for i := range 63 {
		approve(fmt.Sprintf("admin%d", i%2)[:5])
	}
	underway(64)
	w := get(h, "me", "viewer")
	see(rest.CodeBusy, w)
	close(s.slow)
	for range 64 {
		if w := <-ended; w.Code != http.StatusNoContent {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	s.slow = make(chan struct{})
	for i := range 17 {
		w := ask(h, "DELETE", "boards/b1?confirm=b1", "admin", "", "Prefer", "respond-async")
		if i == 16 {
			see(rest.CodeOperations, w)
		} else if w.Code != http.StatusAccepted {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	close(s.slow)
	for range 16 {
		hub.join("default", "default/viewer", "")
	}
	see(rest.CodeStreams, get(h, "events", "viewer"))
}

// TestTable: the codes are in order, none twice, and each says what to do.
func TestTable(t *testing.T) {
	t.Parallel()
	rows := rest.Codes()
	if !slices.IsSortedFunc(rows, func(a, b rest.CodeRow) int { return strings.Compare(string(a.Code), string(b.Code)) }) {
		t.Error("not in order")
	}
	for i, r := range rows {
		if i > 0 && rows[i-1].Code == r.Code || r.Status < 400 || r.Title == "" || r.Why == "" || r.Do == "" || r.Code < "FLT1000" || r.Code > "FLT1999" {
			t.Errorf("%+v", r)
		}
	}
}
