// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/web"
)

// TestLedger: the ledger of a board as a program reads it.
func TestLedger(t *testing.T) {
	t.Parallel()
	h := open(t, newTown())
	w := get(h, "boards/b1/ledger", "viewer")
	for _, want := range []string{
		`"at":"2026-11-21T12:00:00Z","board":"b1","online":false,"state":"unreachable","since":"2026-11-21T11:00:00Z","last_seen":"2026-11-21T11:00:00Z"`,
		`"made":1816,"arrived":300,"lost":312,"waiting":1204,"duplicates":0,"reasons":{"disk full":312},"oldest":"2026-11-21T10:00:00Z"`,
		`"count":312,"reason":"disk full","from":"2026-11-21T02:00:00Z","to":"2026-11-21T03:00:00Z"`,
	} {
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%d %s\nlacks %s", w.Code, w.Body, want)
		}
	}
	if w := get(h, "boards/new/ledger", "viewer"); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"classes":[],"gaps":[]`) {
		t.Errorf("a board never heard of: %d %s", w.Code, w.Body)
	}
	if c := w.Header().Get("Cache-Control"); c != "no-store" {
		t.Errorf("may be cached: %q", c)
	}
}

// TestSeriesQuery: what is asked reaches the store, bands come back where there are
// any, and what is out of bounds is refused.
func TestSeriesQuery(t *testing.T) {
	t.Parallel()
	s := newTown()
	h := open(t, s)
	w := get(h, "boards/b1/series?series=x&series=y&from=2026-11-01T00:00:00Z&to=1793491200000&points=720", "viewer")
	if want := `{"series":[{"name":"x","t":[1],"v":[2],"lo":[1],"hi":[4]},{"name":"y","t":[1],"v":[2]}]}`; w.Code != http.StatusOK || strings.TrimSpace(w.Body.String()) != want {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	want := web.SeriesQuery{Tenant: "default", Board: "b1", Series: []string{"x", "y"}, From: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), To: time.UnixMilli(1793491200000), Points: 720}
	if !reflect.DeepEqual(s.asked, want) {
		t.Errorf("asked %+v\nwant %+v", s.asked, want)
	}
	for _, bad := range []string{
		"points=0", "points=5001", "points=x", "from=yesterday", "to=-5", "from=0&to=1793491200000", "series=" + strings.Repeat("a", 65), "series=A",
		strings.Repeat("series=a&", 65), "from=2201-01-01T00:00:00Z", "points=1&points=2", "point=3",
	} {
		if w := get(h, "boards/b1/series?"+bad, "viewer"); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "FLT1006") {
			t.Errorf("%s: %d %s", bad, w.Code, w.Body)
		}
	}
	if w := get(h, "boards/nobody/series", "viewer"); w.Code != http.StatusNotFound {
		t.Errorf("a board that is not there: %d", w.Code)
	}
}

// TestTrouble: a fault of the store is told without its words.
func TestTrouble(t *testing.T) {
	t.Parallel()
	s := newTown()
	h := open(t, s)
	s.broken = errors.New("disk I/O error at /var/lib/fulmar/ledger.db")
	for _, r := range h.Routes() {
		if r.Open || r.Stream || r.Tag == "telemetry" || r.ID == "get-me" || r.ID == "list-alerts" || r.ID == "get-operation" {
			continue
		}
		path := strings.NewReplacer("{board}", "b1", "{id}", "r-1", "{class}", "event", "{epoch}", "1", "{seq}", "30", "{delivery}", "9").Replace(r.Path)
		w := ask(h, r.Method, path+confirmed(r.ID), "admin", bodyOf(r.ID), "If-Match", "*")
		if strings.Contains(w.Body.String(), "/var") || w.Code < 400 {
			t.Errorf("%s: %d %s", r.ID, w.Code, w.Body)
		}
	}
	if done := s.done(); len(done) > 0 {
		t.Errorf("done in trouble: %q", done)
	}
}
