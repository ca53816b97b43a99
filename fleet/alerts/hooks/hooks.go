// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package hooks tells other programs what happened: webhooks as Standard Webhooks has
// them (https://www.standardwebhooks.com), from a queue in the registry's database.
//
// An event is queued in the transaction of what happened and delivered at least once:
// the receiver tells repeats by the header webhook-id. Events of one subject arrive in
// order of their seq: the next one waits until the one before it was taken or given up.
// What cannot be delivered is tried again with full jitter for three days. Each try has
// a row that can be looked at, and can be sent again.
//
// A webhook reaches no private address unless an administrator said that it may; what is
// looked at is the address that is dialled, after the name was resolved.
package hooks

import (
	"context"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"fulmar/fleet/store"
)

// Errors that callers act upon; those of access come wrapped.
var (
	ErrStale   = errors.New("changed by somebody else meanwhile")
	ErrInvalid = errors.New("not valid")
	ErrTooMany = errors.New("too many")
	ErrUnknown = errors.New("unknown")
)

// Bounds.
const (
	maxHooks = 50 // of a tenant: chat rooms, ticket systems and a few scripts
	// maxWaiting bounds what waits for one webhook; the oldest go when there is more.
	// 10,000 boards that turn ill and well in an outage of the receiver, grouped.
	maxWaiting = 10_000
	pruneEach  = 64       // events: counting 10,000 rows costs a millisecond, and so many too many do not matter
	keepDone   = 1000     // deliveries of a webhook that stay to be looked at
	maxBody    = 64 << 10 // bytes of an event
	// giveUp is how long a delivery is tried: a long weekend.
	giveUp = 72 * time.Hour
	// The wait before a try is evenly between zero and firstWait doubled with each try,
	// up to maxWait: full jitter.
	firstWait = 10 * time.Second
	maxWait   = time.Hour
	minWait   = time.Second
	tryFor    = 15 * time.Second // one try, all of it
	// atOnce and perHook bound the tries under way: a slow receiver holds up itself.
	atOnce  = 16
	perHook = 4
	// idle is how long the queue is not looked at where nothing is due and nobody woke it.
	idle = 10 * time.Minute
	// brokenWait is the pause where the database takes no writes.
	brokenWait = 30 * time.Second
)

// Config is what deliveries need beside the queue.
type Config struct {
	// Release goes into the header User-Agent.
	Release string
	// Roots are the authorities of receivers; nil those of the system.
	Roots *x509.CertPool
	// Transport replaces the network, in tests; it gets whether the webhook is internal.
	Transport func(internal bool) http.RoundTripper
	Log       *slog.Logger
}

// Queue holds webhooks and what waits for them, and delivers it.
type Queue struct {
	db      *store.DB
	cfg     Config
	wake    chan struct{}
	outside *http.Client // never reaches a private address
	inside  *http.Client

	mu     sync.Mutex
	pushes map[[2]string]string // why the newest push to an Alertmanager failed, by tenant and id
}

// New gives the queue in db, whose migrations hold alertrows.Schema.
func New(db *store.DB, cfg Config) *Queue {
	h := &Queue{db: db, cfg: cfg, wake: make(chan struct{}, 1), pushes: map[[2]string]string{}}
	if cfg.Transport == nil {
		cfg.Transport = func(internal bool) http.RoundTripper { return transport(internal, cfg.Roots) }
	}
	h.outside, h.inside = client(cfg.Transport(false)), client(cfg.Transport(true))
	return h
}

// client follows no redirect: the signed body is for the address that was named.
func client(t http.RoundTripper) *http.Client {
	return &http.Client{Transport: t, Timeout: tryFor, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// Wake makes the queue be looked at now: called after a commit that queued events.
func (h *Queue) Wake() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// within runs fn in a write transaction.
func (h *Queue) within(ctx context.Context, fn func(tx *sql.Tx) error) error {
	tx, err := h.db.Write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("write webhooks: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it is a no-op
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("write webhooks: %w", err)
	}
	return nil
}

func fromMs(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
