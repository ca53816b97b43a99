// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/web"
	"fulmar/schema/rest"
)

// many is a town of n boards, every third of them failing.
func many(n int) *town {
	boards := make([]web.Board, n)
	for i := range boards {
		boards[i] = web.Board{Name: fmt.Sprintf("b%03d", i), State: web.StateHealthy, LastSeen: noon.Add(time.Duration(n-i) * time.Second), Since: noon}
		if i%3 == 0 {
			boards[i].State = web.StateFailing
		}
	}
	return newTown(boards...)
}

func listIn(t *testing.T, w *httptest.ResponseRecorder) (l rest.List[rest.BoardSummary]) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), &l); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%v: %d %s", err, w.Code, w.Body)
	}
	return l
}

func nextIn(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	n := listIn(t, w).Next
	if n == "" {
		t.Fatalf("there is no next page: %s", w.Body)
	}
	return n
}

// TestPages: every order gives each board once, also while boards come, go and change.
func TestPages(t *testing.T) {
	t.Parallel()
	for _, sort := range []string{"", "name", "-name", "state", "-state", "seen", "-seen", "since", "-since"} {
		s := many(25)
		h := open(t, s)
		path, got := "boards?page_size=4&count=true&sort="+sort, []string{}
		if sort == "" {
			path = strings.TrimSuffix(path, "&sort=")
		}
		for next := ""; ; {
			at := path
			if next != "" {
				at += "&page_token=" + next
			}
			l := listIn(t, get(h, at, "viewer"))
			for _, b := range l.Items {
				got = append(got, b.Board)
			}
			if l.Total == nil || *l.Total < 25 || len(l.Items) > 4 {
				t.Errorf("%s: %d of %v", sort, len(l.Items), l.Total)
			}
			if next = l.Next; next == "" {
				break
			}
			s.change(func(b []web.Board) []web.Board { // the world goes on
				for i := range b {
					if b[i].LastSeen = noon.Add(time.Duration(i*len(got)) * time.Second); i%2 == 0 {
						b[i].State = web.StateDegraded
					}
				}
				if len(got) == 4 {
					b = append(b, web.Board{Name: "c", State: web.StateNeverHeard})
				}
				return b
			})
		}
		slices.Sort(got)
		if u := slices.Compact(slices.Clone(got)); len(u) != len(got) || len(slices.DeleteFunc(u, func(n string) bool { return n == "c" })) != 25 {
			t.Errorf("%q gives %q", sort, got)
		}
	}
	s := many(25)
	h := open(t, s)
	first := listIn(t, get(h, "boards?sort=state&page_size=10", "viewer"))
	for i, b := range first.Items {
		if (b.State == "failing") != (i < 9) {
			t.Errorf("%d: %s is %s", i, b.Board, b.State)
		}
	}
	if l := listIn(t, get(h, "boards?sort=-name&page_size=2", "viewer")); l.Items[0].Board != "b024" || l.Items[1].Board != "b023" {
		t.Errorf("%+v", l.Items)
	}
	// A page_token is of its listing alone.
	token := nextIn(t, get(h, "boards?page_size=2", "viewer"))
	for _, other := range []string{"boards?q=b0&page_token=", "boards?sort=-name&page_token=", "boards?sort=state&page_token="} {
		if w := get(h, other+token, "viewer"); w.Code != 400 {
			t.Errorf("%s: %d %s", other, w.Code, w.Body)
		}
	}
	if w := get(h, "boards?page_token="+token, "limited"); w.Code != 400 {
		t.Errorf("another caller's: %d %s", w.Code, w.Body)
	}
	if link := get(h, "boards?page_size=2&q=b0", "viewer").Header().Get("Link"); !strings.HasPrefix(link, "</api/v1/boards?page_size=2&page_token=") || !strings.HasSuffix(link, `&q=b0>; rel="next"`) {
		t.Errorf("%s", link)
	}
}

