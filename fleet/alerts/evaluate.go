// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package alerts

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"fulmar/fleet/alerts/hooks"
	"fulmar/schema/rest"
)

// round is what one evaluation of a tenant changes.
type round struct {
	tenant string
	now    time.Time
	events []hooks.Event
	// by rule and member; the zero time takes one away
	since map[string]map[string]time.Time
	// by ID; nil takes one away
	alerts map[string]*rest.Alert
}

// Evaluate evaluates a tenant's rules once, now, and keeps what follows from it. Errors of
// single rules are in their Error; the error is of what all need.
func (w *Watch) Evaluate(ctx context.Context, name string) error {
	t := w.tenant(name)
	t.evaluating.Lock()
	defer t.evaluating.Unlock()
	rules, err := w.Rules(ctx, name)
	if err != nil {
		return err
	}
	now := time.Now().UTC().Truncate(time.Millisecond) // as it is kept
	found, errs := w.look(ctx, name, rules, now)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r := &round{tenant: name, now: now, since: map[string]map[string]time.Time{}, alerts: map[string]*rest.Alert{}}
	known := map[string]bool{}
	for i := range rules {
		rule := &rules[i]
		known[rule.ID] = true
		if ms, ok := found[rule.ID]; ok {
			r.step(rule, t, ms)
		}
	}
	for id, a := range t.alerts {
		if !known[a.Rule] { // its rule was removed
			r.end(id, a)
		}
	}
	for id, ms := range t.since {
		if !known[id] {
			r.forget(id, ms)
		}
	}
	if err := w.commit(ctx, r); err != nil {
		return err
	}
	w.mu.Lock()
	t.apply(r)
	t.errs = errs
	w.mu.Unlock()
	if len(r.events) > 0 {
		w.Wake()
		select {
		case w.changed <- name:
		default: // they are told within a minute
		}
	}
	return nil
}

// step takes what a rule found into the state of its boards and groups.
func (r *round) step(rule *rest.AlertRule, t *tenant, found []member) {
	wait, _ := time.ParseDuration(rule.For) // looked at when it was put; "" is 0
	was, now := t.since[rule.ID], map[string]time.Time{}
	gone := maps.Clone(was)
	groups := map[string]*group{}
	for i := range found {
		m := &found[i]
		since, had := was[m.key]
		if !had {
			since = r.now
			now[m.key] = since
		}
		delete(gone, m.key)
		id := fingerprint(r.tenant, rule.ID, m.labels)
		g := groups[id]
		if g == nil {
			g = &group{labels: m.labels, since: since}
			groups[id] = g
		}
		g.add(m, since, r.now.Sub(since) >= wait)
	}
	for key := range gone {
		now[key] = time.Time{}
	}
	if len(now) > 0 {
		r.since[rule.ID] = now
	}
	for id, g := range groups {
		r.group(rule, id, t.alerts[id], g)
	}
	for id, a := range t.alerts {
		if a.Rule == rule.ID && groups[id] == nil {
			r.end(id, a)
		}
	}
}

// group makes the alert of a group that has members.
func (r *round) group(rule *rest.AlertRule, id string, was rest.Alert, g *group) {
	next := g.alert(rule, id)
	switch fires := g.ripe > 0; {
	case fires && was.State == rest.AlertFiring:
		next.Fired, next.Since = was.Fired, was.Since
	case fires:
		next.Fired = r.now
		r.tell("alert.firing", next)
	case was.State == rest.AlertFiring: // those it fired for are well; others are wrong, not yet for long
		over := was
		over.State, over.Resolved = rest.AlertResolved, r.now
		r.tell("alert.resolved", over)
	}
	if next.State == rest.AlertFiring && was.State == rest.AlertFiring {
		same := next
		same.Value = was.Value // changes each time; not worth a write
		if reflect.DeepEqual(same, was) {
			return
		}
	} else if reflect.DeepEqual(next, was) {
		return
	}
	r.alerts[id] = &next
}

// end takes an alert of which nothing is left one step on.
func (r *round) end(id string, a rest.Alert) {
	switch {
	case a.State == rest.AlertFiring:
		a.State, a.Resolved = rest.AlertResolved, r.now
		r.tell("alert.resolved", a)
		r.alerts[id] = &a
	case a.State == rest.AlertPending || r.now.Sub(a.Resolved) > keepResolved:
		r.alerts[id] = nil
	}
}

func (r *round) forget(rule string, members map[string]time.Time) {
	gone := map[string]time.Time{}
	for key := range members {
		gone[key] = time.Time{}
	}
	r.since[rule] = gone
}

