// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestReached(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		listen string
		hosts  []string
		want   string
		names  []string
	}{
		{"127.0.0.1:1", nil, "127.0.0.1:8443", []string{"127.0.0.1"}},
		{":1", nil, "127.0.0.1:8443", nil},
		{"0.0.0.0:1", []string{"localhost", "127.0.0.1", "fleet.example"}, "fleet.example:8443", []string{"localhost", "127.0.0.1", "fleet.example"}},
		{"[::]:1", []string{"2001:db8::1"}, "[2001:db8::1]:8443", []string{"2001:db8::1"}},
		{"192.0.2.7:1", nil, "192.0.2.7:8443", []string{"192.0.2.7"}},
		{"192.0.2.7:1", []string{"fleet.example"}, "fleet.example:8443", []string{"fleet.example", "192.0.2.7"}},
		{"192.0.2.7:1", []string{"no host"}, "192.0.2.7:8443", []string{"no host", "192.0.2.7"}},
	} {
		cfg := Config{Listen: c.listen, Hosts: c.hosts}
		if got := cfg.reached("8443"); got != c.want {
			t.Errorf("%s %v: reached by %s, wants %s", c.listen, c.hosts, got, c.want)
		}
		if got := cfg.names(); !slices.Equal(got, c.names) {
			t.Errorf("%s %v: names %v, wants %v", c.listen, c.hosts, got, c.names)
		}
	}
}

func TestAddress(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if a, err := Address(dir); a != "" || err != nil {
		t.Errorf("no server yet: %q, %v", a, err)
	}
	if err := os.WriteFile(filepath.Join(dir, addressFile), []byte("not an address\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Address(dir); err == nil || !strings.Contains(err.Error(), "--address") {
		t.Error(err)
	}
	for a, want := range map[string]bool{
		"127.0.0.1:1": true, "[::1]:1": true, "localhost:1": true, "LOCALHOST:1": true, "0.0.0.0:1": true, "[::ffff:127.0.0.1]:1": true, "localhost": true,
		"192.0.2.7:1": false, "fleet.example:1": false,
	} {
		if Loopback(a) != want {
			t.Errorf("%s: %v", a, !want)
		}
	}
}
