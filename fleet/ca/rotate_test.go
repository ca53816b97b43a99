// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fulmar/trust"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// board issues a board's certificate.
func board(t *testing.T, a *Authority) *x509.Certificate {
	t.Helper()
	leaf, err := a.Issue(request(t, p256(t)), "default", "b1", "software")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := pem.Decode(leaf.PEM)
	return must(x509.ParseCertificate(b.Bytes))
}

// above is an authority of somebody else.
type above struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAbove(t *testing.T, change func(*x509.Certificate)) *above {
	t.Helper()
	u := &above{key: p256(t)}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "corporate root"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * 365 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if change != nil {
		change(tmpl)
	}
	u.cert = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, u.key.Public(), u.key))))
	return u
}

// sign makes the certificate that a request asks for.
func (u *above) sign(t *testing.T, csr []byte, change func(*x509.Certificate)) []byte {
	t.Helper()
	b, _ := pem.Decode(csr)
	req := must(x509.ParseCertificateRequest(b.Bytes))
	if err := req.CheckSignature(); err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: must(newSerial()), RawSubject: req.RawSubject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(2 * 365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if change != nil {
		change(tmpl)
	}
	c := must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, u.cert, req.PublicKey, u.key))))
	return append(encode(c), encode(u.cert)...)
}

