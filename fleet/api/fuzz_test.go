// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"fulmar/schema/rest"
)

// FuzzRequest: whatever is asked, the answer is one of the table or a good one, and only
// who may do something does.
func FuzzRequest(f *testing.F) {
	h := open(f, newTown())
	for _, r := range h.Routes() {
		f.Add(r.Method, where(r.Path), strings.TrimPrefix(confirmed(r.ID), "?"), bodyOf(r.ID), "application/json", "admin", "*")
	}
	f.Add("GET", "boards", "q=b1&page_size=1&page_token=eyJvIjoiIn0&sort=state&fields=board,cause", "", "", "viewer", "")
	f.Add("GET", "boards/b1/series", "series=a&series=b&from=0&to=1&points=9", "", "", "limited", "")
	f.Add("POST", "rollouts", "", `{"component":"agent","release":"1","waves":[{"percent":1e308}],"guards":[{"name":"","expr":"","better":"x","min":null}]}`, "", "releaser", "")
	f.Add("POST", "tokens", "", bodyOf("make-token"), "application/json", "viewer", "")
	s, asked := newTown(), 0
	h = open(f, s)
	f.Fuzz(func(t *testing.T, method, path, query, body, kind, who, match string) {
		u := &url.URL{Path: "/api/v1/" + path, RawQuery: query}
		r, err := http.NewRequest(method, "https://fleet.example/", strings.NewReader(body))
		if err != nil || strings.HasPrefix(path, "events") {
			t.Skip()
		}
		r.URL, r.RequestURI = u, u.RequestURI()
		asked++ // each from another address, as another caller: the rates have their own test
		r.RemoteAddr = fmt.Sprintf("10.%d.%d.%d:1", asked>>16&255, asked>>8&255, asked&255)
		r.Header = http.Header{"Content-Type": {kind}, "Authorization": {"Bearer " + who}, "If-Match": {match}, "Accept": {kind}, "If-None-Match": {match}, "Test-Who": {r.RemoteAddr}}
		s.forget()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if w.Code >= 400 && w.Header().Get("Content-Type") == "application/problem+json" {
			var p rest.Problem
			if json.Unmarshal(w.Body.Bytes(), &p) != nil || p.Code == "" {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		} else if w.Code >= 400 {
			t.Errorf("%d of type %q", w.Code, w.Header().Get("Content-Type"))
		}
		did := slices.DeleteFunc(s.done(), func(d string) bool { return strings.Contains(d, "token ") && !strings.Contains(d, "join token ") }) // of their own
		if len(did) > 0 && rest.Role(who).Rights() == rest.Viewer.Rights() {
			t.Errorf("a viewer did %q", did)
		}
	})
}
