// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strings"

	"fulmar/fleet/gateway/foreign"
)

// wireForeign adds the broker of somebody else, where one is named.
func (s *Server) wireForeign(blobs foreign.Pictures) error {
	c := s.cfg.Foreign
	if c.Address == "" {
		return nil
	}
	cfg := foreign.Config{Address: c.Address, Tenant: c.Tenant, Username: c.Username, Pictures: blobs}
	if c.PasswordFile != "" {
		b, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return fmt.Errorf("foreign.password_file: %w", err)
		}
		cfg.Password = strings.TrimRight(string(b), "\r\n")
	}
	if !c.Plain {
		host, _, err := net.SplitHostPort(c.Address)
		if err != nil {
			return fmt.Errorf("foreign.address: %w", err)
		}
		// TLS 1.2 is taken here alone: the broker is not ours to update.
		cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
		if c.CAFile != "" {
			b, err := os.ReadFile(c.CAFile)
			if err != nil {
				return fmt.Errorf("foreign.ca_file: %w", err)
			}
			cfg.TLS.RootCAs = x509.NewCertPool()
			if !cfg.TLS.RootCAs.AppendCertsFromPEM(b) {
				return fmt.Errorf("foreign.ca_file: %s holds no PEM certificate", c.CAFile)
			}
		}
	}
	var err error
	s.out, err = foreign.New(cfg, s.ingest, s.log)
	return err
}
