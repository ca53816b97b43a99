// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

// errRefused is why an address was not dialled.
var errRefused = errors.New("refused")

// special lists blocks of the registries of special-purpose addresses (RFC 6890) that
// netip has no word for, and those that carry an IPv4 address inside, behind which a
// private one could hide.
func special() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "fec0::/10", "5f00::/16",
	} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// refused says why an address is not to be reached; "" where it is. Link-local ones,
// where clouds answer with credentials, and those of many receivers never are.
func refused(a netip.Addr, internal bool) string {
	a = a.Unmap().WithZone("")
	switch {
	case !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast():
		return "link-local, multicast and unspecified addresses are never reached"
	case internal:
		return ""
	case a.IsLoopback() || a.IsPrivate():
		return "it is a private address; an administrator may mark the webhook internal"
	}
	for _, p := range special() {
		if p.Contains(a) {
			return "it is an address of special use; an administrator may mark the webhook internal"
		}
	}
	return ""
}

// transport dials what refused lets through. Names are resolved by the dialer, and each
// address is looked at when its socket is there and not yet connected: no second answer
// of the name server comes in between. No proxy: it would be dialled instead.
func transport(internal bool, roots *x509.CertPool) http.RoundTripper {
	d := net.Dialer{Timeout: 5 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("%w: %w", errRefused, err)
		}
		if why := refused(at.Addr(), internal); why != "" {
			return fmt.Errorf("%w: %s", errRefused, why)
		}
		return nil
	}}
	return &http.Transport{
		DialContext: d.DialContext, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: tryFor, MaxResponseHeaderBytes: 16 << 10,
		MaxConnsPerHost: 2 * perHook, MaxIdleConns: atOnce, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
	}
}
