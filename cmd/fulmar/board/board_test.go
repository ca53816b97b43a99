// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package board

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	fleetserver "fulmar/fleet"
	"fulmar/fleet/ca"
	"fulmar/fleet/registry"
	"fulmar/fleet/web"
	"fulmar/internal/cli"
	"fulmar/schema"
	"fulmar/schema/rest"
)

// run runs a command and gives what became of it, standard output and standard error.
func run(args ...string) (end string, out, talk string) {
	var o, e bytes.Buffer
	root := cli.Root(&cobra.Command{Use: "fulmar"}, "test")
	root.AddCommand(Command())
	_, err := cli.Execute(context.Background(), root, append([]string{"board"}, args...), &o, &e)
	if err == nil {
		return good, o.String(), e.String()
	}
	switch row, _ := fault.Of(err); row.Exit {
	case fault.ExitUsage:
		end = usage
	case fault.ExitAway:
		end = away
	default:
		end = wrong
	}
	return end, o.String(), e.String() + err.Error()
}

const (
	good  = "good"
	wrong = "wrong"
	usage = "wrong usage"
	away  = "no answer"
)

// served is a real fleet, and what a person at a desk needs of it.
type served struct {
	reg                 *registry.Registry
	address, token, pin string
	readToken, pem      string
}

