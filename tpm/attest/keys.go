// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"
)

// Name is the TPM's name of a public area: its hash with the algorithm in front.
func Name(pub tpm2.TPMTPublic) ([]byte, error) {
	n, err := tpm2.ObjectName(&pub)
	if err != nil {
		return nil, refuse(ErrMalformed, err)
	}
	return n.Buffer, nil
}

// AreaName is the Name of a marshalled public area.
func AreaName(area []byte) ([]byte, error) {
	p, err := parseArea(area)
	if err != nil {
		return nil, err
	}
	return Name(*p)
}

func parseArea(area []byte) (*tpm2.TPMTPublic, error) {
	if len(area) > maxArea {
		return nil, fmt.Errorf("attest: %w: a public area of %d bytes, at most %d", ErrMalformed, len(area), maxArea)
	}
	return exact[tpm2.TPMTPublic](area)
}

// KeyTemplate is the public area of our P-256 keys: restricted ones sign only
// statements of the TPM. NoDA: nobody types a PIN into a board, so nobody can lock it.
func KeyTemplate(restricted bool) tpm2.TPMTPublic {
	s := tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgNull}
	if restricted {
		s = tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})}
	}
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, Restricted: restricted, SignEncrypt: true},
		Parameters:       tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{Scheme: s, CurveID: tpm2.TPMECCNistP256}),
		Unique:           tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
	}
}

// CheckKey holds a public area to KeyTemplate in all but the point, and gives the key.
func CheckKey(area []byte, restricted bool) (*ecdsa.PublicKey, error) {
	p, err := parseArea(area)
	if err != nil {
		return nil, err
	}
	want := KeyTemplate(restricted)
	want.Unique = p.Unique
	if p.Type != tpm2.TPMAlgECC || !bytes.Equal(tpm2.Marshal(want), area) {
		return nil, fmt.Errorf("attest: %w", ErrKey)
	}
	k, err := tpm2.Pub(*p)
	if err != nil {
		return nil, refuse(ErrKey, err)
	}
	e, ok := k.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("attest: %w", ErrKey)
	}
	if _, err := e.ECDH(); err != nil { // the point is on the curve
		return nil, refuse(ErrKey, err)
	}
	return e, nil
}

// Approval says, signed by an authority, that a secret sealed to that authority may
// be unsealed while the PCRs have the values behind Policy.
type Approval struct {
	PCRs      PCRs
	Policy    []byte // 32 bytes
	Signature []byte // ASN.1 ECDSA P-256 over SHA-256(Policy || ref)
}

// Approve signs values (32 bytes each, rising PCR); ref names what is approved and is
// the one the secret was sealed with.
func Approve(authority crypto.Signer, pcrs PCRs, values [][]byte, ref []byte) (*Approval, error) {
	if len(values) == 0 || len(values) != len(pcrs.List()) {
		return nil, fmt.Errorf("attest: %w: %d values for PCRs %v", ErrPCRs, len(values), pcrs.List())
	}
	p, err := PCRPolicy(pcrs, values)
	if err != nil {
		return nil, err
	}
	h := ApprovalHash(p, ref)
	s, err := authority.Sign(rand.Reader, h, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("attest: sign an approval: %w", err)
	}
	return &Approval{pcrs, p, s}, nil
}

// ApprovalHash is what an authority signs.
func ApprovalHash(policy, ref []byte) []byte {
	h := sha256.Sum256(append(bytes.Clone(policy), ref...))
	return h[:]
}

// PCRPolicy is the digest of a policy that wants these values.
func PCRPolicy(pcrs PCRs, values [][]byte) ([]byte, error) {
	c, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
	if err != nil {
		return nil, err
	}
	err = tpm2.PolicyPCR{PcrDigest: tpm2.TPM2BDigest{Buffer: Digest(values)}, Pcrs: pcrs.Selection()}.Update(c)
	return c.Hash().Digest, err
}

// AuthorityPolicy is the digest of a policy that wants an approval by the authority.
func AuthorityPolicy(authority *ecdsa.PublicKey, ref []byte) ([]byte, error) {
	p, err := AuthorityArea(authority)
	if err != nil {
		return nil, err
	}
	n, err := tpm2.ObjectName(&p)
	if err != nil {
		return nil, err
	}
	c, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
	if err != nil {
		return nil, err
	}
	err = tpm2.PolicyAuthorize{PolicyRef: tpm2.TPM2BDigest{Buffer: ref}, KeySign: *n}.Update(c)
	return c.Hash().Digest, err
}

// AuthorityArea is the public area under which a TPM knows an authority's P-256 key.
func AuthorityArea(k *ecdsa.PublicKey) (tpm2.TPMTPublic, error) {
	if k == nil || k.Curve != elliptic.P256() {
		return tpm2.TPMTPublic{}, errors.New("attest: an authority's key is ECDSA P-256")
	}
	b, err := k.Bytes()
	if err != nil {
		return tpm2.TPMTPublic{}, refuse(ErrKey, err)
	}
	p := KeyTemplate(true)
	p.ObjectAttributes = tpm2.TPMAObject{UserWithAuth: true, SignEncrypt: true}
	p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: b[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: b[33:]},
	})
	return p, nil
}

// TPMSignature turns an ASN.1 ECDSA P-256 signature into the TPM's form.
func TPMSignature(der []byte) (tpm2.TPMTSignature, error) {
	var s struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &s); err != nil || len(rest) > 0 || s.R.Sign() <= 0 || s.S.Sign() <= 0 || s.R.BitLen() > 256 || s.S.BitLen() > 256 {
		return tpm2.TPMTSignature{}, fmt.Errorf("attest: %w: not an ECDSA P-256 signature", ErrMalformed)
	}
	return tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgECDSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
		Hash: tpm2.TPMAlgSHA256, SignatureR: tpm2.TPM2BECCParameter{Buffer: s.R.FillBytes(make([]byte, 32))}, SignatureS: tpm2.TPM2BECCParameter{Buffer: s.S.FillBytes(make([]byte, 32))},
	})}, nil
}
