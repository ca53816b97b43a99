// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func open(t testing.TB) (*Authority, string) {
	t.Helper()
	dir := t.TempDir()
	a, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return a, dir
}

func request(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	// The request asks for a name and a right that must not be granted.
	u, _ := url.Parse("fulmar:other/board")
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "root"}, DNSNames: []string{"fleet.example"}, URIs: []*url.URL{u},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func p256(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestOpenAgain(t *testing.T) {
	t.Parallel()
	a, dir := open(t)
	st, err := os.Stat(filepath.Join(dir, keyFile))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("key file: %v %v", st.Mode(), err)
	}
	b, err := Open(dir)
	if err != nil || a.Hash() != b.Hash() {
		t.Fatalf("second opening gives another authority: %v", err)
	}
	// Killed between key and certificate: the key stays.
	if err := os.Remove(filepath.Join(dir, certFile)); err != nil {
		t.Fatal(err)
	}
	if b, err = Open(dir); err != nil || !b.cert.PublicKey.(*ecdsa.PublicKey).Equal(a.key.Public()) {
		t.Fatalf("certificate gone: %v", err)
	}
	if err := os.Chmod(filepath.Join(dir, keyFile), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil {
		t.Fatal("a key that others may read is taken")
	}
	if err := os.Remove(filepath.Join(dir, keyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil {
		t.Fatal("a lost key is replaced in silence")
	}
}

func TestIssue(t *testing.T) {
	t.Parallel()
	a, _ := open(t)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	for name, key := range map[string]crypto.Signer{"P-256": p256(t), "P-384": p384, "Ed25519": ed} {
		leaf, err := a.Issue(request(t, key), "default", "b1", "software")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		b, _ := pem.Decode(leaf.PEM)
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		id, err := a.Verify(c)
		if err != nil || id.Tenant != "default" || id.Board != "b1" || id.Fingerprint != leaf.Fingerprint {
			t.Fatalf("%s: %+v %v", name, id, err)
		}
		if c.IsCA || len(c.DNSNames) != 0 || !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) ||
			time.Since(c.NotBefore) < 59*time.Minute || time.Until(c.NotAfter) > 91*24*time.Hour {
			t.Fatalf("%s: certificate %+v", name, c)
		}
	}
}

func TestIssueRefuses(t *testing.T) {
	t.Parallel()
	a, _ := open(t)
	weak, _ := rsa.GenerateKey(rand.Reader, 2048)
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	good := request(t, p256(t))
	b, _ := pem.Decode(good)
	forged := slices.Clone(b.Bytes)
	forged[len(forged)-1] ^= 1
	for name, csr := range map[string][]byte{
		"RSA": request(t, weak), "P-224": request(t, p224), "empty": nil, "noise": []byte("noise"),
		"forged": pem.EncodeToMemory(&pem.Block{Type: b.Type, Bytes: forged}), "two": append(slices.Clone(good), good...), "long": make([]byte, MaxCSR+1),
	} {
		if _, err := a.Issue(csr, "default", "b1", "software"); !errors.Is(err, ErrBadRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", "a/b", "A", "../x", "b1 "} {
		if _, err := a.Issue(good, "default", name, "software"); !errors.Is(err, ErrBadRequest) {
			t.Errorf("board %q: %v", name, err)
		}
	}
}

func TestServerCertificate(t *testing.T) {
	t.Parallel()
	a, _ := open(t)
	c, err := a.Server([]string{"fleet.example", "192.0.2.7"})
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"fleet.example", "192.0.2.7", "127.0.0.1", "::1", "localhost"} {
		if _, err := c.Leaf.Verify(x509.VerifyOptions{Roots: a.Pool(), DNSName: host}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	if _, err := a.Verify(c.Leaf); err == nil {
		t.Error("the server's certificate passes as a board's")
	}
	if Stale(c, time.Now()) || !Stale(c, time.Now().Add(61*24*time.Hour)) || !Stale(nil, time.Now()) {
		t.Error("the server's certificate is made anew at the wrong time")
	}
}

// TestVerifyExpired: a board that slept through its certificate may still renew.
func TestVerifyExpired(t *testing.T) {
	t.Parallel()
	a, _ := open(t)
	key := p256(t)
	tmpl := &x509.Certificate{
		Subject: pkix.Name{CommonName: "b1", Organization: []string{"default"}}, URIs: []*url.URL{identityURI("default", "b1")},
		NotBefore: time.Now().Add(-30 * time.Minute), NotAfter: time.Now().Add(-time.Minute), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	tmpl.SerialNumber, _ = newSerial()
	for _, signer := range []*Authority{a, func() *Authority { b, _ := open(t); return b }()} {
		der, err := x509.CreateCertificate(rand.Reader, tmpl, signer.cert, key.Public(), signer.key)
		if err != nil {
			t.Fatal(err)
		}
		c, _ := x509.ParseCertificate(der)
		if _, err := a.Verify(c); (err == nil) != (signer == a) {
			t.Errorf("own authority %v: %v", signer == a, err)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add(request(f, p256(f)))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = ParseRequest(b) })
}
