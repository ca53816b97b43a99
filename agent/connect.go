// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"fulmar/agent/config"
	"fulmar/internal/credential"
	"fulmar/link"
	"fulmar/schema"
	"fulmar/storage"
)

// dialTimeout bounds TCP and TLS of one connection: a full mobile-network
// handshake takes two to three seconds, five times that is dead.
const dialTimeout = 15 * time.Second

// dialFleet opens the mutual TLS connection with the identity of the moment, so
// that a renewed certificate is used from the next connection on.
func (a *Agent) dialFleet(ctx context.Context) (net.Conn, error) {
	id := a.identity.Load()
	return dialTLS(ctx, id.Broker, id.TLS(id.Broker))
}

func dialTLS(ctx context.Context, address string, cfg *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if cfg.ServerName == "" {
		cfg = cfg.Clone()
		cfg.ServerName = host
	}
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("TLS with %s: %w", address, err), raw.Close())
	}
	return conn, nil
}

// brokerLink fills the link's config for a broker other than the fleet's gateway.
func (a *Agent) brokerLink(lc *link.Config, cfg *config.Config) error {
	b := cfg.Broker
	lc.Tenant, lc.Board, lc.ClientID = b.Tenant, cfg.Board, cfg.Board
	mode := schema.AckBroker
	if b.Acknowledge == "fleet" {
		mode = schema.AckFleet
	}
	lc.Mode = &mode
	if b.PasswordFile != "" {
		pw, err := credential.ReadFile(b.PasswordFile)
		if err != nil {
			return fmt.Errorf("read broker password: %w", err)
		}
		lc.Username, lc.Password = b.Username, strings.TrimSpace(string(pw))
	}
	tc := &tls.Config{MinVersion: tls.VersionTLS13}
	if b.TLS == "1.2" { // asked for: brokers in the field still stop there
		tc.MinVersion = tls.VersionTLS12
	}
	if b.CAFile != "" {
		pem, err := os.ReadFile(b.CAFile)
		if err != nil {
			return fmt.Errorf("read broker authority: %w", err)
		}
		tc.RootCAs = x509.NewCertPool()
		if !tc.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("broker.ca_file %s holds no PEM certificate", b.CAFile)
		}
	}
	lc.Dial = func(ctx context.Context) (net.Conn, error) { return dialTLS(ctx, b.Address, tc) }
	return nil
}

// linkSays passes on what the link has to say of itself.
func (a *Agent) linkSays(r schema.Report) { a.say(r.Subject, r.State, r.Severity, r.Text) }

// linkUp tells whether the fleet can be asked.
func (a *Agent) linkUp() bool {
	s := a.link.Load()
	return s != nil && s.Status().Up()
}

// outbox is the spool as the link sees it; a record that can never be sent
// becomes a gap, so that its number is settled.
type outbox struct{ *storage.Spool }

// blobOpener is the picture folder as the link sees it.
type blobOpener struct{ blobs *storage.Blobs }

func (o blobOpener) OpenBlob(name string) (link.Blob, error) {
	b, err := o.blobs.Open(name)
	if errors.Is(err, storage.ErrBlobGone) {
		return nil, fmt.Errorf("%w: %w", link.ErrBlobGone, err)
	}
	if err != nil {
		return nil, err // not b: a nil *Blob in an interface is not nil
	}
	return b, nil
}

func (o blobOpener) RemoveBlob(name string) error { return o.blobs.Remove(name) }
