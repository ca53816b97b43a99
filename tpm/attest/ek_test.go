// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package attest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"math/big"
	"testing"
	"time"

	"fulmar/tpm/attest"
	"fulmar/tpm/tpmtest"

	"github.com/google/go-tpm/tpm2"
)

func wants(tb testing.TB, err, class error) {
	tb.Helper()
	if !errors.Is(err, class) {
		tb.Errorf("got %v, want %v", err, class)
	}
}

// area is a public area as a TPM would make it by the first template, of a key of ours.
func area(tb testing.TB, change func(*tpm2.TPMTPublic)) ([]byte, *ecdsa.PrivateKey) {
	tb.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	b, err := k.PublicKey.Bytes()
	if err != nil {
		tb.Fatal(err)
	}
	p := attest.EKTemplates()[0].Public
	p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: b[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: b[33:]}})
	if change != nil {
		change(&p)
	}
	return tpm2.Marshal(p), k
}

func TestVerifyEK(t *testing.T) {
	t.Parallel()
	maker := tpmtest.NewMaker(t)
	ek, key := area(t, nil)
	now := time.Now()
	from, to := now.AddDate(-1, 0, 0), now.AddDate(10, 0, 0)
	good := maker.Certify(t, ek, from, to)
	roots := x509.NewCertPool()
	roots.AddCert(maker.Root)
	check := func(class error, der []byte, ek []byte, roots, inter *x509.CertPool, at time.Time) {
		t.Helper()
		_, err := attest.VerifyEK(der, ek, roots, inter, at)
		wants(t, err, class)
	}
	check(nil, good, ek, roots, nil, now)
	check(nil, good, ek, roots, nil, to.Add(-time.Hour))
	check(attest.ErrChain, good, ek, roots, nil, to.Add(time.Hour))
	check(attest.ErrChain, good, ek, roots, nil, from.Add(-time.Hour))
	check(attest.ErrChain, good, ek, roots, nil, time.Unix(0, 0))
	check(attest.ErrChain, good, ek, roots, nil, now.AddDate(30, 0, 0))
	check(attest.ErrChain, good, ek, roots, nil, time.Time{})
	check(attest.ErrChain, good, ek, nil, nil, now)
	check(attest.ErrChain, good, ek, x509.NewCertPool(), nil, now)
	other, _ := area(t, nil)
	check(attest.ErrChain, good, other, roots, nil, now)
	// a maker of the same name
	check(attest.ErrChain, tpmtest.NewMaker(t).Certify(t, ek, from, to), ek, roots, nil, now)
	forged := bytes.Clone(good)
	forged[len(forged)-1] ^= 1
	check(attest.ErrChain, forged, ek, roots, nil, now)
	check(attest.ErrMalformed, good[:len(good)-1], ek, roots, nil, now)
	check(attest.ErrMalformed, make([]byte, attest.MaxCertificate+1), ek, roots, nil, now)
	check(attest.ErrMalformed, nil, ek, roots, nil, now)

	sub := maker.Sub(t)
	deep := sub.Certify(t, ek, from, to)
	check(attest.ErrChain, deep, ek, roots, nil, now)
	between, err := attest.Intermediates([][]byte{sub.Root.Raw}, nil)
	wants(t, err, nil)
	check(nil, deep, ek, roots, between, now)
	// what a board sends as intermediate is no root
	own := tpmtest.NewMaker(t)
	own2, err := attest.Intermediates([][]byte{own.Root.Raw}, between)
	wants(t, err, nil)
	check(attest.ErrChain, own.Certify(t, ek, from, to), ek, roots, own2, now)
	check(nil, deep, ek, roots, own2, now)
	_, err = attest.Intermediates(make([][]byte, attest.MaxChain), nil)
	wants(t, err, attest.ErrMalformed)
	_, err = attest.Intermediates([][]byte{{1}}, nil)
	wants(t, err, attest.ErrMalformed)

	// issued for something else
	issue := func(change func(*x509.Certificate)) []byte {
		c := &x509.Certificate{SerialNumber: big.NewInt(3), NotBefore: from, NotAfter: to}
		change(c)
		der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		p, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		self := x509.NewCertPool()
		self.AddCert(p)
		_, err = attest.VerifyEK(der, ek, self, nil, now)
		if c.SerialNumber.Int64() == 4 {
			wants(t, err, nil)
		} else {
			wants(t, err, attest.ErrChain)
		}
		return der
	}
	issue(func(c *x509.Certificate) { c.SerialNumber = big.NewInt(4) }) // names no use
	issue(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	issue(func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{2, 23, 133, 8, 3}} })
	issue(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true })
	issue(func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
	})
}

