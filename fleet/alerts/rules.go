// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package alerts

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	"fulmar/fleet/access"
	"fulmar/fleet/audit"
	"fulmar/fleet/query"
	"fulmar/schema/rest"
)

// Bounds on a rule, in bytes and numbers.
const (
	maxID      = 64
	maxSummary = 160
	maxExpr    = 4096
	maxBy      = 5
	maxLabels  = 16
	maxFor     = 7 * 24 * time.Hour
)

var errNoSeries = errors.New("this server has no telemetry to evaluate PromQL over")

const builtIn = "fulmar."

// builtins are the rules that are there from the start: what a small team wants to know.
func builtins() []rest.AlertRule {
	here := []string{"site", "cause"}
	rules := []rest.AlertRule{
		{ID: "board-unreachable", Summary: "unreachable for 10 minutes", Severity: rest.SeverityCritical, Query: "state = unreachable and not revoked = yes", For: "10m", By: here},
		{ID: "board-failing", Summary: "failing", Severity: rest.SeverityCritical, Query: "state = failing and not (alarm = worker or alarm ~ model/* or alarm ~ camera/*)", For: "2m", By: here},
		{ID: "sees-nothing", Summary: "a worker, model or camera fails", Severity: rest.SeverityCritical, Query: "online = yes and (alarm = worker or warning = worker or alarm ~ model/* or alarm ~ camera/*)", For: "5m", By: here},
		{ID: "disk-full", Summary: "a disk is more than 90 % full", Severity: rest.SeverityWarning, Query: "online = yes and mount.*.used > 90", For: "15m", By: []string{"site"}},
		{ID: "records-lost", Summary: "records were lost in the last hour", Severity: rest.SeverityWarning, Query: "lost-at < 1h ago", By: []string{"site"}},
		{ID: "certificate-ends", Summary: "a certificate ends within a week and was not renewed", Severity: rest.SeverityWarning, Query: "certificate-left < 7d and not revoked = yes", For: "1h", By: []string{"site"}},
	}
	for i := range rules {
		rules[i].ID, rules[i].BuiltIn = builtIn+rules[i].ID, true
	}
	return rules
}

// Rules lists a tenant's rules, the built-in ones first, then by ID.
func (w *Watch) Rules(ctx context.Context, tenant string) ([]rest.AlertRule, error) {
	rows, err := w.db.Read.QueryContext(ctx, `SELECT id, body, version FROM alert_rule WHERE tenant = ? ORDER BY id`, tenant)
	if err != nil {
		return nil, fmt.Errorf("list alert rules: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	out := builtins()
	for rows.Next() {
		var id, body string
		var version int64
		var r rest.AlertRule
		if err := rows.Scan(&id, &body, &version); err != nil {
			return nil, fmt.Errorf("list alert rules: %w", err)
		}
		if err := json.Unmarshal([]byte(body), &r); err != nil {
			return nil, fmt.Errorf("alert rule %s: %w", id, err)
		}
		r.Version = version
		switch i := slices.IndexFunc(out, func(b rest.AlertRule) bool { return b.ID == id }); {
		case i >= 0: // only this is kept of it: a newer release may know a better query
			out[i].Off, out[i].Version = r.Off, version
		case !strings.HasPrefix(id, builtIn): // a built-in one that is there no more
			out = append(out, r)
		}
	}
	t := w.tenant(tenant)
	w.mu.Lock()
	for i := range out {
		out[i].Error = t.errs[out[i].ID]
	}
	w.mu.Unlock()
	return out, rows.Err()
}

// PutRule makes a rule, Version being 0, or changes one: its Version has to be the one
// that is there, or -1. A PromQL expression is evaluated once to see that it can be.
func (w *Watch) PutRule(ctx context.Context, by access.Caller, r rest.AlertRule) (rest.AlertRule, error) {
	if err := mayWrite(by); err != nil {
		return r, err
	}
	if err := w.check(ctx, by.Tenant, &r); err != nil {
		return r, err
	}
	all, err := w.Rules(ctx, by.Tenant)
	if err != nil {
		return r, err
	}
	i := slices.IndexFunc(all, func(x rest.AlertRule) bool { return x.ID == r.ID })
	switch {
	case i < 0 && strings.HasPrefix(r.ID, builtIn):
		return r, invalid("id", "names that begin with "+builtIn+" are those of built-in rules")
	case i < 0 && len(all) >= maxRules:
		return r, fmt.Errorf("alert rule: %w: there are %d", ErrTooMany, len(all))
	case i >= 0 && all[i].BuiltIn:
		is := all[i]
		is.Off, is.Version, is.Error = r.Off, r.Version, ""
		if r.BuiltIn = true; !reflect.DeepEqual(plain(is), plain(r)) {
			return r, invalid("id", "a built-in rule can be switched off and on; to change it, switch it off and make another")
		}
	}
	r.Error = ""
	err = w.within(ctx, func(tx *sql.Tx) error {
		var version int64
		err := tx.QueryRowContext(ctx, `SELECT version FROM alert_rule WHERE tenant = ? AND id = ?`, by.Tenant, r.ID).Scan(&version)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("look up alert rule: %w", err)
		}
		if r.Version != -1 && r.Version != version {
			return fmt.Errorf("alert rule %s: %w: it is of version %d, not %d", r.ID, ErrStale, version, r.Version)
		}
		r.Version = version + 1
		body, err := json.Marshal(plain(r))
		if err != nil {
			return fmt.Errorf("alert rule %s: %w", r.ID, err)
		}
		if _, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO alert_rule (tenant, id, body, version) VALUES (?, ?, ?, ?)`, by.Tenant, r.ID, string(body), r.Version); err != nil {
			return fmt.Errorf("keep alert rule: %w", err)
		}
		said := r.ID + ": " + r.Query + r.PromQL
		if r.Off {
			said = r.ID + " off"
		}
		return audit.Append(ctx, tx, audit.Entry{Who: by.Who, Tenant: by.Tenant, What: "put-alert-rule", Why: said})
	})
	return r, err
}

// plain is a rule without what is not kept of it.
func plain(r rest.AlertRule) rest.AlertRule {
	r.Version, r.Error = 0, ""
	if len(r.Labels) == 0 {
		r.Labels = nil
	}
	return r
}

// RemoveRule takes a rule away; its alerts are resolved with the next evaluation.
func (w *Watch) RemoveRule(ctx context.Context, by access.Caller, id string) error {
	if err := mayWrite(by); err != nil {
		return err
	}
	if strings.HasPrefix(id, builtIn) {
		return invalid("id", "a built-in rule is not removed; switch it off")
	}
	return w.within(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM alert_rule WHERE tenant = ? AND id = ?`, by.Tenant, id)
		if err != nil {
			return fmt.Errorf("remove alert rule: %w", err)
		}
		if n, err := res.RowsAffected(); err == nil && n == 0 {
			return fmt.Errorf("alert rule: %w", ErrUnknown)
		}
		return audit.Append(ctx, tx, audit.Entry{Who: by.Who, Tenant: by.Tenant, What: "remove-alert-rule", Why: id})
	})
}

