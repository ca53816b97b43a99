// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"crypto/sha256"
	"fmt"

	"fulmar/tpm/attest"

	"github.com/google/go-tpm/tpm2"
)

// ReadPCRs gives the SHA-256 values (32 bytes each) in rising order of PCR.
func (t *TPM) ReadPCRs(p attest.PCRs) (values [][]byte, err error) {
	err = t.do("read PCRs", func() (err error) {
		values, err = t.pcrs(p)
		return err
	})
	return values, err
}

func (t *TPM) pcrs(p attest.PCRs) (values [][]byte, err error) {
	for _, n := range p.List() { // a command gives at most eight, and not always all
		r, err := tpm2.PCRRead{PCRSelectionIn: attest.NewPCRs(int(n)).Selection()}.Execute(t.t)
		if err != nil {
			return nil, err
		}
		if len(r.PCRValues.Digests) != 1 || len(r.PCRValues.Digests[0].Buffer) != sha256.Size {
			return nil, fmt.Errorf("%w: PCR %d has no SHA-256 value", ErrMissing, n)
		}
		values = append(values, r.PCRValues.Digests[0].Buffer)
	}
	return values, nil
}

// ExtendPCR extends PCR 8 to 15 by a SHA-256 digest. Lower ones are the boot's, and
// 16 and 23 can be reset by anybody.
func (t *TPM) ExtendPCR(n int, digest [32]byte) error {
	if n < 8 || n > 15 {
		return fmt.Errorf("tpm: extend PCR %d: only 8 to 15 are ours", n)
	}
	return t.do("extend a PCR", func() error {
		_, err := tpm2.PCRExtend{
			PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(n), Auth: tpm2.PasswordAuth(nil)},
			Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: digest[:]}}},
		}.Execute(t.t)
		return err
	})
}
