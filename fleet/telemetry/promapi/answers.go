// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package promapi

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
)

// point is [seconds, "value"].
type point struct {
	t int64
	v float64
}

// MarshalJSON implements [json.Marshaler].
func (p point) MarshalJSON() ([]byte, error) {
	b := append([]byte{'['}, strconv.FormatFloat(float64(p.t)/1000, 'f', -1, 64)...)
	b = append(b, `,"`...)
	switch {
	case math.IsInf(p.v, 1):
		b = append(b, "+Inf"...)
	case math.IsInf(p.v, -1):
		b = append(b, "-Inf"...)
	default:
		b = strconv.AppendFloat(b, p.v, 'f', -1, 64)
	}
	return append(b, `"]`...), nil
}

type result struct {
	Type   string `json:"resultType"`
	Result any    `json:"result"`
}

type one struct {
	Metric map[string]string `json:"metric"`
	Value  point             `json:"value"`
}

type many struct {
	Metric map[string]string `json:"metric"`
	Values []point           `json:"values"`
}

func (h *Handler) instant(r *request) (any, *fault) {
	at, f := moment(r.form.Get("time"), "time", time.Now())
	if f != nil {
		return nil, f
	}
	expr, f := r.expr()
	if f != nil {
		return nil, f
	}
	q, err := h.engine.NewInstantQuery(r.ctx, r.scope.Queryable(h.db), nil, expr, at)
	if err != nil {
		return nil, bad("query: %v", err)
	}
	return run(r, q)
}

func (h *Handler) ranged(r *request) (any, *fault) {
	if r.form.Get("start") == "" || r.form.Get("end") == "" || r.form.Get("step") == "" {
		return nil, bad("start, end and step are wanted")
	}
	from, to, f := r.between()
	if f != nil {
		return nil, f
	}
	step, f := span(r.form.Get("step"), "step")
	if f != nil {
		return nil, f
	}
	switch {
	case to.Before(from):
		return nil, bad("end is before start")
	case step < time.Millisecond:
		return nil, bad("step: wants at least 1ms")
	case to.Sub(from)/step >= maxPoints:
		return nil, bad("step: gives over %d points per series; ask for a longer step or a shorter time", maxPoints)
	}
	expr, f := r.expr()
	if f != nil {
		return nil, f
	}
	q, err := h.engine.NewRangeQuery(r.ctx, r.scope.Queryable(h.db), nil, expr, from, to, step)
	if err != nil {
		return nil, bad("query: %v", err)
	}
	return run(r, q)
}

func (r *request) expr() (string, *fault) {
	expr, err := r.scope.Rewrite(r.form.Get("query"))
	if err != nil {
		return "", bad("query: %v", err)
	}
	return expr, nil
}

func run(r *request, q promql.Query) (any, *fault) {
	defer q.Close()
	res := q.Exec(r.ctx)
	if res.Err != nil {
		var timeout promql.ErrQueryTimeout
		if errors.As(res.Err, &timeout) || r.ctx.Err() != nil {
			return nil, &fault{http.StatusServiceUnavailable, "timeout", fmt.Errorf("%w; ask for fewer series, a shorter time or a longer step", res.Err)}
		}
		return nil, &fault{http.StatusUnprocessableEntity, "execution", res.Err}
	}
	// The answer is made while the query's memory is still its own.
	return answer(res)
}

func answer(res *promql.Result) (any, *fault) {
	tooMany := func(n int) *fault {
		return &fault{http.StatusUnprocessableEntity, "execution", fmt.Errorf("the answer has %d series, at most %d; aggregate them", n, maxSeries)}
	}
	switch v := res.Value.(type) {
	case promql.Vector:
		if len(v) > maxSeries {
			return nil, tooMany(len(v))
		}
		out := make([]one, 0, len(v))
		for _, s := range v {
			if s.H == nil {
				out = append(out, one{s.Metric.Map(), point{s.T, s.F}})
			}
		}
		return result{Type: "vector", Result: out}, nil
	case promql.Matrix:
		if len(v) > maxSeries {
			return nil, tooMany(len(v))
		}
		out := make([]many, 0, len(v))
		for _, s := range v {
			m := many{s.Metric.Map(), make([]point, len(s.Floats))}
			for i, p := range s.Floats {
				m.Values[i] = point{p.T, p.F}
			}
			out = append(out, m)
		}
		return result{Type: "matrix", Result: out}, nil
	case promql.Scalar:
		return result{Type: "scalar", Result: point{v.T, v.V}}, nil
	case promql.String:
		return result{Type: "string", Result: []any{float64(v.T) / 1000, v.V}}, nil
	}
	return nil, &fault{http.StatusInternalServerError, "internal", fmt.Errorf("a result of type %T", res.Value)}
}

