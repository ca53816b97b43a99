// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fulmar/internal/exetest"
)

// script writes a program of shell.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "signer.sh")
	if err := exetest.Write(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// works holds a signer to all that it is for: an envelope, and a certificate.
func works(t *testing.T, ref string) *Signer {
	t.Helper()
	s, err := OpenSigner(ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	e := sealed(t, TypeRelease, "what is to be installed", s)
	if !e.SignedBy(s.Public()) || e.Signatures[0].KeyID != s.ID {
		t.Fatalf("%s: its envelope does not verify", ref)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, s.Public(), s)
	if err != nil {
		t.Fatalf("%s: %v", ref, err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil || c.CheckSignatureFrom(c) != nil {
		t.Fatalf("%s: its certificate does not verify", ref)
	}
	return s
}

func TestFileSigner(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{Ed25519, P256} {
		path := filepath.Join(t.TempDir(), "key.pem")
		s, err := NewKeyFile(path, kind)
		if err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", kind, st.Mode(), err)
		}
		if again := works(t, "file:"+path); again.ID != s.ID || again.Where != "file" {
			t.Errorf("%s: another key", kind)
		}
		before, _ := os.ReadFile(path)
		if _, err := NewKeyFile(path, kind); err == nil {
			t.Errorf("%s: written over", kind)
		}
		if after, _ := os.ReadFile(path); string(after) != string(before) {
			t.Errorf("%s: changed", kind)
		}
		pub, err := PublicPEM(s.Public())
		if err != nil {
			t.Fatal(err)
		}
		if k, err := ParsePublicPEM(pub); err != nil || !k.(interface{ Equal(crypto.PublicKey) bool }).Equal(s.Public()) {
			t.Errorf("%s: public key there and back: %v", kind, err)
		}
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenSigner("file:"+path, nil); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("%s: a key that others may read: %v", kind, err)
		}
	}
	if _, err := NewKeyFile(filepath.Join(t.TempDir(), "k"), "rsa"); err == nil {
		t.Error("an RSA key is made")
	}
}

func TestReferencesRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return "file:" + p
	}
	pkcs8 := func(k any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	weak, _ := rsa.GenerateKey(rand.Reader, 2048)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	for ref, want := range map[string]error{
		"":                                   ErrReference,
		"key.pem":                            ErrReference,
		"file:":                              ErrReference,
		"pkcs11:x":                           ErrReference,
		"tpm:/x":                             ErrReference,
		"exec:signer.sh":                     ErrReference,
		"exec:./signer.sh":                   ErrReference,
		"exec:/x" + strings.Repeat(" x", 32): ErrReference,
		"exec:/nowhere/signer":               ErrSigner,
		"file:" + dir:                        nil,
		"file:/nowhere/key":                  os.ErrNotExist,
		file("noise", []byte("x")):           ErrMalformed,
		file("sec1", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte{1}})): ErrMalformed,
		file("bad", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}})):     ErrMalformed,
		file("rsa", pkcs8(weak)):  ErrKeyKind,
		file("p384", pkcs8(p384)): ErrKeyKind,
	} {
		s, err := OpenSigner(ref, nil)
		if err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v %v, wants %v", ref, s, err, want)
		}
	}
	tpm := func(rest string) (crypto.Signer, error) { return nil, fmt.Errorf("asked for %s", rest) }
	if _, err := OpenSigner("tpm:/k", tpm); err == nil || !strings.Contains(err.Error(), "asked for /k") {
		t.Errorf("tpm: %v", err)
	}
}

// TestOpenSSLSigner runs the example that docs/signers gives.
func TestOpenSSLSigner(t *testing.T) {
	t.Parallel()
	need(t, "openssl")
	example, err := filepath.Abs("../docs/signers/openssl.sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{Ed25519, P256} {
		path := filepath.Join(t.TempDir(), "key.pem")
		s, err := NewKeyFile(path, kind)
		if err != nil {
			t.Fatal(err)
		}
		if got := works(t, "exec:"+example+" "+path); got.ID != s.ID || got.Where != "exec" {
			t.Errorf("%s: another key than the file's", kind)
		}
	}
	if _, err := OpenSigner("exec:"+example+" /nowhere/key", nil); !errors.Is(err, ErrSigner) || !strings.Contains(err.Error(), "/nowhere/key") {
		t.Errorf("without a key: %v", err)
	}
}

