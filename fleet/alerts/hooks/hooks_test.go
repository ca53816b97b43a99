// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/audit"
	"fulmar/fleet/registry/alertrows"
	"fulmar/fleet/store"
	"fulmar/schema/rest"
)

func open(t *testing.T, cfg Config) *Queue {
	t.Helper()
	tenants := `CREATE TABLE tenant (name TEXT PRIMARY KEY) WITHOUT ROWID; INSERT INTO tenant VALUES ('default'), ('other');`
	db, err := store.OpenFile(filepath.Join(t.TempDir(), "registry.db"), []string{tenants + audit.Schema, alertrows.Schema})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return New(db, cfg)
}

func as(role rest.Role) access.Caller {
	return access.Caller{Tenant: "default", Who: "m.kern", Rights: role.Rights()}
}

// receiver plays the other side: it checks signatures and remembers what it took.
type receiver struct {
	t *testing.T

	mu     sync.Mutex
	answer func(host string) (status int, header http.Header, err error)
	secret map[string][]byte // by host
	took   map[string][]message
	ids    map[string]int // how often a message came, taken or not
	tries  int
}

func (r *receiver) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	at, _ := strconv.ParseInt(req.Header.Get("webhook-timestamp"), 10, 64)
	if age := time.Since(time.Unix(at, 0)); age < 0 || age > 2*time.Second {
		r.t.Errorf("the timestamp of a try is %v old", age)
	}
	r.mu.Lock()
	answer := r.answer
	r.mu.Unlock()
	status, header, err := answer(req.URL.Host)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tries++
	r.ids[req.Header.Get("webhook-id")]++
	if err != nil {
		return nil, err
	}
	if want := sign(r.secret[req.URL.Host], req.Header.Get("webhook-id"), at, body); req.Header.Get("webhook-signature") != want {
		r.t.Errorf("signature %q, wants %q", req.Header.Get("webhook-signature"), want)
	}
	var m message
	if err := json.Unmarshal(body, &m); err != nil {
		r.t.Error(err)
	}
	if status/100 == 2 {
		r.took[req.URL.Host] = append(r.took[req.URL.Host], m)
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader("a secret"))}, nil
}

func (r *receiver) answers(status int, err error) {
	r.does(func(string) (int, http.Header, error) { return status, http.Header{}, err })
}

func (r *receiver) does(fn func(host string) (int, http.Header, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = fn
}

// came gives what was taken at a host, and how many tries there were at all.
func (r *receiver) came(host string) ([]message, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.took[host]), r.tries
}

func simulated(t *testing.T) (*Queue, *receiver) {
	t.Helper()
	r := &receiver{t: t, secret: map[string][]byte{}, took: map[string][]message{}, ids: map[string]int{}}
	r.answers(204, nil)
	return open(t, Config{Transport: func(bool) http.RoundTripper { return r }}), r
}

// put makes a webhook at a host.
func put(t *testing.T, h *Queue, r *receiver, w rest.Webhook) rest.Webhook {
	t.Helper()
	w.Name, w.Kind = "test", rest.HookWebhook
	got, err := h.PutHook(t.Context(), as(rest.Operator), w)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(got.Secret, secretPrefix))
	if err != nil || len(secret) != 32 {
		t.Fatalf("secret %q, %v", got.Secret, err)
	}
	r.mu.Lock()
	r.secret[hostOf(w.URL)] = secret
	r.mu.Unlock()
	return got
}

// during runs fn beside the deliveries, in simulated time.
func during(t *testing.T, h *Queue, fn func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	fn()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func send(t *testing.T, h *Queue, subject string, n int) {
	t.Helper()
	if err := h.Send(t.Context(), Event{Tenant: "default", Type: "alert.firing", Subject: subject, At: time.Now(), Data: n}); err != nil {
		t.Fatal(err)
	}
}

// TestThreeDays: a receiver that is away for most of three days gets every event, those of
// a subject in order; the tries are few; a restart in between loses nothing.
func TestThreeDays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, r := simulated(t)
		w := put(t, h, r, rest.Webhook{URL: "https://a.example.com/x"})
		r.answers(0, errors.New("connection refused"))
		const events = 40
		for day := range 2 {
			during(t, h, func() { // ends and starts anew, as a restart does
				for i := range events / 2 {
					time.Sleep(time.Hour + 7*time.Minute)
					send(t, h, fmt.Sprintf("alert/%d", i%3), day*events/2+i)
				}
			})
		}
		if ds, err := h.Deliveries(t.Context(), "default", w.ID, 0, 200); err != nil || len(ds) != events || ds[0].State != rest.DeliveryWaiting {
			t.Fatalf("%d wait, %v", len(ds), err)
		}
		waiting := r.tries
		r.answers(200, nil)
		during(t, h, func() { time.Sleep(90 * time.Minute) })
		if len(r.took["a.example.com"]) != events {
			t.Errorf("%d of %d events came", len(r.took["a.example.com"]), events)
		}
		ordered(t, r.took["a.example.com"])
		if waiting < 30 || waiting > 1000 {
			t.Errorf("%d tries in the outage", waiting)
		}
		hooks, err := h.Hooks(t.Context(), "default")
		if err != nil || hooks[0].Waiting != 0 || hooks[0].Error != "" || hooks[0].Secret != "" {
			t.Errorf("%+v, %v", hooks, err)
		}
	})
}

