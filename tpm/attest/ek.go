// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// EKTemplate is a public area from which a TPM's seed makes one endorsement key, and
// where the maker puts that key's certificate.
type EKTemplate struct {
	Kind   string // "ECC P-256", for people
	Index  uint32 // NV index of the certificate
	Public tpm2.TPMTPublic
}

// EKTemplates are the endorsement keys we know, in the order in which we want them:
// making an RSA key takes a chip up to a minute. From the TCG EK Credential Profile
// 2.6, section 2.2.2.5: L-2, H-2, H-3, L-1, H-1.
func EKTemplates() []EKTemplate {
	return []EKTemplate{
		{"ECC P-256", 0x01c0000a, ecEK(tpm2.TPMECCNistP256, false)},
		{"ECC P-256 (high range)", 0x01c00014, ecEK(tpm2.TPMECCNistP256, true)},
		{"ECC P-384", 0x01c00016, ecEK(tpm2.TPMECCNistP384, true)},
		{"RSA 2048", 0x01c00002, rsaEK(false)},
		{"RSA 2048 (high range)", 0x01c00012, rsaEK(true)},
	}
}

// Policies of endorsement keys (TCG EK Credential Profile, annex B.6): policy A wants
// the endorsement hierarchy's authorization, policy B that or what an owner of the
// platform may have set.
const (
	policyA256 = "\x83\x71\x97\x67\x44\x84\xb3\xf8\x1a\x90\xcc\x8d\x46\xa5\xd7\x24\xfd\x52\xd7\x6e\x06\x52\x0b\x64\xf2\xa1\xda\x1b\x33\x14\x69\xaa"
	policyB256 = "\xca\x3d\x0a\x99\xa2\xb9\x39\x06\xf7\xa3\x34\x24\x14\xef\xcf\xb3\xa3\x85\xd4\x4c\xd1\xfd\x45\x90\x89\xd1\x9b\x50\x71\xc0\xb7\xa0"
	policyB384 = "\xb2\x6e\x7d\x28\xd1\x1a\x50\xbc\x53\xd8\x82\xbc\xf5\xfd\x3a\x1a\x07\x41\x48\xbb\x35\xd3\xb4\xe4\xcb\x1c\x0a\xd9\xbd\xe4\x19\xca" +
		"\xcb\x47\xba\x09\x69\x96\x46\x15\x0f\x9f\xc0\x00\xf3\xf8\x0e\x12"
)

// ek is what all of them share. Those of the high range may also be used without a
// policy, with the key's own (empty) authorization.
func ek(alg tpm2.TPMAlgID, high bool) tpm2.TPMTPublic {
	p := tpm2.TPMTPublic{
		Type: alg, NameAlg: tpm2.TPMAlgSHA256, AuthPolicy: tpm2.TPM2BDigest{Buffer: []byte(policyA256)},
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: high, AdminWithPolicy: true, Restricted: true, Decrypt: true},
	}
	if high {
		p.AuthPolicy.Buffer = []byte(policyB256)
	}
	return p
}

func aes(bits tpm2.TPMKeyBits) tpm2.TPMTSymDefObject {
	return tpm2.TPMTSymDefObject{
		Algorithm: tpm2.TPMAlgAES, KeyBits: tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, bits),
		Mode: tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
	}
}

// zeros is the unique field of the low range; the high range leaves it empty.
func zeros(n int, high bool) []byte {
	if high {
		return nil
	}
	return make([]byte, n)
}

func ecEK(c tpm2.TPMECCCurve, high bool) tpm2.TPMTPublic {
	p, sym := ek(tpm2.TPMAlgECC, high), aes(128)
	if c == tpm2.TPMECCNistP384 {
		p.NameAlg, p.AuthPolicy.Buffer, sym = tpm2.TPMAlgSHA384, []byte(policyB384), aes(256)
	}
	p.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{Symmetric: sym, CurveID: c})
	p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: zeros(32, high)}, Y: tpm2.TPM2BECCParameter{Buffer: zeros(32, high)},
	})
	return p
}

func rsaEK(high bool) tpm2.TPMTPublic {
	p := ek(tpm2.TPMAlgRSA, high)
	p.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{Symmetric: aes(128), KeyBits: 2048})
	p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: zeros(256, high)})
	return p
}

// CheckEK holds a public area to EKTemplates in all but the key, and gives the key: an
// *ecdsa.PublicKey or an *rsa.PublicKey. That a TPM has that key only a credential shows.
func CheckEK(area []byte) (crypto.PublicKey, error) {
	p, err := parseArea(area)
	if err != nil {
		return nil, err
	}
	for _, t := range EKTemplates() {
		t.Public.Unique = p.Unique
		if t.Public.Type != p.Type || !bytes.Equal(tpm2.Marshal(t.Public), area) {
			continue
		}
		k, err := tpm2.Pub(*p)
		if err != nil {
			return nil, refuse(ErrKey, err)
		}
		if !fixedSize(*p) {
			return nil, fmt.Errorf("attest: %w: its numbers are not of their full size", ErrKey)
		}
		switch k := k.(type) {
		case *ecdsa.PublicKey:
			if _, err = k.ECDH(); err != nil { // the point is on the curve
				return nil, refuse(ErrKey, err)
			}
		case *rsa.PublicKey:
			if k.N.BitLen() != 2048 || k.N.Bit(0) == 0 {
				return nil, fmt.Errorf("attest: %w: no RSA key of 2048 bits", ErrKey)
			}
		}
		return k, nil
	}
	return nil, fmt.Errorf("attest: %w: no endorsement key by a template of the TCG", ErrKey)
}

