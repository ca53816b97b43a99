// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"fulmar/tpm/attest"

	"github.com/google/go-tpm/tpm2"
	gotpm "github.com/google/go-tpm/tpm2/transport"
)

// Where makers put certificates between theirs and the root, and the keys they left
// persistent (TCG EK Credential Profile 2.2.1.5, Provisioning Guidance 2.3.1).
const (
	firstChain, lastChain = 0x01c00100, 0x01c001ff
	firstEK, lastEK       = 0x81010000, 0x8101ffff
)

// Bounds on what is read from the maker's part of the TPM. An index holds at most
// 2,048 bytes on the TPMs we know (TPM2_PT_NV_INDEX_MAX).
const (
	maxIndexes = 8
	maxHandles = 16
	nvPiece    = 512 // every TPM answers so much at once
)

// ekSlot is the endorsement key a TPM is known by.
type ekSlot struct {
	template attest.EKTemplate
	key      crypto.PublicKey // of the certificate; nil if there is none
	certs    [][]byte
}

// EndorsementKey gives the public area of the key that the maker's seed determines, and
// the maker's certificates of it (DER), its own first; none if the maker left none that
// fits. With a certificate it is the key of the first of attest.EKTemplates whose
// certificate is there and is of the key that the TPM makes; else it is ECC P-256 (L-2).
func (t *TPM) EndorsementKey() (area []byte, certs [][]byte, err error) {
	err = t.do("make the endorsement key", func() error {
		o, done, err := t.endorsement()
		if err == nil {
			done()
			area, certs = tpm2.Marshal(o.pub), t.ek.certs
		}
		return err
	})
	return area, certs, err
}

// endorsement gives the endorsement key, loaded until done is called.
func (t *TPM) endorsement() (o object, done func(), err error) {
	if t.ek != nil {
		return t.endorsed(t.ek.template, t.ek.key)
	}
	all := attest.EKTemplates()
	for _, e := range all {
		der, err := t.certificate(e.Index)
		if errors.Is(err, ErrMissing) {
			continue
		}
		if err != nil {
			return object{}, nil, err
		}
		c, err := x509.ParseCertificate(der)
		if err != nil { // some makers' cannot be read; another may do
			continue
		}
		o, done, err := t.endorsed(e, c.PublicKey)
		if errors.Is(err, ErrForeign) {
			continue
		}
		if err == nil {
			var chain [][]byte
			if chain, err = t.chain(); err != nil {
				done()
				return object{}, nil, err
			}
			t.ek = &ekSlot{e, c.PublicKey, append([][]byte{der}, chain...)}
		}
		return o, done, err
	}
	if o, done, err = t.endorsed(all[0], nil); err == nil {
		t.ek = &ekSlot{template: all[0]}
	}
	return o, done, err
}

// endorsed takes the key from where the maker left it, or makes it; ErrForeign if it is
// not the wanted one.
func (t *TPM) endorsed(e attest.EKTemplate, want crypto.PublicKey) (object, func(), error) {
	fits := func(o object) error {
		e.Public.Unique = o.pub.Unique
		if o.pub.Type != e.Public.Type || !bytes.Equal(tpm2.Marshal(e.Public), tpm2.Marshal(o.pub)) {
			return fmt.Errorf("%w: not made by the template %s", ErrForeign, e.Kind)
		}
		k, err := tpm2.Pub(o.pub)
		if err != nil {
			return err
		}
		if eq, ok := k.(interface{ Equal(crypto.PublicKey) bool }); want != nil && (!ok || !eq.Equal(want)) {
			return fmt.Errorf("%w: the certificate at %#x is of another key", ErrForeign, e.Index)
		}
		return nil
	}
	if want != nil { // only the certificate tells that a key left there is by this seed
		there, err := t.handles(firstEK, lastEK, maxHandles)
		if err != nil {
			return object{}, nil, err
		}
		for _, h := range there {
			if o, err := t.read(h); err == nil && fits(o) == nil {
				return o, func() {}, nil
			}
		}
	}
	o, err := t.primary(tpm2.TPMRHEndorsement, e.Public)
	if err != nil {
		return object{}, nil, err
	}
	if err = fits(o); err != nil {
		t.flush(o.handle)
		return object{}, nil, err
	}
	return o, func() { t.flush(o.handle) }, nil
}

// certified names the kinds of certificates that are there.
func (t *TPM) certified() ([]string, error) {
	there := []string{}
	for _, e := range attest.EKTemplates() {
		_, err := t.certificate(e.Index)
		switch {
		case err == nil:
			there = append(there, e.Kind)
		case !errors.Is(err, ErrMissing):
			return nil, err
		}
	}
	return there, nil
}

// certificate reads one; what fills the index behind it is left out. ErrMissing if
// there is none, or no certificate.
func (t *TPM) certificate(index uint32) ([]byte, error) {
	b, err := t.nv(tpm2.TPMHandle(index))
	if err != nil {
		return nil, err
	}
	if l := split(b); len(l) > 0 {
		return l[0], nil
	}
	return nil, fmt.Errorf("%w: what lies at %#x is no certificate", ErrMissing, index)
}