func ordered(t *testing.T, ms []message) {
	t.Helper()
	last := map[string]int64{}
	for _, m := range ms {
		if m.Seq <= last[m.Subject] {
			t.Errorf("%s: %d after %d", m.Subject, m.Seq, last[m.Subject])
		}
		last[m.Subject] = m.Seq
	}
}

// TestGivenUp: what could not be delivered for three days is given up, and what comes
// after it is delivered; it can be sent again.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, r := simulated(t)
		w := put(t, h, r, rest.Webhook{URL: "https://a.example.com/x"})
		r.answers(500, nil)
		during(t, h, func() {
			send(t, h, "s", 1)
			time.Sleep(70 * time.Hour)
			send(t, h, "s", 2)
			time.Sleep(4 * time.Hour)
			r.answers(200, nil)
			time.Sleep(2 * time.Hour)
			ds, err := h.Deliveries(t.Context(), "default", w.ID, 0, 200)
			if err != nil || len(ds) != 2 || ds[1].State != rest.DeliveryFailed || ds[1].Error != "the receiver answered 500 Internal Server Error" || ds[0].State != rest.DeliveryDelivered || ds[0].Status != 200 {
				t.Fatalf("%+v, %v", ds, err)
			}
			if gone := ds[1].Last.Sub(ds[1].Made); gone < 70*time.Hour || gone > giveUp {
				t.Errorf("given up after %v", gone)
			}
			if err := h.Redeliver(t.Context(), as(rest.Viewer), ds[1].ID); !errors.Is(err, access.ErrNotAllowed) {
				t.Error(err)
			}
			other := as(rest.Admin)
			other.Tenant = "other"
			if err := h.Redeliver(t.Context(), other, ds[1].ID); !errors.Is(err, ErrUnknown) {
				t.Error(err)
			}
			if err := h.Redeliver(t.Context(), as(rest.Operator), ds[1].ID); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
			if got, _ := r.came("a.example.com"); len(got) != 2 || got[1].Seq != 1 {
				t.Errorf("%+v", got)
			}
			if again, _ := h.Deliveries(t.Context(), "default", w.ID, 0, 1); len(again) != 1 || again[0].Message != ds[0].Message {
				t.Errorf("%+v", again)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.ids[ds[1].Message] < 70 {
				t.Errorf("tried %d times in three days", r.ids[ds[1].Message])
			}
		})
	})
}

// TestSlowReceiver: one that answers after ten seconds does not hold up another, and a
// subject does not hold up another.
func TestSlowReceiver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, r := simulated(t)
		put(t, h, r, rest.Webhook{URL: "https://slow.example.com/"})
		put(t, h, r, rest.Webhook{URL: "https://fast.example.com/"})
		r.does(func(host string) (int, http.Header, error) {
			if host == "slow.example.com" {
				time.Sleep(10 * time.Second)
			}
			return 200, nil, nil
		})
		during(t, h, func() {
			for i := range 50 {
				send(t, h, fmt.Sprint("s", i), i)
			}
			time.Sleep(time.Second)
			r.mu.Lock()
			if n := len(r.took["fast.example.com"]); n != 50 {
				t.Errorf("%d came in a second", n)
			}
			r.mu.Unlock()
			time.Sleep(15 * time.Second) // the slow one has had its tries under way
			send(t, h, "late", 50)
			time.Sleep(time.Second)
			r.mu.Lock()
			if n := len(r.took["fast.example.com"]); n != 51 {
				t.Errorf("%d came while the other is slow", n)
			}
			r.mu.Unlock()
			time.Sleep(130 * time.Second)
			r.mu.Lock()
			defer r.mu.Unlock()
			if n := len(r.took["slow.example.com"]); n != 51 {
				t.Errorf("%d came in all to the slow one, which takes %d at once", n, perHook)
			}
		})
	})
}

