// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/telemetry/scope"
)

// twoTenants has tenant a with two boards and tenant b with one whose every name says so.
func twoTenants(t testing.TB, cfg Config) (*DB, time.Time) {
	t.Helper()
	l, at := newLedger(t), start()
	l.board(1, "a", "dock-1")
	l.board(2, "a", "dock-2")
	l.board(3, "b", "hidden-board")
	for i := range 60 {
		x := at.Add(time.Duration(i) * 10 * time.Second)
		l.samples(1, x, false, reading("load.1m", float64(i)))
		l.samples(2, x, false, reading("load.1m", 2))
		l.samples(3, x, false, reading("hidden.1m", 6666))
		l.samples(3, x, false, reading("load.1m", 6666))
	}
	d := open(t, t.TempDir(), l, cfg, nil)
	drain(t, d)
	return d, at
}

func ask(d *DB, s *scope.Scope, path string, form url.Values) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if s != nil {
		r = r.WithContext(scope.With(r.Context(), *s))
	}
	w := httptest.NewRecorder()
	d.Handler().ServeHTTP(w, r)
	return w
}

// answer is Prometheus' envelope.
type answer struct {
	Status, ErrorType, Error string
	Data                     json.RawMessage
}

func data(t *testing.T, w *httptest.ResponseRecorder, into any) {
	t.Helper()
	var a answer
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != 200 || a.Status != "success" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if err := json.Unmarshal(a.Data, into); err != nil {
		t.Fatal(err)
	}
}

func TestAPI(t *testing.T) {
	t.Parallel()
	d, at := twoTenants(t, Config{})
	a := &scope.Scope{Tenant: "a"}
	stamp := func(x time.Time) string { return fmt.Sprint(x.Unix()) }

	var v struct {
		ResultType string
		Result     []struct {
			Metric map[string]string
			Value  [2]any
			Values [][2]any
		}
	}
	data(t, ask(d, a, "/api/v1/query", url.Values{"query": {`fulmar_load{board="dock-1"}`}, "time": {at.Add(50 * time.Second).Format(time.RFC3339)}}), &v)
	if v.ResultType != "vector" || len(v.Result) != 1 || v.Result[0].Value[1] != "5" || v.Result[0].Metric["site"] != "north" {
		t.Errorf("query: %+v", v)
	}
	data(t, ask(d, a, "/api/v1/query_range", url.Values{"query": {`sum by (board) (fulmar_load)`}, "start": {stamp(at)}, "end": {stamp(at.Add(time.Minute))}, "step": {"10s"}}), &v)
	if v.ResultType != "matrix" || len(v.Result) != 2 || len(v.Result[0].Values) != 7 {
		t.Errorf("query_range: %+v", v)
	}
	var series []map[string]string
	data(t, ask(d, a, "/api/v1/series", url.Values{"match[]": {`{__name__=~".+"}`, `fulmar_load`}}), &series)
	if len(series) != 2 {
		t.Errorf("series: %v", series)
	}
	var names []string
	data(t, ask(d, a, "/api/v1/labels", nil), &names)
	if !slices.Equal(names, []string{"__name__", "board", "series", "site", "tenant"}) {
		t.Errorf("labels: %v", names)
	}
	data(t, ask(d, a, "/api/v1/label/board/values", url.Values{"match[]": {"fulmar_load"}}), &names)
	if !slices.Equal(names, []string{"dock-1", "dock-2"}) {
		t.Errorf("values: %v", names)
	}
	var meta map[string][]struct{ Type string }
	data(t, ask(d, a, "/api/v1/metadata", nil), &meta)
	if len(meta) != 1 || meta["fulmar_load"][0].Type != "gauge" {
		t.Errorf("metadata: %v", meta)
	}
	var build map[string]string
	data(t, ask(d, a, "/api/v1/status/buildinfo", nil), &build)
	if build["version"] == "" {
		t.Error("no version")
	}
	// A token for one board sees that board.
	few := &scope.Scope{Tenant: "a", Boards: func(b string) bool { return b == "dock-2" }}
	data(t, ask(d, few, "/api/v1/label/board/values", nil), &names)
	if !slices.Equal(names, []string{"dock-2"}) {
		t.Errorf("values of a token: %v", names)
	}
	data(t, ask(d, few, "/api/v1/query", url.Values{"query": {`count(fulmar_load)`}, "time": {stamp(at)}}), &v)
	if v.Result[0].Value[1] != "1" {
		t.Errorf("query of a token: %+v", v)
	}
}