// TestFields: what is not asked for is left out, and queries narrow.
func TestFields(t *testing.T) {
	t.Parallel()
	h := open(t, newTown())
	if w := get(h, "boards?fields=board,trust", "viewer"); strings.TrimSpace(w.Body.String()) !=
		`{"items":[{"board":"b1","state":"unreachable","online":false,"trust":"software"},{"board":"new","state":"never-heard","online":false}]}` {
		t.Errorf("%s", w.Body)
	}
	if w := get(h, "boards?fields=board,colour", "viewer"); w.Code != 400 || strings.Contains(w.Body.String(), "colour") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if l := listIn(t, get(h, "boards?q=n&count=true", "viewer")); len(l.Items) != 1 || l.Items[0].Board != "new" || *l.Total != 1 {
		t.Errorf("%+v", l)
	}
	w := get(h, "boards?q=site%3D%3F", "viewer")
	if p := problemIn(t, w); p.Do != "did you mean hall-4?" || len(p.Errors) != 1 || p.Errors[0].Pointer != "q:6" {
		t.Errorf("%s", w.Body)
	}
	if w := get(h, "query/check?q=sick", "viewer"); strings.TrimSpace(w.Body.String()) != `{"query":"sick","count":2}` {
		t.Errorf("%s", w.Body)
	}
	if w := get(h, "query/check?q=site%3D%3F", "viewer"); w.Code != 200 || !strings.Contains(w.Body.String(), `"column":6`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	// The old form stays where nothing is asked for.
	if w := get(h, "boards", "viewer"); !strings.Contains(w.Body.String(), `"boards":[{"board":"b1","trust":"software","fingerprint":`) {
		t.Errorf("%s", w.Body)
	}
	if w := get(h, "boards", "limited"); strings.Contains(w.Body.String(), `"new"`) || !strings.Contains(w.Body.String(), `"boards":[{"board":"b1"`) {
		t.Errorf("%s", w.Body)
	}
}

// TestExport: CSV and NDJSON are whole, and no cell is a formula.
func TestExport(t *testing.T) {
	t.Parallel()
	s := many(250)
	s.change(func(b []web.Board) []web.Board {
		b[0].Facts = map[string]string{"model": "x", "cmd": `=HYPERLINK("http://x")`}
		b[1].Cause, b[2].Cause = "=1+1", `a "b", c`
		return b
	})
	h := open(t, s)
	w := get(h, "boards", "viewer", "Accept", "text/csv")
	rows, err := csv.NewReader(w.Body).ReadAll()
	if err != nil || len(rows) != 251 || w.Header().Get("Content-Type") != "text/csv" {
		t.Fatalf("%v, %d rows, %v", err, len(rows), w.Header())
	}
	cause := slices.Index(rows[0], "cause")
	if rows[2][cause] != "'=1+1" || rows[3][cause] != `a "b", c` || rows[1][slices.Index(rows[0], "facts")] != `cmd==HYPERLINK("http://x"); model=x` {
		t.Errorf("%q", rows[1:4])
	}
	w = get(h, "boards?fields=state,board&page_size=2", "viewer", "Accept", "text/csv, */*")
	if w.Body.String() != "state,board\nfailing,b000\nhealthy,b001\n" || w.Header().Get("Link") == "" {
		t.Errorf("%q", w.Body)
	}
	w = get(h, "boards?q=b24", "viewer", "Accept", "application/x-ndjson")
	if lines := strings.Split(strings.TrimSpace(w.Body.String()), "\n"); len(lines) != 10 || !strings.HasPrefix(lines[9], `{"board":"b249"`) {
		t.Errorf("%q", lines)
	}
}

// TestTags: nothing is sent twice, and another look, caller or question is another tag.
func TestTags(t *testing.T) {
	t.Parallel()
	s := newTown()
	h := open(t, s)
	seen := map[string]string{}
	for _, path := range []string{"overview", "boards", "boards?q=b1", "boards?count=true", "boards/b1", "boards/new"} {
		tag := get(h, path, "viewer").Header().Get("ETag")
		if was := seen[tag]; tag == "" || was != "" {
			t.Errorf("%s has the tag %s, as %q", path, tag, was)
		}
		seen[tag] = path
		if w := get(h, path, "viewer", "If-None-Match", `"x", W/`+tag); w.Code != http.StatusNotModified || w.Body.Len() > 0 || w.Header().Get("ETag") != tag {
			t.Errorf("%s again: %d %s", path, w.Code, w.Body)
		}
		if w := get(h, path, "elsewhere", "If-None-Match", tag); w.Code == http.StatusNotModified {
			t.Errorf("%s of another tenant: %d", path, w.Code)
		}
		if w := get(h, path, "limited", "If-None-Match", tag); w.Code == http.StatusNotModified {
			t.Errorf("%s of a limited caller: %d", path, w.Code)
		}
	}
	s.change(func(b []web.Board) []web.Board { return b })
	for tag, path := range seen {
		if w := get(h, path, "viewer", "If-None-Match", tag); w.Code != 200 {
			t.Errorf("%s after a change: %d", path, w.Code)
		}
	}
}

// TestDetections: of some boards, across the pages of the store, and their pictures.
func TestDetections(t *testing.T) {
	t.Parallel()
	h := open(t, newTown())
	var got struct {
		Detections []web.Detection
		Next       string
	}
	ids := map[string]bool{}
	for before, n := "", 0; n == 0 || before != ""; n++ {
		w := get(h, "detections?q=new&limit=7&before="+before, "viewer")
		got.Next, got.Detections = "", nil
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || n > 9 {
			t.Fatalf("%v: %d %s", err, w.Code, w.Body)
		}
		for _, d := range got.Detections {
			if ids[d.ID] || d.Board != "new" {
				t.Errorf("%s", d.ID)
			}
			ids[d.ID] = true
		}
		before = got.Next
	}
	if len(ids) != 30 {
		t.Errorf("%d detections", len(ids))
	}
	w := get(h, "detections/b1/event/1/30/picture", "viewer")
	if w.Code != 200 || w.Header().Get("Content-Type") != "image/jpeg" || !strings.Contains(w.Header().Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	for _, path := range []string{"detections/b1/event/1/29/picture", "detections/b9/event/1/30/picture", "detections/..%2Fb1/event/1/30/picture"} {
		if w := get(h, path, "viewer"); w.Code != 404 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if w := get(h, "detections?before=a&after=b", "viewer"); w.Code != 400 {
		t.Errorf("%d", w.Code)
	}
}
