// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"fulmar/fleet/audit"
	"fulmar/schema/rest"
)

// job is one try.
type job struct {
	id      int64
	tenant  string
	hook    rest.Webhook
	secret  []byte
	message string
	body    []byte
	tries   int // before this one
	made    time.Time
}

// Run delivers until the context ends. Tries under way end with it; they are made again
// at the next start. A broken database is tried again, not given up on.
func (h *Hooks) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	done := make(chan int64, atOnce)
	busy := map[int64]bool{}
	for {
		next := idle
		jobs, err := h.due(ctx)
		if err != nil && ctx.Err() == nil {
			h.cfg.Log.Error("webhooks wait: their queue cannot be read", "err", err)
			next = brokenWait
		}
		for _, j := range jobs {
			if len(busy) >= atOnce || busy[j.id] {
				continue
			}
			busy[j.id] = true
			wg.Go(func() {
				h.attempt(ctx, j)
				done <- j.id // never blocks: as many as are busy
			})
		}
		if at, err := h.soonest(ctx); err == nil && !at.IsZero() && len(busy) < atOnce {
			next = min(max(time.Until(at), minWait/10), idle)
		}
		t := time.NewTimer(next)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case id := <-done:
			delete(busy, id)
		case <-h.wake:
		case <-t.C:
		}
		t.Stop()
	}
}

// due lists what is to be tried now: of each webhook and subject the oldest that waits,
// at most perHook of each webhook.
func (h *Hooks) due(ctx context.Context) ([]job, error) {
	rows, err := h.db.Read.QueryContext(ctx, `SELECT d.tenant, d.n, d.message, d.body, d.tries, d.made, w.id, w.name, w.url, w.kind, w.events, w.internal, w.off, w.secret, w.author, w.made, w.version, w.error FROM (
  SELECT id AS n, tenant, hook, message, body, tries, made, row_number() OVER (PARTITION BY tenant, hook ORDER BY next, id) AS rank
  FROM delivery d WHERE state = 'waiting' AND next <= ? AND NOT EXISTS (
    SELECT 1 FROM delivery e WHERE e.tenant = d.tenant AND e.hook = d.hook AND e.subject = d.subject AND e.state = 'waiting' AND e.id < d.id)
) d JOIN webhook w ON w.tenant = d.tenant AND w.id = d.hook WHERE d.rank <= ? AND NOT w.off ORDER BY d.rank, d.n LIMIT ?`, time.Now().UnixMilli(), perHook, 4*atOnce)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err tells
	var out []job
	for rows.Next() {
		var j job
		var made int64
		j.hook, j.secret, err = scan(func(to ...any) error {
			return rows.Scan(append([]any{&j.tenant, &j.id, &j.message, &j.body, &j.tries, &made}, to...)...)
		})
		if err != nil {
			return nil, err
		}
		j.made = fromMs(made)
		out = append(out, j)
	}
	return out, rows.Err()
}

// soonest tells when the next try not under way is due; zero: none waits.
func (h *Hooks) soonest(ctx context.Context) (time.Time, error) {
	var at sql.NullInt64
	err := h.db.Read.QueryRowContext(ctx, `SELECT min(next) FROM delivery WHERE state = 'waiting' AND next > ?`, time.Now().UnixMilli()).Scan(&at)
	return fromMs(at.Int64), err
}

// attempt makes one try and writes down how it went.
func (h *Hooks) attempt(ctx context.Context, j job) {
	status, wait, err := h.post(ctx, &j.hook, j.body, func(r *http.Request) {
		now := time.Now()
		r.Header.Set("webhook-id", j.message)
		r.Header.Set("webhook-timestamp", strconv.FormatInt(now.Unix(), 10))
		r.Header.Set("webhook-signature", sign(j.secret, j.message, now.Unix(), j.body))
	})
	if ctx.Err() != nil {
		return // not a failure of the receiver's
	}
	if err := h.settle(ctx, &j, status, wait, err); err != nil {
		h.cfg.Log.Error("how a webhook went could not be written down; it will be sent again", "webhook", j.hook.ID, "err", err)
		select { // it is due still: the receiver is not to pay for a full disk
		case <-ctx.Done():
		case <-time.After(brokenWait):
		}
	}
}

