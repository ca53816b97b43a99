// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package boards lets a fleet query be asked about the boards of the page's overview.
package boards

import (
	"slices"
	"strings"
	"time"

	"fulmar/fleet/query"
	"fulmar/fleet/web"
	"fulmar/schema"
)

// Of makes a board the subject of a query. The board is only read.
func Of(b *web.Board) query.Subject { return subject{b} }

// Select gives the boards of an overview that a query matches, in its order. Ages are
// counted from the overview's moment, so that all of a page is of one.
func Select(ov *web.Overview, q *query.Query) []*web.Board {
	var out []*web.Board
	for i := range ov.Boards {
		if b := &ov.Boards[i]; q.Match(subject{b}, ov.At) {
			out = append(out, b)
		}
	}
	return out
}

// maxKnown bounds the values that [Known] gives of one field.
const maxKnown = 5000

// Known gives the values that a field of text has among the boards now, sorted: for
// [query.Query.Hints] and [query.Complete].
func Known(ov *web.Overview, field string) []string {
	seen := map[string]bool{}
	for i := range ov.Boards {
		v, ok := subject{&ov.Boards[i]}.Field(field)
		if !ok || len(seen) >= maxKnown {
			continue
		}
		for _, s := range append(v.List, v.Text) {
			if s != "" {
				seen[s] = true
			}
		}
	}
	out := make([]string, 0, len(seen))
	for s := range seen {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

// subject is one pointer, so that it goes into an interface without an allocation.
type subject struct{ b *web.Board }

func text(s string) (query.Value, bool) { return query.Value{Text: s}, s != "" }

func yes(is bool) (query.Value, bool) {
	if is {
		return query.Value{Text: "yes"}, true
	}
	return query.Value{Text: "no"}, true
}

func moment(t time.Time) (query.Value, bool) { return query.Value{Time: t}, !t.IsZero() }

func list(ss []string) (query.Value, bool) { return query.Value{List: ss}, len(ss) > 0 }

// Field implements [query.Subject].
func (s subject) Field(name string) (query.Value, bool) {
	b := s.b
	switch name {
	case "name":
		return text(b.Name)
	case "site":
		return text(b.Meta.Site)
	case "description":
		return text(b.Meta.Description)
	case "power-budget-watt":
		return query.Value{Number: b.Meta.PowerBudget}, b.Meta.PowerBudget != 0
	case "state":
		if b.State == web.StateNeverHeard {
			return text("never-heard")
		}
		return text(string(b.State))
	case "cause":
		return text(b.Cause)
	case "since":
		return moment(b.Since)
	case "online":
		return yes(b.Online)
	case "seen":
		return moment(b.LastSeen)
	case "release":
		return text(b.Release)
	case "key":
		return text(b.KeyMode)
	case "camera":
		return list(each(b.Cameras, func(c *web.Camera) string { return c.Name }))
	case "model":
		return list(each(b.Cameras, func(c *web.Camera) string { return c.Model }))
	case "engine":
		return list(each(b.Cameras, func(c *web.Camera) string { return c.Engine }))
	case "alarm":
		return s.reports(schema.SeverityAlarm)
	case "warning":
		return s.reports(schema.SeverityWarn)
	case "waiting", "lost":
		return s.books(name == "waiting")
	case "lost-at":
		return moment(s.lost())
	case "proof", "revoked", "certificate-left", "enrolled":
		return s.trust(name)
	}
	return s.named(name)
}

func each[T any](in []T, of func(*T) string) []string {
	if len(in) == 0 {
		return nil
	}
	out := make([]string, 0, len(in))
	for i := range in {
		if s := of(&in[i]); s != "" {
			out = append(out, s)
		}
	}
	return out
}

func (s subject) reports(sev schema.Severity) (query.Value, bool) {
	return list(each(s.b.Reports, func(r *web.Report) string {
		if r.Severity != sev {
			return ""
		}
		return r.Subject
	}))
}

// books counts records as the page's ledger does.
func (s subject) books(waiting bool) (query.Value, bool) {
	var n uint64
	for i := range s.b.Ledger {
		l := &s.b.Ledger[i]
		if waiting {
			n += l.Waiting
			continue
		}
		thinned := min(l.Reasons[schema.ReasonThinned.String()], l.Lost)
		n += l.Lost - thinned - min(l.Reasons[schema.ReasonCrash.String()], l.Lost-thinned)
	}
	return query.Value{Number: float64(n)}, len(s.b.Ledger) > 0
}

// lost tells when the newest loss was told that is no crash's and not thinned.
func (s subject) lost() time.Time {
	for i := range s.b.Gaps { // newest first
		if g := &s.b.Gaps[i]; g.Count > 0 && g.Reason != schema.ReasonThinned.String() && g.Reason != schema.ReasonCrash.String() {
			return g.At
		}
	}
	return time.Time{}
}

func (s subject) trust(name string) (query.Value, bool) {
	t := s.b.Trust
	if t == nil {
		return query.Value{}, false
	}
	switch name {
	case "proof":
		return text(t.Level)
	case "revoked":
		return yes(!t.Revoked.IsZero())
	case "enrolled":
		return moment(t.Enrolled)
	}
	// The clock is the server's, as that of the board's certificate.
	return query.Value{Number: time.Until(t.Until).Seconds()}, !t.Until.IsZero()
}

// named gives the fields whose names begin with a word and a dot.
func (s subject) named(name string) (query.Value, bool) {
	kind, rest, _ := strings.Cut(name, ".")
	switch kind {
	case "label":
		return text(s.b.Meta.Labels[rest])
	case "fact":
		return text(s.b.Facts[rest])
	case "report":
		i := slices.IndexFunc(s.b.Reports, func(r web.Report) bool { return r.Subject == rest })
		if i < 0 {
			return query.Value{}, false
		}
		return text(s.b.Reports[i].State)
	case "temp":
		return s.reading("thermal."+rest, "_celsius")
	case "series":
		return s.reading(rest, "")
	}
	return s.reading(name, "")
}
