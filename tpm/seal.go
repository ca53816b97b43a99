// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"fulmar/tpm/attest"

	"github.com/google/go-tpm/tpm2"
	gotpm "github.com/google/go-tpm/tpm2/transport"
)

// MaxSecret is what a TPM seals at once, in bytes (MAX_SYM_DATA of the PC profile).
const MaxSecret = 128

// Policy says when a sealed secret may be unsealed, besides being on this TPM. The
// zero Policy asks for no more.
type Policy struct {
	// PCRs must have the values they have now.
	PCRs attest.PCRs
	// Authority, if not nil, must have approved the values (PCRs is then unused):
	// another approval unseals after an update without sealing again.
	Authority *ecdsa.PublicKey
	// Ref names the purpose in approvals, at most 32 bytes.
	Ref []byte
}

// A sealed blob: version, PCR mask, five fields with their lengths, checksum. The
// checksum tells damage from another TPM's blob, which the chip does not.
const (
	blobVersion = 1
	blobFields  = 5 // SRK name, public, private, authority's point, ref
	maxBlob     = 1024
	sumBytes    = 8
)

type blob struct {
	pcrs   attest.PCRs
	fields [blobFields][]byte
}

func (b blob) marshal() []byte {
	out := binary.BigEndian.AppendUint32([]byte{blobVersion}, uint32(b.pcrs))
	for _, f := range b.fields {
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(f))), f...)
	}
	sum := sha256.Sum256(out)
	return append(out, sum[:sumBytes]...)
}

func parseBlob(raw []byte) (b blob, err error) {
	if len(raw) < 5+sumBytes || len(raw) > maxBlob || raw[0] != blobVersion {
		return b, fmt.Errorf("%w: no sealed secret (%d bytes)", ErrDamaged, len(raw))
	}
	body := raw[:len(raw)-sumBytes]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:sumBytes], raw[len(body):]) {
		return b, fmt.Errorf("%w: a sealed secret whose checksum is wrong", ErrDamaged)
	}
	b.pcrs = attest.PCRs(binary.BigEndian.Uint32(body[1:]))
	body = body[5:]
	for i := range b.fields {
		if len(body) < 2 || len(body)-2 < int(binary.BigEndian.Uint16(body)) {
			return b, fmt.Errorf("%w: a sealed secret that ends early", ErrDamaged)
		}
		n := 2 + int(binary.BigEndian.Uint16(body))
		b.fields[i], body = body[2:n], body[n:]
	}
	if len(body) > 0 {
		return b, fmt.Errorf("%w: a sealed secret that does not end", ErrDamaged)
	}
	return b, nil
}

// Seal gives bytes from which only this TPM, under the policy, gets the secret back.
func (t *TPM) Seal(secret []byte, p Policy) ([]byte, error) {
	if len(secret) == 0 || len(secret) > MaxSecret || len(p.Ref) > sha256.Size {
		return nil, fmt.Errorf("tpm: seal: a secret of %d bytes (1 to %d) with a ref of %d (at most %d)", len(secret), MaxSecret, len(p.Ref), sha256.Size)
	}
	var out []byte
	err := t.do("seal", func() error {
		b := blob{pcrs: p.PCRs}
		var digest []byte
		var err error
		switch {
		case p.Authority != nil:
			if digest, err = attest.AuthorityPolicy(p.Authority, p.Ref); err == nil {
				b.pcrs, b.fields[4] = 0, p.Ref
				b.fields[3], err = p.Authority.Bytes()
			}
		case p.PCRs != 0:
			var values [][]byte
			if values, err = t.pcrs(p.PCRs); err == nil {
				digest, err = attest.PCRPolicy(p.PCRs, values)
			}
		}
		if err != nil {
			return err
		}
		session := tpm2.HMAC(tpm2.TPMAlgSHA256, 16, t.secret(tpm2.AESEncryption(128, tpm2.EncryptIn))...)
		r, err := tpm2.Create{
			ParentHandle: t.srk.auth(),
			InSensitive:  tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: secret})}},
			InPublic: tpm2.New2B(tpm2.TPMTPublic{
				Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256, AuthPolicy: tpm2.TPM2BDigest{Buffer: digest},
				ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, NoDA: true, UserWithAuth: digest == nil},
			}),
		}.Execute(t.t, session)
		if err != nil {
			return err
		}
		b.fields[0], b.fields[1], b.fields[2] = t.srk.name.Buffer, tpm2.Marshal(r.OutPublic), tpm2.Marshal(r.OutPrivate)
		out = b.marshal()
		return nil
	})
	return out, err
}