// fixedSize tells whether the numbers of a key are as long as a TPM writes them. With
// zeros in front the same key would have another hash, and one TPM be many.
func fixedSize(p tpm2.TPMTPublic) bool {
	if n, err := p.Unique.RSA(); err == nil {
		return len(n.Buffer) == 256
	}
	e, err := p.Unique.ECC()
	if err != nil {
		return false
	}
	size := 32
	if c, err := p.Parameters.ECCDetail(); err == nil && c.CurveID == tpm2.TPMECCNistP384 {
		size = 48
	}
	return len(e.X.Buffer) == size && len(e.Y.Buffer) == size
}

// Credential is a secret that only the TPM with a certain EK opens, and only while
// it holds a certain attestation key.
type Credential struct{ Blob, Secret []byte }

// MakeCredential wraps secret (at most 32 bytes) for the TPM with public area ek and
// the attestation key with public area ak.
func MakeCredential(ek, ak, secret []byte) (*Credential, error) {
	if len(secret) == 0 || len(secret) > 32 {
		return nil, fmt.Errorf("attest: a secret of %d bytes, 1 to 32 fit", len(secret))
	}
	if _, err := CheckKey(ak, true); err != nil {
		return nil, err
	}
	n, err := AreaName(ak)
	if err != nil {
		return nil, err
	}
	if _, err = CheckEK(ek); err != nil {
		return nil, err
	}
	p, err := parseArea(ek)
	if err != nil {
		return nil, err
	}
	k, err := tpm2.ImportEncapsulationKey(p)
	if err != nil {
		return nil, refuse(ErrKey, err)
	}
	blob, enc, err := tpm2.CreateCredential(rand.Reader, k, n, secret)
	if err != nil {
		return nil, refuse(ErrKey, err)
	}
	return &Credential{blob, enc}, nil
}

// Bounds on a maker's certificates: chains have two or three, of 1 to 2 KB each.
const (
	MaxChain       = 4
	MaxCertificate = 4096 // bytes
)

// Intermediates reads the certificates (DER) that a board sends behind its own, for
// VerifyEK; they need no trust. A pool that the verifier has from elsewhere is kept as
// it is and its copy is added to; nil will do.
func Intermediates(certs [][]byte, known *x509.CertPool) (*x509.CertPool, error) {
	if len(certs) >= MaxChain {
		return nil, fmt.Errorf("attest: %w: %d certificates between, at most %d", ErrMalformed, len(certs), MaxChain-1)
	}
	pool := x509.NewCertPool()
	if known != nil {
		pool = known.Clone()
	}
	for _, der := range certs {
		c, err := parseCertificate(der)
		if err != nil {
			return nil, err
		}
		pool.AddCert(c)
	}
	return pool, nil
}

func parseCertificate(der []byte) (*x509.Certificate, error) {
	if len(der) > MaxCertificate {
		return nil, fmt.Errorf("attest: %w: a certificate of %d bytes, at most %d", ErrMalformed, len(der), MaxCertificate)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, refuse(ErrMalformed, err)
	}
	return c, nil
}

// VerifyEK checks an endorsement certificate (DER) against the makers' roots at a
// time, and that it is of the EK with public area ek.
func VerifyEK(der, ek []byte, roots, intermediates *x509.CertPool, at time.Time) (*x509.Certificate, error) {
	if roots == nil {
		return nil, fmt.Errorf("attest: %w: no roots given", ErrChain) // never the system's
	}
	if at.IsZero() { // x509 would take its own clock
		return nil, fmt.Errorf("attest: %w: no time given", ErrChain)
	}
	c, err := parseCertificate(der)
	if err != nil {
		return nil, err
	}
	k, err := CheckEK(ek)
	if err != nil {
		return nil, err
	}
	if e, ok := k.(interface{ Equal(crypto.PublicKey) bool }); !ok || !e.Equal(c.PublicKey) {
		return nil, fmt.Errorf("attest: %w: it is of another key", ErrChain)
	}
	// tcg-kp-EKCertificate (TCG EK profile 3.2.16); older makers name no usage at all.
	use := asn1.ObjectIdentifier{2, 23, 133, 8, 1}
	named := len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) > 0
	if c.IsCA || named && !slices.ContainsFunc(c.UnknownExtKeyUsage, use.Equal) {
		return nil, fmt.Errorf("attest: %w: it was not issued for an endorsement key", ErrChain)
	}
	// The TPM's maker and model stand in a critical alternative name of a form
	// crypto/x509 does not read (TCG EK profile 3.2.9). Nothing here goes by names.
	san := asn1.ObjectIdentifier{2, 5, 29, 17}
	c.UnhandledCriticalExtensions = slices.DeleteFunc(c.UnhandledCriticalExtensions, san.Equal)
	_, err = c.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return nil, refuse(ErrChain, err)
	}
	return c, nil
}

// EKHash is the SHA-256 of an endorsement key's public area: by it a fleet lists a
// TPM, and a person compares it.
func EKHash(area []byte) [sha256.Size]byte { return sha256.Sum256(area) }
