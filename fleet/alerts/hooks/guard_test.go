// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fulmar/fleet/access"
	"fulmar/schema/rest"
)

func TestRefused(t *testing.T) {
	t.Parallel()
	for _, s := range strings.Fields("127.0.0.1 127.8.8.8 10.1.2.3 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 169.254.169.254 0.0.0.0 0.1.2.3 192.0.0.8 198.18.0.1 240.0.0.1 255.255.255.255 224.0.0.1" +
		" :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:100.64.0.1 fec0::1%eth0 fe80::1 fe80::1%eth0 fc00::1 fdff::1 fec0::1 ff02::1 64:ff9b::7f00:1 64:ff9b:1::a00:1 2002:7f00:1:: 2001:0:7f00:1:: 2001:db8::1") {
		if refused(netip.MustParseAddr(s), false) == "" {
			t.Errorf("%s is reached", s)
		}
	}
	for _, s := range strings.Fields("8.8.8.8 172.15.0.1 172.32.0.1 11.0.0.1 100.128.0.1 2606:4700::1111 2a00:1450::1") {
		if why := refused(netip.MustParseAddr(s), false); why != "" {
			t.Errorf("%s is not reached: %s", s, why)
		}
	}
	for s, want := range map[string]bool{"127.0.0.1": true, "10.0.0.1": true, "fd00::1": true, "169.254.169.254": false, "fe80::1": false, "::ffff:169.254.169.254": false, "0.0.0.0": false} {
		if got := refused(netip.MustParseAddr(s), true) == ""; got != want {
			t.Errorf("%s, marked internal, is reached: %v", s, got)
		}
	}
}

// TestDial: a real HTTPS receiver on this machine gets nothing, whatever it is called,
// unless the webhook is internal; then it gets it over a verified connection.
func TestDial(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		if r.URL.Path == "/away" {
			http.Redirect(w, r, "/", http.StatusTemporaryRedirect)
		}
	}))
	t.Cleanup(srv.Close)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	h := open(t, Config{Release: "test", Roots: roots})
	u, _ := url.Parse(srv.URL)
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]"} {
		_, _, err := h.post(t.Context(), &rest.Webhook{URL: "https://" + host + ":" + u.Port() + "/"}, nil, func(*http.Request) {})
		if !errors.Is(err, errRefused) || calls.Load() != 0 {
			t.Errorf("%s: %v, called %d times", host, err, calls.Load())
		}
	}
	if status, _, err := h.post(t.Context(), &rest.Webhook{URL: srv.URL, Internal: true}, []byte("{}"), func(*http.Request) {}); err != nil || status != 200 || calls.Load() != 1 {
		t.Errorf("%d, %v", status, err)
	}
	if status, _, err := h.post(t.Context(), &rest.Webhook{URL: srv.URL + "/away", Internal: true}, nil, func(*http.Request) {}); err == nil || status != 307 || calls.Load() != 2 {
		t.Errorf("followed: %d, %v", status, err)
	}
	strict := open(t, Config{})
	if _, _, err := strict.post(t.Context(), &rest.Webhook{URL: srv.URL, Internal: true}, nil, func(*http.Request) {}); err == nil || calls.Load() != 2 || strings.Contains(err.Error(), u.Port()) {
		t.Errorf("an unknown authority is believed, or the URL is told: %v", err)
	}
}

