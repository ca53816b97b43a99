// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"fulmar/schema/rest"
)

// TestTwin: a twin is read and changed by its version, tried, and changed of many boards
// by name or query; a history has pages.
func TestTwin(t *testing.T) {
	t.Parallel()
	s := newTown()
	h := open(t, s)
	w := get(h, "boards/b1/twin", "viewer")
	if w.Code != 200 || w.Header().Get("ETag") != `"v4"` || !strings.Contains(w.Body.String(), `"value":7`) {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	patch := bodyOf("patch-twin")
	for _, c := range []struct {
		method, path, body, match string
		status                    int
		want, did                 string
	}{
		{"PATCH", "boards/b1/twin", patch, "", 428, "FLT1201", ""},
		{"PATCH", "boards/b1/twin", patch, `"v3"`, 412, "FLT1202", ""},
		{"PATCH", "boards/b1/twin", patch, `"v4"`, 200, `"version":4`, "twin of b1 by operator, v4: 2 keys"},
		{"PATCH", "boards/b1/twin", patch, `*`, 200, `"version":4`, "twin of b1 by operator, v-1: 2 keys"},
		{"PATCH", "boards/b1/twin", `{"set":{"a":1},"reason":"raced"}`, `"v4"`, 412, "FLT1202", ""},
		{"PATCH", "boards/b1/twin?dry_run=true", patch, `"v4"`, 200, "Of 1 board: app.old would be set. app.rate would be set.", ""},
		{"PATCH", "boards/b9/twin", patch, `*`, 404, "FLT1004", ""},
		{"PATCH", "boards/b1/twin", `{"set":5}`, `*`, 400, "FLT1007", ""},
		{"POST", "twins", `{"query":"any","set":{"app.rate":7}}`, "", 200, `"board":"new"`, "twins of b1 new by operator: 1 keys"},
		{"POST", "twins", `{"boards":["new"],"set":{"app.rate":7}}`, "", 200, `"board":"new"`, "twins of new by operator: 1 keys"},
		{"POST", "twins", `{"boards":["new"],"query":"any","set":{"app.rate":7}}`, "", 400, "FLT1007", ""},
		{"POST", "twins", `{"set":{"app.rate":7}}`, "", 400, "FLT1007", ""},
		{"POST", "twins", `{"boards":["b9"],"set":{"app.rate":7}}`, "", 422, "FLT1401", ""},
		{"POST", "twins", `{"query":"nobody","set":{"app.rate":7}}`, "", 422, "FLT1401", ""},
		{"POST", "twins?dry_run=true", `{"query":"any","set":{"app.rate":7}}`, "", 200, "Of 2 boards: 1 boards (b1): app.rate would be set. 1 boards (new): app.rate would be set, and may be refused: it has none.", ""},
		{"POST", "conflicts/decide", `{"board":"b1","key":"app.hold","choose":"board"}`, "", 200, `"version":4`, "decide app.hold of b1 by operator: board"},
		{"POST", "conflicts/decide?dry_run=true", `{"board":"b1","key":"app.hold","choose":"board"}`, "", 200, "app.hold of b1 would be settled", ""},
		{"POST", "conflicts/decide", `{"board":"b1","key":"app.hold","choose":"mine"}`, "", 400, "FLT1007", ""},
		{"POST", "conflicts/decide", `{"board":"b9","key":"app.hold","choose":"board"}`, "", 404, "FLT1004", ""},
	} {
		s.forget()
		var headers []string
		if c.match != "" {
			headers = []string{"If-Match", c.match}
		}
		w := ask(h, c.method, c.path, "operator", c.body, headers...)
		var dry rest.DryRun
		_ = json.Unmarshal(w.Body.Bytes(), &dry)
		if w.Code != c.status || !strings.Contains(w.Body.String()+dry.Would, c.want) || strings.Join(s.done(), "|") != c.did {
			t.Errorf("%s %s %s: %d %s, did %q", c.method, c.path, c.body, w.Code, w.Body, s.done())
		}
	}
	var seqs []int64
	path := "boards/b1/twin/history?page_size=2"
	for token := ""; ; {
		w := get(h, path+token, "viewer")
		var page rest.List[rest.TwinEvent]
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		for _, e := range page.Items {
			seqs = append(seqs, e.Seq)
		}
		if page.Next == "" {
			break
		}
		token = "&page_token=" + page.Next
	}
	if !slices.Equal(seqs, []int64{5, 4, 3, 2, 1}) {
		t.Error(seqs)
	}
	if w := get(h, "boards/b1/twin/history?page_token=x", "viewer"); w.Code != 400 || !strings.Contains(w.Body.String(), string(rest.CodePageToken)) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestTwinLimited: who is limited to b1 sees and changes no other board's twin.
func TestTwinLimited(t *testing.T) {
	t.Parallel()
	s := newTown()
	h := open(t, s)
	if w := get(h, "conflicts", "limited"); w.Code != 200 || !strings.Contains(w.Body.String(), `"b1"`) || strings.Contains(w.Body.String(), `"new"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := get(h, "conflicts", "viewer"); !strings.Contains(w.Body.String(), `"new"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for _, c := range []struct {
		path, body string
		status     int
	}{
		{"twins", `{"boards":["b1","new"],"set":{"app.rate":7}}`, http.StatusUnprocessableEntity},
		{"conflicts/decide", `{"board":"new","key":"app.hold","choose":"board"}`, http.StatusNotFound},
	} {
		if w := ask(h, "POST", c.path, "limited", c.body); w.Code != c.status || len(s.done()) > 0 {
			t.Errorf("%s: %d %s, did %q", c.path, w.Code, w.Body, s.done())
		}
	}
	if w := ask(h, "POST", "twins", "limited", `{"query":"any","set":{"app.rate":7}}`); w.Code != 200 || strings.Join(s.done(), "|") != "twins of b1 by limited: 1 keys" {
		t.Errorf("%d %s, did %q", w.Code, w.Body, s.done())
	}
}
