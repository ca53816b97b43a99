// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package joins

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"fulmar/fleet/query"
	"fulmar/fleet/query/boards"
	"fulmar/fleet/rollout/plan"
	"fulmar/fleet/rollout/runner"
	"fulmar/fleet/web"
	"fulmar/schema"
)

// zoneLabel is the label of a board that names the time zone of its site.
const zoneLabel = "zone"

var _ runner.Fleet = Look(nil)

// Boards implements [runner.Fleet].
func (l Look) Boards(ctx context.Context, tenant, q, component string) ([]plan.Candidate, error) {
	parsed, err := query.Parse(q)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", runner.ErrQuery, err)
	}
	ov, err := l(ctx, tenant)
	if err != nil {
		return nil, err
	}
	list := boards.Select(ov, parsed)
	out := make([]plan.Candidate, 0, len(list))
	for _, b := range list {
		out = append(out, candidate(b, component))
	}
	return out, nil
}

// candidate is a board as a plan sees it. Its facts are what boards are told apart by
// when some fail: those it tells itself, its site and its labels.
func candidate(b *web.Board, component string) plan.Candidate {
	facts := maps.Clone(b.Facts)
	if facts == nil {
		facts = map[string]string{}
	}
	delete(facts, schema.FactCan)
	if b.Meta.Site != "" {
		facts["site"] = b.Meta.Site
	}
	for k, v := range b.Meta.Labels {
		facts["label."+k] = v
	}
	return plan.Candidate{
		Board: b.Name, Site: b.Meta.Site, Zone: b.Meta.Labels[zoneLabel], Facts: facts, Release: running(b, component),
		Able: schema.Can(b.Facts, schema.CanUpdate), Reachable: b.State != web.StateUnreachable && b.State != web.StateNeverHeard,
	}
}

// running is the release of a component that a board runs, as far as it has told.
func running(b *web.Board, component string) string {
	if component == "agent" {
		return b.Release
	}
	name, model := strings.CutPrefix(component, "model/")
	for _, c := range b.Cameras {
		if n, release, ok := strings.Cut(c.Model, "@"); ok && model && n == name {
			return release
		}
	}
	return ""
}
