// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"fulmar/fleet/access"
	"fulmar/fleet/audit"
	"fulmar/schema/rest"
)

// Bounds on a webhook's texts, in bytes, and on its list of events.
const (
	maxName   = 64
	maxURL    = 2048
	maxEvents = 32
	maxType   = 64
)

const secretPrefix = "whsec_" // as Standard Webhooks has it

// Hooks lists a tenant's webhooks, by name, without their secrets.
func (h *Hooks) Hooks(ctx context.Context, tenant string) ([]rest.Webhook, error) {
	rows, err := h.db.Read.QueryContext(ctx, `SELECT `+columns+`,
  (SELECT count(*) FROM delivery d WHERE d.tenant = w.tenant AND d.hook = w.id AND d.state = 'waiting')
FROM webhook w WHERE tenant = ? ORDER BY name, id`, tenant)
	if err != nil {
		return nil, fmt.Errorf("list webhooks: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	out := []rest.Webhook{}
	for rows.Next() {
		var waiting int
		w, _, err := scan(func(to ...any) error { return rows.Scan(append(to, &waiting)...) })
		if err != nil {
			return nil, fmt.Errorf("list webhooks: %w", err)
		}
		w.Waiting = waiting
		h.mu.Lock()
		if failed := h.pushes[[2]string{tenant, w.ID}]; failed != "" {
			w.Error = failed
		}
		h.mu.Unlock()
		out = append(out, w)
	}
	return out, rows.Err()
}

const columns = `id, name, url, kind, events, internal, off, secret, author, made, version, error`

func scan(row func(...any) error) (w rest.Webhook, secret []byte, err error) {
	var events string
	var made int64
	if err := row(&w.ID, &w.Name, &w.URL, &w.Kind, &events, &w.Internal, &w.Off, &secret, &w.Author, &made, &w.Version, &w.Error); err != nil {
		return w, nil, err
	}
	w.Made = fromMs(made)
	return w, secret, json.Unmarshal([]byte(events), &w.Events)
}

// PutHook makes a webhook (ID is "") or changes one: its Version has to be the one that
// is there, or -1. The secret is in the answer that made it and nowhere else. Whoever may
// write alerts may do this; one at a private address, new or changed, wants the right to
// write users.
func (h *Hooks) PutHook(ctx context.Context, by access.Caller, w rest.Webhook) (rest.Webhook, error) {
	if err := by.May(rest.AlertsWrite); err != nil {
		return w, fmt.Errorf("webhook: %w: wants the right %s", err, rest.AlertsWrite)
	}
	if err := check(&w); err != nil {
		return w, err
	}
	events, err := json.Marshal(append([]string{}, w.Events...))
	if err != nil {
		return w, fmt.Errorf("webhook: %w", err)
	}
	w.Secret, w.Error, w.Waiting = "", "", 0
	err = h.within(ctx, func(tx *sql.Tx) error {
		was, err := h.before(ctx, tx, by, &w)
		if err != nil {
			return err
		}
		secret := []byte{} // stays as it is
		if was == nil {
			secret = make([]byte, 32)
			_, _ = rand.Read(secret)
			w.Secret = secretPrefix + base64.StdEncoding.EncodeToString(secret)
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO webhook (tenant, id, name, url, kind, events, internal, off, secret, author, made, version)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, id) DO UPDATE SET
  name = excluded.name, url = excluded.url, kind = excluded.kind, events = excluded.events, internal = excluded.internal, off = excluded.off, version = excluded.version, error = ''`,
			by.Tenant, w.ID, w.Name, w.URL, w.Kind, string(events), w.Internal, w.Off, secret, w.Author, w.Made.UnixMilli(), w.Version)
		if err != nil {
			return fmt.Errorf("keep webhook: %w", err)
		}
		return audit.Append(ctx, tx, audit.Entry{Who: by.Who, Tenant: by.Tenant, What: "put-webhook", Why: said(&w, was)})
	})
	h.Wake()
	return w, err
}

// before looks at what is there of the webhook that is put, and completes w.
func (h *Hooks) before(ctx context.Context, tx *sql.Tx, by access.Caller, w *rest.Webhook) (*rest.Webhook, error) {
	var was *rest.Webhook
	if w.ID == "" {
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM webhook WHERE tenant = ?`, by.Tenant).Scan(&n); err != nil {
			return nil, fmt.Errorf("count webhooks: %w", err)
		}
		if n >= maxHooks {
			return nil, fmt.Errorf("webhook: %w: there are %d", ErrTooMany, n)
		}
		var id [8]byte
		_, _ = rand.Read(id[:])
		w.ID, w.Author, w.Made, w.Version = "wh-"+hex.EncodeToString(id[:]), by.Who, time.Now().UTC().Truncate(time.Millisecond), 1
	} else {
		have, _, err := scan(tx.QueryRowContext(ctx, `SELECT `+columns+` FROM webhook WHERE tenant = ? AND id = ?`, by.Tenant, w.ID).Scan)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return nil, fmt.Errorf("webhook: %w", ErrUnknown)
		case err != nil:
			return nil, fmt.Errorf("look up webhook: %w", err)
		case w.Version != -1 && w.Version != have.Version:
			return nil, fmt.Errorf("webhook %s: %w: it is of version %d, not %d", w.ID, ErrStale, have.Version, w.Version)
		}
		was = &have
		w.Author, w.Made, w.Version = have.Author, have.Made, have.Version+1
	}
	// Who may not open a way inside may not move it either; switching it off is free.
	moves := was == nil || was.URL != w.URL || was.Internal != w.Internal || was.Kind != w.Kind
	if w.Internal && moves && by.May(rest.UsersWrite) != nil {
		return nil, fmt.Errorf("webhook at a private address: %w: wants the right %s", access.ErrNotAllowed, rest.UsersWrite)
	}
	return was, nil
}

// said is the entry in the audit log. A path may be a secret, so only the host is told.
func said(w, was *rest.Webhook) string {
	s := fmt.Sprintf("%s %s (%s) to %s", w.ID, w.Name, w.Kind, hostOf(w.URL))
	if was != nil && hostOf(was.URL) != hostOf(w.URL) {
		s += " (was " + hostOf(was.URL) + ")"
	}
	if w.Internal {
		s += ", may be at a private address"
	}
	if w.Off {
		s += ", off"
	}
	return s
}

func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "?"
	}
	return u.Host
}

