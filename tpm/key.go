// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"crypto"
	"crypto/ecdsa"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"

	"fulmar/tpm/attest"

	"github.com/google/go-tpm/tpm2"
)

// KeyKind says what a key may do.
type KeyKind int

// A signing key signs any digest (TLS). An attestation key signs only what the TPM
// itself says: quotes and certify statements.
const (
	Signing KeyKind = iota
	Attestation
)

// Key is a P-256 key under the storage root key of one TPM. A signing key is a
// crypto.Signer for ECDSA. It is loaded for each use.
type Key struct {
	t    *TPM
	pub  tpm2.TPM2BPublic
	priv tpm2.TPM2BPrivate
	ec   *ecdsa.PublicKey
	kind KeyKind
}

// Public is the *ecdsa.PublicKey.
func (k *Key) Public() crypto.PublicKey { return k.ec }

// Area is the TPM's public area (TPMT_PUBLIC), for attest.
func (k *Key) Area() []byte { return k.pub.Bytes() }

// CreateKey makes a new key. It is nowhere kept but in what PEM gives.
func (t *TPM) CreateKey(kind KeyKind) (*Key, error) {
	var k *Key
	err := t.do("create a key", func() error {
		r, err := tpm2.Create{ParentHandle: t.srk.auth(), InPublic: tpm2.New2B(attest.KeyTemplate(kind == Attestation))}.Execute(t.t)
		if err != nil {
			return err
		}
		k, err = t.key(r.OutPublic, r.OutPrivate)
		return err
	})
	return k, err
}

func (t *TPM) key(pub tpm2.TPM2BPublic, priv tpm2.TPM2BPrivate) (*Key, error) {
	k := &Key{t: t, pub: pub, priv: priv, kind: Attestation}
	ec, err := attest.CheckKey(pub.Bytes(), true)
	if err != nil {
		k.kind = Signing
		ec, err = attest.CheckKey(pub.Bytes(), false)
	}
	k.ec = ec
	return k, err
}

// oidLoadable is id-loadablekey of the TSS2 key format (TCG 2.23.133.10.1.3).
var oidLoadable = asn1.ObjectIdentifier{2, 23, 133, 10, 1, 3}

const (
	pemType = "TSS2 PRIVATE KEY"
	maxPEM  = 4096
)

type tss2Key struct {
	Type      asn1.ObjectIdentifier
	EmptyAuth bool `asn1:"optional,explicit,tag:0"`
	Parent    int64
	Pub, Priv []byte
}

// PEM is the key as a "TSS2 PRIVATE KEY" block; useless on another TPM.
func (k *Key) PEM() ([]byte, error) {
	b, err := asn1.Marshal(tss2Key{oidLoadable, true, SRKHandle, tpm2.Marshal(k.pub), tpm2.Marshal(k.priv)})
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: b}), err
}

// ParseKey reads what PEM gave, without asking the TPM; ErrDamaged if it is none.
func (t *TPM) ParseKey(text []byte) (*Key, error) {
	k, err := t.parseKey(text)
	if err != nil {
		return nil, fmt.Errorf("tpm: read a key: %w: %w", ErrDamaged, err)
	}
	return k, nil
}

func (t *TPM) parseKey(text []byte) (*Key, error) {
	if len(text) > maxPEM {
		return nil, fmt.Errorf("%d bytes, at most %d", len(text), maxPEM)
	}
	b, _ := pem.Decode(text)
	if b == nil || b.Type != pemType {
		return nil, errors.New("no PEM block of type " + pemType)
	}
	var s tss2Key
	if rest, err := asn1.Unmarshal(b.Bytes, &s); err != nil {
		return nil, err
	} else if len(rest) > 0 || !s.Type.Equal(oidLoadable) || s.Parent != SRKHandle {
		return nil, fmt.Errorf("type %v under %#x, not a loadable key under %#x", s.Type, s.Parent, SRKHandle)
	}
	pub, err := tpm2.Unmarshal[tpm2.TPM2BPublic](s.Pub)
	if err != nil {
		return nil, err
	}
	priv, err := tpm2.Unmarshal[tpm2.TPM2BPrivate](s.Priv)
	if err != nil {
		return nil, err
	}
	return t.key(*pub, *priv)
}