func mayWrite(by access.Caller) error {
	if err := by.May(rest.AlertsWrite); err != nil {
		return fmt.Errorf("alert rule: %w: wants the right %s", err, rest.AlertsWrite)
	}
	if by.Boards != "" { // a rule is about all boards
		return fmt.Errorf("alert rule: %w: who is limited to some boards makes none", access.ErrNotAllowed)
	}
	return nil
}

func invalid(field, why string) error {
	return fmt.Errorf("alert rule: %w: %s: %s", ErrInvalid, field, why)
}

// check holds a rule to what it may be and brings it to its canonical form.
func (w *Watch) check(ctx context.Context, tenant string, r *rest.AlertRule) error {
	if r.ID == "" || len(r.ID) > maxID || strings.Trim(r.ID, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
		return invalid("id", fmt.Sprintf("wants 1 to %d of a-z 0-9 - _ .", maxID))
	}
	if r.Severity == "" {
		r.Severity = rest.SeverityWarning
	}
	d, err := time.ParseDuration(r.For)
	switch {
	case r.Summary == "" || len(r.Summary) > maxSummary || strings.ContainsFunc(r.Summary, func(c rune) bool { return !unicode.IsPrint(c) }):
		return invalid("summary", fmt.Sprintf("wants 1 to %d bytes of characters that can be seen", maxSummary))
	case r.Severity != rest.SeverityWarning && r.Severity != rest.SeverityCritical:
		return invalid("severity", "wants warning or critical")
	case r.For != "" && (err != nil || d < 0 || d > maxFor):
		return invalid("for", "wants a duration as 90s or 1h30m, at most 168h")
	case (r.Query == "") == (r.PromQL == ""):
		return invalid("q", "wants either q or promql")
	case len(r.By) > maxBy:
		return invalid("by", fmt.Sprintf("at most %d", maxBy))
	case len(r.Labels) > maxLabels:
		return invalid("labels", fmt.Sprintf("at most %d", maxLabels))
	}
	for k, v := range r.Labels {
		if k == "" || k[0] >= '0' && k[0] <= '9' || label(k) != k || strings.HasPrefix(k, "__") || len(k) > maxID || k == "alertname" || k == "severity" || v == "" || len(v) > maxSummary {
			return invalid("labels", "a name is of letters, digits and _, not alertname or severity, and has a value")
		}
	}
	if r.Query != "" {
		return checkQuery(r)
	}
	return w.checkPromQL(ctx, tenant, r)
}

func checkQuery(r *rest.AlertRule) error {
	q, err := query.Parse(r.Query)
	if err != nil {
		return fmt.Errorf("alert rule: %w: q: %w", ErrInvalid, err)
	}
	if q.All() {
		return invalid("q", "matches every board")
	}
	r.Query = q.String()
	for _, b := range r.By {
		f, err := query.Field(b)
		if err != nil {
			return fmt.Errorf("alert rule: %w: by: %w", ErrInvalid, err)
		}
		if f.Type != query.Text && f.Type != query.Word && f.Type != query.Version {
			return invalid("by", "only fields of one text group, as site and cause")
		}
	}
	return nil
}

func (w *Watch) checkPromQL(ctx context.Context, tenant string, r *rest.AlertRule) error {
	if len(r.PromQL) > maxExpr {
		return invalid("promql", fmt.Sprintf("%d bytes, at most %d", len(r.PromQL), maxExpr))
	}
	for _, b := range r.By {
		if b == "" || label(b) != b || len(b) > maxID {
			return invalid("by", "wants names of labels")
		}
	}
	if w.cfg.Instant == nil {
		return invalid("promql", errNoSeries.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, lookFor)
	defer cancel()
	if _, err := w.cfg.Instant(ctx, tenant, r.PromQL, time.Now()); err != nil {
		return invalid("promql", "cannot be evaluated: "+err.Error())
	}
	return nil
}
