// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"fulmar/schema/rest"
)

// FuzzCheck: what is taken for a webhook can be asked, names nobody's password, and is at
// no address of our own unless an administrator said so. What is refused is not repeated.
func FuzzCheck(f *testing.F) {
	f.Add("chat", "https://chat.example.com/hooks/fulmar?x=1", rest.HookWebhook, "rollout.*", false)
	f.Add("am", "http://127.0.0.1:9093/api/v2/alerts", rest.HookAlertmanager, "alert.firing", true)
	f.Add("x", "https://a:b@[::ffff:127.0.0.1]:1/#x", rest.HookWebhook, "", false)
	f.Add("\n", "https:opaque", "", "*", false)
	f.Fuzz(func(t *testing.T, name, target, kind, event string, internal bool) {
		w := &rest.Webhook{Name: name, URL: target, Kind: kind, Events: []string{event}, Internal: internal}
		if err := check(w); err != nil {
			if len(target) > 40 && strings.Contains(err.Error(), target) {
				t.Fatalf("repeats what came: %v", err)
			}
			return
		}
		r, err := http.NewRequest(http.MethodPost, target, nil)
		if err != nil {
			t.Fatalf("%q was taken: %v", target, err)
		}
		if r.URL.User != nil || r.URL.Scheme != "https" && !internal || r.URL.Hostname() == "" {
			t.Fatalf("%q was taken", target)
		}
		if a, err := netip.ParseAddr(r.URL.Hostname()); err == nil && !internal && (a.Unmap().IsLoopback() || a.Unmap().IsPrivate() || a.Unmap().IsLinkLocalUnicast()) {
			t.Fatalf("%q was taken", target)
		}
	})
}
