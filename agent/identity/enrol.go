// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"fulmar/schema"
)

// Bounds of enrolment.
const (
	enrolTimeout   = 20 * time.Second // one try: TLS and one request
	maxEnrolReply  = 64 << 10         // bytes: two certificates and some names
	enrolRetryMin  = time.Second
	enrolRetryMax  = 2 * time.Minute
	renewRetry     = time.Hour // a renewal has a third of the certificate's life
	maxTokenBytes  = 4096
	problemExcerpt = 300 // bytes of the fleet's own words kept in an error
)

// Enroller gets a board its identity and keeps it.
type Enroller struct {
	Dir       string            // of key and certificate, made with mode 0700
	Fleet     string            // host:port of the fleet's HTTPS
	TokenFile string            // join token
	Board     string            // wished name; "" lets the fleet choose
	Facts     map[string]string // what the board is, for the page
	Log       *slog.Logger
	Waiting   func(error) // told why the board is not enrolled yet; may be nil
}

// Enrol returns the board's identity: the stored one, or a new one from the
// fleet. It retries until the context ends; only a refusal that no retry can
// mend (no token, a token that was used) is said once a minute, not hidden.
func (e *Enroller) Enrol(ctx context.Context) (*Identity, error) {
	key, err := openSoftKey(filepath.Join(e.Dir, keyFile))
	if err != nil {
		return nil, err
	}
	e.Log.Warn("the board's key is a file: it can be copied off the disk", "mode", key.Mode())
	id, err := loadIdentity(e.Dir, key)
	if err == nil {
		return id, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		e.Log.Error("stored identity cannot be used, enrolling anew", "err", err)
	}
	wait := enrolRetryMin
	for {
		id, err := e.enrolOnce(ctx, key)
		if err == nil {
			return id, nil
		}
		e.Log.Warn("not enrolled yet", "fleet", e.Fleet, "err", err, "next_try", wait)
		if e.Waiting != nil {
			e.Waiting(err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
		wait = min(wait*2, enrolRetryMax)
	}
}

func (e *Enroller) enrolOnce(ctx context.Context, key Key) (*Identity, error) {
	token, err := readToken(e.TokenFile)
	if err != nil {
		return nil, err
	}
	client := &http.Client{
		Timeout:   enrolTimeout,
		Transport: &http.Transport{TLSClientConfig: pinned(token.CAHash, e.Fleet), DisableKeepAlives: true},
	}
	reply, err := e.askCertificate(ctx, client, schema.EnrolPath, token.Secret, key)
	if err != nil {
		return nil, err
	}
	id, err := newIdentity(reply, key)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(id.ca.Raw); subtle.ConstantTimeCompare(sum[:], token.CAHash[:]) != 1 {
		return nil, errors.New("enrolment reply: authority is not the one the token names")
	}
	if e.Board != "" && id.Board != e.Board { // the board's spool is already kept under its name
		return nil, fmt.Errorf("enrolment reply: it is for board %q, this one asked as %q", id.Board, e.Board)
	}
	if err := id.save(e.Dir, reply); err != nil {
		return nil, fmt.Errorf("keep identity: %w", err)
	}
	e.Log.Info("enrolled", "board", id.Board, "tenant", id.Tenant, "certificate_until", id.leaf.NotAfter.Format(time.DateOnly))
	return id, nil
}

// Renew asks for the next certificate over mutual TLS with the present one.
func (e *Enroller) Renew(ctx context.Context, id *Identity) (*Identity, error) {
	client := &http.Client{
		Timeout:   enrolTimeout,
		Transport: &http.Transport{TLSClientConfig: id.TLS(), DisableKeepAlives: true},
	}
	reply, err := e.askCertificate(ctx, client, schema.RenewPath, "", id.key)
	if err != nil {
		return nil, err
	}
	next, err := newIdentity(reply, id.key)
	if err != nil {
		return nil, err
	}
	if !next.ca.Equal(id.ca) || next.Board != id.Board || next.Tenant != id.Tenant {
		return nil, errors.New("renewal names another board or authority; keeping the present certificate")
	}
	return next, next.save(e.Dir, reply)
}

func (e *Enroller) askCertificate(ctx context.Context, client *http.Client, path, secret string, key Key) (*schema.EnrolReply, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: e.Board},
	}, key.Signer())
	if err != nil {
		return nil, fmt.Errorf("sign certificate request: %w", err)
	}
	body, err := json.Marshal(schema.EnrolRequest{
		Token: secret, Board: e.Board, Mode: key.Mode(), Facts: e.Facts,
		CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
	})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+e.Fleet+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask for a certificate: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s for a certificate: %w", e.Fleet, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxEnrolReply))
	if err != nil {
		return nil, fmt.Errorf("ask %s for a certificate: %w", e.Fleet, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fleet refused the enrolment (%s): %s", resp.Status, problem(b))
	}
	var r schema.EnrolReply
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("enrolment reply of %s is not JSON: %w", e.Fleet, err)
	}
	return &r, nil
}

