// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/tls"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"fulmar/agent/config"
	"fulmar/link"
)

// TestBrokerTLS: a broker that stops at TLS 1.2 is talked to only where the config
// says so.
func TestBrokerTLS(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.TLS = &tls.Config{MaxVersion: tls.VersionTLS12, MinVersion: tls.VersionTLS12}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string]bool{"1.3": false, "1.2": true} {
		cfg := &config.Config{Board: "dock-1"}
		cfg.Broker = config.Broker{Address: srv.Listener.Addr().String(), Acknowledge: "broker", CAFile: ca, Tenant: "default", TLS: version}
		var lc link.Config
		if err := (&Agent{}).brokerLink(&lc, cfg); err != nil {
			t.Fatal(err)
		}
		c, err := lc.Dial(t.Context())
		if (err == nil) != want {
			t.Errorf("with %s at least: %v", version, err)
		}
		if err == nil {
			_ = c.Close()
		}
	}
}