// querier opens the scope's view of the time that the request asks for.
func (h *Handler) querier(r *request) (storage.Querier, [][]*labels.Matcher, *fault) {
	from, to, f := r.between()
	if f != nil {
		return nil, nil, f
	}
	sel, f := r.selectors()
	if f != nil {
		return nil, nil, f
	}
	q, err := r.scope.Queryable(h.db).Querier(from.UnixMilli(), to.UnixMilli())
	if err != nil {
		return nil, nil, &fault{http.StatusInternalServerError, "internal", err}
	}
	return q, sel, nil
}

func (h *Handler) series(r *request) (any, *fault) {
	if len(r.form["match[]"]) == 0 {
		return nil, bad("match[]: which series are meant?")
	}
	q, sel, f := h.querier(r)
	if f != nil {
		return nil, f
	}
	defer q.Close() //nolint:errcheck // only read
	seen := map[string]bool{}
	out := []map[string]string{}
	for _, m := range sel {
		set := q.Select(r.ctx, true, nil, m...)
		for set.Next() {
			l := set.At().Labels()
			if k := l.String(); !seen[k] {
				seen[k] = true
				out = append(out, l.Map())
			}
			if len(out) > maxSeries {
				return nil, &fault{http.StatusUnprocessableEntity, "execution", fmt.Errorf("over %d series; name them closer", maxSeries)}
			}
		}
		if err := set.Err(); err != nil {
			return nil, &fault{http.StatusUnprocessableEntity, "execution", err}
		}
	}
	return out, nil
}

// gathered unites what each selector gives.
func gathered(sel [][]*labels.Matcher, fn func(...*labels.Matcher) ([]string, error)) (any, *fault) {
	if len(sel) == 0 {
		sel = [][]*labels.Matcher{nil}
	}
	out := []string{}
	for _, m := range sel {
		l, err := fn(m...)
		if err != nil {
			return nil, &fault{http.StatusUnprocessableEntity, "execution", err}
		}
		out = append(out, l...)
	}
	slices.Sort(out)
	return slices.Clone(slices.Compact(out)), nil
}

func (h *Handler) labels(r *request) (any, *fault) {
	q, sel, f := h.querier(r)
	if f != nil {
		return nil, f
	}
	defer q.Close() //nolint:errcheck // only read
	return gathered(sel, func(m ...*labels.Matcher) ([]string, error) {
		l, _, err := q.LabelNames(r.ctx, nil, m...)
		return cloned(l), err
	})
}

func (h *Handler) values(r *request) (any, *fault) {
	if r.name == "" || len(r.name) > 256 {
		return nil, bad("%q is no name of a label", clip(r.name))
	}
	q, sel, f := h.querier(r)
	if f != nil {
		return nil, f
	}
	defer q.Close() //nolint:errcheck // only read
	return gathered(sel, func(m ...*labels.Matcher) ([]string, error) {
		l, _, err := q.LabelValues(r.ctx, r.name, nil, m...)
		return cloned(l), err
	})
}

// cloned copies strings whose memory is the querier's.
func cloned(l []string) []string {
	out := make([]string, len(l))
	for i, s := range l {
		out[i] = strings.Clone(s)
	}
	return out
}

// metadata tells what kind each metric is, from its name: all are gauges but *_total.
func (h *Handler) metadata(r *request) (any, *fault) {
	q, err := r.scope.Queryable(h.db).Querier(0, time.Now().UnixMilli())
	if err != nil {
		return nil, &fault{http.StatusInternalServerError, "internal", err}
	}
	defer q.Close() //nolint:errcheck // only read
	names, _, err := q.LabelValues(r.ctx, labels.MetricName, nil)
	if err != nil {
		return nil, &fault{http.StatusUnprocessableEntity, "execution", err}
	}
	type meta struct {
		Type string `json:"type"`
		Help string `json:"help"`
		Unit string `json:"unit"`
	}
	want, out := r.form.Get("metric"), map[string][]meta{}
	for _, n := range names {
		if want != "" && n != want {
			continue
		}
		kind := "gauge"
		if strings.HasSuffix(n, "_total") {
			kind = "counter"
		}
		out[strings.Clone(n)] = []meta{{Type: kind}}
	}
	return out, nil
}

// buildinfo is how Grafana finds out what may be asked: what Prometheus of this version
// can, the engine here can.
func (h *Handler) buildinfo(*request) (any, *fault) {
	return map[string]string{"version": "3.16.0", "revision": "", "branch": "", "buildUser": "fulmar-fleet", "buildDate": "", "goVersion": ""}, nil
}

func empty(*request) (any, *fault)    { return []any{}, nil }
func noRules(*request) (any, *fault)  { return map[string]any{"groups": []any{}}, nil }
func noAlerts(*request) (any, *fault) { return map[string]any{"alerts": []any{}}, nil }
