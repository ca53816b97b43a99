// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"testing"

	"fulmar/tpm"
	"fulmar/tpm/attest"
	"fulmar/tpm/tpmtest"
)

func TestActivate(t *testing.T) {
	t.Parallel()
	p := tpmtest.Between(t, tpmtest.Start(t))
	a := open(t, p.Path())
	ak := must[*tpm.Key](t)(a.CreateKey(tpm.Attestation))
	ak2 := must[*tpm.Key](t)(a.CreateKey(tpm.Attestation))
	ek := endorsementKey(t, a)
	secret := bytes.Repeat([]byte{1, 2, 3, 4}, 8)
	c := must[*attest.Credential](t)(attest.MakeCredential(ek, ak.Area(), secret))
	if got := must[[]byte](t)(ak.Activate(c)); !bytes.Equal(got, secret) {
		t.Error("another secret")
	}
	if bytes.Contains(p.Seen(), secret) {
		t.Error("the secret went over the bus in clear")
	}
	_, err := ak2.Activate(c)
	wants(t, err, tpm.ErrForeign)
	other := endorsementKey(t, open(t, tpmtest.Start(t).Path()))
	c = must[*attest.Credential](t)(attest.MakeCredential(other, ak.Area(), secret))
	if _, err = ak.Activate(c); err == nil {
		t.Error("a credential for another TPM was opened")
	}
	_, err = attest.MakeCredential(ak.Area(), ak.Area(), secret)
	wants(t, err, attest.ErrKey)
}

func endorsementKey(tb testing.TB, a *tpm.TPM) []byte {
	tb.Helper()
	area, _, err := a.EndorsementKey()
	if err != nil {
		tb.Fatal(err)
	}
	return area
}