func TestAPIRefuses(t *testing.T) {
	t.Parallel()
	d, at := twoTenants(t, Config{QuerySamples: 1000})
	a, from := &scope.Scope{Tenant: "a"}, fmt.Sprint(at.Unix())
	for name, c := range map[string]struct {
		path string
		form url.Values
		want int
	}{
		"no expression":     {"query", nil, 400},
		"nonsense":          {"query", url.Values{"query": {`fulmar_load{`}}, 400},
		"too long":          {"query", url.Values{"query": {`"` + strings.Repeat("x", scope.MaxExpr) + `"`}}, 400},
		"experimental":      {"query", url.Values{"query": {`info(fulmar_load)`}}, 400},
		"not a time":        {"query", url.Values{"query": {"1"}, "time": {"yesterday"}}, 400},
		"time of no number": {"query", url.Values{"query": {"1"}, "time": {"NaN"}}, 400},
		"far away":          {"query", url.Values{"query": {"1"}, "time": {"1e300"}}, 400},
		"no step":           {"query_range", url.Values{"query": {"1"}, "start": {from}, "end": {from}}, 400},
		"no step at all":    {"query_range", url.Values{"query": {"1"}, "start": {from}, "end": {from}, "step": {"0"}}, 400},
		"too many points":   {"query_range", url.Values{"query": {"1"}, "start": {"0"}, "end": {from}, "step": {"1"}}, 400},
		"backwards":         {"query_range", url.Values{"query": {"1"}, "start": {from}, "end": {"0"}, "step": {"1"}}, 400},
		"too many samples":  {"query", url.Values{"query": {`sum_over_time(fulmar_load[1h:1s])`}, "time": {fmt.Sprint(at.Unix() + 600)}}, 422},
		"all series":        {"series", nil, 400},
		"too many matches":  {"series", url.Values{"match[]": slices.Repeat([]string{"up"}, 100)}, 400},
		"bad match":         {"labels", url.Values{"match[]": {"{"}}, 400},
		"no such path":      {"admin/tsdb/delete_series", nil, 404},
		"body too large":    {"query", url.Values{"query": {strings.Repeat("x", 100<<10)}}, 400},
	} {
		w := ask(d, a, "/api/v1/"+c.path, c.form)
		if w.Code != c.want {
			t.Errorf("%s: %d %.200s", name, w.Code, w.Body)
		}
	}
	if w := ask(d, nil, "/api/v1/query", url.Values{"query": {"1"}}); w.Code != 401 {
		t.Errorf("nobody: %d", w.Code)
	}
	if w := ask(d, &scope.Scope{}, "/api/v1/query", url.Values{"query": {"1"}}); w.Code != 401 {
		t.Errorf("no tenant: %d", w.Code)
	}
}