// problem takes the sentence out of a problem+json body.
func problem(b []byte) string {
	var p struct {
		Title  string `json:"title"`
		Detail string `json:"detail"`
	}
	if json.Unmarshal(b, &p) == nil && (p.Detail != "" || p.Title != "") {
		b = []byte(strings.TrimSpace(p.Title + ": " + p.Detail))
	}
	return strings.ToValidUTF8(string(b[:min(len(b), problemExcerpt)]), "?")
}

func readToken(path string) (schema.JoinToken, error) {
	if path == "" {
		return schema.JoinToken{}, errors.New("this board is not enrolled and fleet.token_file is empty; make a token with: fulmar-fleet token")
	}
	f, err := os.Open(path)
	if err != nil {
		return schema.JoinToken{}, fmt.Errorf("read join token: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxTokenBytes))
	if err != nil {
		return schema.JoinToken{}, fmt.Errorf("read join token: %w", err)
	}
	return schema.ParseJoinToken(string(b))
}

// pinned trusts exactly the authority whose hash the token carries: the server
// shows it in its chain, it hashes to the pin, and it signed the server's
// certificate for this name. The board's clock is not asked: at first contact it
// may be anything, and the pin does not expire.
func pinned(caHash [32]byte, address string) *tls.Config {
	host, _, _ := net.SplitHostPort(address)
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		ServerName:         host,
		InsecureSkipVerify: true, // replaced by VerifyConnection below, which is stricter
		VerifyConnection: func(cs tls.ConnectionState) error {
			for _, c := range cs.PeerCertificates[1:] {
				sum := sha256.Sum256(c.Raw)
				if subtle.ConstantTimeCompare(sum[:], caHash[:]) != 1 {
					continue
				}
				roots := x509.NewCertPool()
				roots.AddCert(c)
				leaf := cs.PeerCertificates[0]
				_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: leaf.NotBefore.Add(time.Minute)})
				return err
			}
			return errors.New("the server is not the fleet that the join token names (its authority has another fingerprint)")
		},
	}
}

// Keep renews the certificate at two thirds of its life, until the context ends.
// It reads the present identity with get and gives the next one to set.
func (e *Enroller) Keep(ctx context.Context, get func() *Identity, set func(*Identity)) error {
	for {
		id := get()
		wait := max(time.Until(id.RenewAt()), renewRetry)
		if time.Now().After(id.RenewAt()) {
			next, err := e.Renew(ctx, id)
			if err == nil {
				set(next)
				e.Log.Info("certificate renewed", "until", next.leaf.NotAfter.Format(time.DateOnly))
				continue
			}
			e.Log.Warn("certificate not renewed, trying again in an hour", "until", id.leaf.NotAfter.Format(time.DateOnly), "err", err)
			wait = renewRetry
		}
		// Bounded, so that a clock set by decades is noticed within a day.
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(wait, 24*time.Hour)):
		}
	}
}