// Unseal gives the secret back. An approval is needed only if it was sealed to an
// authority. ErrForeign and ErrDamaged are for ever, ErrPolicy until the PCRs or the
// approval fit; other errors may pass.
func (t *TPM) Unseal(sealed []byte, approval *attest.Approval) ([]byte, error) {
	var out []byte
	err := t.do("unseal", func() error {
		b, err := parseBlob(sealed)
		if err != nil {
			return err
		}
		if !bytes.Equal(b.fields[0], t.srk.name.Buffer) {
			return fmt.Errorf("%w: sealed under another storage root key", ErrForeign)
		}
		pub, err := tpm2.Unmarshal[tpm2.TPM2BPublic](b.fields[1])
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		priv, err := tpm2.Unmarshal[tpm2.TPM2BPrivate](b.fields[2])
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		opts := t.secret(tpm2.AESEncryption(128, tpm2.EncryptOut))
		session := tpm2.HMAC(tpm2.TPMAlgSHA256, 16, opts...)
		if len(b.fields[3]) > 0 {
			p, err := t.approved(b, approval)
			if err != nil {
				return err
			}
			session = policy(p, opts...)
		} else if b.pcrs != 0 {
			session = policy(policyPCR(b.pcrs), opts...)
		}
		o, err := t.load(*pub, *priv)
		if err != nil {
			return err
		}
		defer t.flush(o.handle)
		out, err = t.unseal(o, session)
		return err
	})
	return out, err
}

func (t *TPM) unseal(o object, session tpm2.Session) ([]byte, error) {
	r, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: o.handle, Name: o.name, Auth: session}}.Execute(t.t)
	if err != nil {
		return nil, err
	}
	return r.OutData.Buffer, nil
}

func policyPCR(p attest.PCRs) tpm2.PolicyCallback {
	return func(t gotpm.TPM, h tpm2.TPMISHPolicy, _ tpm2.TPM2BNonce) error {
		_, err := tpm2.PolicyPCR{PolicySession: h, Pcrs: p.Selection()}.Execute(t)
		return err
	}
}

// approved lets the TPM check the approval's signature and gives the policy.
func (t *TPM) approved(b blob, a *attest.Approval) (tpm2.PolicyCallback, error) {
	if a == nil {
		return nil, fmt.Errorf("%w: sealed to an authority, and there is no approval", ErrPolicy)
	}
	k, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), b.fields[3])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	area, err := attest.AuthorityArea(k)
	if err != nil {
		return nil, err
	}
	sig, err := attest.TPMSignature(a.Signature)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	l, err := tpm2.LoadExternal{InPublic: tpm2.New2B(area), Hierarchy: tpm2.TPMRHOwner}.Execute(t.t)
	if err != nil {
		return nil, err
	}
	v, err := tpm2.VerifySignature{
		KeyHandle: l.ObjectHandle, Signature: sig,
		Digest: tpm2.TPM2BDigest{Buffer: attest.ApprovalHash(a.Policy, b.fields[4])},
	}.Execute(t.t)
	t.flush(l.ObjectHandle)
	if err != nil {
		return nil, err
	}
	return func(tp gotpm.TPM, h tpm2.TPMISHPolicy, n tpm2.TPM2BNonce) error {
		if err := policyPCR(a.PCRs)(tp, h, n); err != nil {
			return err
		}
		_, err := tpm2.PolicyAuthorize{
			PolicySession: h, ApprovedPolicy: tpm2.TPM2BDigest{Buffer: a.Policy},
			PolicyRef: tpm2.TPM2BDigest{Buffer: b.fields[4]}, KeySign: l.Name, CheckTicket: v.Validation,
		}.Execute(tp)
		if errors.Is(err, tpm2.TPMRCValue) { // the PCRs are not the approved ones
			return fmt.Errorf("%w: %w", ErrPolicy, err)
		}
		return err
	}, nil
}

// Holder seals the data keys of an encrypted spool; it has the methods of
// storage/vault.Holder.
type Holder struct {
	TPM    *TPM
	Policy Policy
	// Approval is for a Policy with an Authority.
	Approval *attest.Approval
	// Lost is what an error wraps when this TPM can never unseal (vault.ErrKeyLost).
	Lost error
}

// Kind is the word for what holds the key.
func (h *Holder) Kind() string { return "tpm" }

// Seal seals a key under the holder's policy.
func (h *Holder) Seal(key []byte) ([]byte, error) { return h.TPM.Seal(key, h.Policy) }

// Unseal gives the key back; the error wraps Lost where that can never be. A policy
// that is not met may be met after the next update, so it is not lost.
func (h *Holder) Unseal(sealed []byte) ([]byte, error) {
	key, err := h.TPM.Unseal(sealed, h.Approval)
	if errors.Is(err, ErrForeign) || errors.Is(err, ErrDamaged) {
		return nil, fmt.Errorf("%w: %w", h.Lost, err)
	}
	return key, err
}
