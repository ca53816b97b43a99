// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"fulmar/tpm"
	"fulmar/tpm/tpmtest"

	"github.com/google/go-tpm/tpm2"
	gotpm "github.com/google/go-tpm/tpm2/transport"
)

func TestInfo(t *testing.T) {
	t.Parallel()
	chip := tpmtest.Start(t)
	a := open(t, chip.Path())
	i := must[tpm.Info](t)(a.Info())
	if i.Kind != tpm.Virtual || i.Maker != "IBM" || i.Model != "SW TPM" || i.Rollback != tpm.RollbackNo {
		t.Errorf("swtpm says it is %q by %q (%q), counters %q", i.Kind, i.Maker, i.Model, i.Rollback)
	}
	if i.Lockout || !i.Clearable || len(i.EKCertificates) > 0 || !i.PCRBank || i.MeasuredBoot || !i.SRKMade {
		t.Errorf("a new TPM: %+v", i)
	}
	if !bytes.Equal(i.SRKName, a.SRKName()) {
		t.Error("another storage root key")
	}
	_ = a.Close()
	chip.Kill()
	chip.Run(t)
	chip.Talk(t, func(c gotpm.TPM) error { // a boot that measures
		_, err := tpm2.PCRExtend{
			PCRHandle: tpm2.AuthHandle{Handle: 4, Auth: tpm2.PasswordAuth(nil)},
			Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: make([]byte, 32)}}},
		}.Execute(c)
		return err
	})
	chip.Talk(t, func(c gotpm.TPM) error {
		_, err := tpm2.HierarchyChangeAuth{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHLockout, Auth: tpm2.PasswordAuth(nil)}, NewAuth: tpm2.TPM2BAuth{Buffer: []byte("x")}}.Execute(c)
		return err
	})
	j := must[tpm.Info](t)(open(t, chip.Path()).Info())
	if j.Boots != i.Boots+1 || !j.MeasuredBoot || j.SRKMade || j.Clearable {
		t.Errorf("after a measured boot: %+v", j)
	}
}

// What a TPM with certificates and without a SHA-256 bank says.
func TestInfoOfAMadeTPM(t *testing.T) {
	t.Parallel()
	chip, _, _ := tpmtest.Made(t)
	i := must[tpm.Info](t)(open(t, chip.Path()).Info())
	if !slices.Equal(i.EKCertificates, []string{"ECC P-384", "RSA 2048"}) {
		t.Errorf("certificates %v", i.EKCertificates)
	}
	p := tpmtest.Between(t, tpmtest.Start(t))
	p.Change = func(cmd, rsp []byte) []byte {
		if binary.BigEndian.Uint32(cmd[6:]) == 0x17e { // PCR_Read with no values
			rsp = append(rsp[:14:14], 0, 0, 0, 0, 0, 0, 0, 0)
			rsp[5] = byte(len(rsp))
		}
		return rsp
	}
	if i = must[tpm.Info](t)(open(t, p.Path()).Info()); i.PCRBank || i.MeasuredBoot {
		t.Errorf("without a bank: %+v", i)
	}
}
