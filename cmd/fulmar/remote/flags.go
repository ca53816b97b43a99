// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/internal/cli"
)

// About tells in the help of each command which fleet is asked.
const About = `It asks the fleet of fulmar login, or the one that --fleet or FULMAR_FLEET names,
with the API token in the file that --token-file or FULMAR_TOKEN_FILE names. The
page makes tokens under Settings, fulmar-fleet api-token on the server. The server
is known by --pin or FULMAR_PIN, which fulmar-fleet pin prints, by --ca, or without
either by the authorities of this system.`

// Flags are what the commands that talk to a fleet have in common.
type Flags struct{ address, tokenFile, pin, ca string }

// Register adds the flags to a group. The environment and the log-in stand in for them
// and are looked at when the command runs: help and manual pages do not tell of this
// machine.
func (f *Flags) Register(c *cobra.Command) {
	c.PersistentFlags().StringVar(&f.address, "fleet", "", "the fleet's page; else FULMAR_FLEET")
	c.PersistentFlags().StringVar(&f.tokenFile, "token-file", "", "holds an API token; else FULMAR_TOKEN_FILE")
	f.registerTrust(c)
	cli.Takes(c, "fleet", "HOST:PORT")
	cli.File(c, "token-file")
}

func (f *Flags) registerTrust(c *cobra.Command) {
	c.PersistentFlags().StringVar(&f.pin, "pin", "", "fingerprint of the fleet's authority; else FULMAR_PIN")
	c.PersistentFlags().StringVar(&f.ca, "ca", "", "the authority as PEM")
	cli.Takes(c, "pin", "HEX")
	cli.File(c, "ca", "pem", "crt")
}

// Open makes a client of what the flags, the environment and the log-in say, in this
// order. A log-in stands in only where neither names a fleet, or names the same: its
// token is for no other.
func (f *Flags) Open() (*Client, error) {
	g := *f
	g.address = cmp.Or(f.address, os.Getenv("FULMAR_FLEET"))
	g.tokenFile = cmp.Or(f.tokenFile, os.Getenv("FULMAR_TOKEN_FILE"))
	g.pin = cmp.Or(f.pin, os.Getenv("FULMAR_PIN"))
	var in profile
	if g.address == "" || g.tokenFile == "" {
		var err error
		if in, err = readProfile(); err != nil {
			return nil, err
		}
	}
	if g.address == "" {
		g.address = in.Fleet
	}
	if g.address == "" {
		return nil, fmt.Errorf("%w: which fleet? fulmar login HOST:PORT once, or --fleet HOST:PORT, or FULMAR_FLEET", cli.ErrUsage)
	}
	if in.Fleet != g.address {
		in = profile{}
	}
	if g.pin == "" && g.ca == "" {
		g.pin = in.Pin
	}
	token := in.Token
	if g.tokenFile != "" || token == "" {
		var err error
		if token, err = readToken(g.tokenFile); err != nil {
			return nil, err
		}
	}
	return newClient(g.address, token, &g)
}

// readToken reads the API token, which never stands on the command line, where every
// user of the machine sees it.
func readToken(path string) (string, error) {
	if path == "" {
		return "", fmt.Errorf("%w: which token? fulmar login HOST:PORT keeps one, or --token-file FILE or FULMAR_TOKEN_FILE, with what `fulmar-fleet api-token --scope admin` printed", cli.ErrUsage)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fault.New(fault.Token, "read token: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	if st, err := f.Stat(); err != nil || st.Mode().IsRegular() && st.Mode().Perm()&0o077 != 0 {
		return "", fault.New(fault.Token, "read token: others may read %s; chmod 600 it", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxTokenFile))
	if err != nil {
		return "", fault.New(fault.Token, "read token: %w", err)
	}
	token, ok := tokenIn(string(b))
	if !ok {
		return "", fault.New(fault.Token, "read token: %s does not hold an API token (fk1_...); make one with fulmar-fleet api-token --scope admin", path)
	}
	return token, nil
}

func tokenIn(s string) (string, bool) {
	token := strings.TrimSpace(s)
	return token, strings.HasPrefix(token, "fk1_") && !strings.ContainsAny(token, " \r\n")
}

// trust tells by what the fleet is known: the fingerprint of its authority, a file with
// it, or else the authorities of this system.
func (f *Flags) trust(host string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS13}
	switch {
	case f.ca != "":
		b, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("read authority: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("read authority: %s holds no PEM certificate", f.ca)
		}
	case f.pin != "":
		want, err := hex.DecodeString(f.pin)
		if err != nil || len(want) != sha256.Size {
			return nil, fmt.Errorf("%w: the pin is 64 hex digits, as `fulmar-fleet pin` prints them", cli.ErrUsage)
		}
		cfg.InsecureSkipVerify = true // the pin decides, below
		cfg.VerifyConnection = func(cs tls.ConnectionState) error { return pinned(cs, want, host) }
	}
	return cfg, nil
}

// pinned holds a connection to the authority with a fingerprint.
func pinned(cs tls.ConnectionState, want []byte, host string) error {
	between := x509.NewCertPool()
	for _, c := range cs.PeerCertificates {
		between.AddCert(c)
	}
	for _, c := range cs.PeerCertificates {
		if sum := sha256.Sum256(c.Raw); subtle.ConstantTimeCompare(sum[:], want) == 1 {
			roots := x509.NewCertPool()
			roots.AddCert(c)
			_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: host})
			return err
		}
	}
	return fault.New(fault.Stranger, "the server is not the fleet of this pin (its authority has another fingerprint)")
}

// stranger tells whether the server was another than the one that is meant.
func stranger(err error) bool {
	bad := new(tls.CertificateVerificationError)
	return errors.As(err, &bad) || errors.As(err, new(x509.HostnameError)) || fault.Is(err, fault.Stranger)
}
