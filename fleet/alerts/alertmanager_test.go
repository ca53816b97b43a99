// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package alerts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/alerts/hooks"
	"fulmar/fleet/web"
	"fulmar/schema/rest"
)

// alertmanager starts Debian's, and gives its address.
func alertmanager(t *testing.T) string {
	t.Helper()
	bin, err := exec.LookPath("prometheus-alertmanager")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("prometheus-alertmanager is missing; cross/need prometheus-alertmanager")
		}
		t.Skip("prometheus-alertmanager is missing")
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(config, []byte("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "--config.file="+config, "--storage.path="+dir, "--web.listen-address="+addr, "--cluster.listen-address=")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(out.String())
		}
	})
	for end := time.Now().Add(30 * time.Second); ; {
		resp, err := http.Get("http://" + addr + "/-/ready")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return addr
			}
		}
		if time.Now().After(end) {
			t.Fatalf("it is not ready: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// held is an alert as the Alertmanager gives it back.
type held struct {
	Labels, Annotations map[string]string
	GeneratorURL        string
	StartsAt            time.Time
	Status              struct{ State string }
}

func ask(t *testing.T, addr string) (out []held) {
	t.Helper()
	resp, err := http.Get("http://" + addr + "/api/v2/alerts")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestAlertmanager: the real one takes what fires, with labels and a sentence, and drops
// what is resolved; one that is not there is told as the webhook's error.
func TestAlertmanager(t *testing.T) {
	t.Parallel()
	addr := alertmanager(t)
	db, x := file(t), &world{}
	log := slog.New(slog.DiscardHandler)
	h := hooks.New(db, hooks.Config{Log: log})
	w, err := New(t.Context(), db, h, Config{Overview: x.overview, URL: "https://fleet.example.com", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	put(t, w, rest.AlertRule{ID: "failing", Summary: "failing", Query: "state = failing", By: []string{"site", "cause"}, Labels: map[string]string{"team": "a"}})
	for _, url := range []string{"http://" + addr + "/api/v2/alerts", "http://127.0.0.1:1/api/v2/alerts"} {
		if _, err := w.PutHook(t.Context(), as(rest.Admin), rest.Webhook{Name: url[:18], Kind: rest.HookAlertmanager, URL: url, Internal: true}); err != nil {
			t.Fatal(err)
		}
	}
	x.set("hall-4", 2, web.StateFailing, "worker: crashed")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	until := func(what string, done func([]held) bool) []held {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			if got := ask(t, addr); done(got) {
				return got
			} else if time.Now().After(end) {
				t.Fatalf("%s: %+v", what, got)
			}
		}
	}
	got := until("it does not fire", func(h []held) bool { return len(h) == 1 })[0]
	want := map[string]string{"alertname": "failing", "severity": "warning", "site": "hall-4", "cause": "worker: crashed", "team": "a", "tenant": "default"}
	for k, v := range want {
		if got.Labels[k] != v {
			t.Errorf("label %s is %q, wants %q", k, got.Labels[k], v)
		}
	}
	if got.Annotations["summary"] != "failing: 2 boards, site hall-4: worker: crashed" || got.Annotations["boards"] != "hall-4-0000, hall-4-0001" || got.Annotations["count"] != "2" ||
		!strings.HasPrefix(got.GeneratorURL, "https://fleet.example.com/?alert=") || time.Since(got.StartsAt) > time.Minute {
		t.Errorf("%+v", got)
	}
	x.set("hall-4", 2, web.StateHealthy, "")
	if err := w.Evaluate(t.Context(), "default"); err != nil {
		t.Fatal(err)
	}
	until("it is not resolved", func(h []held) bool { return len(h) == 0 })
	hs, err := w.Hooks(t.Context(), "default")
	if err != nil || len(hs) != 2 {
		t.Fatalf("%+v, %v", hs, err)
	}
	for _, w := range hs {
		if gone := strings.Contains(w.URL, ":1/"); (w.Error != "") != gone {
			t.Errorf("%s: error %q", w.URL, w.Error)
		}
	}
}
