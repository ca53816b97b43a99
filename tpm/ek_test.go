// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"os"
	"slices"
	"testing"
	"time"

	"fulmar/tpm"
	"fulmar/tpm/attest"
	"fulmar/tpm/tpmtest"

	"github.com/google/go-tpm/tpm2"
	gotpm "github.com/google/go-tpm/tpm2/transport"
)

func endorsementKey(tb testing.TB, a *tpm.TPM) []byte {
	tb.Helper()
	area, _, err := a.EndorsementKey()
	if err != nil {
		tb.Fatal(err)
	}
	return area
}

// primary is the endorsement key that a chip makes by a template.
func primary(tb testing.TB, c *tpmtest.Chip, kind string) (area []byte, index uint32) {
	tb.Helper()
	for _, e := range attest.EKTemplates() {
		if e.Kind != kind {
			continue
		}
		c.Talk(tb, func(t gotpm.TPM) error {
			r, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(e.Public)}.Execute(t)
			if err != nil {
				return err
			}
			area = r.OutPublic.Bytes()
			_, err = tpm2.FlushContext{FlushHandle: r.ObjectHandle}.Execute(t)
			return err
		})
		return area, e.Index
	}
	tb.Fatal("no template", kind)
	return nil, 0
}

// With each kind of endorsement key: the certificate leads to the maker, a credential
// is opened by that TPM and that key only, and the secret is not seen on the bus.
func TestActivate(t *testing.T) {
	t.Parallel()
	for _, e := range attest.EKTemplates() {
		t.Run(e.Kind, func(t *testing.T) {
			t.Parallel()
			chip, maker := tpmtest.Start(t), tpmtest.NewMaker(t)
			want, index := primary(t, chip, e.Kind)
			now := time.Now()
			chip.Write(t, index, maker.Certify(t, want, now.Add(-time.Hour), now.Add(time.Hour)))
			p := tpmtest.Between(t, chip)
			a := open(t, p.Path())
			ak := must[*tpm.Key](t)(a.CreateKey(tpm.Attestation))
			ak2 := must[*tpm.Key](t)(a.CreateKey(tpm.Attestation))
			ek, certs, err := a.EndorsementKey()
			if err != nil || !bytes.Equal(ek, want) || len(certs) != 1 {
				t.Fatalf("another key, or %d certificates: %v", len(certs), err)
			}
			roots := x509.NewCertPool()
			roots.AddCert(maker.Root)
			must[*x509.Certificate](t)(attest.VerifyEK(certs[0], ek, roots, nil, now))
			secret := bytes.Repeat([]byte{1, 2, 3, 4}, 8)
			c := must[*attest.Credential](t)(attest.MakeCredential(ek, ak.Area(), secret))
			if got := must[[]byte](t)(ak.Activate(c)); !bytes.Equal(got, secret) {
				t.Error("another secret")
			}
			if bytes.Contains(p.Seen(), secret) || !bytes.Contains(p.Seen(), c.Blob) {
				t.Error("the secret went over the bus in clear, or the bus was not seen")
			}
			_, err = ak2.Activate(c)
			wants(t, err, tpm.ErrForeign)
			for _, alter := range []func(*attest.Credential){
				func(c *attest.Credential) {
					c.Blob = slices.Concat(c.Blob[:len(c.Blob)-1], []byte{c.Blob[len(c.Blob)-1] ^ 1})
				},
				func(c *attest.Credential) { c.Blob = c.Blob[:10] },
				func(c *attest.Credential) { c.Blob = nil },
				func(c *attest.Credential) { c.Secret = c.Secret[:10] },
				func(c *attest.Credential) { c.Secret = nil },
				func(c *attest.Credential) { c.Secret = make([]byte, 400) },
			} {
				bad := *c
				if alter(&bad); bytes.Equal(bad.Blob, c.Blob) && bytes.Equal(bad.Secret, c.Secret) {
					t.Fatal("unchanged")
				}
				_, err = ak.Activate(&bad)
				wants(t, err, tpm.ErrForeign)
			}
			b := open(t, tpmtest.Start(t).Path())
			ak3 := must[*tpm.Key](t)(b.CreateKey(tpm.Attestation))
			c = must[*attest.Credential](t)(attest.MakeCredential(ek, ak3.Area(), secret))
			_, err = ak3.Activate(c)
			wants(t, err, tpm.ErrForeign)
		})
	}
}

