// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package joins

import (
	"context"
	"errors"
	"net/http"
	"time"

	"fulmar/fleet/alerts"
	"fulmar/fleet/registry/meta"
	"fulmar/fleet/rollout/runner"
	"fulmar/fleet/telemetry"
	"fulmar/fleet/telemetry/scope"
	"fulmar/fleet/telemetry/targets"
)

// errNoScope: a handler was mounted without the one that sets the scope.
var errNoScope = errors.New("no tenant in the request")

// Sites gives the sites of boards that have one.
func Sites(m *meta.Metas) func(ctx context.Context, tenant string) (map[string]string, error) {
	return func(ctx context.Context, tenant string) (map[string]string, error) {
		all, err := m.All(ctx, tenant)
		if err != nil {
			return nil, err
		}
		out := map[string]string{}
		for board, x := range all {
			if x.Site != "" {
				out[board] = x.Site
			}
		}
		return out, nil
	}
}

// Metrics lets rollouts ask the telemetry.
type Metrics struct{ DB *telemetry.DB }

// Instant implements [runner.Metrics].
func (m Metrics) Instant(ctx context.Context, tenant, expr string, at time.Time) ([]runner.Sample, error) {
	got, err := m.DB.Instant(ctx, tenant, expr, at)
	out := make([]runner.Sample, len(got))
	for i, x := range got {
		out[i] = runner.Sample{Labels: x.Labels, Value: x.Value}
	}
	return out, err
}

// Instant lets alert rules ask the telemetry.
func Instant(db *telemetry.DB) func(ctx context.Context, tenant, expr string, at time.Time) ([]alerts.Sample, error) {
	return func(ctx context.Context, tenant, expr string, at time.Time) ([]alerts.Sample, error) {
		got, err := db.Instant(ctx, tenant, expr, at)
		out := make([]alerts.Sample, len(got))
		for i, x := range got {
			out[i] = alerts.Sample{Labels: x.Labels, Value: x.Value}
		}
		return out, err
	}
}

// Within puts into a context whose series and boards a request may see.
func Within(ctx context.Context, tenant string, seen func(board string) bool) context.Context {
	return scope.With(ctx, scope.Scope{Tenant: tenant, Boards: seen})
}

// Targets tells Prometheus which boards to scrape.
func (l Look) Targets() http.Handler {
	return targets.Handler(func(ctx context.Context) (string, []targets.Board, error) {
		s, ok := scope.From(ctx)
		if !ok {
			return "", nil, errNoScope
		}
		ov, err := l(ctx, s.Tenant)
		if err != nil {
			return "", nil, err
		}
		var out []targets.Board
		for i := range ov.Boards {
			b := &ov.Boards[i]
			if s.Boards == nil || s.Boards(b.Name) {
				out = append(out, targets.Board{Name: b.Name, Site: b.Meta.Site, Labels: b.Meta.Labels})
			}
		}
		return s.Tenant, out, nil
	})
}
