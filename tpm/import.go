// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"errors"
	"fmt"

	"fulmar/tpm/attest"

	"github.com/google/go-tpm/tpm2"
)

// SRKArea is the public area of the storage root key, for attest.WrapTo.
func (t *TPM) SRKArea() []byte { return tpm2.Marshal(t.srk.pub) }

// maxWrapped bounds each part of what comes from outside: an RSA seed has 256 bytes.
const maxWrapped = 512

// Import gives the secret that was wrapped to this TPM's storage root key. Nothing of it
// stays in the TPM. ErrForeign if it was wrapped to another, or damaged.
func (t *TPM) Import(w *attest.Wrapped) (secret []byte, err error) {
	if len(w.Public) > maxWrapped || len(w.Duplicate) > maxWrapped || len(w.Seed) > maxWrapped {
		return nil, fmt.Errorf("tpm: import: %w: parts of %d, %d and %d bytes, at most %d", ErrDamaged, len(w.Public), len(w.Duplicate), len(w.Seed), maxWrapped)
	}
	pub, err := tpm2.Unmarshal[tpm2.TPMTPublic](w.Public)
	if err != nil {
		return nil, fmt.Errorf("tpm: import: %w: %w", ErrDamaged, err)
	}
	want := attest.WrappedTemplate()
	want.Unique = pub.Unique
	if pub.Type != want.Type || !bytes.Equal(tpm2.Marshal(want), w.Public) {
		return nil, fmt.Errorf("tpm: import: %w: it is no wrapped secret", ErrDamaged)
	}
	err = t.do("import", func() error {
		r, err := tpm2.Import{
			ParentHandle: t.srk.auth(), ObjectPublic: tpm2.New2B(*pub), Duplicate: tpm2.TPM2BPrivate{Buffer: w.Duplicate},
			InSymSeed: tpm2.TPM2BEncryptedSecret{Buffer: w.Seed}, Symmetric: tpm2.TPMTSymDef{Algorithm: tpm2.TPMAlgNull},
		}.Execute(t.t)
		if foreign(err) {
			return fmt.Errorf("%w: wrapped to another TPM, or damaged: %w", ErrForeign, err)
		}
		if err != nil {
			return err
		}
		o, err := t.load(tpm2.New2B(*pub), r.OutPrivate)
		if err != nil {
			return err
		}
		defer t.flush(o.handle)
		secret, err = t.unseal(o, tpm2.HMAC(tpm2.TPMAlgSHA256, 16, t.secret(tpm2.AESEncryption(128, tpm2.EncryptOut))...))
		return err
	})
	return secret, err
}

// foreign: what was made for another TPM or key, or is damaged, shows in many codes,
// all about a parameter.
func foreign(err error) bool {
	var f tpm2.TPMFmt1Error
	if !errors.As(err, &f) {
		return false
	}
	about, _ := f.Parameter()
	return about
}