func serve(t *testing.T) *served {
	t.Helper()
	dir := t.TempDir()
	srv, err := fleetserver.New(fleetserver.Config{Data: dir, Listen: "127.0.0.1:0", MQTT: "127.0.0.1:0"}, func(string) {}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	t.Cleanup(sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}))
	s := &served{address: srv.HTTPSAddr(), pem: filepath.Join(dir, "ca", "ca.pem")}
	if s.reg, err = registry.Open(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.reg.Close() })
	a, err := ca.Open(filepath.Join(dir, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	s.pin = fmt.Sprintf("%x", a.Hash())
	for scope, into := range map[registry.Scope]*string{registry.ScopeAdmin: &s.token, registry.ScopeRead: &s.readToken} {
		token, err := s.reg.NewAPIToken(t.Context(), registry.DefaultTenant, scope, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		*into = filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(*into, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *served) asks(t *testing.T, board string, key byte) error {
	t.Helper()
	_, _, err := s.reg.Enrol(t.Context(), registry.Enrolment{Board: board, KeyMode: "software", KeyHash: [32]byte{key}, From: "192.0.2.1", Ask: true},
		func(string) (*ca.Leaf, error) {
			return &ca.Leaf{Serial: "1", NotAfter: time.Now().Add(time.Hour)}, nil
		})
	return err
}

// TestBoardCommands goes through the life of boards at a real fleet, from the desk.
func TestBoardCommands(t *testing.T) {
	t.Parallel()
	s := serve(t)
	do := func(args ...string) (string, string, string) {
		return run(append(args, "--fleet", s.address, "--token-file", s.token, "--pin", s.pin)...)
	}
	for key, board := range map[byte]string{1: "b1", 2: "b2", 3: "b2", 4: "b3"} {
		var w *registry.Waiting
		if err := s.asks(t, board, key); !errors.As(err, &w) {
			t.Fatal(err)
		}
	}
	code, out, talk := do("list")
	if code != good || strings.Count(out, "\n") != 7 || !strings.Contains(out, "0100000000000000") || !strings.Contains(out, "ASKS TO JOIN") || !strings.Contains(talk, "4 boards ask to join") {
		t.Fatal(code, out, talk)
	}
	for args, want := range map[string]string{
		"approve b2": "more than one", "approve b9": "no board of this name", "approve b1 --fingerprint ab": "it is another one",
		"revoke b1": "no board of this name", "wipe b9 --yes b9": "knows no board",
	} {
		if code, _, talk := do(strings.Fields(args)...); code != wrong || !strings.Contains(talk, want) {
			t.Errorf("%s: %s %s", args, code, talk)
		}
	}
	for _, args := range []string{"", "love b1", "approve", "approve b1 b2", "wipe b1", "wipe b1 --yes b2", "list --token fk1_x"} {
		if code, _, talk := do(strings.Fields(args)...); code != usage {
			t.Errorf("%s: %s %s", args, code, talk)
		}
	}
	steps := []struct {
		args, says string
		then       func() error
		want       error
	}{
		{"approve b1 --fingerprint 0100000000000000", "is let in when it asks again", func() error { return s.asks(t, "b1", 1) }, nil},
		{"refuse b3", "takes that back", func() error { return s.asks(t, "b3", 4) }, registry.ErrRefused},
		{"revoke b1 --why stolen", "token --board b1", func() error { return s.asks(t, "b1", 1) }, registry.ErrRevoked},
	}
	for _, st := range steps {
		if code, _, talk := do(strings.Fields(st.args)...); code != good || !strings.Contains(talk, st.says) {
			t.Fatalf("%s: %s %s", st.args, code, talk)
		}
		if err := st.then(); !errors.Is(err, st.want) {
			t.Errorf("after %s: %v", st.args, err)
		}
	}
	if code, out, _ := do("list"); code != good || !strings.Contains(out, "revoked") || !strings.Contains(out, "refused") {
		t.Error(code, out)
	}
	if code, out, _ := do("list", "--json"); code != good || !strings.Contains(out, `"revoked": "`) {
		t.Error(code, out)
	}
	if code, _, talk := do("wipe", "b1", "--yes", "b1", "--why", "sold"); code != good || !strings.Contains(talk, "is gone from the fleet") {
		t.Fatal(code, talk)
	}
	var w *registry.Waiting
	if err := s.asks(t, "b1", 1); !errors.As(err, &w) {
		t.Errorf("a wiped board: %v", err)
	}
}

// TestBoardTrust: the token goes to no server but the fleet that is meant, and the error
// tells what to do.
func TestBoardTrust(t *testing.T) {
	t.Parallel()
	s := serve(t)
	loose := filepath.Join(t.TempDir(), "loose")
	none := filepath.Join(t.TempDir(), "none")
	for path, mode := range map[string]os.FileMode{loose: 0o644, none: 0o600} {
		if err := os.WriteFile(path, []byte("not a token"), mode); err != nil {
			t.Fatal(err)
		}
	}
	stranger := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a stranger was asked") }))
	defer stranger.Close()
	stranger.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	strangerPEM := filepath.Join(t.TempDir(), "stranger.pem")
	if err := os.WriteFile(strangerPEM, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: stranger.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	there := stranger.Listener.Addr().String()
	_, port, err := net.SplitHostPort(s.address)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		code string
		want string
	}{
		"by pin":           {[]string{"--fleet", s.address, "--token-file", s.token, "--pin", s.pin}, good, ""},
		"by file":          {[]string{"--fleet", s.address, "--token-file", s.token, "--ca", s.pem}, good, ""},
		"to read":          {[]string{"--fleet", s.address, "--token-file", s.readToken, "--pin", s.pin}, good, ""},
		"by the system":    {[]string{"--fleet", s.address, "--token-file", s.token}, away, "certificate"},
		"a stranger, pin":  {[]string{"--fleet", there, "--token-file", s.token, "--pin", s.pin}, away, "another fingerprint"},
		"a stranger, file": {[]string{"--fleet", there, "--token-file", s.token, "--ca", s.pem}, away, "certificate"},
		"another's file":   {[]string{"--fleet", s.address, "--token-file", s.token, "--ca", strangerPEM}, away, "certificate"},
		"another name":     {[]string{"--fleet", "0.0.0.0:" + port, "--token-file", s.token, "--pin", s.pin}, away, "not 0.0.0.0"},
		"nobody there":     {[]string{"--fleet", "127.0.0.1:1", "--token-file", s.token, "--pin", s.pin}, away, "no answer"},
		"no fleet":         {[]string{"--token-file", s.token}, usage, "FULMAR_FLEET"},
		"no port":          {[]string{"--fleet", "fleet", "--token-file", s.token}, usage, "HOST:PORT"},
		"no token":         {[]string{"--fleet", s.address, "--pin", s.pin}, usage, "FULMAR_TOKEN_FILE"},
		"a short pin":      {[]string{"--fleet", s.address, "--token-file", s.token, "--pin", "ab"}, usage, "fulmar-fleet pin"},
		"others read it":   {[]string{"--fleet", s.address, "--token-file", loose, "--pin", s.pin}, wrong, "chmod 600"},
		"no such token":    {[]string{"--fleet", s.address, "--token-file", none, "--pin", s.pin}, wrong, "fk1_"},
		"no such file":     {[]string{"--fleet", s.address, "--token-file", none + "x", "--pin", s.pin}, wrong, "no such file"},
	} {
		code, _, talk := run(append([]string{"list"}, c.args...)...)
		if code != c.code || !strings.Contains(talk, c.want) || strings.Contains(talk, "fk1_") && c.want != "fk1_" {
			t.Errorf("%s: %s %s", name, code, talk)
		}
	}
	code, _, talk := run("revoke", "b1", "--fleet", s.address, "--token-file", s.readToken, "--pin", s.pin)
	if code != wrong || !strings.Contains(talk, "may not do that") {
		t.Errorf("with a token to read: %s %s", code, talk)
	}
}

// TestOneReads: what the fleet tells of a board is read as it tells it, all of it filled.
func TestOneReads(t *testing.T) {
	now := time.Now().UTC()
	text, err := json.Marshal(web.Board{
		Name: "dock-1", State: web.StateDegraded, Cause: "cam0 shows nothing", Since: now.Add(-time.Minute), LastSeen: now, Release: "1.0", KeyMode: "tpm",
		Meta: rest.Meta{Site: "hall-4"}, Facts: map[string]string{"arch": "arm64"},
		Latest:  []web.Reading{{Series: "cpu.load_percent", Value: 12.5, At: now}, {Series: "gpu.load_percent", Quality: schema.QualityOffline, At: now}},
		Reports: []web.Report{{Subject: "worker", State: "restarting", Severity: schema.SeverityWarn, Text: "it died", At: now}},
		Cameras: []web.Camera{{Name: "cam0", Model: "parcels", Engine: "ort", Last: now, Events: 7}},
		Ledger:  []web.Ledger{{Class: "event", Made: 48, Arrived: 40, Lost: 3, Waiting: 5, Reasons: map[string]uint64{"spool full": 3}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var b one
	if err := json.Unmarshal(text, &b); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	write(&out, &b, now)
	for _, want := range []string{
		"dock-1  DEGRADED  cam0 shows nothing  (for 60 s)", "key        tpm\n", "release    1.0\n", "hall-4", "arch       arm64\n", "cpu.load_percent         12.5         good (",
		"gpu.load_percent         -            offline (now)", "last heard now\n", "restarting it died (", "parcels on ort, 7 events in the last hour, newest now\n", "48 made = 40 arrived + 3 lost + 5 on their way; 3 lost: spool full\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
}
