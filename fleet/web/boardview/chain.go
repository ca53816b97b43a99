// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package boardview

import (
	"slices"
	"time"

	"fulmar/fleet/web"
	"fulmar/fleet/web/words"
	"fulmar/schema"
)

const (
	// maxChain bounds the dated facts under a headline: a screen, the newest.
	maxChain = 8
	// chainFor is how far before the state began a fact still explains it.
	chainFor = 24 * time.Hour
)

// link is one dated fact of the chain that led to how a board is.
type link struct {
	At   time.Time
	What string
	Bad  string // its tone
}

// chain puts what is known to have happened around the change of a board's state into
// its order. A healthy board has none: there is nothing to explain.
func chain(b *web.Board, now time.Time) []link {
	if b.State == web.StateHealthy {
		return nil
	}
	var out []link
	from := now.Add(-chainFor)
	if !b.Since.IsZero() && b.Since.Add(-chainFor).Before(from) {
		from = b.Since.Add(-chainFor)
	}
	add := func(at time.Time, what, bad string) {
		if !at.IsZero() && at.After(from) && !at.After(now.Add(time.Minute)) {
			out = append(out, link{at, what, bad})
		}
	}
	if up := b.Reading("host.uptime_seconds"); up != nil && up.Quality == schema.QualityGood && up.Value < chainFor.Seconds() {
		add(up.At.Add(-time.Duration(up.Value*float64(time.Second))), "it started up", "")
	}
	for _, r := range b.Reports {
		what := r.Subject + ": " + r.State
		if r.Text != "" {
			what += ". " + r.Text
		}
		add(r.At, what, r.Bad())
	}
	for _, g := range b.Gaps[:min(len(b.Gaps), maxChain)] {
		what := words.Plural(int(min(g.Count, 1<<31-1)), g.Class+" record", g.Class+" records")
		if g.Reason == "thinned" {
			add(g.At, what+" thinned out", "degraded")
		} else {
			add(g.At, what+" lost: "+g.Reason, "degraded")
		}
	}
	for _, c := range b.Cameras {
		if !c.Last.IsZero() && now.Sub(c.Last) > time.Minute {
			add(c.Last, "newest event of camera "+c.Name, "")
		}
	}
	if t := b.Trust; t != nil {
		add(t.Enrolled, "it was let into the fleet", "")
		if t.Why != "" {
			add(t.RefusedAt, t.Why, "failing")
		}
		add(t.Silent, "it owes an answer to a question of its TPM", "degraded")
		add(t.Revoked, "it was shut out", "failing")
	}
	if !b.Online {
		add(b.LastSeen, "last message stored", "")
	}
	add(b.Since, "since then "+string(b.State), b.State.Class())
	slices.SortStableFunc(out, func(a, b link) int { return a.At.Compare(b.At) })
	return out[max(0, len(out)-maxChain):]
}
