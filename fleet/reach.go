// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"fulmar/internal/atomicfile"
	"fulmar/internal/jointoken"
)

// addressFile holds, in the data folder, host:port by which boards reach the server that
// last served from it: what makes join tokens puts it into them.
const addressFile = "address"

// names are what the server's certificate holds: the config's hosts, and the address
// that it listens on if that is one.
func (c *Config) names() []string {
	out := slices.Clone(c.Hosts)
	host, _, _ := net.SplitHostPort(c.Listen)
	if ip, err := netip.ParseAddr(host); host != "" && !slices.Contains(out, host) && (err != nil || !ip.IsUnspecified()) {
		out = append(out, host)
	}
	return out
}

// reached is host:port by which boards reach a server that listens on port: the first
// host of the config, or of what it listens on, that is not this machine alone, else
// loopback.
func (c *Config) reached(port string) string {
	for _, h := range c.names() {
		if a := net.JoinHostPort(h, port); !Loopback(a) && jointoken.CheckAddress(a) == nil {
			return a
		}
	}
	return net.JoinHostPort("127.0.0.1", port)
}

// Loopback tells whether only this machine reaches host:port.
func Loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && (ip.Unmap().IsLoopback() || ip.IsUnspecified()) || strings.EqualFold(host, "localhost")
}

// keepAddress writes down by what boards reach this server.
func (s *Server) keepAddress() error {
	_, port, err := net.SplitHostPort(s.HTTPSAddr())
	if err != nil {
		return fmt.Errorf("address of the page: %w", err)
	}
	return atomicfile.WriteFile(filepath.Join(s.cfg.Data, addressFile), []byte(s.cfg.reached(port)+"\n"), 0o600)
}

// Address is host:port by which boards reach the server that last served from a data
// folder; "" where none did that wrote it down.
func Address(data string) (string, error) {
	b, err := os.ReadFile(filepath.Join(data, addressFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	a := strings.TrimSpace(string(b))
	if err == nil {
		err = jointoken.CheckAddress(a)
	}
	if err != nil {
		return "", fmt.Errorf("read %s: %w; start the server once more, or give --address", filepath.Join(data, addressFile), err)
	}
	return a, nil
}