func TestCheckEK(t *testing.T) {
	t.Parallel()
	good, key := area(t, nil)
	k, err := attest.CheckEK(good)
	if err != nil || !key.PublicKey.Equal(k) {
		t.Fatalf("%v, %v", k, err)
	}
	for name, change := range map[string]func(*tpm2.TPMTPublic){
		"may leave the TPM":     func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedTPM = false },
		"may change its parent": func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedParent = false },
		"was brought from out":  func(p *tpm2.TPMTPublic) { p.ObjectAttributes.SensitiveDataOrigin = false },
		"decrypts anything":     func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Restricted = false },
		"signs":                 func(p *tpm2.TPMTPublic) { p.ObjectAttributes.SignEncrypt = true },
		"has another policy":    func(p *tpm2.TPMTPublic) { p.AuthPolicy.Buffer = make([]byte, 32) },
		"is a storage root key": func(p *tpm2.TPMTPublic) { u := p.Unique; *p = tpm2.ECCSRKTemplate; p.Unique = u },
		"is an attestation key": func(p *tpm2.TPMTPublic) { u := p.Unique; *p = attest.KeyTemplate(true); p.Unique = u },
		"is not on the curve":   func(p *tpm2.TPMTPublic) { e, _ := p.Unique.ECC(); e.Y.Buffer[3] ^= 1 },
		"is the point at nothing": func(p *tpm2.TPMTPublic) {
			p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
		},
		"is written with a zero in front": func(p *tpm2.TPMTPublic) {
			e, _ := p.Unique.ECC()
			e.X.Buffer = append([]byte{0}, e.X.Buffer...)
		},
		"is a modulus with a zero in front": func(p *tpm2.TPMTPublic) {
			*p = attest.EKTemplates()[3].Public
			n := append([]byte{0}, bytes.Repeat([]byte{0xff}, 256)...)
			p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: n})
		},
		"is too small a modulus": func(p *tpm2.TPMTPublic) {
			*p = attest.EKTemplates()[3].Public
			p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: []byte{0xff, 1}})
		},
	} {
		bad, _ := area(t, change)
		if _, err := attest.CheckEK(bad); !errors.Is(err, attest.ErrKey) {
			t.Errorf("a key that %s: %v", name, err)
		}
		if _, err := attest.MakeCredential(bad, ak(t), []byte{1}); !errors.Is(err, attest.ErrKey) {
			t.Errorf("a credential for a key that %s: %v", name, err)
		}
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := attest.EKTemplates()[3].Public
	p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: r.N.Bytes()})
	if k, err = attest.CheckEK(tpm2.Marshal(p)); err != nil || !r.PublicKey.Equal(k) {
		t.Error(err)
	}
	_, err = attest.CheckEK(append(good, 0))
	wants(t, err, attest.ErrMalformed)
}

func ak(tb testing.TB) []byte {
	tb.Helper()
	b, _ := area(tb, func(p *tpm2.TPMTPublic) { u := p.Unique; *p = attest.KeyTemplate(true); p.Unique = u })
	return b
}

// Policy B is policy A or policy C (TCG EK Credential Profile, annex B.6.4), where A is
// the endorsement hierarchy's authorization.
func TestEKPolicies(t *testing.T) {
	t.Parallel()
	for alg, c := range map[tpm2.TPMAlgID]string{
		tpm2.TPMAlgSHA256: "3767e2edd43ff45a3a7e1eaefcef78643dca964632e7aad82c673a30d8633fde",
		tpm2.TPMAlgSHA384: "d6032ce61f2fb3c240eb3cf6a33237ef2b6a16f4293c22b455e261cffd217ad5b4947c2d73e63005eed2dc2b3593d165",
	} {
		calc, err := tpm2.NewPolicyCalculator(alg)
		if err != nil {
			t.Fatal(err)
		}
		if err = calc.Update(tpm2.TPMCCPolicySecret, []byte{0x40, 0, 0, 0xb}); err == nil { // the handle's name
			err = calc.Update([]byte{}) // and no reference
		}
		if err != nil {
			t.Fatal(err)
		}
		a := calc.Hash().Digest
		policyC, err := hex.DecodeString(c)
		if err != nil {
			t.Fatal(err)
		}
		head := append(make([]byte, len(a)), 0, 0, 1, 0x71) // TPM_CC_PolicyOR
		b := append(append(head, a...), policyC...)
		var policyB []byte
		if alg == tpm2.TPMAlgSHA256 {
			s := sha256.Sum256(b)
			policyB = s[:]
		} else {
			s := sha512.Sum384(b)
			policyB = s[:]
		}
		for _, e := range attest.EKTemplates() {
			want := a
			if e.Public.ObjectAttributes.UserWithAuth {
				want = policyB
			}
			if e.Public.NameAlg == alg && !bytes.Equal(e.Public.AuthPolicy.Buffer, want) {
				t.Errorf("%s: policy %x, want %x", e.Kind, e.Public.AuthPolicy.Buffer, want)
			}
		}
	}
}
