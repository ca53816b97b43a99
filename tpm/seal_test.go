// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"

	"fulmar/storage/vault"
	"fulmar/tpm"
	"fulmar/tpm/attest"
	"fulmar/tpm/tpmtest"
)

var _ vault.Holder = (*tpm.Holder)(nil)

// No secret goes over the bus in clear, sealing or unsealing, under any policy.
func TestSeal(t *testing.T) {
	t.Parallel()
	p := tpmtest.Between(t, tpmtest.Start(t))
	a := open(t, p.Path())
	boss := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	pcrs := attest.NewPCRs(9, 14)
	ref := []byte("spool")
	approve := func() *attest.Approval {
		return must[*attest.Approval](t)(attest.Approve(boss, pcrs, must[[][]byte](t)(a.ReadPCRs(pcrs)), ref))
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	old := approve()
	plain := must[[]byte](t)(a.Seal(secret, tpm.Policy{}))
	bound := must[[]byte](t)(a.Seal(secret, tpm.Policy{PCRs: pcrs}))
	free := must[[]byte](t)(a.Seal(secret, tpm.Policy{Authority: &boss.PublicKey, Ref: ref}))
	gives := func(b []byte, ap *attest.Approval) {
		t.Helper()
		if got := must[[]byte](t)(a.Unseal(b, ap)); !bytes.Equal(got, secret) {
			t.Error("another secret")
		}
	}
	gives(plain, nil)
	gives(bound, nil)
	gives(free, old)
	if err := a.ExtendPCR(14, [32]byte{1}); err != nil {
		t.Fatal(err)
	}
	gives(plain, nil)
	refused := func(class error, b []byte, ap *attest.Approval) {
		t.Helper()
		_, err := a.Unseal(b, ap)
		wants(t, err, class)
	}
	refused(tpm.ErrPolicy, bound, nil)
	refused(tpm.ErrPolicy, free, nil)
	refused(tpm.ErrPolicy, free, old)
	gives(free, approve())
	forged := approve()
	forged.Signature = old.Signature
	refused(tpm.ErrPolicy, free, forged)
	for i := range plain {
		b := bytes.Clone(plain)
		b[i] ^= 1
		refused(tpm.ErrDamaged, b, nil)
	}
	refused(tpm.ErrDamaged, plain[:20], nil)
	if bytes.Contains(p.Seen(), secret) || bytes.Contains(p.Seen(), secret[:16]) {
		t.Error("the secret went over the bus in clear")
	}
	if !bytes.Contains(p.Seen(), a.SRKName()) {
		t.Error("the bus was not seen at all")
	}
	max := must[[]byte](t)(a.Seal(make([]byte, tpm.MaxSecret), tpm.Policy{}))
	if got := must[[]byte](t)(a.Unseal(max, nil)); len(got) != tpm.MaxSecret {
		t.Error(len(got))
	}
	for _, n := range []int{0, 7, 16, 23} {
		if a.ExtendPCR(n, [32]byte{}) == nil {
			t.Errorf("PCR %d was extended", n)
		}
	}
}

func TestHolder(t *testing.T) {
	t.Parallel()
	h := &tpm.Holder{TPM: open(t, tpmtest.Start(t).Path()), Lost: vault.ErrKeyLost}
	key := bytes.Repeat([]byte{7}, vault.KeyBytes)
	b := must[[]byte](t)(h.Seal(key))
	if got := must[[]byte](t)(h.Unseal(b)); !bytes.Equal(got, key) || len(b) > vault.MaxBlob {
		t.Errorf("%d bytes of blob", len(b))
	}
	other := &tpm.Holder{TPM: open(t, tpmtest.Start(t).Path()), Lost: vault.ErrKeyLost}
	_, err := other.Unseal(b)
	wants(t, err, vault.ErrKeyLost)
	wants(t, err, tpm.ErrForeign)
	_ = h.TPM.Close()
	if _, err = h.Unseal(b); err == nil || bytes.Contains([]byte(err.Error()), []byte(vault.ErrKeyLost.Error())) {
		t.Errorf("a closed TPM: %v", err)
	}
}
