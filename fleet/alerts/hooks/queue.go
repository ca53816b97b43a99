// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/audit"
	"fulmar/schema/rest"
)

// Event is something that happened.
type Event struct {
	Tenant  string
	Type    string // "alert.firing": a-z, dots and dashes
	Subject string // what it is about: "alert/3f2a..."; events of one arrive in order
	At      time.Time
	Data    any // JSON
}

// message is the body of a webhook: type, timestamp and data as Standard Webhooks has it.
type message struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	Tenant    string    `json:"tenant"`
	Subject   string    `json:"subject"`
	Seq       int64     `json:"seq"` // rises with each event of the server
	Data      any       `json:"data"`
}

// Enqueue queues an event for all webhooks that want it, in the transaction of what
// happened. Call [Hooks.Wake] after the commit.
func Enqueue(ctx context.Context, tx *sql.Tx, e Event) error {
	ids, err := receivers(ctx, tx, e)
	if err != nil || len(ids) == 0 {
		return err
	}
	m := message{Type: e.Type, Timestamp: e.At.UTC(), Tenant: e.Tenant, Subject: e.Subject, Data: e.Data}
	if err := tx.QueryRowContext(ctx, `UPDATE hook_event SET seq = seq + 1 RETURNING seq`).Scan(&m.Seq); err != nil {
		return fmt.Errorf("number event: %w", err)
	}
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode event %s: %w", e.Type, err)
	}
	if len(body) > maxBody {
		return fmt.Errorf("event %s of %s: %w: %d bytes, at most %d", e.Type, e.Subject, ErrTooMany, len(body), maxBody)
	}
	var id [16]byte
	_, _ = rand.Read(id[:])
	now := time.Now().UnixMilli()
	for _, hook := range ids {
		_, err := tx.ExecContext(ctx, `INSERT INTO delivery (tenant, hook, message, type, subject, seq, body, state, made, next) VALUES (?, ?, ?, ?, ?, ?, ?, 'waiting', ?, ?)`,
			e.Tenant, hook, "msg_"+hex.EncodeToString(id[:]), e.Type, e.Subject, m.Seq, body, now, now)
		if err != nil {
			return fmt.Errorf("queue event: %w", err)
		}
		if err := prune(ctx, tx, e.Tenant, hook); err != nil {
			return err
		}
	}
	return nil
}

// receivers are the webhooks that want an event. One that is switched off gets what
// happens meanwhile never.
func receivers(ctx context.Context, tx *sql.Tx, e Event) (ids []string, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT id, events FROM webhook WHERE tenant = ? AND kind = ? AND NOT off`, e.Tenant, rest.HookWebhook)
	if err != nil {
		return nil, fmt.Errorf("look up webhooks: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	for rows.Next() {
		var id, list string
		var events []string
		if err := rows.Scan(&id, &list); err != nil {
			return nil, fmt.Errorf("look up webhooks: %w", err)
		}
		if err := json.Unmarshal([]byte(list), &events); err != nil {
			return nil, fmt.Errorf("events of webhook %s: %w", id, err)
		}
		if wants(events, e.Type) {
			ids = append(ids, id)
		}
	}
	return ids, rows.Err()
}

// prune holds a webhook's rows to their bounds.
func prune(ctx context.Context, tx *sql.Tx, tenant, hook string) error {
	_, err := tx.ExecContext(ctx, `UPDATE delivery SET state = 'failed', error = 'given up: too many waited' WHERE id IN (
  SELECT id FROM delivery WHERE tenant = ? AND hook = ? AND state = 'waiting' ORDER BY id DESC LIMIT -1 OFFSET ?)`, tenant, hook, maxWaiting)
	if err == nil {
		_, err = tx.ExecContext(ctx, `DELETE FROM delivery WHERE id IN (
  SELECT id FROM delivery WHERE tenant = ? AND hook = ? AND state != 'waiting' ORDER BY id DESC LIMIT -1 OFFSET ?)`, tenant, hook, keepDone)
	}
	if err != nil {
		return fmt.Errorf("shorten queue of webhook %s: %w", hook, err)
	}
	return nil
}

// Send queues an event that is of no transaction of the caller's.
func (h *Hooks) Send(ctx context.Context, e Event) error {
	err := h.within(ctx, func(tx *sql.Tx) error { return Enqueue(ctx, tx, e) })
	h.Wake()
	return err
}

// Deliveries lists the deliveries of a webhook, newest first: at most limit (200) of those
// before an id, 0 being from the newest.
func (h *Hooks) Deliveries(ctx context.Context, tenant, hook string, before int64, limit int) ([]rest.Delivery, error) {
	if before <= 0 {
		before = 1<<63 - 1
	}
	rows, err := h.db.Read.QueryContext(ctx, `SELECT id, hook, message, type, subject, seq, state, tries, made, last, next, status, error
FROM delivery WHERE tenant = ? AND hook = ? AND id < ? ORDER BY id DESC LIMIT ?`, tenant, hook, before, min(max(limit, 1), 200))
	if err != nil {
		return nil, fmt.Errorf("list deliveries: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	out := []rest.Delivery{}
	for rows.Next() {
		var d rest.Delivery
		var made, last, next int64
		if err := rows.Scan(&d.ID, &d.Hook, &d.Message, &d.Type, &d.Subject, &d.Seq, &d.State, &d.Tries, &made, &last, &next, &d.Status, &d.Error); err != nil {
			return nil, fmt.Errorf("list deliveries: %w", err)
		}
		if d.Made, d.Last = fromMs(made), fromMs(last); d.State == rest.DeliveryWaiting {
			d.Next = fromMs(next)
		}
		out = append(out, d)
	}
	return out, rows.Err()
}

// Redeliver sends a delivery that ended, or that waits for its next try, again: at once,
// with its old message id, and for three days from now.
func (h *Hooks) Redeliver(ctx context.Context, by access.Caller, id int64) error {
	if err := by.May(rest.AlertsWrite); err != nil {
		return fmt.Errorf("send again: %w: wants the right %s", err, rest.AlertsWrite)
	}
	err := h.within(ctx, func(tx *sql.Tx) error {
		now := time.Now().UnixMilli()
		var hook, message string
		err := tx.QueryRowContext(ctx, `UPDATE delivery SET state = 'waiting', tries = 0, made = ?, next = ?, error = '', status = 0 WHERE tenant = ? AND id = ? RETURNING hook, message`,
			now, now, by.Tenant, id).Scan(&hook, &message)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("delivery: %w: only the newest %d of a webhook are kept", ErrUnknown, keepDone)
		}
		if err != nil {
			return fmt.Errorf("send again: %w", err)
		}
		return audit.Append(ctx, tx, audit.Entry{Who: by.Who, Tenant: by.Tenant, What: "redeliver", Why: message + " to " + hook})
	})
	h.Wake()
	return err
}
