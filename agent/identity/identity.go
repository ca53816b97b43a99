// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"fulmar/internal/atomicfile"
	"fulmar/schema"
)

// Key is a board's private key, wherever it lives. A later TPM key is another
// implementation; the private part never passes through here.
type Key interface {
	// Signer signs with the key.
	Signer() crypto.Signer
	// Mode names where it lives, as in the certificate and on the page: "software".
	Mode() string
}

type softKey struct{ *ecdsa.PrivateKey }

func (k softKey) Signer() crypto.Signer { return k.PrivateKey }
func (softKey) Mode() string            { return "software" }

// openSoftKey reads the key file, or makes it (ECDSA P-256, readable by the
// owner only) on first start.
func openSoftKey(path string) (Key, error) {
	k, err := readSoftKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeSoftKey(path)
	}
	return k, err
}

func readSoftKey(path string) (Key, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read board key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("board key %s is not a PEM private key; move it away and enrol again", path)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("board key %s: %w; move it away and enrol again", path, err)
	}
	ec, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("board key %s is no ECDSA key; move it away and enrol again", path)
	}
	return softKey{ec}, nil
}

func makeSoftKey(path string) (Key, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make board key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, fmt.Errorf("make board key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make board key: %w", err)
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := atomicfile.WriteFile(path, b, 0o600); err != nil {
		return nil, fmt.Errorf("make board key: %w", err)
	}
	return softKey{k}, nil
}

// Identity is who the board is to its fleet: what enrolment gave, and the key.
type Identity struct {
	Tenant string
	Board  string
	Broker string // host:port

	key  Key
	leaf *x509.Certificate
	cert tls.Certificate
	pool *x509.CertPool
	ca   *x509.Certificate
}

// StoredBoard is the name under which the identity kept in dir stands at its fleet; ""
// where there is none that [Enroller.Enrol] would use.
func StoredBoard(dir string) string {
	key, err := readSoftKey(filepath.Join(dir, keyFile))
	if err != nil {
		return ""
	}
	id, err := loadIdentity(dir, key)
	if err != nil {
		return ""
	}
	return id.Board
}

// keyFile is the board's private key.
const keyFile = "board.key"

// identityFile is the fleet's reply as it came; it holds no secret.
const identityFile = "identity.json"

func loadIdentity(dir string, key Key) (*Identity, error) {
	b, err := os.ReadFile(filepath.Join(dir, identityFile))
	if err != nil {
		return nil, err
	}
	var r schema.EnrolReply
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("identity in %s: %w", dir, err)
	}
	return newIdentity(&r, key)
}

func (id *Identity) save(dir string, r *schema.EnrolReply) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(filepath.Join(dir, identityFile), b, 0o600)
}

// newIdentity checks that the reply's certificate is for this key and signed by
// the authority beside it.
func newIdentity(r *schema.EnrolReply, key Key) (*Identity, error) {
	if err := errors.Join(schema.CheckBoard(r.Tenant), schema.CheckBoard(r.Board), checkAddress(r.Broker)); err != nil {
		return nil, fmt.Errorf("enrolment reply: %w", err)
	}
	ca, err := parseCert(r.CA)
	if err != nil {
		return nil, fmt.Errorf("enrolment reply: authority: %w", err)
	}
	leaf, err := parseCert(r.Certificate)
	if err != nil {
		return nil, fmt.Errorf("enrolment reply: certificate: %w", err)
	}
	pub, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok || !pub.Equal(key.Signer().Public()) {
		return nil, errors.New("enrolment reply: certificate is for another key")
	}
	if err := leaf.CheckSignatureFrom(ca); err != nil {
		return nil, fmt.Errorf("enrolment reply: certificate is not signed by its authority: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return &Identity{
		Tenant: r.Tenant, Board: r.Board, Broker: r.Broker,
		key: key, leaf: leaf, pool: pool, ca: ca,
		cert: tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key.Signer(), Leaf: leaf},
	}, nil
}

func checkAddress(s string) error {
	if host, port, err := net.SplitHostPort(s); err != nil || host == "" || port == "" {
		return errors.New("broker is not host:port")
	}
	return nil
}

func parseCert(s string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(s))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("is not a PEM certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}

// TLS gives the client side of mutual TLS 1.3. Sessions are resumed, so that a
// reconnect costs no signature of the board's key. A board without a clock
// battery wakes in 1970: validity is judged no earlier than the moment its own
// certificate began.
func (id *Identity) TLS() *tls.Config {
	floor := id.leaf.NotBefore
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		RootCAs:            id.pool,
		Certificates:       []tls.Certificate{id.cert},
		ClientSessionCache: tls.NewLRUClientSessionCache(4),
		Time: func() time.Time {
			if now := time.Now(); now.After(floor) {
				return now
			}
			return floor
		},
	}
}

// RenewAt is when two thirds of the certificate's life are over.
func (id *Identity) RenewAt() time.Time {
	life := id.leaf.NotAfter.Sub(id.leaf.NotBefore)
	return id.leaf.NotBefore.Add(life * 2 / 3)
}
