// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package promapi serves the part of Prometheus' HTTP API that Grafana, Alertmanager's
// users and scripts ask: query, query_range, series, labels, label values, metadata and
// buildinfo, in Prometheus' own JSON
// (https://prometheus.io/docs/prometheus/latest/querying/api/).
//
// Who asks and what they may see is in the request's context, see [scope.With]; a
// request without it is refused. Time, samples, series, bytes and the number of
// expressions at once have bounds.
package promapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"

	"fulmar/fleet/telemetry/scope"
)

const (
	// maxForm bounds the body of a POST: an expression and a few numbers.
	maxForm = 64 << 10
	// maxPoints is how many steps a range may have, as in Prometheus: a screen has fewer.
	maxPoints = 11_000
	// maxSeries bounds the series of an answer.
	maxSeries = 20_000
	// maxAnswer bounds an answer, in bytes, before it is compressed by anybody.
	maxAnswer = 32 << 20
	// maxMatch bounds the selectors of one request.
	maxMatch = 32
)

// Config bounds the work.
type Config struct {
	Queries int           // at once; half of them for one tenant
	Timeout time.Duration // of one request, the waiting included
}

// Handler serves the API.
type Handler struct {
	cfg    Config
	engine *promql.Engine
	db     storage.Queryable
	mux    *http.ServeMux
	gate   *gate
}

// New makes the handler.
func New(cfg Config, e *promql.Engine, db storage.Queryable) *Handler {
	h := &Handler{cfg: cfg, engine: e, db: db, mux: http.NewServeMux(), gate: newGate(cfg.Queries)}
	for path, fn := range map[string]func(*request) (any, *fault){
		"query": h.instant, "query_range": h.ranged, "series": h.series, "labels": h.labels,
		"label/{name}/values": h.values, "metadata": h.metadata, "status/buildinfo": h.buildinfo,
		"query_exemplars": empty, "rules": noRules, "alerts": noAlerts,
	} {
		h.mux.HandleFunc("GET /api/v1/"+path, h.serve(fn))
		h.mux.HandleFunc("POST /api/v1/"+path, h.serve(fn))
	}
	return h
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, ok := scope.From(r.Context()); !ok {
		(&fault{http.StatusUnauthorized, "unauthorized", errors.New("nobody is logged in")}).write(w)
		return
	}
	h.mux.ServeHTTP(w, r)
}

type request struct {
	ctx   context.Context
	scope scope.Scope
	form  url.Values
	name  string // of a label, from the path
}

// fault is an answer in Prometheus' form: its types are words that Grafana shows.
type fault struct {
	status int
	kind   string
	err    error
}

func bad(format string, args ...any) *fault {
	return &fault{http.StatusBadRequest, "bad_data", fmt.Errorf(format, args...)}
}

func (f *fault) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.status)
	_ = json.NewEncoder(w).Encode(map[string]string{"status": "error", "errorType": f.kind, "error": f.err.Error()}) // the asker has gone
}

func (h *Handler) serve(fn func(*request) (any, *fault)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if err := r.ParseForm(); err != nil {
			bad("read the form: %v", err).write(w)
			return
		}
		s, _ := scope.From(r.Context()) // ServeHTTP has looked
		ctx, cancel := context.WithTimeout(r.Context(), h.cfg.Timeout)
		defer cancel()
		leave, err := h.gate.enter(ctx, s.Tenant)
		if err != nil {
			w.Header().Set("Retry-After", "5")
			(&fault{http.StatusServiceUnavailable, "timeout", err}).write(w)
			return
		}
		defer leave()
		data, f := fn(&request{ctx, s, r.Form, r.PathValue("name")})
		if f != nil {
			f.write(w)
			return
		}
		b := &bounded{left: maxAnswer}
		if err := json.NewEncoder(b).Encode(map[string]any{"status": "success", "data": data}); err != nil {
			(&fault{http.StatusUnprocessableEntity, "execution", fmt.Errorf("%w; ask for fewer series, a shorter time or a longer step", err)}).write(w)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(b.Bytes()) // the asker has gone
	}
}

// bounded is a buffer that refuses to grow over its bound.
type bounded struct {
	bytes.Buffer
	left int
}

// Write implements [io.Writer].
func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, fmt.Errorf("the answer is over %d MiB", maxAnswer>>20)
	}
	return b.Buffer.Write(p)
}

// moment reads a time: seconds since 1970 or RFC 3339.
func moment(s, key string, def time.Time) (time.Time, *fault) {
	if s == "" {
		return def, nil
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		if math.IsNaN(f) || math.Abs(f) > 1e11 { // the year 5138
			return def, bad("%s: %q is no moment", key, clip(s))
		}
		return time.UnixMilli(int64(math.Round(f * 1000))).UTC(), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return def, bad("%s: %q is neither seconds since 1970 nor a time like 2026-11-26T10:00:00Z", key, clip(s))
	}
	return t, nil
}

// span reads a duration: seconds or 1h30m.
func span(s, key string) (time.Duration, *fault) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		if math.IsNaN(f) || math.Abs(f) > 1e9 {
			return 0, bad("%s: %q is no duration", key, clip(s))
		}
		return time.Duration(f * float64(time.Second)), nil
	}
	d, err := model.ParseDuration(s)
	if err != nil {
		return 0, bad("%s: %q is neither seconds nor a duration like 30s or 1h", key, clip(s))
	}
	return time.Duration(d), nil
}

func clip(s string) string {
	const most = 40
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

func (r *request) between() (from, to time.Time, f *fault) {
	if from, f = moment(r.form.Get("start"), "start", time.UnixMilli(0)); f != nil {
		return
	}
	to, f = moment(r.form.Get("end"), "end", time.Now())
	return
}

// selectors reads match[]: which series are meant.
func (r *request) selectors() ([][]*labels.Matcher, *fault) {
	in := r.form["match[]"]
	if len(in) > maxMatch {
		return nil, bad("match[]: %d selectors, at most %d", len(in), maxMatch)
	}
	out := make([][]*labels.Matcher, 0, len(in))
	for _, s := range in {
		if len(s) > scope.MaxExpr {
			return nil, bad("match[]: %d bytes, at most %d", len(s), scope.MaxExpr)
		}
		m, err := scope.Parser().ParseMetricSelector(s)
		if err != nil {
			return nil, bad("match[]: %v", err)
		}
		out = append(out, m)
	}
	return out, nil
}