// sign makes the header webhook-signature: HMAC-SHA256 over id.timestamp.body.
func sign(secret []byte, id string, at int64, body []byte) string {
	m := hmac.New(sha256.New, secret)
	fmt.Fprintf(m, "%s.%d.", id, at)
	m.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(m.Sum(nil))
}

// post sends a body. The error is nil for an answer of 2xx alone and holds nothing of
// the URL or the answer's body: either may hold a secret.
func (h *Hooks) post(ctx context.Context, w *rest.Webhook, body []byte, head func(*http.Request)) (status int, wait time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(body))
	if err != nil {
		return 0, 0, errors.New("the URL cannot be used")
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "fulmar-fleet/"+h.cfg.Release)
	head(r)
	c := h.outside
	if w.Internal {
		c = h.inside
	}
	resp, err := c.Do(r)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return 0, 0, err
	}
	defer resp.Body.Close()                                     //nolint:errcheck // only read
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 4096)) // so that the connection can be used again
	if resp.StatusCode/100 == 2 {
		return resp.StatusCode, 0, nil
	}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		wait = min(time.Duration(min(s, 86400))*time.Second, maxWait)
	}
	return resp.StatusCode, wait, fmt.Errorf("the receiver answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
}

// settle writes down how a try went.
func (h *Hooks) settle(ctx context.Context, j *job, status int, wait time.Duration, failed error) error {
	now := time.Now()
	state, text, next := rest.DeliveryDelivered, "", now
	if failed != nil {
		state, text = rest.DeliveryWaiting, clip(failed.Error())
		next = now.Add(max(minWait, wait+jitter(j.tries)))
		if next.Sub(j.made) > giveUp || status == http.StatusGone {
			state = rest.DeliveryFailed
		}
	}
	return h.within(ctx, func(tx *sql.Tx) error {
		// Not where somebody asked for it to be sent again meanwhile.
		_, err := tx.ExecContext(ctx, `UPDATE delivery SET state = ?, tries = ?, last = ?, next = ?, status = ?, error = ? WHERE id = ? AND tries = ? AND made = ?`,
			state, j.tries+1, now.UnixMilli(), next.UnixMilli(), status, text, j.id, j.tries, j.made.UnixMilli())
		if err != nil {
			return fmt.Errorf("settle delivery: %w", err)
		}
		gone := status == http.StatusGone
		if _, err := tx.ExecContext(ctx, `UPDATE webhook SET error = ?, off = off OR ?, version = version + ? WHERE tenant = ? AND id = ? AND (error != ? OR ?)`,
			text, gone, gone, j.tenant, j.hook.ID, text, gone); err != nil {
			return fmt.Errorf("settle delivery: %w", err)
		}
		if gone {
			return audit.Append(ctx, tx, audit.Entry{Who: "fleet", Tenant: j.tenant, What: "put-webhook", Why: j.hook.ID + " off: the receiver answered 410 Gone"})
		}
		return nil
	})
}

// jitter is the wait after a failed try: evenly between zero and a bound that doubles.
func jitter(tries int) time.Duration {
	most := maxWait
	if tries < 16 { // no overflow; the bound is reached long before
		most = min(firstWait<<tries, maxWait)
	}
	return rand.N(most)
}

func clip(s string) string {
	if len(s) > 200 {
		return s[:200]
	}
	return s
}

// Push posts a body to each Alertmanager of the tenant, once, and remembers what failed.
// make gives the body; it is not called where there is none to push to.
func (h *Hooks) Push(ctx context.Context, tenant string, body func() ([]byte, error)) error {
	all, err := h.Hooks(ctx, tenant)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	var b []byte
	for i := range all {
		w := &all[i]
		if w.Kind != rest.HookAlertmanager || w.Off {
			continue
		}
		if b == nil {
			if b, err = body(); err != nil {
				return err
			}
		}
		wg.Go(func() { // at most maxHooks
			_, _, err := h.post(ctx, w, b, func(*http.Request) {})
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.pushes[[2]string{tenant, w.ID}] = ""; err != nil {
				h.pushes[[2]string{tenant, w.ID}] = clip(err.Error())
			}
		})
	}
	return nil
}