// Sign implements crypto.Signer: ASN.1 ECDSA over a SHA-256, 384 or 512 digest.
func (k *Key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.kind != Signing {
		return nil, fmt.Errorf("tpm: sign: %w: an attestation key signs only what the TPM says", ErrAuth)
	}
	h := opts.HashFunc()
	alg, ok := map[crypto.Hash]tpm2.TPMIAlgHash{crypto.SHA256: tpm2.TPMAlgSHA256, crypto.SHA384: tpm2.TPMAlgSHA384, crypto.SHA512: tpm2.TPMAlgSHA512}[h]
	if !ok || len(digest) != h.Size() {
		return nil, fmt.Errorf("tpm: sign: %d bytes are no digest of %v", len(digest), h)
	}
	var sig []byte
	err := k.t.do("sign", func() error {
		o, err := k.t.load(k.pub, k.priv)
		if err != nil {
			return err
		}
		defer k.t.flush(o.handle)
		r, err := tpm2.Sign{
			KeyHandle: o.auth(), Digest: tpm2.TPM2BDigest{Buffer: digest},
			InScheme:   tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: alg})},
			Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck},
		}.Execute(k.t.t)
		if err != nil {
			return err
		}
		if sig, err = plainSignature(r.Signature); err != nil {
			return err
		}
		if !ecdsa.VerifyASN1(k.ec, digest, sig) { // a fault on the bus must not go out as ours
			return fmt.Errorf("%w: a signature that does not verify", ErrProtocol)
		}
		return nil
	})
	return sig, err
}

func plainSignature(s tpm2.TPMTSignature) ([]byte, error) {
	e, err := s.Signature.ECDSA()
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(e.SignatureR.Buffer), new(big.Int).SetBytes(e.SignatureS.Buffer)})
}

// Quote signs the values of PCRs (SHA-256 bank) together with the fleet's nonce and
// a hash of the report they stand for. Only an attestation key can.
func (k *Key) Quote(nonce, report []byte, pcrs attest.PCRs) (*attest.Statement, error) {
	var s *attest.Statement
	err := k.t.do("quote", func() error {
		o, err := k.t.load(k.pub, k.priv)
		if err != nil {
			return err
		}
		defer k.t.flush(o.handle)
		r, err := tpm2.Quote{
			SignHandle: o.auth(), QualifyingData: tpm2.TPM2BData{Buffer: attest.Qualify(nonce, report)},
			InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull}, PCRSelect: pcrs.Selection(),
		}.Execute(k.t.t)
		if err != nil {
			return err
		}
		s = &attest.Statement{Attested: r.Quoted.Bytes(), Signature: tpm2.Marshal(r.Signature)}
		return nil
	})
	return s, err
}

// Certify states, signed by the attestation key k, that subject lives in this TPM.
func (k *Key) Certify(subject *Key, nonce, report []byte) (*attest.Statement, error) {
	var s *attest.Statement
	err := k.t.do("certify", func() error {
		ak, err := k.t.load(k.pub, k.priv)
		if err != nil {
			return err
		}
		defer k.t.flush(ak.handle)
		o, err := k.t.load(subject.pub, subject.priv)
		if err != nil {
			return err
		}
		defer k.t.flush(o.handle)
		r, err := tpm2.Certify{
			ObjectHandle: o.auth(), SignHandle: ak.auth(), QualifyingData: tpm2.TPM2BData{Buffer: attest.Qualify(nonce, report)},
			InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		}.Execute(k.t.t)
		if err != nil {
			return err
		}
		s = &attest.Statement{Attested: r.CertifyInfo.Bytes(), Signature: tpm2.Marshal(r.Signature)}
		return nil
	})
	return s, err
}