func reopen(t *testing.T, dir string) *Authority {
	t.Helper()
	a, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestSuccession: the next authority is told, issues, and the first one goes; what was
// signed by either verifies as long as both are there.
func TestSuccession(t *testing.T) {
	t.Parallel()
	first, dir := open(t)
	old := board(t, first)
	pin := first.Hash()
	if err := Next(dir, "", nil); err != nil {
		t.Fatal(err)
	}
	if list := must(List(dir)); len(list) != 2 || !list[1].Told.IsZero() || list[0].Told.IsZero() || !list[0].Issues {
		t.Fatalf("%+v", list)
	}
	if err := Next(dir, "", nil); !errors.Is(err, ErrRefused) {
		t.Errorf("a third authority: %v", err)
	}
	a := reopen(t, dir)
	if a.Hash() != pin || must(Pin(dir)) != pin {
		t.Error("the next authority issues before the switch")
	}
	told := must(parsePEM(a.PEM()))
	srv := must(a.Server(nil))
	if len(told) != 2 || len(srv.Certificate) != 3 || !bytes.Equal(srv.Certificate[2], told[1].Raw) {
		t.Fatalf("%d authorities told, %d certificates shown", len(told), len(srv.Certificate))
	}
	if list := must(List(dir)); list[1].Told.IsZero() {
		t.Error("a server started and the telling is not noted")
	}
	if _, err := Since(dir); err != nil {
		t.Error(err)
	}
	if err := Switch(dir, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := Since(dir); err == nil {
		t.Error("a switch counts before the server began with it")
	}
	b := reopen(t, dir)
	if b.Hash() == pin || must(Pin(dir)) != b.Hash() || !bytes.Equal(b.cert.Raw, told[1].Raw) {
		t.Fatal("the switch changed nothing")
	}
	if since := must(Since(dir)); time.Since(since) > time.Minute {
		t.Errorf("issues since %v", since)
	}
	fresh := board(t, b)
	if _, err := b.Verify(old); err != nil {
		t.Errorf("a board of the first authority, before the drop: %v", err)
	}
	if _, err := first.Verify(fresh); err == nil {
		t.Error("the next authority signs with the first one's key")
	}
	// A board that was told of both takes the server under either.
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.PEM())
	for _, srv := range []*x509.Certificate{srv.Leaf, must(b.Server(nil)).Leaf} {
		if _, err := srv.Verify(x509.VerifyOptions{Roots: pool, DNSName: "localhost"}); err != nil {
			t.Error(err)
		}
	}
	// There and back.
	if err := errors.Join(Switch(dir, nil), Switch(dir, nil)); err != nil {
		t.Fatal(err)
	}
	if err := Drop(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{keyFile, certFile} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	c := reopen(t, dir)
	if _, err := c.Verify(fresh); err != nil {
		t.Error(err)
	}
	if _, err := c.Verify(old); err == nil {
		t.Error("a board of the dropped authority is taken")
	}
	if err := Drop(dir); !errors.Is(err, ErrRefused) {
		t.Errorf("the only authority is dropped: %v", err)
	}
	// And once more, so that numbers go on.
	if err := errors.Join(Next(dir, "", nil), Switch(dir, nil), Drop(dir)); err != nil {
		t.Fatal(err)
	}
	if reopen(t, dir).Hash() == b.Hash() {
		t.Error("the second succession did not happen")
	}
}

// TestSuccessionCut: what a crash leaves half made or half removed is completed.
func TestSuccessionCut(t *testing.T) {
	t.Parallel()
	first, dir := open(t)
	if err := Next(dir, "", nil); err != nil {
		t.Fatal(err)
	}
	key := must(os.ReadFile(filepath.Join(dir, "2", keyFile)))
	if err := os.Remove(filepath.Join(dir, "2", certFile)); err != nil {
		t.Fatal(err)
	}
	if a := reopen(t, dir); a.Hash() != first.Hash() || len(a.told) != 1 {
		t.Error("half an authority is told")
	}
	if err := Switch(dir, nil); !errors.Is(err, ErrRefused) {
		t.Errorf("switched to half an authority: %v", err)
	}
	if err := Next(dir, "", nil); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(key, must(os.ReadFile(filepath.Join(dir, "2", keyFile)))) {
		t.Error("completed with another key")
	}
	if err := os.Remove(filepath.Join(dir, "2", keyFile)); err != nil { // a drop that was cut
		t.Fatal(err)
	}
	if a := reopen(t, dir); a.Hash() != first.Hash() {
		t.Error("another one issues")
	}
	if err := Switch(dir, nil); err == nil {
		t.Error("switched to an authority without a key")
	}
	if err := Drop(dir); err != nil {
		t.Fatal(err)
	}
	if list := must(List(dir)); len(list) != 1 {
		t.Errorf("%+v", list)
	}
	// A switch to what is not there does not fall back in silence.
	if err := os.WriteFile(filepath.Join(dir, issuing), []byte("2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "backup") {
		t.Errorf("opened: %v", err)
	}
}

func TestInstall(t *testing.T) {
	t.Parallel()
	first, dir := open(t)
	pin, leaf := first.Hash(), board(t, first)
	u := newAbove(t, nil)
	c, err := Install(dir, u.sign(t, must(Request(dir, false, nil)), nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	a := reopen(t, dir)
	if !a.cert.Equal(c) || a.cert.Issuer.CommonName != "corporate root" || a.Hash() == pin {
		t.Fatal("the installed certificate is not in use")
	}
	srv := must(a.Server(nil))
	// Boards that know the certificate before take the server, and theirs are taken.
	if _, err := srv.Leaf.Verify(x509.VerifyOptions{Roots: first.Pool(), DNSName: "localhost"}); err != nil {
		t.Error(err)
	}
	if _, err := srv.Leaf.Verify(x509.VerifyOptions{Roots: a.Pool(), DNSName: "localhost"}); err != nil {
		t.Error(err)
	}
	if _, err := a.Verify(leaf); err != nil {
		t.Error(err)
	}
	if !slices.ContainsFunc(srv.Certificate, func(raw []byte) bool { return bytes.Equal(raw, first.cert.Raw) }) {
		t.Error("a board with an older pin does not find it")
	}
	// Renewed each year, the list stays short.
	for range 2 * maxCerts {
		if _, err := Install(dir, u.sign(t, must(Request(dir, false, nil)), nil), nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(reopen(t, dir).told); n != maxCerts {
		t.Errorf("%d certificates told, at most %d", n, maxCerts)
	}
}

func TestInstallRefuses(t *testing.T) {
	t.Parallel()
	_, dir := open(t)
	u := newAbove(t, nil)
	csr := must(Request(dir, false, nil))
	stranger, _ := open(t)
	for name, c := range map[string]struct {
		chain []byte
		want  string
	}{
		"empty":           {nil, "no PEM certificate"},
		"noise":           {[]byte("noise"), "no PEM certificate"},
		"a key in it":     {append(u.sign(t, csr, nil), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY"})...), "certificates only"},
		"of another key":  {stranger.PEM(), "none of our keys"},
		"wrong order":     {append(encode(u.cert), u.sign(t, csr, nil)...), "none of our keys"},
		"broken chain":    {append(encode(must(parsePEM(u.sign(t, csr, nil)))[0]), encode(newAbove(t, nil).cert)...), "did not sign"},
		"a leaf":          {u.sign(t, csr, func(c *x509.Certificate) { c.IsCA, c.MaxPathLenZero = false, false }), "CA:TRUE"},
		"may not sign":    {u.sign(t, csr, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }), "keyCertSign"},
		"another subject": {u.sign(t, csr, func(c *x509.Certificate) { c.RawSubject, c.Subject = nil, pkix.Name{CommonName: "edge"} }), "has to stay"},
		"ends soon":       {u.sign(t, csr, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(30 * 24 * time.Hour) }), "wants 90 days"},
		"not begun":       {u.sign(t, csr, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }), "begins only"},
		"name constraint": {u.sign(t, csr, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.com"} }), "does not verify"},
		"for mail only":   {u.sign(t, csr, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection} }), "does not verify"},
		"too long":        {make([]byte, maxChain+1), "at most"},
	} {
		if _, err := Install(dir, c.chain, nil); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, wants %q", name, err, c.want)
		}
	}
	if a := reopen(t, dir); len(a.told) != 1 {
		t.Error("a refused certificate is told")
	}
}

// TestOpenSSLSigns: another program understands the request and its certificate is
// taken, as a person with a corporate authority would do it.
func TestOpenSSLSigns(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("openssl is missing; make test installs it")
		}
		t.Skip("openssl is missing; make test installs it")
	}
	_, dir := open(t)
	tmp := t.TempDir()
	if err := os.WriteFile(filepath.Join(tmp, "csr.pem"), must(Request(dir, false, nil)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "root.key", "-out", "root.pem", "-subj", "/O=Example/CN=Root", "-days", "3650"},
		{"req", "-in", "csr.pem", "-verify", "-noout"},
		{"x509", "-req", "-in", "csr.pem", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-copy_extensions", "copyall", "-days", "730", "-out", "ca.pem"},
	} {
		cmd := exec.Command("openssl", args...)
		cmd.Dir = tmp
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("openssl %s: %v: %s", args[0], err, out)
		}
	}
	chain := append(must(os.ReadFile(filepath.Join(tmp, "ca.pem"))), must(os.ReadFile(filepath.Join(tmp, "root.pem")))...)
	c, err := Install(dir, chain, nil)
	if err != nil || c.Issuer.CommonName != "Root" || !c.MaxPathLenZero {
		t.Fatal(c, err)
	}
	board(t, reopen(t, dir))
}

// TestHeldElsewhere: an authority whose key is behind an external signer. One in a TPM
// is tried by package fleet.
func TestHeldElsewhere(t *testing.T) {
	t.Parallel()
	example := must(filepath.Abs("../../docs/signers/openssl.sh"))
	tmp := t.TempDir()
	for _, kind := range []string{trust.P256, trust.Ed25519} {
		if _, err := trust.NewKeyFile(filepath.Join(tmp, kind), kind); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	ref := "exec:" + example + " " + filepath.Join(tmp, trust.P256)
	for bad, want := range map[string]string{"exec:/nowhere": "/nowhere", "exec:" + example + " " + filepath.Join(tmp, trust.Ed25519): "P-256", "tpm:x": "TPM"} {
		if err := Init(t.TempDir(), bad, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if err := Init(dir, ref, nil); err != nil {
		t.Fatal(err)
	}
	a := reopen(t, dir)
	if a.Holder() != "exec" {
		t.Errorf("held by %s", a.Holder())
	}
	if _, err := os.Stat(filepath.Join(dir, keyFile)); err == nil {
		t.Error("a key file was made all the same")
	}
	if _, err := a.Verify(board(t, a)); err != nil {
		t.Error(err)
	}
	if err := Init(dir, ref, nil); !errors.Is(err, ErrRefused) {
		t.Errorf("made twice: %v", err)
	}
	// From a file to a signer, as a fleet that grows up does it.
	_, dir = open(t)
	if err := errors.Join(Next(dir, ref, nil), Switch(dir, nil), Drop(dir)); err != nil {
		t.Fatal(err)
	}
	if a = reopen(t, dir); a.Holder() != "exec" {
		t.Errorf("held by %s", a.Holder())
	}
	board(t, a)
	// Without its signer the authority does not open, and its pin is still told.
	if err := os.Remove(filepath.Join(tmp, trust.P256)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, trust.ErrSigner) {
		t.Errorf("opened without its signer: %v", err)
	}
	if pin := must(Pin(dir)); pin != a.Hash() {
		t.Error("another pin")
	}
	opened := func(rest string) (crypto.Signer, error) { return nil, errors.New("chip " + rest) }
	if err := Init(t.TempDir(), "tpm:/x", opened); err == nil || !strings.Contains(err.Error(), "chip /x") {
		t.Errorf("tpm: %v", err)
	}
}

func FuzzChain(f *testing.F) {
	a, err := Open(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(a.PEM())
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parsePEM(b) })
}
