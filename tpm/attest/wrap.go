// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// MaxWrapped is what is wrapped at once, in bytes (MAX_SYM_DATA of the PC profile): a key.
const MaxWrapped = 128

// Wrapped is a secret that only one TPM can import. Anybody who knows that TPM's
// storage root key can make one: where it matters who did, sign it.
type Wrapped struct {
	Public    []byte // TPMT_PUBLIC
	Duplicate []byte // contents of TPM2B_PRIVATE, encrypted
	Seed      []byte // contents of TPM2B_ENCRYPTED_SECRET
}

// WrapTo wraps a secret to the TPM whose storage root key has the public area srk, as
// TPM2_Duplicate would.
func WrapTo(srk, secret []byte) (*Wrapped, error) {
	if len(secret) == 0 || len(secret) > MaxWrapped {
		return nil, fmt.Errorf("attest: a secret of %d bytes, 1 to %d fit", len(secret), MaxWrapped)
	}
	p, err := parseArea(srk)
	if err != nil {
		return nil, err
	}
	if a := p.ObjectAttributes; !a.Restricted || !a.Decrypt || a.SignEncrypt || !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin {
		return nil, fmt.Errorf("attest: %w: no storage root key", ErrKey)
	}
	k, err := tpm2.ImportEncapsulationKey(p)
	if err != nil {
		return nil, refuse(ErrKey, err)
	}
	if s := k.SymmetricParameters(); s.Algorithm != tpm2.TPMAlgAES {
		return nil, fmt.Errorf("attest: %w: a storage root key without AES", ErrKey)
	}
	blind := make([]byte, sha256.Size)
	if _, err = rand.Read(blind); err != nil {
		return nil, err
	}
	unique := sha256.Sum256(append(blind[:len(blind):len(blind)], secret...)) // TPM part 1, 27.5.3.2
	pub := WrappedTemplate()
	pub.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BDigest{Buffer: unique[:]})
	name, err := Name(pub)
	if err != nil {
		return nil, err
	}
	dup, seed, err := tpm2.CreateDuplicate(rand.Reader, k, name, tpm2.Marshal(tpm2.TPMTSensitive{
		SensitiveType: tpm2.TPMAlgKeyedHash, SeedValue: tpm2.TPM2BDigest{Buffer: blind},
		Sensitive: tpm2.NewTPMUSensitiveComposite(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BSensitiveData{Buffer: secret}),
	}))
	if err != nil {
		return nil, refuse(ErrKey, err)
	}
	return &Wrapped{tpm2.Marshal(pub), dup, seed}, nil
}

// WrappedTemplate is the public area of wrapped secrets but for the hash of what is in
// them. It is not fixed to a TPM, having come from outside: nothing is proven by it.
func WrappedTemplate() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{NoDA: true, UserWithAuth: true},
		Parameters:       tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{Scheme: tpm2.TPMTKeyedHashScheme{Scheme: tpm2.TPMAlgNull}}),
		Unique:           tpm2.NewTPMUPublicID(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BDigest{}),
	}
}
