// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package scope keeps each asker to what is theirs: one tenant's series, and where a
// token is for some boards only, those boards'. It does so twice, so that one mistake
// shows nothing: [Scope.Rewrite] puts the tenant into each selector of an expression,
// and [Scope.Queryable] gives the engine a database that holds nothing else.
package scope

import (
	"context"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"fulmar/fleet/telemetry/points"
)

// MaxExpr bounds an expression, in bytes: the longest of the dashboards has 300.
const MaxExpr = 16 << 10

// Scope is what an asker may see.
type Scope struct {
	Tenant string
	// Boards tells whether a board may be seen; nil: all of the tenant.
	Boards func(board string) bool
}

type key struct{}

// With puts the scope into a context, for [From].
func With(ctx context.Context, s Scope) context.Context { return context.WithValue(ctx, key{}, s) }

// From gives the scope of a request; false where nobody has set one, which is a mistake
// of the caller and must be refused.
func From(ctx context.Context) (Scope, bool) {
	s, ok := ctx.Value(key{}).(Scope)
	return s, ok && s.Tenant != ""
}

// Parser is the parser of PromQL as all of the fleet has it: no experimental functions.
func Parser() parser.Parser { return parser.NewParser(parser.Options{}) }

func (s Scope) matcher() *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchEqual, points.LabelTenant, s.Tenant)
}

// Rewrite gives the expression with the tenant in each selector.
func (s Scope) Rewrite(expr string) (string, error) {
	if len(expr) > MaxExpr {
		return "", fmt.Errorf("the expression has %d bytes, at most %d", len(expr), MaxExpr)
	}
	e, err := Parser().ParseExpr(expr)
	if err != nil {
		return "", err
	}
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok {
			v.LabelMatchers = append(v.LabelMatchers, s.matcher())
		}
		return nil
	})
	return e.String(), nil
}

// Queryable gives a view of the database that holds the scope's series alone.
func (s Scope) Queryable(db storage.Queryable) storage.Queryable {
	return storage.QueryableFunc(func(from, to int64) (storage.Querier, error) {
		q, err := db.Querier(from, to)
		if err != nil {
			return nil, err
		}
		return querier{s, q}, nil
	})
}

type querier struct {
	s Scope
	q storage.Querier
}

// Close implements [storage.Querier].
func (q querier) Close() error { return q.q.Close() }

func (q querier) with(m []*labels.Matcher) []*labels.Matcher {
	return append(slices.Clone(m), q.s.matcher())
}

// Select implements [storage.Querier].
func (q querier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, m ...*labels.Matcher) storage.SeriesSet {
	return set{q.q.Select(ctx, sorted, hints, q.with(m)...), q.s}
}

// LabelNames implements [storage.Querier].
func (q querier) LabelNames(ctx context.Context, hints *storage.LabelHints, m ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	if q.s.Boards != nil {
		seen := map[string]bool{}
		err := q.each(ctx, m, func(l labels.Labels) { l.Range(func(l labels.Label) { seen[l.Name] = true }) })
		return keys(seen), nil, err
	}
	return q.q.LabelNames(ctx, hints, q.with(m)...)
}

// LabelValues implements [storage.Querier].
func (q querier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, m ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	if q.s.Boards != nil {
		seen := map[string]bool{}
		err := q.each(ctx, m, func(l labels.Labels) {
			if v := l.Get(name); v != "" {
				seen[v] = true
			}
		})
		return keys(seen), nil, err
	}
	return q.q.LabelValues(ctx, name, hints, q.with(m)...)
}

// each walks the labels of the series that are left when the scope is applied.
func (q querier) each(ctx context.Context, m []*labels.Matcher, fn func(labels.Labels)) error {
	set := q.Select(ctx, false, nil, m...)
	for set.Next() {
		fn(set.At().Labels())
	}
	return set.Err()
}

func keys(m map[string]bool) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// set leaves out what the scope does not hold, whatever the matchers were.
type set struct {
	storage.SeriesSet
	s Scope
}

// Next implements [storage.SeriesSet].
func (x set) Next() bool {
	for x.SeriesSet.Next() {
		l := x.At().Labels()
		if l.Get(points.LabelTenant) == x.s.Tenant && (x.s.Boards == nil || x.s.Boards(l.Get(points.LabelBoard))) {
			return true
		}
	}
	return false
}
