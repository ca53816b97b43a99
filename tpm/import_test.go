// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"crypto/rand"
	"testing"

	"fulmar/tpm"
	"fulmar/tpm/attest"
	"fulmar/tpm/tpmtest"

	"github.com/google/go-tpm/tpm2"
)

func TestImport(t *testing.T) {
	t.Parallel()
	p := tpmtest.Between(t, tpmtest.Start(t))
	a := open(t, p.Path())
	srk := a.SRKArea()
	for _, n := range []int{1, 16, 32, attest.MaxWrapped} {
		secret := make([]byte, n)
		_, _ = rand.Read(secret)
		w := must[*attest.Wrapped](t)(attest.WrapTo(srk, secret))
		if got := must[[]byte](t)(a.Import(w)); !bytes.Equal(got, secret) {
			t.Errorf("another secret of %d bytes", n)
		}
		if n >= 16 && bytes.Contains(p.Seen(), secret) || !bytes.Contains(p.Seen(), w.Seed) {
			t.Error("the secret went over the bus in clear, or the bus was not seen")
		}
	}
	for _, n := range []int{0, attest.MaxWrapped + 1} {
		if _, err := attest.WrapTo(srk, make([]byte, n)); err == nil {
			t.Errorf("%d bytes were wrapped", n)
		}
	}
	w := must[*attest.Wrapped](t)(attest.WrapTo(srk, []byte("secret")))
	other := open(t, tpmtest.Start(t).Path())
	_, err := other.Import(w)
	wants(t, err, tpm.ErrForeign)
	for _, c := range []struct {
		class  error
		change func(*attest.Wrapped)
	}{
		{tpm.ErrForeign, func(w *attest.Wrapped) { w.Duplicate = flip(w.Duplicate, 40) }},
		{tpm.ErrForeign, func(w *attest.Wrapped) { w.Duplicate = w.Duplicate[:20] }},
		{tpm.ErrForeign, func(w *attest.Wrapped) { w.Duplicate = nil }},
		{tpm.ErrForeign, func(w *attest.Wrapped) { w.Seed = flip(w.Seed, 10) }},
		{tpm.ErrForeign, func(w *attest.Wrapped) { w.Seed = nil }},
		{tpm.ErrForeign, func(w *attest.Wrapped) { w.Public = flip(w.Public, len(w.Public)-1) }},
		{tpm.ErrDamaged, func(w *attest.Wrapped) { w.Public = flip(w.Public, 6) }},
		{tpm.ErrDamaged, func(w *attest.Wrapped) { w.Public = w.Public[:9] }},
		{tpm.ErrDamaged, func(w *attest.Wrapped) { w.Public = nil }},
		{tpm.ErrDamaged, func(w *attest.Wrapped) { w.Public = tpm2.Marshal(attest.KeyTemplate(false)) }},
		{tpm.ErrDamaged, func(w *attest.Wrapped) { w.Seed = make([]byte, 5000) }},
	} {
		bad := *w
		c.change(&bad)
		_, err := a.Import(&bad)
		wants(t, err, c.class)
	}
	if got := must[[]byte](t)(a.Import(w)); string(got) != "secret" {
		t.Error("another secret")
	}
	ak := must[*tpm.Key](t)(a.CreateKey(tpm.Attestation))
	_, err = attest.WrapTo(ak.Area(), []byte("x"))
	wants(t, err, attest.ErrKey)
	_, err = attest.WrapTo(srk[:20], []byte("x"))
	wants(t, err, attest.ErrMalformed)
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}
