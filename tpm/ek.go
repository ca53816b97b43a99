// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"fulmar/tpm/attest"

	"github.com/google/go-tpm/tpm2"
	gotpm "github.com/google/go-tpm/tpm2/transport"
)

// EndorsementKey gives the public area of the TPM's ECC P-256 endorsement key
// (template L-2 of the TCG EK Credential Profile), which the maker's seed determines.
func (t *TPM) EndorsementKey() (area []byte, err error) {
	err = t.do("make the endorsement key", func() error {
		o, err := t.primary(tpm2.TPMRHEndorsement, tpm2.ECCEKTemplate)
		if err == nil {
			t.flush(o.handle)
			area = tpm2.Marshal(o.pub)
		}
		return err
	})
	return area, err
}

// Activate opens a credential made for this TPM's EndorsementKey and the
// attestation key k. ErrForeign if it was made for others.
func (k *Key) Activate(c *attest.Credential) (secret []byte, err error) {
	t := k.t
	err = t.do("activate a credential", func() error {
		ek, err := t.primary(tpm2.TPMRHEndorsement, tpm2.ECCEKTemplate)
		if err != nil {
			return err
		}
		defer t.flush(ek.handle)
		ak, err := t.load(k.pub, k.priv)
		if err != nil {
			return err
		}
		defer t.flush(ak.handle)
		policy := func(tp gotpm.TPM, h tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
			_, err := tpm2.PolicySecret{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)}, PolicySession: h, NonceTPM: nonce}.Execute(tp)
			return err
		}
		session := tpm2.Policy(tpm2.TPMAlgSHA256, 16, policy, tpm2.Salted(ek.handle, ek.pub), tpm2.AESEncryption(128, tpm2.EncryptOut))
		r, err := tpm2.ActivateCredential{
			ActivateHandle: ak.auth(), KeyHandle: tpm2.AuthHandle{Handle: ek.handle, Name: ek.name, Auth: session},
			CredentialBlob: tpm2.TPM2BIDObject{Buffer: c.Blob}, Secret: tpm2.TPM2BEncryptedSecret{Buffer: c.Secret},
		}.Execute(t.t)
		if err == nil {
			secret = r.CertInfo.Buffer
		}
		return err
	})
	return secret, err
}