// chain reads the certificates between: one after another, over as many indexes as
// the maker needed.
func (t *TPM) chain() ([][]byte, error) {
	there, err := t.handles(firstChain, lastChain, maxIndexes)
	if err != nil {
		return nil, err
	}
	var all []byte
	for _, h := range there {
		b, err := t.nv(h)
		if errors.Is(err, ErrMissing) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, b...)
	}
	return split(all), nil
}

// split gives the certificates that lie one behind another, until padding.
func split(all []byte) (certs [][]byte) {
	for len(all) > 0 && len(certs) < attest.MaxChain-1 {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(all, &v)
		if err != nil || v.Tag != asn1.TagSequence {
			break
		}
		if len(v.FullBytes) <= attest.MaxCertificate {
			certs = append(certs, v.FullBytes)
		}
		all = rest
	}
	return certs
}

// handles lists what is there from first to last, at most n.
func (t *TPM) handles(first, last tpm2.TPMHandle, n uint32) ([]tpm2.TPMHandle, error) {
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: uint32(first), PropertyCount: n}.Execute(t.t)
	if err != nil {
		return nil, err
	}
	l, err := r.CapabilityData.Data.Handles()
	if err != nil {
		return nil, err
	}
	var out []tpm2.TPMHandle
	for _, h := range l.Handle {
		if h >= first && h <= last {
			out = append(out, h)
		}
	}
	return out, nil
}

// nv reads a whole index that needs no authorization; ErrMissing if there is none, or
// none that can be read.
func (t *TPM) nv(h tpm2.TPMHandle) ([]byte, error) {
	r, err := tpm2.NVReadPublic{NVIndex: h}.Execute(t.t)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, fmt.Errorf("%w: nothing lies at %#x", ErrMissing, uint32(h))
	}
	if err != nil {
		return nil, err
	}
	p, err := r.NVPublic.Contents()
	if err != nil {
		return nil, err
	}
	a := tpm2.AuthHandle{Handle: h, Name: r.NVName, Auth: tpm2.PasswordAuth(nil)}
	switch {
	case p.Attributes.AuthRead:
	case p.Attributes.OwnerRead:
		a = tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
	default:
		return nil, fmt.Errorf("%w: what lies at %#x cannot be read by us", ErrMissing, uint32(h))
	}
	size := min(int(p.DataSize), attest.MaxCertificate)
	var b []byte
	for len(b) < size {
		r, err := tpm2.NVRead{
			AuthHandle: a, NVIndex: tpm2.NamedHandle{Handle: h, Name: r.NVName},
			Size: uint16(min(nvPiece, size-len(b))), Offset: uint16(len(b)),
		}.Execute(t.t)
		if errors.Is(err, tpm2.TPMRCNVUninitialized) {
			return nil, fmt.Errorf("%w: nothing was written at %#x: %w", ErrMissing, uint32(h), err)
		}
		if err != nil {
			return nil, err
		}
		if len(r.Data.Buffer) == 0 {
			return nil, fmt.Errorf("%w: an empty piece of %#x", ErrProtocol, uint32(h))
		}
		b = append(b, r.Data.Buffer...)
	}
	return b, nil
}

// Activate opens a credential made for this TPM's EndorsementKey and the
// attestation key k. ErrForeign if it was made for others.
func (k *Key) Activate(c *attest.Credential) (secret []byte, err error) {
	t := k.t
	err = t.do("activate a credential", func() error {
		ek, done, err := t.endorsement()
		if err != nil {
			return err
		}
		defer done()
		ak, err := t.load(k.pub, k.priv)
		if err != nil {
			return err
		}
		defer t.flush(ak.handle)
		salted := []tpm2.AuthOption{tpm2.Salted(ek.handle, ek.pub), tpm2.AESEncryption(128, tpm2.EncryptOut)}
		session := tpm2.HMAC(tpm2.TPMAlgSHA256, 16, salted...) // the key's own authorization is empty
		if !ek.pub.ObjectAttributes.UserWithAuth {
			session = policy(endorse, salted...)
		}
		r, err := tpm2.ActivateCredential{
			ActivateHandle: ak.auth(), KeyHandle: tpm2.AuthHandle{Handle: ek.handle, Name: ek.name, Auth: session},
			CredentialBlob: tpm2.TPM2BIDObject{Buffer: c.Blob}, Secret: tpm2.TPM2BEncryptedSecret{Buffer: c.Secret},
		}.Execute(t.t)
		if foreign(err) {
			return fmt.Errorf("%w: the credential is not for this TPM and key: %w", ErrForeign, err)
		}
		if err == nil {
			secret = r.CertInfo.Buffer
		}
		return err
	})
	return secret, err
}

// endorse is policy A of endorsement keys.
func endorse(t gotpm.TPM, h tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
	_, err := tpm2.PolicySecret{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)}, PolicySession: h, NonceTPM: nonce}.Execute(t)
	return err
}
