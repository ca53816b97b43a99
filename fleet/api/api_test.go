// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/store"
	"fulmar/fleet/web"
)

// source is a fleet of two boards that notes what it was asked.
type source struct {
	asked  web.SeriesQuery
	broken error
}

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func (s *source) Overview(_ context.Context, tenant string) (*web.Overview, error) {
	if tenant != "default" {
		return &web.Overview{At: noon}, s.broken
	}
	return &web.Overview{At: noon, Boards: []web.Board{
		{Name: "new", State: web.StateNeverHeard},
		{
			Name: "b1", State: web.StateUnreachable, Since: noon.Add(-time.Hour), LastSeen: noon.Add(-time.Hour),
			Ledger: []web.Ledger{{
				Class: "metric", Epochs: 1, Made: 1816, Arrived: 300, Lost: 312, Waiting: 1204,
				Reasons: map[string]uint64{"disk full": 312}, Oldest: noon.Add(-2 * time.Hour),
			}},
			Gaps: []web.Gap{{Class: "metric", First: 301, Last: 612, Count: 312, Reason: "disk full", From: noon.Add(-10 * time.Hour), To: noon.Add(-9 * time.Hour), At: noon.Add(-9 * time.Hour)}},
		},
	}}, s.broken
}

func (s *source) Series(_ context.Context, q web.SeriesQuery) ([]web.Series, error) {
	s.asked = q
	if q.Board != "b1" {
		return nil, web.ErrNotFound
	}
	return []web.Series{{Name: "x", T: []int64{1}, V: []float64{2}, Lo: []float64{1}, Hi: []float64{4}}, {Name: "y", T: []int64{1}, V: []float64{2}}}, s.broken
}

func (s *source) Detections(context.Context, web.DetectionQuery) ([]web.Detection, error) {
	return []web.Detection{}, s.broken
}

func (s *source) Picture(context.Context, string, string, string) (io.ReadSeekCloser, error) {
	return nil, web.ErrNotFound
}

func (s *source) Check(context.Context, string) ([]store.Check, error) { return nil, s.broken }

// who lets tokens in by their name.
type who struct{}

func (who) Reader(r *http.Request) (string, error) {
	switch r.Header.Get("Authorization") {
	case "default", "other":
		return r.Header.Get("Authorization"), nil
	case "writer":
		return "", ErrNotAllowed
	}
	return "", ErrNotLoggedIn
}

func ask(h http.Handler, path, token string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Set("Authorization", token)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func handler(s *source) *Handler {
	return New(s, s, who{}, NewHub(), slog.New(slog.DiscardHandler))
}

// TestLedger: the ledger of a board as a program reads it.
func TestLedger(t *testing.T) {
	t.Parallel()
	h := handler(&source{})
	w := ask(h, "/api/v1/boards/b1/ledger", "default")
	var got ledgerReply
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK {
		t.Fatal(w.Code, err, w.Body)
	}
	o, _ := (&source{}).Overview(context.Background(), "default")
	b := o.Boards[1]
	if want := (ledgerReply{noon, "b1", false, b.State, b.Since, b.LastSeen, b.Ledger, b.Gaps}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	for _, want := range []string{
		`"made":1816,"arrived":300,"lost":312,"waiting":1204,"duplicates":0,"reasons":{"disk full":312},"oldest":"2026-11-21T10:00:00Z"`,
		`"count":312,"reason":"disk full","from":"2026-11-21T02:00:00Z","to":"2026-11-21T03:00:00Z"`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s\nlacks %s", w.Body, want)
		}
	}
	if w := ask(h, "/api/v1/boards/new/ledger", "default"); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"classes":[],"gaps":[]`) {
		t.Errorf("a board never heard of: %d %s", w.Code, w.Body)
	}
	if c := w.Header().Get("Cache-Control"); c != "no-store" {
		t.Errorf("may be cached: %q", c)
	}
}

// TestDoors: who may not read learns nothing, also not whether a board is there.
func TestDoors(t *testing.T) {
	t.Parallel()
	h := handler(&source{})
	for _, path := range []string{"overview", "boards/b1/ledger", "boards/b1/series", "boards/nobody/ledger", "detections", "check"} {
		for token, want := range map[string]int{"": http.StatusUnauthorized, "forged": http.StatusUnauthorized, "writer": http.StatusForbidden} {
			w := ask(h, "/api/v1/"+path, token)
			if w.Code != want || strings.Contains(w.Body.String(), "b1") || w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s as %q: %d %s", path, token, w.Code, w.Body)
			}
		}
	}
	for path, want := range map[string]int{
		"boards/nobody/ledger": 404, "boards/nobody/series": 404, "boards/%3Cscript%3E/ledger": 404, "boards/b1": 404, "boards/b1/ledger/x": 404,
	} {
		if w := ask(h, "/api/v1/"+path, "default"); w.Code != want || strings.Contains(w.Body.String(), "script") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if w := ask(h, "/api/v1/boards/b1/ledger", "other"); w.Code != http.StatusNotFound {
		t.Errorf("another tenant reads %d %s", w.Code, w.Body)
	}
	h = handler(&source{broken: errors.New("disk I/O error at /var/lib/fulmar/ledger.db")})
	if w := ask(h, "/api/v1/boards/b1/ledger", "default"); w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "/var") {
		t.Errorf("a broken store: %d %s", w.Code, w.Body)
	}
}

// TestSeriesQuery: what is asked reaches the store, bands come back where there are
// any, and what is out of bounds is refused.
func TestSeriesQuery(t *testing.T) {
	t.Parallel()
	s := &source{}
	h := handler(s)
	w := ask(h, "/api/v1/boards/b1/series?series=x&series=y&from=2026-11-01T00:00:00Z&to=1793491200000&points=720", "default")
	if want := `{"series":[{"name":"x","t":[1],"v":[2],"lo":[1],"hi":[4]},{"name":"y","t":[1],"v":[2]}]}`; w.Code != http.StatusOK || strings.TrimSpace(w.Body.String()) != want {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	want := web.SeriesQuery{Tenant: "default", Board: "b1", Series: []string{"x", "y"}, From: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), To: time.UnixMilli(1793491200000), Points: 720}
	if !reflect.DeepEqual(s.asked, want) {
		t.Errorf("asked %+v\nwant %+v", s.asked, want)
	}
	for _, bad := range []string{
		"points=0", "points=5001", "points=x", "from=yesterday", "to=-5", "from=0&to=1793491200000", "series=" + strings.Repeat("a", 65), "series=A",
		strings.Repeat("series=a&", 65), "from=2201-01-01T00:00:00Z",
	} {
		if w := ask(h, "/api/v1/boards/b1/series?"+bad, "default"); w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d %s", bad, w.Code, w.Body)
		}
	}
}