// TestAnswers: 410 switches off, Retry-After is obeyed, a redirect is a failure.
func TestAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, r := simulated(t)
		w := put(t, h, r, rest.Webhook{URL: "https://a.example.com/x"})
		r.does(func(string) (int, http.Header, error) {
			return 429, http.Header{"Retry-After": {"1800"}}, nil
		})
		during(t, h, func() {
			send(t, h, "s", 1)
			time.Sleep(29 * time.Minute)
			if _, tries := r.came(""); tries != 1 {
				t.Errorf("%d tries before Retry-After", tries)
			}
			r.does(func(string) (int, http.Header, error) {
				return 302, http.Header{"Location": {"https://b.example.com/"}}, nil
			})
			time.Sleep(2 * time.Minute)
			if ds, _ := h.Deliveries(t.Context(), "default", w.ID, 0, 1); ds[0].Status != 302 || ds[0].State != rest.DeliveryWaiting {
				t.Errorf("%+v", ds)
			}
			r.answers(410, nil)
			time.Sleep(10 * time.Minute)
			ds, _ := h.Deliveries(t.Context(), "default", w.ID, 0, 1)
			hs, _ := h.Hooks(t.Context(), "default")
			if ds[0].State != rest.DeliveryFailed || !hs[0].Off || hs[0].Version != 2 || hs[0].Error != "the receiver answered 410 Gone" {
				t.Errorf("%+v, %+v", ds, hs)
			}
			_, tries := r.came("")
			send(t, h, "s", 2)
			time.Sleep(time.Hour)
			if _, now := r.came(""); now != tries {
				t.Error("a webhook that is off was called")
			}
		})
	})
}

// TestBounds: the queue of a webhook that never answers stops growing; its newest stay.
func TestBounds(t *testing.T) {
	t.Parallel()
	h, r := simulated(t)
	w := put(t, h, r, rest.Webhook{URL: "https://a.example.com/x", Events: []string{"alert.*", "rollout.halted"}})
	err := h.within(t.Context(), func(tx *sql.Tx) error { // as if they had waited
		_, err := tx.ExecContext(t.Context(), `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
INSERT INTO delivery (tenant, hook, message, type, subject, seq, body, state, made, next) SELECT 'default', ?, 'm', 'alert.firing', 's', i, '{}', iif(i <= ?, 'delivered', 'waiting'), 1, 1 FROM n`,
			maxWaiting+keepDone, w.ID, keepDone)
		if err == nil {
			_, err = tx.ExecContext(t.Context(), `UPDATE hook_event SET seq = ?`, 2*pruneEach-1)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	send(t, h, "s", 1)
	hs, _ := h.Hooks(t.Context(), "default")
	var done int
	_ = h.db.Read.QueryRow(`SELECT count(*) FROM delivery WHERE state != 'waiting'`).Scan(&done)
	if hs[0].Waiting != maxWaiting || done != keepDone {
		t.Errorf("%d wait, %d are done", hs[0].Waiting, done)
	}
	for typ, want := range map[string]int{"alert.resolved": 1, "rollout.halted": 1, "rollout.done": 0, "alerts": 0} {
		var before, after int
		_ = h.db.Read.QueryRow(`SELECT max(id) FROM delivery`).Scan(&before)
		if err := h.Send(t.Context(), Event{Tenant: "default", Type: typ, Subject: "x", At: time.Now()}); err != nil {
			t.Error(err)
		}
		_ = h.db.Read.QueryRow(`SELECT max(id) FROM delivery`).Scan(&after)
		if after-before != want {
			t.Errorf("%s was queued %d times", typ, after-before)
		}
	}
	if err := h.Send(t.Context(), Event{Tenant: "default", Type: "alert.big", Data: strings.Repeat("a", maxBody)}); !errors.Is(err, ErrTooMany) {
		t.Error(err)
	}
	if err := h.Send(t.Context(), Event{Tenant: "other", Type: "alert.firing"}); err != nil || len(r.took) != 0 {
		t.Error(err)
	}
}

// TestSignature: the example of the Standard Webhooks libraries.
func TestSignature(t *testing.T) {
	t.Parallel()
	secret, _ := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if got := sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, []byte(`{"test": 2432232314}`)); got != "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" {
		t.Error(got)
	}
}

// TestSecrets: neither the log nor the audit log nor any answer but the first holds the
// secret, the path or what the receiver said.
func TestSecrets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		h, r := simulated(t)
		h.cfg.Log = slog.New(slog.NewTextHandler(&logged, nil))
		w := put(t, h, r, rest.Webhook{URL: "https://a.example.com/path-secret"})
		r.answers(500, errors.New("no such host"))
		during(t, h, func() { send(t, h, "s", 1); time.Sleep(time.Minute) })
		w.Off = true
		again, err := h.PutHook(t.Context(), as(rest.Operator), w)
		if err != nil || again.Secret != "" {
			t.Errorf("%+v, %v", again, err)
		}
		ds, _ := h.Deliveries(t.Context(), "default", w.ID, 0, 1)
		_ = audit.New(h.db).Each(t.Context(), 0, func(e audit.Entry) error { fmt.Fprintln(&logged, e); return nil })
		fmt.Fprintln(&logged, ds)
		for _, s := range []string{w.Secret, "path-secret", "a secret"} {
			if strings.Contains(logged.String(), s) {
				t.Errorf("%q is told in %s", s, logged.String())
			}
		}
		if !strings.Contains(logged.String(), "no such host") || !strings.Contains(logged.String(), "a.example.com") {
			t.Errorf("what failed is not told: %s", logged.String())
		}
	})
}
