// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"fulmar/tpm"
	"fulmar/tpm/attest"
	"fulmar/tpm/tpmtest"
)

// tools runs tpm2-tools, an implementation with nothing in common with ours, in a
// folder of its own.
type tools struct {
	tb  testing.TB
	dir string
	env []string
}

func newTools(tb testing.TB, c *tpmtest.Chip) *tools {
	tb.Helper()
	tpmtest.Need(tb, "tpm2_checkquote")
	return &tools{tb, tb.TempDir(), append(os.Environ(), "TPM2TOOLS_TCTI=swtpm:path="+c.Sock)}
}

func (p *tools) try(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = p.dir, p.env
	text, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(text)), err
}

func (p *tools) run(name string, args ...string) string {
	p.tb.Helper()
	text, err := p.try(name, args...)
	if err != nil {
		p.tb.Fatalf("%s %v: %v\n%s", name, args, err, text)
	}
	return text
}

func (p *tools) put(name string, b []byte) {
	p.tb.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), b, 0o600); err != nil {
		p.tb.Fatal(err)
	}
}

func (p *tools) get(name string) []byte {
	p.tb.Helper()
	return must[[]byte](p.tb)(os.ReadFile(filepath.Join(p.dir, name)))
}

// key puts a key's two parts, out of its PEM, where tpm2_load wants them.
func (p *tools) key(name string, text []byte) {
	p.tb.Helper()
	b, _ := pem.Decode(text)
	var k struct {
		Type      asn1.ObjectIdentifier
		EmptyAuth bool `asn1:"optional,explicit,tag:0"`
		Parent    int
		Pub, Priv []byte
	}
	if _, err := asn1.Unmarshal(b.Bytes, &k); err != nil {
		p.tb.Fatal(err)
	}
	p.put(name+".pub", k.Pub)
	p.put(name+".priv", k.Priv)
	p.run("tpm2_load", "-Q", "-C", "0x81000001", "-u", name+".pub", "-r", name+".priv", "-n", name+".name", "-c", name+".ctx")
	p.run("tpm2_flushcontext", "-t")
}

// tpm2-tools load our keys, agree on all Names, accept our quote and refuse it with
// another nonce; their quote and their credential are good with us.
func TestPeer(t *testing.T) {
	t.Parallel()
	chip := tpmtest.Start(t)
	p := newTools(t, chip)
	a := must[*tpm.TPM](t)(tpm.Open(tpm.Config{Path: chip.Path()}))
	k, ak := must[*tpm.Key](t)(a.CreateKey(tpm.Signing)), must[*tpm.Key](t)(a.CreateKey(tpm.Attestation))
	if err := a.ExtendPCR(14, [32]byte{9}); err != nil {
		t.Fatal(err)
	}
	pcrs, nonce := attest.NewPCRs(0, 14), []byte("nonce of the fleet")
	q := must[*attest.Statement](t)(ak.Quote(nonce, nil, pcrs))
	values := must[[][]byte](t)(a.ReadPCRs(pcrs))
	ek, srk := endorsementKey(t, a), a.SRKName()
	akPEM := must[[]byte](t)(ak.PEM())
	_ = a.Close()

	p.run("tpm2_readpublic", "-Q", "-c", "0x81000001", "-n", "srk.name")
	p.key("key", must[[]byte](t)(k.PEM()))
	p.key("ak", akPEM)
	for name, want := range map[string][]byte{
		"srk.name": srk, "key.name": must[[]byte](t)(attest.AreaName(k.Area())), "ak.name": must[[]byte](t)(attest.AreaName(ak.Area())),
	} {
		if b := p.get(name); !bytes.Equal(b, want) {
			t.Errorf("%s: they say %x, we %x", name, b, want)
		}
	}

	der := must[[]byte](t)(x509.MarshalPKIXPublicKey(ak.Public().(*ecdsa.PublicKey)))
	p.put("ak.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	p.put("msg", q.Attested)
	p.put("sig", q.Signature)
	qualify := hex.EncodeToString(attest.Qualify(nonce, nil))
	p.run("tpm2_checkquote", "-u", "ak.pem", "-m", "msg", "-s", "sig", "-q", qualify)
	if _, err := p.try("tpm2_checkquote", "-u", "ak.pem", "-m", "msg", "-s", "sig", "-q", hex.EncodeToString(attest.Qualify([]byte("other"), nil))); err == nil {
		t.Error("they accept our quote for any nonce")
	}

	p.run("tpm2_quote", "-Q", "-c", "ak.ctx", "-l", "sha256:0,14", "-q", qualify, "-m", "msg2", "-s", "sig2", "-g", "sha256")
	theirs := attest.Statement{Attested: p.get("msg2"), Signature: p.get("sig2")}
	if _, err := attest.VerifyQuote(ak.Area(), theirs, nonce, nil, pcrs, values); err != nil {
		t.Error("their quote:", err)
	}

	p.put("ek.pub", append([]byte{byte(len(ek) >> 8), byte(len(ek))}, ek...))
	p.put("secret", []byte("a secret of theirs"))
	p.run("tpm2_makecredential", "-Q", "-u", "ek.pub", "-s", "secret", "-n", hex.EncodeToString(p.get("ak.name")), "-o", "cred")
	a = open(t, chip.Path())
	ak = must[*tpm.Key](t)(a.ParseKey(akPEM))
	// the file: magic, version, TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET
	b := p.get("cred")[8:]
	n := int(b[0])<<8 | int(b[1])
	c := attest.Credential{Blob: b[2 : 2+n], Secret: b[4+n:]}
	if got := must[[]byte](t)(ak.Activate(&c)); string(got) != "a secret of theirs" {
		t.Errorf("their credential gave %q", got)
	}
}

// An endorsement key with a certificate is the one that tpm2_createek makes, and the
// certificate is the one that tpm2_getekcertificate finds.
func TestPeerEK(t *testing.T) {
	t.Parallel()
	chip, _, _ := tpmtest.Made(t)
	p := newTools(t, chip)
	p.run("tpm2_createek", "-Q", "-G", "rsa", "-c", "rsa.ctx", "-u", "rsa.pub")
	p.run("tpm2_flushcontext", "-t")
	p.run("tpm2_nvread", "-Q", "-C", "o", "0x01c00016", "-o", "cert")
	rsa, _ := primary(t, chip, "RSA 2048")
	if b := p.get("rsa.pub"); !bytes.Equal(b[2:], rsa) {
		t.Errorf("their RSA key is %x, ours %x", b[2:], rsa)
	}
	_, certs, err := open(t, chip.Path()).EndorsementKey()
	if err != nil || len(certs) != 1 || !bytes.HasPrefix(p.get("cert"), certs[0]) {
		t.Errorf("another certificate: %v", err)
	}
}