// RemoveHook takes a webhook away, with what waits for it.
func (h *Hooks) RemoveHook(ctx context.Context, by access.Caller, id string) error {
	if err := by.May(rest.AlertsWrite); err != nil {
		return fmt.Errorf("webhook: %w: wants the right %s", err, rest.AlertsWrite)
	}
	return h.within(ctx, func(tx *sql.Tx) error {
		var name string
		err := tx.QueryRowContext(ctx, `DELETE FROM webhook WHERE tenant = ? AND id = ? RETURNING name`, by.Tenant, id).Scan(&name)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("webhook: %w", ErrUnknown)
		}
		if err != nil {
			return fmt.Errorf("remove webhook: %w", err)
		}
		return audit.Append(ctx, tx, audit.Entry{Who: by.Who, Tenant: by.Tenant, What: "remove-webhook", Why: id + " " + name})
	})
}

func invalid(field, why string) error {
	return fmt.Errorf("webhook: %w: %s: %s", ErrInvalid, field, why)
}

// check holds a webhook to what it may be. No value is repeated in an error.
func check(w *rest.Webhook) error {
	bad := func(r rune) bool { return !unicode.IsPrint(r) }
	switch {
	case w.Name == "" || len(w.Name) > maxName || strings.ContainsFunc(w.Name, bad):
		return invalid("name", fmt.Sprintf("wants 1 to %d bytes of characters that can be seen", maxName))
	case w.Kind != rest.HookWebhook && w.Kind != rest.HookAlertmanager:
		return invalid("kind", "wants webhook or alertmanager")
	case len(w.Events) > maxEvents:
		return invalid("events", fmt.Sprintf("at most %d", maxEvents))
	}
	for _, e := range w.Events {
		if e == "" || len(e) > maxType || strings.ContainsFunc(e, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r == '.' || r == '-' || r == '*')
		}) {
			return invalid("events", "wants types as alert.firing or rollout.*")
		}
	}
	return checkURL(w)
}

func checkURL(w *rest.Webhook) error {
	u, err := url.Parse(w.URL)
	switch {
	case len(w.URL) > maxURL || err != nil || u.Host == "" || u.Hostname() == "" || u.Opaque != "":
		return invalid("url", "wants a whole URL as https://chat.example.com/hooks/fulmar")
	case u.User != nil:
		return invalid("url", "holds a name or password; the receiver knows us by the signature")
	case u.Fragment != "":
		return invalid("url", "has a fragment (#), which is never sent")
	case u.Scheme != "https" && (u.Scheme != "http" || !w.Internal):
		return invalid("url", "wants https; http is taken at an internal address only")
	case w.Kind == rest.HookAlertmanager && !strings.HasSuffix(u.Path, "/api/v2/alerts"):
		return invalid("url", "an Alertmanager's ends in /api/v2/alerts")
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		if why := refused(a, w.Internal); why != "" {
			return invalid("url", why)
		}
	}
	return nil
}

// wants tells whether a webhook gets events of a type.
func wants(events []string, typ string) bool {
	return len(events) == 0 || slices.ContainsFunc(events, func(e string) bool {
		stem, any := strings.CutSuffix(e, "*")
		return e == typ || any && strings.HasPrefix(typ, stem)
	})
}