// Whatever tenant a writes, nothing of b comes back: neither names nor numbers.
func TestNoExpressionReadsAnotherTenant(t *testing.T) {
	t.Parallel()
	d, at := twoTenants(t, Config{})
	a := &scope.Scope{Tenant: "a"}
	when := fmt.Sprint(at.Add(time.Minute).Unix())
	for _, expr := range []string{
		`{tenant="b"}`, `fulmar_load{tenant="b"}`, `{tenant=~".*"}`, `{tenant!="a"}`, `{tenant!~"a", __name__=~".+"}`,
		`fulmar_load{board="hidden-board"}`, `fulmar_load or {tenant="b"}`, `fulmar_load offset -1m or {tenant=~"b|a"}`,
		`sum by (tenant, board) ({__name__=~".+", tenant=~".+"})`, `count({tenant="b"}) or vector(0)`, `absent({tenant="b"})`,
		`max_over_time({__name__=~".*", board=~".*"}[1h])`, `max_over_time({__name__=~".+",tenant="b"}[1h:1m] @ end())`,
		`label_replace(fulmar_load, "tenant", "b", "", "")`, `fulmar_hidden`, `{"fulmar_hidden"}`, `{"fulmar_load", "tenant"="b"}`,
		`{tenant="a", tenant="b"}`, `{tenant="a" or tenant="b"}`, `fulmar_load{tenant="a"} unless fulmar_load{tenant="b"}`, "fulmar_load{tenant=`b`}",
		`fulmar_load{tenant="b"} and ignoring(tenant) fulmar_load`, `group_left`, `count_values("x", {tenant="b"})`,
	} {
		for _, path := range []string{"query", "query_range", "series", "labels", "label/board/values", "label/tenant/values", "label/__name__/values"} {
			w := ask(d, a, "/api/v1/"+path, url.Values{"query": {expr}, "time": {when}, "start": {when}, "end": {when}, "step": {"10"}, "match[]": {expr}})
			said := strings.ReplaceAll(w.Body.String(), strings.Trim(expr, "`"), "")
			for _, secret := range []string{"hidden-board", "6666", "fulmar_hidden\""} {
				if w.Code == 200 && strings.Contains(said, secret) {
					t.Errorf("%s %s gives %.300s", path, expr, w.Body)
				}
			}
		}
		if v, err := d.Instant(t.Context(), "a", expr, at.Add(time.Minute)); err == nil {
			for _, s := range v {
				if s.Value == 6666 || s.Labels["board"] == "hidden-board" {
					t.Errorf("instant %s gives %v", expr, s)
				}
			}
		}
	}
	// The database's view alone holds, and the rewritten expression alone.
	q, err := d.engine.NewInstantQuery(t.Context(), a.Queryable(d.tsdb), nil, `{__name__=~".+"}`, at)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if s := q.Exec(t.Context()).String(); strings.Contains(s, "hidden") || !strings.Contains(s, "dock-1") {
		t.Errorf("the view gives %s", s)
	}
	expr, err := a.Rewrite(`{__name__=~".+"} or {tenant="b"}`)
	if err != nil {
		t.Fatal(err)
	}
	q, err = d.engine.NewInstantQuery(t.Context(), d.tsdb, nil, expr, at)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if s := q.Exec(t.Context()).String(); strings.Contains(s, "hidden") || !strings.Contains(s, "dock-1") {
		t.Errorf("the expression gives %s", s)
	}
}

func FuzzAPI(f *testing.F) {
	d, at := twoTenants(f, Config{QuerySamples: 20_000, QueryTimeout: time.Second})
	a := &scope.Scope{Tenant: "a"}
	f.Add("query", `fulmar_load{tenant="b"}`, "0", "60", "1", "board")
	f.Add("query_range", `sum(rate(fulmar_load[1m]))`, "1970-01-01T00:00:00Z", "1e9", "1h30m", "__name__")
	f.Add("series", `{__name__=~".+"}`, "-1", "NaN", "-5", "\xff")
	f.Add("values", `{tenant!="a"}`, "", "", "", "tenant")
	f.Fuzz(func(t *testing.T, path, expr, from, to, step, label string) {
		p := "/api/v1/" + map[string]string{"values": "label/" + url.PathEscape(label) + "/values", "series": "series", "query_range": "query_range", "labels": "labels"}[path]
		if strings.HasSuffix(p, "/") {
			p += "query"
		}
		if label == "" || strings.Contains(label, "/") || label == "." || label == ".." {
			return // no path of ours
		}
		w := ask(d, a, p, url.Values{"query": {expr}, "match[]": {expr}, "start": {from}, "end": {to}, "step": {step}, "time": {fmt.Sprint(at.Unix())}})
		var out answer
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
			t.Fatalf("%d is no JSON: %.200s", w.Code, w.Body)
		}
		if out.Status == "success" && !strings.Contains(expr, "hidden") && !strings.Contains(label, "hidden") && strings.Contains(w.Body.String(), "hidden-board") {
			t.Fatalf("%s gives %.300s", expr, w.Body)
		}
	})
}
