// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package alerts finds what is wrong in the fleet and tells others.
//
// A rule is a query over boards or a PromQL expression. Each is evaluated every 15
// seconds; what it finds (boards, samples) counts once it has been so for as long as the
// rule says, each for itself. What counts is grouped by fields of the rule: eleven boards
// behind a dead uplink are one alert with a count and their names, as on the page.
//
// States and since when each is wrong are kept in the registry's database, in one
// transaction with the events for the webhooks (package hooks), so that a restart neither
// forgets nor repeats. Alertmanagers get all alerts each minute, as from Prometheus. A
// rule that cannot be evaluated changes nothing: its alerts stay as they are.
package alerts

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"fulmar/fleet/alerts/hooks"
	"fulmar/fleet/store"
	"fulmar/fleet/web"
	"fulmar/internal/run"
	"fulmar/schema/rest"
)

// Errors that callers act upon; those of access and hooks come as they are.
var (
	ErrStale   = hooks.ErrStale
	ErrInvalid = hooks.ErrInvalid
	ErrTooMany = hooks.ErrTooMany
	ErrUnknown = hooks.ErrUnknown
)

// Bounds.
const (
	period  = 15 * time.Second // as Prometheus evaluates its rules
	lookFor = 10 * time.Second // one evaluation: one look or one PromQL expression
	lookAll = 30 * time.Second // all rules of a tenant, so that a hanging one delays the others little
	atOnce  = 4                // PromQL expressions
	resend  = time.Minute      // to Alertmanagers; Prometheus' --rules.alert.resend-delay
	// expires is when an Alertmanager takes a firing alert for over that it hears no
	// more of: four resends, as Prometheus has it.
	expires = 4 * resend
	// resentFor is how long Alertmanagers hear of a resolved alert: as from Prometheus.
	resentFor    = 15 * time.Minute
	keepResolved = 24 * time.Hour

	maxRules   = 200    // of a tenant
	maxAlerts  = 1000   // of a rule: nobody reads more; By groups them
	maxMembers = 50_000 // boards or samples of a rule: what the registry holds
	named      = 20     // boards that an alert names
	// Of samples and boards so many labels and bytes of each name and value are taken:
	// an alert has to fit an event, however it is escaped.
	maxGroup = 16
	maxKey   = 64
	maxValue = 256
	grace    = 5 * time.Second
)

// Sample is one result of a PromQL expression.
type Sample struct {
	Labels map[string]string
	Value  float64
}

// Config is what rules are evaluated over.
type Config struct {
	Overview func(ctx context.Context, tenant string) (*web.Overview, error)
	// Instant evaluates PromQL; nil refuses such rules.
	Instant func(ctx context.Context, tenant, expr string, at time.Time) ([]Sample, error)
	// URL is the page's address, for links; "" leaves them out.
	URL string
	Log *slog.Logger
}

// Watch evaluates the rules and keeps the alerts. Its webhooks are Queue.
type Watch struct {
	*hooks.Queue
	db      *store.DB
	cfg     Config
	changed chan string // tenants whose alerts changed

	mu      sync.Mutex
	tenants map[string]*tenant
}

// tenant is the state of one tenant. Its maps are changed with both locks held, so that
// either is enough to read them.
type tenant struct {
	evaluating sync.Mutex // held over an evaluation and its commit
	since      map[string]map[string]time.Time
	alerts     map[string]rest.Alert // by ID
	errs       map[string]string     // by rule
}

// New loads the state from db, whose migrations hold alertrows.Schema.
func New(ctx context.Context, db *store.DB, h *hooks.Queue, cfg Config) (*Watch, error) {
	w := &Watch{Queue: h, db: db, cfg: cfg, changed: make(chan string, 16), tenants: map[string]*tenant{}}
	if err := w.load(ctx); err != nil {
		return nil, fmt.Errorf("load alerts: %w", err)
	}
	return w, nil
}

func (w *Watch) load(ctx context.Context) error {
	rows, err := w.db.Read.QueryContext(ctx, `SELECT tenant, rule, member, since FROM alert_member`)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // Err tells
	for rows.Next() {
		var name, rule, member string
		var since int64
		if err := rows.Scan(&name, &rule, &member, &since); err != nil {
			return err
		}
		t := w.tenant(name)
		if t.since[rule] == nil {
			t.since[rule] = map[string]time.Time{}
		}
		t.since[rule][member] = time.UnixMilli(since).UTC()
	}
	if err := rows.Err(); err != nil {
		return err
	}
	kept, err := w.db.Read.QueryContext(ctx, `SELECT tenant, id, body FROM alert`)
	if err != nil {
		return err
	}
	defer kept.Close() //nolint:errcheck // Err tells
	for kept.Next() {
		var name, id, body string
		var a rest.Alert
		if err := kept.Scan(&name, &id, &body); err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(body), &a); err != nil {
			return fmt.Errorf("alert %s: %w", id, err)
		}
		w.tenant(name).alerts[id] = a
	}
	return kept.Err()
}

// tenant gives the state of a tenant.
func (w *Watch) tenant(name string) *tenant {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.tenants[name]
	if t == nil {
		t = &tenant{since: map[string]map[string]time.Time{}, alerts: map[string]rest.Alert{}, errs: map[string]string{}}
		w.tenants[name] = t
	}
	return t
}

// Alerts lists a tenant's alerts: firing before pending before resolved, newest first.
func (w *Watch) Alerts(_ context.Context, name string) []rest.Alert {
	t := w.tenant(name)
	w.mu.Lock()
	out := make([]rest.Alert, 0, len(t.alerts))
	for _, a := range t.alerts {
		out = append(out, a)
	}
	w.mu.Unlock()
	order := []string{rest.AlertFiring, rest.AlertPending, rest.AlertResolved}
	slices.SortFunc(out, func(a, b rest.Alert) int {
		if d := slices.Index(order, a.State) - slices.Index(order, b.State); d != 0 {
			return d
		}
		if d := b.Since.Compare(a.Since); d != 0 {
			return d
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out
}

// Run evaluates and delivers until the context ends.
func (w *Watch) Run(ctx context.Context) error {
	g := run.New(ctx)
	g.Go("webhooks", w.Queue.Run)
	g.Go("alert rules", w.evaluate)
	g.Go("alertmanagers", w.tell)
	return g.Wait(grace)
}

// evaluate evaluates all rules of all tenants each period. What fails is tried again.
func (w *Watch) evaluate(ctx context.Context) error {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		names, err := w.names(ctx)
		for _, name := range names {
			err = errors.Join(err, w.Evaluate(ctx, name))
		}
		if err != nil && ctx.Err() == nil {
			w.cfg.Log.Error("alerts are not up to date", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (w *Watch) names(ctx context.Context) (out []string, err error) {
	rows, err := w.db.Read.QueryContext(ctx, `SELECT name FROM tenant ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("list tenants: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	for rows.Next() {
		var n string
		if err := rows.Scan(&n); err != nil {
			return nil, fmt.Errorf("list tenants: %w", err)
		}
		out = append(out, n)
	}
	return out, rows.Err()
}

func (w *Watch) within(ctx context.Context, fn func(tx *sql.Tx) error) error {
	tx, err := w.db.Write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("write alerts: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it is a no-op
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("write alerts: %w", err)
	}
	return nil
}