// TestWhole: from the event to a real receiver, without any time being played.
func TestWhole(t *testing.T) {
	t.Parallel()
	got := make(chan *http.Request, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r }))
	t.Cleanup(srv.Close)
	h := open(t, Config{Release: "1.2"})
	w := rest.Webhook{Name: "a", Kind: rest.HookWebhook, URL: srv.URL, Internal: true}
	if _, err := h.PutHook(t.Context(), as(rest.Operator), w); !errors.Is(err, access.ErrNotAllowed) {
		t.Errorf("an operator opens a way inside: %v", err)
	}
	made, err := h.PutHook(t.Context(), as(rest.Admin), w)
	if err != nil {
		t.Fatal(err)
	}
	during(t, h, func() {
		send(t, h, "s", 1)
		select {
		case r := <-got:
			if !strings.HasPrefix(r.Header.Get("webhook-id"), "msg_") || r.Header.Get("User-Agent") != "fulmar-fleet/1.2" || r.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%v", r.Header)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("nothing came")
		}
	})
	made.Off = true
	off, err := h.PutHook(t.Context(), as(rest.Operator), made)
	if err != nil || off.Version != 2 {
		t.Errorf("an operator cannot switch it off: %v", err)
	}
	moved := off
	moved.URL = "http://10.0.0.1/"
	if _, err := h.PutHook(t.Context(), as(rest.Operator), moved); !errors.Is(err, access.ErrNotAllowed) {
		t.Errorf("an operator moves the way inside: %v", err)
	}
	if _, err := h.PutHook(t.Context(), as(rest.Admin), made); !errors.Is(err, ErrStale) {
		t.Errorf("a stale change: %v", err)
	}
	other := as(rest.Admin)
	other.Tenant = "other"
	if _, err := h.PutHook(t.Context(), other, off); !errors.Is(err, ErrUnknown) {
		t.Errorf("another tenant changes it: %v", err)
	}
	if err := h.RemoveHook(t.Context(), other, off.ID); !errors.Is(err, ErrUnknown) {
		t.Errorf("another tenant removes it: %v", err)
	}
	if err := h.RemoveHook(t.Context(), as(rest.Viewer), off.ID); !errors.Is(err, access.ErrNotAllowed) {
		t.Error(err)
	}
	if err := h.RemoveHook(t.Context(), as(rest.Operator), off.ID); err != nil {
		t.Error(err)
	}
	if hs, err := h.Hooks(t.Context(), "default"); err != nil || len(hs) != 0 {
		t.Errorf("%v, %v", hs, err)
	}
}

func TestInvalid(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	good := rest.Webhook{Name: "a", Kind: rest.HookWebhook, URL: "https://example.com/x", Events: []string{"alert.*"}}
	for want, change := range map[string]func(*rest.Webhook){
		"name":                         func(w *rest.Webhook) { w.Name = "a\x1b" },
		"kind":                         func(w *rest.Webhook) { w.Kind = "pager" },
		"events":                       func(w *rest.Webhook) { w.Events = []string{"a b"} },
		"events: at most":              func(w *rest.Webhook) { w.Events = make([]string, 33) },
		"url: wants https":             func(w *rest.Webhook) { w.URL = "http://example.com/" },
		"wants https; http":            func(w *rest.Webhook) { w.URL = "file://host/etc/passwd"; w.Internal = true },
		"url: wants a whole":           func(w *rest.Webhook) { w.URL = "/x" },
		"url: wants a whole URL":       func(w *rest.Webhook) { w.URL = "https://:8080/" },
		"url: wants a whole URL as":    func(w *rest.Webhook) { w.URL = "https://a.example.com/" + strings.Repeat("x", maxURL) },
		"url: holds a name":            func(w *rest.Webhook) { w.URL = "https://user:pw@example.com/" },
		"url: has a fragment":          func(w *rest.Webhook) { w.URL = "https://example.com/#x" },
		"url: it is a private":         func(w *rest.Webhook) { w.URL = "https://10.0.0.1/" },
		"url: link-local":              func(w *rest.Webhook) { w.URL = "http://169.254.169.254/latest"; w.Internal = true },
		"url: it is a private address": func(w *rest.Webhook) { w.URL = "https://[::1]/" },
		"url: an Alertmanager's":       func(w *rest.Webhook) { w.Kind = rest.HookAlertmanager },
	} {
		w := good
		change(&w)
		if _, err := h.PutHook(t.Context(), as(rest.Admin), w); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("wants %q: %v", want, err)
		}
	}
	for range maxHooks {
		if _, err := h.PutHook(t.Context(), as(rest.Operator), good); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.PutHook(t.Context(), as(rest.Operator), good); !errors.Is(err, ErrTooMany) {
		t.Error(err)
	}
}
