// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"fulmar/internal/atomicfile"
	"fulmar/schema"
)

const (
	// enrollers is how many boards enrol at one time: the server's work is a signature
	// and a commit each, and one writer does the commits.
	enrollers    = 16
	enrolTimeout = 60 * time.Second
	maxReply     = 64 << 10 // bytes, two certificates and some names
	// enrolTries bounds how often a board asks that is told to wait: the fleet lets one
	// address in 20 times a second.
	enrolTries = 100
)

// identity is who a board is, as it stands in its file.
type identity struct {
	Key         string `json:"key"` // PEM, PKCS #8
	Certificate string `json:"certificate"`
	CA          string `json:"ca"`
	Tenant      string `json:"tenant"`
	Broker      string `json:"broker"`

	tls *tls.Config
}

// Enrol gets every board its certificate: those in [Config.Dir] keep theirs.
func (f *Fleet) Enrol(ctx context.Context) error {
	if f.cfg.Dir != "" {
		if err := os.MkdirAll(f.cfg.Dir, 0o700); err != nil {
			return fmt.Errorf("enrol simulated boards: %w", err)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	todo := make(chan *board)
	var wg sync.WaitGroup
	clients := f.clients()
	for range min(enrollers, len(f.boards)) {
		wg.Go(func() {
			for b := range todo {
				if err := f.enrol(ctx, clients[b.site.number], b); err != nil {
					cancel(fmt.Errorf("enrol %s: %w", b.name, err))
				}
			}
		})
	}
	for _, b := range f.boards {
		select {
		case todo <- b:
		case <-ctx.Done():
		}
	}
	close(todo)
	wg.Wait()
	for _, c := range clients {
		c.CloseIdleConnections()
	}
	return context.Cause(ctx)
}

// clients makes one client a site.
func (f *Fleet) clients() []*http.Client {
	out := make([]*http.Client, f.cfg.Sites)
	for i := range out {
		cfg := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, VerifyConnection: f.pinned} // pinned is stricter
		out[i] = &http.Client{Timeout: enrolTimeout, Transport: &http.Transport{TLSClientConfig: cfg, DialContext: f.dialer(i).DialContext}}
	}
	return out
}

// dialer dials from a site.
func (f *Fleet) dialer(site int) *net.Dialer {
	d := &net.Dialer{Timeout: enrolTimeout}
	if f.cfg.Spread {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 1, 0, byte(site+1))}
	}
	return d
}

// pinned takes the server whose authority is the one that the token names.
func (f *Fleet) pinned(cs tls.ConnectionState) error {
	if f.token == nil {
		return errors.New("no join token was given, and not every board is in Dir")
	}
	for _, c := range cs.PeerCertificates[1:] {
		if sha256.Sum256(c.Raw) == f.token.CAHash {
			return cs.PeerCertificates[0].CheckSignatureFrom(c)
		}
	}
	return errors.New("the server is not the fleet that the join token names")
}

func (f *Fleet) enrol(ctx context.Context, client *http.Client, b *board) error {
	path := ""
	if f.cfg.Dir != "" {
		path = filepath.Join(f.cfg.Dir, b.name+".json")
		text, err := os.ReadFile(path)
		if err == nil {
			id := new(identity)
			if err := json.Unmarshal(text, id); err != nil {
				return fmt.Errorf("read %s: %w; remove it", path, err)
			}
			b.id = id
			return id.prepare()
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	id, err := f.ask(ctx, client, b)
	if err != nil {
		return err
	}
	b.id = id
	if path == "" {
		return nil
	}
	text, err := json.Marshal(id)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(path, text, 0o600)
}

// ask makes a key and asks for its certificate.
func (f *Fleet) ask(ctx context.Context, client *http.Client, b *board) (*identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: b.name}}, key)
	if err != nil {
		return nil, err
	}
	secret := ""
	if f.token != nil {
		secret = f.token.Secret
	}
	body, err := json.Marshal(&schema.EnrolRequest{
		Token: secret, Board: b.name, Mode: schema.KeySoftware, Facts: b.facts,
		CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
	})
	if err != nil {
		return nil, err
	}
	var reply schema.EnrolReply
	for try := 1; ; try++ {
		busy, err := f.post(ctx, client, body, &reply)
		if err == nil {
			break
		}
		if !busy || try == enrolTries {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Second):
		}
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	id := &identity{
		Key: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), Certificate: reply.Certificate,
		CA: reply.CA, Tenant: reply.Tenant, Broker: reply.Broker,
	}
	return id, id.prepare()
}

// post asks once; busy tells that the fleet wants to be asked later.
func (f *Fleet) post(ctx context.Context, client *http.Client, body []byte, reply *schema.EnrolReply) (busy bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+f.cfg.Fleet+schema.EnrolPath, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return false, err
	}
	if resp.StatusCode != http.StatusOK {
		return resp.StatusCode == http.StatusTooManyRequests, fmt.Errorf("the fleet answers %s: %.300s", resp.Status, text)
	}
	return false, json.Unmarshal(text, reply)
}

// prepare makes the TLS side of the identity.
func (id *identity) prepare() error {
	cert, err := tls.X509KeyPair([]byte(id.Certificate), []byte(id.Key))
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(id.CA)) {
		return errors.New("the authority is not PEM")
	}
	host, _, err := net.SplitHostPort(id.Broker)
	if err != nil {
		return fmt.Errorf("address of the gateway: %w", err)
	}
	// One session is remembered, as real boards do: a reconnect costs no signature.
	id.tls = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, RootCAs: pool, ServerName: host, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	return nil
}