// A TPM as swtpm_setup delivers it: ECC P-384 first, RSA where that is not there, and
// both certificates lead over the authority between to the maker's root.
func TestMadeTPM(t *testing.T) {
	t.Parallel()
	chip, root, between := tpmtest.Made(t)
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	if !roots.AppendCertsFromPEM(must[[]byte](t)(os.ReadFile(root))) || !inter.AppendCertsFromPEM(must[[]byte](t)(os.ReadFile(between))) {
		t.Fatal("no root")
	}
	hide := func(index uint32) func([]byte) ([]byte, bool) {
		return func(cmd []byte) ([]byte, bool) {
			if binary.BigEndian.Uint32(cmd[6:]) == 0x169 && binary.BigEndian.Uint32(cmd[10:]) == index { // NV_ReadPublic
				return tpmtest.Code(0x18b), true // TPM_RC_HANDLE, handle 1
			}
			return nil, true
		}
	}
	for kind, hidden := range map[string]uint32{"ECC P-384": 0, "RSA 2048": 0x01c00016} {
		p := tpmtest.Between(t, chip)
		p.Answer = hide(hidden)
		a := must[*tpm.TPM](t)(tpm.Open(tpm.Config{Path: p.Path()}))
		ek, certs, err := a.EndorsementKey()
		if err != nil || len(certs) != 1 {
			t.Fatalf("%s: %d certificates, %v", kind, len(certs), err)
		}
		c := must[*x509.Certificate](t)(attest.VerifyEK(certs[0], ek, roots, inter, time.Now()))
		if is := c.PublicKeyAlgorithm == x509.RSA; is != (hidden != 0) {
			t.Errorf("%s: %v", kind, c.PublicKeyAlgorithm)
		}
		_, err = attest.VerifyEK(certs[0], ek, roots, nil, time.Now())
		wants(t, err, attest.ErrChain)
		ak := must[*tpm.Key](t)(a.CreateKey(tpm.Attestation))
		cred := must[*attest.Credential](t)(attest.MakeCredential(ek, ak.Area(), []byte("secret")))
		if got := must[[]byte](t)(ak.Activate(cred)); string(got) != "secret" {
			t.Error("another secret")
		}
		for _, c := range commands(p.Seen()) { // the maker left the keys persistent; an RSA one takes a chip a minute
			if c == [2]uint32{uint32(tpm2.TPMCCCreatePrimary), uint32(tpm2.TPMRHEndorsement)} {
				t.Errorf("%s: the key was made again", kind)
			}
		}
		_ = a.Close()
	}
}

// commands are the codes and first handles of what went over the bus.
func commands(seen []byte) (codes [][2]uint32) {
	for len(seen) >= 14 {
		n := int(binary.BigEndian.Uint32(seen[2:]))
		if n < 10 || n > len(seen) {
			break
		}
		codes = append(codes, [2]uint32{binary.BigEndian.Uint32(seen[6:]), binary.BigEndian.Uint32(seen[10:])})
		seen = seen[n:]
	}
	return codes
}

// What lies where certificates should be, and does not fit, is passed over; the chain
// is read over several indexes.
func TestMakersDisorder(t *testing.T) {
	t.Parallel()
	chip, maker := tpmtest.Start(t), tpmtest.NewMaker(t)
	sub := maker.Sub(t)
	foreign, _ := primary(t, tpmtest.Start(t), "ECC P-256")
	mine, index := primary(t, chip, "ECC P-384")
	from, to := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	chip.Write(t, 0x01c0000a, maker.Certify(t, foreign, from, to))
	chip.Write(t, 0x01c00014, bytes.Repeat([]byte{0xff}, 2000))
	chip.Write(t, index, append(sub.Certify(t, mine, from, to), make([]byte, 100)...)) // padded
	between := append(slices.Clone(sub.Root.Raw), 0xff, 0xff)
	chip.Write(t, 0x01c00100, between[:200])
	chip.Write(t, 0x01c00101, between[200:])
	a := open(t, chip.Path())
	ek, certs, err := a.EndorsementKey()
	if err != nil || !bytes.Equal(ek, mine) || len(certs) != 2 {
		t.Fatalf("%d certificates, %v", len(certs), err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(maker.Root)
	pool := must[*x509.CertPool](t)(attest.Intermediates(certs[1:], nil))
	must[*x509.Certificate](t)(attest.VerifyEK(certs[0], ek, roots, pool, time.Now()))
	_, err = attest.VerifyEK(certs[0], ek, roots, nil, time.Now())
	wants(t, err, attest.ErrChain)

	bare := tpmtest.Start(t)
	bare.Write(t, 0x01c0000a, maker.Certify(t, foreign, from, to))
	area, _ := primary(t, bare, "ECC P-256")
	if ek, certs, err = open(t, bare.Path()).EndorsementKey(); err != nil || !bytes.Equal(ek, area) || len(certs) > 0 {
		t.Errorf("with a foreign certificate only: %d certificates, %v", len(certs), err)
	}
}
