// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// probeTimeout bounds each of the three looks at the fleet: a name that does not resolve
// takes 10 to 20 s with the resolver's defaults, a full mobile handshake three.
const probeTimeout = 10 * time.Second

// probe looks whether the fleet is where the token says, and is the one that it names.
// Nothing is sent to it.
type probe struct {
	address string
	pin     [sha256.Size]byte
}

func (p *probe) host() string {
	host, _, _ := net.SplitHostPort(p.address)
	return host
}

func (p *probe) resolve(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if net.ParseIP(p.host()) != nil {
		return p.host() + " is an IP address", nil
	}
	all, err := net.DefaultResolver.LookupHost(ctx, p.host())
	if err != nil {
		return "", &Failure{
			What: "the fleet's name " + p.host() + " was not found; nothing was changed", Because: plain(err), Is: ErrUnreachable,
			Do: "look at the name and at this board's network (resolvectl status), or give the fleet's address: fulmar enrol --fleet HOST:PORT",
		}
	}
	return fmt.Sprintf("%s is %s", p.host(), strings.Join(all[:min(len(all), 3)], ", ")), nil
}

func (p *probe) connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.address)
	if err != nil {
		return nil, &Failure{
			What: "the fleet does not answer at " + p.address + "; nothing was changed", Because: plain(err), Is: ErrUnreachable,
			Do: "is fulmar-fleet running there, on an address that other machines reach (listen in its config), and does a firewall let this port in?",
		}
	}
	return c, nil
}

// judge does the handshake and holds the server to the pin, as fulmard will: see pinned
// in agent/identity. The clock is not asked.
func (p *probe) judge(ctx context.Context, c net.Conn) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var is error
	t := tls.Client(c, &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: p.host(),
		InsecureSkipVerify: true, // replaced by VerifyConnection, which is stricter
		VerifyConnection: func(cs tls.ConnectionState) error {
			is = p.is(cs.PeerCertificates)
			return is
		},
	})
	err := t.HandshakeContext(ctx)
	switch {
	case is != nil:
		return "", is
	case err != nil:
		return "", &Failure{
			What: p.address + " is no fleet; nothing was changed", Because: plain(err), Is: ErrUnreachable,
			Do: "look at the address and the port: the fleet's page, https://" + p.address + ", must be there",
		}
	}
	return fmt.Sprintf("it is the fleet that the token names, fingerprint %x...", p.pin[:4]), nil
}

// is tells whether certificates are of the fleet of the pin.
func (p *probe) is(chain []*x509.Certificate) error {
	roots, shown := x509.NewCertPool(), ""
	known := false
	for _, c := range chain[1:] {
		sum := sha256.Sum256(c.Raw)
		if shown = fmt.Sprintf("%x...", sum[:4]); sum == p.pin {
			roots.AddCert(c)
			known = true
		}
	}
	if !known {
		if shown == "" {
			shown = "none"
		}
		return &Failure{
			What:    "the server at " + p.address + " is not the fleet of this token; nothing was changed",
			Because: fmt.Sprintf("its authority has the fingerprint %s, the token names %x...", shown, p.pin[:4]),
			Do:      "ask that fleet for a token (fulmar-fleet token), or look at the address. If both are right, something between here and there answers in the fleet's place",
		}
	}
	leaf := chain[0]
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: p.host(), CurrentTime: leaf.NotBefore.Add(time.Minute)})
	if err != nil {
		return &Failure{
			What:    "the fleet at " + p.address + " does not go by that name; nothing was changed",
			Because: plain(err),
			Do:      "write " + p.host() + " into hosts of the fleet's config and start it anew, or use a name that it has: fulmar enrol --fleet HOST:PORT",
		}
	}
	return nil
}

// plain is the innermost word of a network error.
func plain(err error) string {
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no answer came within %v", probeTimeout)
	case errors.As(err, &dns):
		return strings.TrimPrefix(dns.Error(), "lookup ")
	case errors.As(err, &op):
		return op.Err.Error()
	}
	return err.Error()
}
