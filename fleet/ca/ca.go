// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"

	"fulmar/trust"
)

// Lifetimes of certificates.
const (
	// authorityLife is long: until the next authority, boards that sleep through its
	// announcement have to enrol anew.
	authorityLife = 10 * 365 * 24 * time.Hour
	// serverLife and boardLife are short enough that a stolen key ages out.
	serverLife = 90 * 24 * time.Hour
	boardLife  = 90 * 24 * time.Hour
	// renewBefore is when the server's certificate is made anew.
	renewBefore = 30 * 24 * time.Hour
	// skew is how far clocks of boards may be behind the fleet's.
	skew = time.Hour
)

// Authority signs certificates.
type Authority struct {
	key  *trust.Signer
	cert *x509.Certificate
	// told are the certificates that boards are told and the server shows: cert first,
	// then earlier ones of the same key, then those of the other authority.
	told []*x509.Certificate
	pool *x509.CertPool // of all in told
}

// OpenTPM opens a key in a TPM; rest is what follows "tpm:" in its reference.
type OpenTPM func(rest string) (crypto.Signer, error)

// Open reads the authority in dir, or makes it, with its key in a file, where there is
// none. A key in a file that others may read is refused.
func Open(dir string) (*Authority, error) { return OpenWith(dir, nil) }

// OpenWith is Open for authorities whose key may be in a TPM.
func OpenWith(dir string, tpm OpenTPM) (*Authority, error) {
	f, err := openFolder(dir)
	if err != nil {
		return nil, err
	}
	if g := f.issuing(); g == nil || len(g.certs) == 0 { // number 1: none yet, or its making was cut
		if err := (&generation{n: 1, dir: dir}).create("", tpm); err != nil {
			return nil, fmt.Errorf("make authority: %w", err)
		}
		if f, err = openFolder(dir); err != nil {
			return nil, err
		}
	}
	g := f.issuing()
	key, err := g.openKey(tpm)
	if err != nil {
		return nil, err
	}
	if pub, ok := g.certs[0].PublicKey.(*ecdsa.PublicKey); !ok || !pub.Equal(key.Public()) {
		return nil, errors.Join(fmt.Errorf("open authority: the certificate and the key in %s do not belong together", g.dir), key.Close())
	}
	a := &Authority{key: key, cert: g.certs[0], told: f.told(), pool: x509.NewCertPool()}
	for _, c := range a.told {
		a.pool.AddCert(c)
	}
	if err := f.noteTold(); err != nil {
		return nil, errors.Join(err, key.Close())
	}
	return a, nil
}

// Close lets the holder of the key go.
func (a *Authority) Close() error { return a.key.Close() }

// PEM gives the certificates that boards are told to trust, the issuing one first.
func (a *Authority) PEM() []byte {
	var out []byte
	for _, c := range a.told {
		out = append(out, encode(c)...)
	}
	return out
}

// Hash gives the SHA-256 of the authority's certificate (DER), which join tokens carry.
func (a *Authority) Hash() [32]byte { return sha256.Sum256(a.cert.Raw) }

// Holder tells where the key is: file, exec or tpm.
func (a *Authority) Holder() string { return a.key.Where }

// NotAfter is the end of the authority's certificate.
func (a *Authority) NotAfter() time.Time { return a.cert.NotAfter }

// Pool gives the pool of authorities, for verifying boards.
func (a *Authority) Pool() *x509.CertPool { return a.pool }

// Server makes a certificate for the fleet's server under the given host names
// and addresses; loopback is always among them. The key never leaves memory: a
// certificate is made at each start and again before it ages, see [Stale].
func (a *Authority) Server(hosts []string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key of the server: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, fmt.Errorf("make serial: %w", err)
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "fulmar fleet"},
		NotBefore:    now.Add(-skew),
		NotAfter:     minTime(now.Add(serverLife), a.cert.NotAfter),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else if h != "localhost" {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of the server: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read certificate of the server: %w", err)
	}
	chain := [][]byte{der}
	for _, c := range a.told { // a board at first contact looks for the one it has the hash of
		chain = append(chain, c.Raw)
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf}, nil
}

// Stale tells whether the server's certificate should be made anew.
func Stale(c *tls.Certificate, now time.Time) bool {
	return c == nil || c.Leaf == nil || now.After(c.Leaf.NotAfter.Add(-renewBefore)) || now.Before(c.Leaf.NotBefore)
}

func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

func encode(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
