// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/telemetry"
	"fulmar/fleet/telemetry/remote"
	"fulmar/fleet/telemetry/traces"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.yaml")
	write := func(text string) error {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg := Default()
		if err := Load(path, &cfg); err != nil {
			return err
		}
		return cfg.Validate()
	}
	if err := write("data: /x\nlisten: 0.0.0.0:8443\nhosts: [fleet.example]\nkeep: {telemetry: 48h}\nforeign: {address: \"127.0.0.1:1883\", plain: true}\nenrol: {admit: [token, ek-chain], ek_roots: /x, least: tpm}\n"); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"date: /x\n", "data: x\n", "listen: 8443\n", "foreign: {address: \"broker.example:1883\", plain: true}\n", "hosts: [\"\"]\n", "enrol: {admit: [anybody]}\n", "enrol: {admit: []}\n", "enrol: {admit: [ek-chain]}\n", "enrol: {admit: [ek-list]}\n", "enrol: {least: hsm}\n", "commands: {approve: [\"Open Valve\"]}\n"} {
		if write(bad) == nil {
			t.Errorf("taken: %s", bad)
		}
	}
	if _, err := net.ResolveTCPAddr("tcp", Default().Listen); err != nil || !strings.HasPrefix(Default().Listen, "127.") || !strings.HasPrefix(Default().MQTT, "127.") {
		t.Error("the default opens a door beyond loopback")
	}
}

// TestTelemetryConfig: every key below telemetry arrives, and each wrong one is named.
func TestTelemetryConfig(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.yaml")
	load := func(text string) (Config, error) {
		cfg := Default()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Load(path, &cfg); err != nil {
			return cfg, err
		}
		return cfg, cfg.Validate()
	}
	cfg, err := load(`telemetry:
  retention: 720h
  mib: 1024
  board_series: 100
  tenant_series: 1000
  every: 30s
  query_timeout: 10s
  query_samples: 100000
  queries: 2
  remote_write:
    - {name: a, url: "https://a.example/write", token_file: /t, ca_file: /ca, org_id: o, shards: 2}
    - {name: b, url: "http://127.0.0.1:9090/api/v1/write", username: u, password_file: /p}
  traces: {url: "https://c.example:4318/v1/traces", token_file: /t, share: 0.5}
`)
	want := telemetry.Config{
		Retention: 720 * time.Hour, MiB: 1024, BoardSeries: 100, TenantSeries: 1000, Every: 30 * time.Second,
		QueryTimeout: 10 * time.Second, QuerySamples: 100_000, Queries: 2,
		RemoteWrite: []remote.Config{
			{Name: "a", URL: "https://a.example/write", TokenFile: "/t", CAFile: "/ca", OrgID: "o", Shards: 2},
			{Name: "b", URL: "http://127.0.0.1:9090/api/v1/write", Username: "u", PasswordFile: "/p"},
		},
		Traces: traces.Config{URL: "https://c.example:4318/v1/traces", TokenFile: "/t", Share: 0.5},
	}
	if err != nil || !reflect.DeepEqual(cfg.Telemetry, want) {
		t.Errorf("%v\n%+v\n%+v", err, cfg.Telemetry, want)
	}
	for key, bad := range map[string]string{
		"retension": "retension: 90d", "telemetry.retention": "retention: 1h", "telemetry.every": "every: 1h", "telemetry.query_timeout": "query_timeout: 1ms",
		"telemetry.board_series": "board_series: -1", "telemetry.query_samples": "query_samples: 1", "telemetry.remote_write[0].name": "remote_write: [{url: \"https://a/\"}]",
		"telemetry.remote_write[0].url":        "remote_write: [{name: a, url: \"http://a.example/\"}]",
		"telemetry.remote_write[0].token_file": "remote_write: [{name: a, url: \"https://a/\", token_file: /t, username: u, password_file: /p}]",
		"telemetry.remote_write[1].name":       "remote_write: [{name: a, url: \"https://a/\"}, {name: a, url: \"https://b/\"}]",
		"telemetry.traces.url":                 "traces: {url: \"ftp://c/\"}", "telemetry.traces.share": "traces: {url: \"https://c/\", share: 2}",
	} {
		if _, err := load("telemetry:\n  mib: 64\n  " + bad + "\n"); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	// Of several each has the whole name of its key.
	if _, err := load("telemetry:\n  mib: 1\n  every: 1h\n"); err == nil || !strings.Contains(err.Error(), "telemetry.mib") || !strings.Contains(err.Error(), "telemetry.every") {
		t.Error(err)
	}
}
