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
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"fulmar/internal/atomicfile"
)

// Lifetimes of certificates.
const (
	// authorityLife is long: replacing the authority means visiting every board.
	authorityLife = 10 * 365 * 24 * time.Hour
	// serverLife and boardLife are short enough that a stolen key ages out.
	serverLife = 90 * 24 * time.Hour
	boardLife  = 90 * 24 * time.Hour
	// renewBefore is when the server's certificate is made anew.
	renewBefore = 30 * 24 * time.Hour
	// skew is how far clocks of boards may be behind the fleet's.
	skew = time.Hour
)

const (
	keyFile  = "ca.key"
	certFile = "ca.pem"
)

// Authority signs certificates.
type Authority struct {
	key  crypto.Signer
	cert *x509.Certificate
	pem  []byte
	pool *x509.CertPool
}

// Open reads the authority in dir, or makes it where there is none. The folder
// and the key are readable by their owner only; a key that others may read is
// refused.
func Open(dir string) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of the authority: %w", err)
	}
	keyPath, certPath := filepath.Join(dir, keyFile), filepath.Join(dir, certFile)
	_, keyErr := os.Stat(keyPath)
	_, certErr := os.Stat(certPath)
	switch {
	case errors.Is(keyErr, fs.ErrNotExist) && errors.Is(certErr, fs.ErrNotExist):
		if err := create(dir); err != nil {
			return nil, fmt.Errorf("make authority: %w", err)
		}
	case errors.Is(certErr, fs.ErrNotExist):
		// The process died between the two files; no board can have seen the key.
		if err := writeCert(dir, keyPath); err != nil {
			return nil, fmt.Errorf("make certificate of the authority: %w", err)
		}
	case errors.Is(keyErr, fs.ErrNotExist):
		return nil, fmt.Errorf("open authority: %s is there but %s is gone; restore it from the backup, or remove both and enrol all boards anew", certPath, keyPath)
	}
	return load(keyPath, certPath)
}

func load(keyPath, certPath string) (*Authority, error) {
	st, err := os.Stat(keyPath)
	if err != nil {
		return nil, fmt.Errorf("open key of the authority: %w", err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("open key of the authority: others may read %s (mode %04o); chmod 600 it", keyPath, st.Mode().Perm())
	}
	key, err := readKey(keyPath)
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(certPath)
	if err != nil {
		return nil, fmt.Errorf("open certificate of the authority: %w", err)
	}
	b, _ := pem.Decode(raw)
	if b == nil || b.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("open certificate of the authority: %s is not PEM", certPath)
	}
	cert, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("open certificate of the authority: %w", err)
	}
	if pub, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || !pub.Equal(key.Public()) {
		return nil, fmt.Errorf("open authority: %s and %s do not belong together", keyPath, certPath)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &Authority{key: key, cert: cert, pem: pem.EncodeToMemory(b), pool: pool}, nil
}

func readKey(path string) (*ecdsa.PrivateKey, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("open key of the authority: %w", err)
	}
	b, _ := pem.Decode(raw)
	if b == nil {
		return nil, fmt.Errorf("open key of the authority: %s is not PEM", path)
	}
	k, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("open key of the authority: %s is no private key", path)
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("open key of the authority: %s is no ECDSA key", path)
	}
	return key, nil
}

// create makes key and certificate; the key is durable before the certificate
// that names it.
func create(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, keyFile)
	if err := atomicfile.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return err
	}
	return writeCert(dir, path)
}

func writeCert(dir, keyPath string) error {
	key, err := readKey(keyPath)
	if err != nil {
		return err
	}
	now := time.Now()
	serial, err := newSerial()
	if err != nil {
		return err
	}
	t := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "fulmar fleet authority " + serial.Text(36)[:8]},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(authorityLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(filepath.Join(dir, certFile), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

// PEM gives the authority's certificate.
func (a *Authority) PEM() []byte { return slices.Clone(a.pem) }

// Hash gives the SHA-256 of the authority's certificate (DER), which join tokens carry.
func (a *Authority) Hash() [32]byte { return sha256.Sum256(a.cert.Raw) }

// Pool gives the pool with the authority alone, for verifying boards.
func (a *Authority) Pool() *x509.CertPool { return a.pool }

// Server makes a certificate for the fleet's server under the given host names
// and addresses; loopback is always among them. The key never leaves memory: a
// certificate is made at each start and again before it ages, see [Authority.Stale].
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
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// Stale tells whether the server's certificate should be made anew.
func Stale(c *tls.Certificate, now time.Time) bool {
	return c == nil || c.Leaf == nil || now.After(c.Leaf.NotAfter.Add(-renewBefore)) || now.Before(c.Leaf.NotBefore)
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
