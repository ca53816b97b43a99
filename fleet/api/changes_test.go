// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"fulmar/schema/rest"
)

// TestKeys: a change with an Idempotency-Key is done once and answered twice.
func TestKeys(t *testing.T) {
	t.Parallel()
	s := newTown()
	h := open(t, s)
	first := ask(h, "POST", "rollouts", "admin", bodyOf("create-rollout"), "Idempotency-Key", "k1")
	again := ask(h, "POST", "rollouts", "admin", bodyOf("create-rollout"), "Idempotency-Key", "k1")
	if first.Code != 201 || again.Code != 201 || first.Body.String() != again.Body.String() || again.Header().Get("ETag") != `"v3"` ||
		again.Header().Get("Content-Type") != "application/json" || again.Header().Get("Idempotency-Replayed") == "" || first.Header().Get("Idempotency-Replayed") != "" {
		t.Errorf("%d %s\n%d %s %v", first.Code, first.Body, again.Code, again.Body, again.Header())
	}
	for range 2 { // an answer without a body
		if w := ask(h, "POST", "requests/7/approve", "admin", "", "Idempotency-Key", "k2"); w.Code != http.StatusNoContent {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	// Another caller's key is another key; what failed may be sent again, also put right.
	ask(h, "POST", "rollouts", "releaser", bodyOf("create-rollout"), "Idempotency-Key", "k1")
	if w := ask(h, "POST", "rollouts", "admin", `{"component":"agent","release":"2","query":"nobody"}`, "Idempotency-Key", "k3"); w.Code != 422 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask(h, "POST", "rollouts", "admin", `{"component":"agent","release":"2"}`, "Idempotency-Key", "k3"); w.Code != 201 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	want := `plan 1.9.0 by admin, who sees "", for ""|approve default/7 by admin|plan 1.9.0 by releaser, who sees "", for ""|plan 2 by admin, who sees "", for ""`
	if got := strings.Join(s.done(), "|"); got != want {
		t.Errorf("did %s\nwants %s", got, want)
	}
	for _, key := range []string{"", strings.Repeat("k", 129)} {
		r := ask(h, "POST", "rollouts", "admin", bodyOf("create-rollout"), "Idempotency-Key", key)
		if r.Code != 400 {
			t.Errorf("a key of %d bytes: %d", len(key), r.Code)
		}
	}
}

// TestDry: every change that can be tried is tried, and changes nothing.
func TestDry(t *testing.T) {
	t.Parallel()
	s := newTown()
	h := open(t, s)
	tried := 0
	for _, d := range descriptions(t, h) {
		if d.Method == http.MethodGet || d.Tag() == "prometheus" || d.ID == "forecast" {
			continue
		}
		path := where(d.Path) + confirmed(d.ID)
		path += map[bool]string{true: "&", false: "?"}[strings.Contains(path, "?")] + "dry_run=true"
		w := ask(h, d.Method, path, "admin", bodyOf(d.ID), "If-Match", "*")
		var dry rest.DryRun
		possible := d.Tag() != "rollouts" || d.ID == "start-rollout" || d.ID == "abort-rollout" || d.ID == "create-rollout"
		if err := json.Unmarshal(w.Body.Bytes(), &dry); possible && (err != nil || w.Code != 200 || dry.Would == "") || !possible && w.Code != http.StatusConflict {
			t.Errorf("%s: %d %s", d.ID, w.Code, w.Body)
		}
		tried++
	}
	if done := s.done(); len(done) > 0 || tried < 25 {
		t.Errorf("%d dry runs did %q", tried, done)
	}
	for path, method := range map[string]string{
		"requests/8/approve": "POST", "boards/b9/revoke": "POST", "boards/b9": "DELETE", "users/eve/reset": "POST", "users/eve": "DELETE",
		"tokens/t9": "DELETE", "alert-rules/no": "DELETE", "webhooks/no": "DELETE", "webhooks/w1/deliveries/8/again": "POST", "rollouts/r-9/start": "POST",
	} {
		if w := ask(h, method, path+"?dry_run=true&confirm=b9", "admin", ""); w.Code == 200 || method == "DELETE" && w.Code != 404 && w.Code != 400 {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// TestIfMatch: a change of what somebody else changed meanwhile is not made.
func TestIfMatch(t *testing.T) {
	t.Parallel()
	s := newTown()
	h := open(t, s)
	tag := get(h, "boards/b1/meta", "viewer").Header().Get("ETag")
	if tag != `"v7"` {
		t.Errorf("%s", tag)
	}
	w := ask(h, "PUT", "boards/b1/meta", "operator", bodyOf("set-meta"), "If-Match", `"v6"`)
	if w.Code != http.StatusPreconditionFailed || w.Header().Get("ETag") != tag {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	if w := ask(h, "PUT", "boards/b1/meta", "operator", bodyOf("set-meta"), "If-Match", tag); w.Code != 200 || w.Header().Get("ETag") != `"v8"` {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for _, bad := range []string{"v7", `W/"v7"`, `"v7", "v8"`, `"v07"`, `"v-1"`, `"v99999999999999999999"`} {
		if w := ask(h, "PUT", "boards/b1/meta", "operator", bodyOf("set-meta"), "If-Match", bad); w.Code != 400 {
			t.Errorf("%s: %d", bad, w.Code)
		}
	}
	for _, path := range []string{"rollouts/r-1/start", "rollouts/r-1/approve"} {
		if w := ask(h, "POST", path, "admin", ""); w.Code != http.StatusPreconditionRequired {
			t.Errorf("%s: %d", path, w.Code)
		}
		if w := ask(h, "POST", path, "admin", "", "If-Match", `"v2"`); w.Code != http.StatusPreconditionFailed || w.Header().Get("ETag") != `"v3"` {
			t.Errorf("%s: %d %v", path, w.Code, w.Header())
		}
	}
	if w := get(h, "rollouts/r-1", "viewer", "If-None-Match", `"v3"`); w.Code != http.StatusNotModified {
		t.Errorf("%d", w.Code)
	}
	if got := strings.Join(s.done(), "|"); got != "meta of b1 by operator, v7: hall-5" {
		t.Errorf("did %s", got)
	}
}

// TestOperation: a long change is begun, asked about, and ends with its reason.
func TestOperation(t *testing.T) {
	t.Parallel()
	s := newTown()
	s.slow = make(chan struct{})
	h := open(t, s)
	begin := func() string {
		w := ask(h, "DELETE", "boards/b1?confirm=b1", "admin", `{"why":"sold"}`, "Prefer", "respond-async")
		where, ok := strings.CutPrefix(w.Header().Get("Location"), "/api/v1/")
		if w.Code != http.StatusAccepted || !ok || !strings.Contains(w.Body.String(), `"state":"running"`) {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		return where
	}
	ends := func(where, want string) {
		t.Helper()
		for began := time.Now(); ; time.Sleep(time.Millisecond) {
			w := get(h, where, "admin")
			if strings.Contains(w.Body.String(), want) {
				return
			}
			if w.Code != 200 || time.Since(began) > 10*time.Second {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
		}
	}
	a := begin()
	if w := get(h, a, "elsewhere"); w.Code != http.StatusNotFound {
		t.Errorf("another tenant's: %d", w.Code)
	}
	close(s.slow)
	ends(a, `"state":"done"`)
	s.broken = http.ErrServerClosed
	b := begin()
	ends(b, `"state":"failed"`)
	ends(b, `"code":"FLT1012"`)
	if got := strings.Join(s.done(), "|"); got != "wipe default/b1 by admin: sold" {
		t.Errorf("did %s", got)
	}
}

// TestNoEcho: what a request held comes back in no error, wherever it stood.
func TestNoEcho(t *testing.T) {
	t.Parallel()
	const canary = "hunter2canary"
	refused := 0
	for _, d := range descriptions(t, open(t, newTown())) {
		if d.Tag() == "prometheus" || d.ID == "stream-events" {
			continue
		}
		h := open(t, newTown()) // with a share of requests of its own
		base := where(d.Path) + confirmed(d.ID)
		sep := map[bool]string{true: "&", false: "?"}[strings.Contains(base, "?")]
		for _, c := range [][2]string{
			{base + sep + canary + "=1", bodyOf(d.ID)},
			{base, `{"` + canary + `":1}`},
			{base, `"` + canary},
			{base, `["` + canary + `"]`},
			{base, `{"name":{"` + canary + `":1},"role":"` + canary + `"}`},
			{base, `{"role":"` + canary + `","labels":{"` + canary + `?":5},"q":["` + canary + `"],"why":["` + canary + `"],"version":"` + canary + `"}`},
			{base + sep + "page_size=" + canary + "&limit=" + canary + "&dry_run=" + canary + "&from=" + canary + "&sort=" + canary + "&fields=" + canary + "&points=" + canary + "&page_token=" + canary, ""},
			{strings.NewReplacer("b1", canary, "/7", "/"+canary, "r-1", canary, "ann", canary, "/t1", "/"+canary, "hot", canary, "w1", canary).Replace(base), bodyOf(d.ID)},
		} {
			for _, headers := range [][]string{{"If-Match", "*"}, {"If-Match", canary}, {"Idempotency-Key", strings.Repeat(canary, 20)}, {"If-None-Match", canary, "Content-Type", canary}} {
				w := ask(h, d.Method, c[0], "admin", c[1], headers...)
				if w.Code == http.StatusBadRequest || w.Code == http.StatusNotFound {
					refused++
				}
				if w.Code >= 400 && strings.Contains(w.Body.String(), canary) || w.Code >= 500 || w.Code == http.StatusTooManyRequests {
					t.Errorf("%s %s %s: %d %s", d.Method, c[0], c[1], w.Code, w.Body)
				}
			}
		}
	}
	if refused < 500 {
		t.Errorf("only %d were refused", refused)
	}
}