// TestSoftHSMSigner runs the example for an HSM, with the key in SoftHSM. Its folder
// of tokens is told by the environment, so the test cannot run beside others.
func TestSoftHSMSigner(t *testing.T) {
	need(t, "softhsm2-util")
	need(t, "pkcs11-tool")
	dir := t.TempDir()
	conf, pin := filepath.Join(dir, "softhsm2.conf"), filepath.Join(dir, "pin")
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "tokens"), 0o700),
		os.WriteFile(conf, []byte("directories.tokendir = "+dir+"/tokens\nobjectstore.backend = file\n"), 0o600),
		os.WriteFile(pin, []byte("123456"), 0o600)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	modules, _ := filepath.Glob("/usr/lib/*/softhsm/libsofthsm2.so")
	modules = append(modules, "/usr/lib/softhsm/libsofthsm2.so")
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	run("softhsm2-util", "--init-token", "--free", "--label", "fleet", "--pin", "123456", "--so-pin", "654321")
	run("pkcs11-tool", "--module", modules[0], "--token-label", "fleet", "--login", "--pin", "123456",
		"--keypairgen", "--key-type", "EC:prime256v1", "--label", "release", "--id", "01")
	example, err := filepath.Abs("../docs/signers/pkcs11.sh")
	if err != nil {
		t.Fatal(err)
	}
	works(t, strings.Join([]string{"exec:" + example, modules[0], "fleet", "release", pin}, " "))
	if err := os.WriteFile(pin, []byte("000000"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := OpenSigner(strings.Join([]string{"exec:" + example, modules[0], "fleet", "release", pin}, " "), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sign(nil, make([]byte, 32), crypto.SHA256); !errors.Is(err, ErrSigner) || strings.Contains(err.Error(), "000000") {
		t.Errorf("with a wrong PIN: %v", err)
	}
}

// TestBrokenSigners: each way to answer wrongly is an error that names the program.
func TestBrokenSigners(t *testing.T) {
	t.Parallel()
	key := newP256(t)
	der, err := marshalPublic(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := "read q; case $q in *public*) echo '{\"v\":1,\"public\":\"" + base64.StdEncoding.EncodeToString(der) + "\"}'; exit;; esac\n"
	digest := sha256.Sum256([]byte("x"))
	other, err := newP256(t).Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ text, want string }{
		"says nothing":        {"exit 0", "one line of JSON"},
		"fails":               {"echo 'no token in the slot' >&2; exit 3", "no token in the slot"},
		"refuses":             {"echo '{\"v\":1,\"error\":\"touch the key\"}'", "touch the key"},
		"refuses and fails":   {"echo '{\"v\":1,\"error\":\"touch the key\"}'; exit 1", "touch the key"},
		"noise":               {"echo hello", "one line of JSON"},
		"two answers":         {"echo '{\"v\":1}{\"v\":1}'", "one line of JSON"},
		"unknown field":       {"echo '{\"v\":1,\"x\":1}'", "one line of JSON"},
		"too much":            {"head -c 100000 /dev/zero | tr '\\0' ' '; echo '{\"v\":1}'", "one line of JSON"},
		"another version":     {"echo '{\"v\":2}'", "version 2"},
		"no public key":       {"echo '{\"v\":1}'", "public key"},
		"wrong signature":     {public + "echo '{\"v\":1,\"signature\":\"" + base64.StdEncoding.EncodeToString(other) + "\"}'", "does not verify"},
		"raw signature":       {public + "echo '{\"v\":1,\"signature\":\"" + base64.StdEncoding.EncodeToString(make([]byte, 64)) + "\"}'", "ASN.1 DER"},
		"good answer, failed": {public + "echo '{\"v\":1,\"signature\":\"AAAA\"}'; exit 9", "exit status 9"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := script(t, c.text)
			s, err := newProcess(path, 10*time.Second)
			if err == nil {
				_, err = s.Sign(nil, digest[:], crypto.SHA256)
			}
			if !errors.Is(err, ErrSigner) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v, wants %q", err, c.want)
			}
		})
	}
	s, err := newProcess(script(t, public), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct {
		b []byte
		h crypto.Hash
	}{{digest[:], 0}, {digest[:31], crypto.SHA256}, {make([]byte, 48), crypto.SHA384}} {
		if _, err := s.Sign(nil, bad.b, bad.h); !errors.Is(err, ErrSigner) {
			t.Errorf("%d bytes for %v: %v", len(bad.b), bad.h, err)
		}
	}
}

// TestHangingSigner: a signer that never answers is ended, with its children.
func TestHangingSigner(t *testing.T) {
	t.Parallel()
	pidFile := filepath.Join(t.TempDir(), "pid")
	path := script(t, "sleep 600 & echo $! >"+pidFile+"; echo waiting >&2; wait")
	_, err := newProcess(path, 500*time.Millisecond)
	if !errors.Is(err, ErrSigner) || !strings.Contains(err.Error(), "within 500ms") || !strings.Contains(err.Error(), "waiting") {
		t.Fatal(err)
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		// A zombie that nobody has reaped yet is dead enough.
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	t.Errorf("its child %d lives on", pid)
}
