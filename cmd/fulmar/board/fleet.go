// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package board

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/internal/cli"
)

const (
	// fleetTimeout bounds one request; the removal of a board's data takes longest.
	fleetTimeout = 11 * time.Minute
	dialTimeout  = 10 * time.Second
	maxAnswer    = 64 << 20 // bytes; 50,000 boards
	maxTokenFile = 4 << 10
)

// fleetFlags are what the commands that talk to a fleet have in common.
type fleetFlags struct{ address, tokenFile, pin, ca string }

// register adds the flags. The environment stands in for them and is looked at when the
// command runs: help and manual pages do not tell of this machine.
func (f *fleetFlags) register(c *cobra.Command) {
	c.PersistentFlags().StringVar(&f.address, "fleet", "", "the fleet's page; else FULMAR_FLEET")
	c.PersistentFlags().StringVar(&f.tokenFile, "token-file", "", "holds an API token; else FULMAR_TOKEN_FILE")
	c.PersistentFlags().StringVar(&f.pin, "pin", "", "fingerprint of the fleet's authority; else FULMAR_PIN")
	c.PersistentFlags().StringVar(&f.ca, "ca", "", "the authority as PEM")
	cli.Takes(c, "fleet", "HOST:PORT")
	cli.Takes(c, "pin", "HEX")
	cli.File(c, "token-file")
	cli.File(c, "ca", "pem", "crt")
}

// environment fills in what was not given.
func (f *fleetFlags) environment() {
	f.address = cmp.Or(f.address, os.Getenv("FULMAR_FLEET"))
	f.tokenFile = cmp.Or(f.tokenFile, os.Getenv("FULMAR_TOKEN_FILE"))
	f.pin = cmp.Or(f.pin, os.Getenv("FULMAR_PIN"))
}

// fleet asks a fleet's API.
type fleet struct {
	base, token string
	client      *http.Client
}

func (f *fleetFlags) open() (*fleet, error) {
	f.environment()
	if f.address == "" {
		return nil, fmt.Errorf("%w: which fleet? --fleet HOST:PORT or FULMAR_FLEET", cli.ErrUsage)
	}
	host, _, err := net.SplitHostPort(f.address)
	if err != nil || host == "" {
		return nil, fmt.Errorf("%w: --fleet %q is not HOST:PORT", cli.ErrUsage, f.address)
	}
	token, err := readToken(f.tokenFile)
	if err != nil {
		return nil, err
	}
	cfg, err := f.trust(host)
	if err != nil {
		return nil, err
	}
	return &fleet{base: "https://" + f.address, token: token, client: &http.Client{
		Timeout:       fleetTimeout,
		Transport:     &http.Transport{TLSClientConfig: cfg, DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext, TLSHandshakeTimeout: dialTimeout, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the token goes nowhere else
	}}, nil
}

// readToken reads the API token, which never stands on the command line, where every
// user of the machine sees it.
func readToken(path string) (string, error) {
	if path == "" {
		return "", fmt.Errorf("%w: which token? --token-file FILE or FULMAR_TOKEN_FILE, with what `fulmar-fleet api-token --scope admin` printed", cli.ErrUsage)
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
	token := strings.TrimSpace(string(b))
	if !strings.HasPrefix(token, "fk1_") || strings.ContainsAny(token, " \r\n") {
		return "", fault.New(fault.Token, "read token: %s does not hold an API token (fk1_...); make one with fulmar-fleet api-token --scope admin", path)
	}
	return token, nil
}

// trust tells by what the fleet is known: the fingerprint of its authority, a file with
// it, or else the authorities of this system.
func (f *fleetFlags) trust(host string) (*tls.Config, error) {
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

// problem is the API's word for an error.
type problem struct {
	status int
	Title  string `json:"title"`
}

func (p *problem) Error() string { return strings.ToLower(p.Title[:1]) + p.Title[1:] }

// noAnswer says why a request got none. A server that is not the one that is meant is
// told apart: it listens, and got nothing.
func noAnswer(err error) error {
	code := fault.Unreachable
	if bad := new(tls.CertificateVerificationError); errors.As(err, &bad) || errors.As(err, new(x509.HostnameError)) || fault.Is(err, fault.Stranger) {
		code = fault.Stranger
	}
	return fault.New(code, "no answer from the fleet: %w", err)
}

// ask sends a request and reads the answer into v, unless that is nil.
func (f *fleet) ask(ctx context.Context, method, path string, body, v any) error {
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, f.base+path, bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("%w: %w", cli.ErrUsage, err)
	}
	req.Header.Set("Authorization", "Bearer "+f.token)
	res, err := f.client.Do(req)
	if err != nil {
		return noAnswer(err)
	}
	defer res.Body.Close() //nolint:errcheck // only read
	b, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil || len(b) > maxAnswer {
		return fault.New(fault.Unreachable, "no answer from the fleet: it was cut off or is over %d bytes", maxAnswer)
	}
	if res.StatusCode/100 != 2 {
		p := &problem{status: res.StatusCode}
		if json.Unmarshal(b, p) != nil || p.Title == "" {
			p.Title = "The server answered " + res.Status + " and no reason: is it a fleet?"
		}
		if p.status == http.StatusUnauthorized || p.status == http.StatusForbidden {
			return fault.Mark(fault.Denied, p)
		}
		return fault.Mark(fault.Refused, p)
	}
	if v == nil {
		return nil
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fault.New(fault.Unreachable, "no answer from the fleet: what it sent is not JSON: %w", err)
	}
	return nil
}