func (r *round) tell(typ string, a rest.Alert) {
	r.events = append(r.events, hooks.Event{Tenant: r.tenant, Type: typ, Subject: "alert/" + a.ID, At: r.now, Data: a})
}

// commit writes what changed and queues the events, all or nothing.
func (w *Watch) commit(ctx context.Context, r *round) error {
	if len(r.since)+len(r.alerts) == 0 {
		return nil
	}
	return w.within(ctx, func(tx *sql.Tx) error {
		put, err := tx.PrepareContext(ctx, `INSERT OR REPLACE INTO alert_member (tenant, rule, member, since) VALUES (?, ?, ?, ?)`)
		if err != nil {
			return fmt.Errorf("keep alerts: %w", err)
		}
		defer put.Close() //nolint:errcheck // the transaction's end tells
		drop, err := tx.PrepareContext(ctx, `DELETE FROM alert_member WHERE tenant = ? AND rule = ? AND member = ?`)
		if err != nil {
			return fmt.Errorf("keep alerts: %w", err)
		}
		defer drop.Close() //nolint:errcheck // the transaction's end tells
		for rule, ms := range r.since {
			for key, since := range ms {
				if since.IsZero() {
					_, err = drop.ExecContext(ctx, r.tenant, rule, key)
				} else {
					_, err = put.ExecContext(ctx, r.tenant, rule, key, since.UnixMilli())
				}
				if err != nil {
					return fmt.Errorf("keep alerts: %w", err)
				}
			}
		}
		for id, a := range r.alerts {
			if err := keepAlert(ctx, tx, r.tenant, id, a); err != nil {
				return err
			}
		}
		for _, e := range r.events {
			if err := hooks.Enqueue(ctx, tx, e); err != nil {
				return err
			}
		}
		return nil
	})
}

func keepAlert(ctx context.Context, tx *sql.Tx, tenant, id string, a *rest.Alert) error {
	if a == nil {
		_, err := tx.ExecContext(ctx, `DELETE FROM alert WHERE tenant = ? AND id = ?`, tenant, id)
		if err != nil {
			return fmt.Errorf("keep alerts: %w", err)
		}
		return nil
	}
	body, err := json.Marshal(a)
	if err == nil {
		_, err = tx.ExecContext(ctx, `INSERT OR REPLACE INTO alert (tenant, id, body) VALUES (?, ?, ?)`, tenant, id, string(body))
	}
	if err != nil {
		return fmt.Errorf("keep alert %s: %w", id, err)
	}
	return nil
}

// apply takes a round that is committed into the state. Readers hold no map: they copy.
func (t *tenant) apply(r *round) {
	for rule, ms := range r.since {
		if t.since[rule] == nil {
			t.since[rule] = map[string]time.Time{}
		}
		for key, since := range ms {
			if since.IsZero() {
				delete(t.since[rule], key)
			} else {
				t.since[rule][key] = since
			}
		}
		if len(t.since[rule]) == 0 {
			delete(t.since, rule)
		}
	}
	for id, a := range r.alerts {
		if a == nil {
			delete(t.alerts, id)
		} else {
			t.alerts[id] = *a
		}
	}
}

// group is what a rule found of one combination of values.
type group struct {
	labels map[string]string
	since  time.Time // of the oldest
	all    []string  // names of its members
	names  []string  // of those that are ripe
	ripe   int
	oldest time.Time // of those
	value  *float64
}

func (g *group) add(m *member, since time.Time, ripe bool) {
	if since.Before(g.since) {
		g.since = since
	}
	g.all = append(g.all, m.name)
	if !ripe {
		return
	}
	if g.ripe++; g.ripe == 1 || since.Before(g.oldest) {
		g.oldest = since
	}
	g.names = append(g.names, m.name)
	if m.value != nil && (g.value == nil || *m.value > *g.value) {
		g.value = m.value
	}
}

// alert makes the alert of a group; its times but Since are the caller's.
func (g *group) alert(rule *rest.AlertRule, id string) rest.Alert {
	a := rest.Alert{ID: id, Rule: rule.ID, State: rest.AlertPending, Severity: rule.Severity, Count: len(g.all), Since: g.since}
	names := g.all
	if g.ripe > 0 {
		a.State, a.Count, a.Since, a.Value, names = rest.AlertFiring, g.ripe, g.oldest, g.value, g.names
	}
	slices.Sort(names)
	if rule.Query != "" {
		a.Boards = slices.Clone(names[:min(len(names), named)])
	}
	a.Labels = map[string]string{}
	maps.Copy(a.Labels, rule.Labels)
	maps.Copy(a.Labels, g.labels)
	a.Labels["alertname"], a.Labels["severity"] = rule.ID, rule.Severity
	a.Summary = sentence(rule, g.labels, names)
	return a
}
