// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"testing"

	"fulmar/tpm"
	"fulmar/tpm/attest"
	"fulmar/tpm/tpmtest"

	"github.com/google/go-tpm/tpm2"
	gotpm "github.com/google/go-tpm/tpm2/transport"
)

// estranged: nothing that a board keeps on its disk is of use with this TPM.
func estranged(t *testing.T, a *tpm.TPM, b *board) {
	t.Helper()
	for _, op := range b.operations() {
		switch op.name {
		case "sign", "quote", "certify", "activate", "unseal", "unseal by policy", "unseal by approval", "import":
			if err := op.do(a); err == nil {
				t.Errorf("%s worked", op.name)
			} else {
				wants(t, err, tpm.ErrForeign)
			}
		case "raise the floor":
			wants(t, op.do(a), tpm.ErrMissing)
		}
	}
}

// A board with another board's disk, or a copy of it.
func TestForeignDisk(t *testing.T) {
	t.Parallel()
	a := open(t, tpmtest.Start(t).Path())
	b := newBoard(t, a)
	thief := tpmtest.Start(t)
	_, err := tpm.Open(tpm.Config{Path: thief.Path(), SRKName: a.SRKName()})
	wants(t, err, tpm.ErrForeign)
	c := open(t, thief.Path())
	estranged(t, c, b)
	if bytes.Equal(endorsementKey(t, a), endorsementKey(t, c)) {
		t.Error("two TPMs with one endorsement key")
	}
	if l := must[tpm.Info](t)(c.Info()); l.Lockout {
		t.Error("what was tried locked the TPM")
	}
}

// A cleared TPM: what is open notices, what is opened again is foreign, and the
// endorsement key tells that it is the same TPM.
func TestClearedTPM(t *testing.T) {
	t.Parallel()
	chip := tpmtest.Start(t)
	p := tpmtest.Between(t, chip)
	a := open(t, p.Path())
	b, ek, srk := newBoard(t, a), endorsementKey(t, a), a.SRKName()
	k := must[*tpm.Key](t)(a.ParseKey(b.key))
	p.Drop()
	chip.Clear(t)
	_ = sign(k) // the connection broke
	wants(t, sign(k), tpm.ErrForeign)
	_, err := a.Seal([]byte("x"), tpm.Policy{})
	wants(t, err, tpm.ErrForeign)
	_, err = a.CreateKey(tpm.Signing)
	wants(t, err, tpm.ErrForeign)
	_ = a.Close()
	_, err = tpm.Open(tpm.Config{Path: chip.Path(), SRKName: srk})
	wants(t, err, tpm.ErrForeign)
	a = open(t, chip.Path())
	estranged(t, a, b)
	if !bytes.Equal(ek, endorsementKey(t, a)) {
		t.Error("the endorsement key went with the owner's")
	}
}

// A quote is good for one nonce and one report; the clock in it tells of each boot.
func TestQuoteAfterBoots(t *testing.T) {
	t.Parallel()
	chip := tpmtest.Start(t)
	var last attest.Clock
	var old *attest.Statement
	var pem []byte
	for boot := range 3 {
		a := must[*tpm.TPM](t)(tpm.Open(tpm.Config{Path: chip.Path()}))
		if pem == nil {
			pem = must[[]byte](t)(must[*tpm.Key](t)(a.CreateKey(tpm.Attestation)).PEM())
		}
		ak := must[*tpm.Key](t)(a.ParseKey(pem))
		nonce := []byte{byte(boot)}
		values := must[[][]byte](t)(a.ReadPCRs(attest.BootPCRs))
		q := must[*attest.Statement](t)(ak.Quote(nonce, nil, attest.BootPCRs))
		c := must[attest.Clock](t)(attest.VerifyQuote(ak.Area(), *q, nonce, nil, attest.BootPCRs, values))
		if boot > 0 {
			if c.Resets != last.Resets+1 {
				t.Errorf("boot %d after %d", c.Resets, last.Resets)
			}
			_, err := attest.VerifyQuote(ak.Area(), *old, nonce, nil, attest.BootPCRs, values)
			wants(t, err, attest.ErrNonce)
			swapped := attest.Statement{Attested: q.Attested, Signature: old.Signature}
			_, err = attest.VerifyQuote(ak.Area(), swapped, nonce, nil, attest.BootPCRs, values)
			wants(t, err, attest.ErrSignature)
		}
		last, old = c, q
		_ = a.Close()
		chip.Kill()
		chip.Run(t)
	}
}

// A TPM that somebody locked by wrong guesses says so, and our keys work all the same.
func TestLockout(t *testing.T) {
	t.Parallel()
	chip := tpmtest.Start(t)
	chip.Talk(t, func(c gotpm.TPM) error {
		template := attest.KeyTemplate(false)
		template.ObjectAttributes.NoDA = false
		r, err := tpm2.CreatePrimary{
			PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(template),
			InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: []byte("right")}}},
		}.Execute(c)
		if err != nil {
			return err
		}
		for range 5 {
			_, err = tpm2.Sign{
				KeyHandle: tpm2.AuthHandle{Handle: r.ObjectHandle, Name: r.Name, Auth: tpm2.PasswordAuth([]byte("wrong"))}, Digest: tpm2.TPM2BDigest{Buffer: make([]byte, 32)},
				InScheme:   tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256})},
				Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck},
			}.Execute(c)
			if err == nil {
				t.Error("a wrong guess was taken")
			}
		}
		return nil
	})
	a := open(t, chip.Path())
	if !must[tpm.Info](t)(a.Info()).Lockout {
		t.Error("no lockout")
	}
	for _, op := range newBoard(t, a).operations() {
		if err := op.do(a); err != nil && op.name != "unseal by policy" && op.name != "unseal by approval" { // these after "extend" only
			t.Errorf("%s: %v", op.name, err)
		}
	}
}

// An owner's authorization that we do not know, and a full TPM.
func TestOwnedAndFull(t *testing.T) {
	t.Parallel()
	chip := tpmtest.Start(t)
	chip.Talk(t, func(c gotpm.TPM) error {
		_, err := tpm2.HierarchyChangeAuth{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}, NewAuth: tpm2.TPM2BAuth{Buffer: []byte("x")}}.Execute(c)
		return err
	})
	_, err := tpm.Open(tpm.Config{Path: chip.Path()})
	wants(t, err, tpm.ErrAuth)

	a := open(t, tpmtest.Start(t).Path())
	for i := range uint32(5000) {
		if _, err = must[*tpm.Counter](t)(a.Counter(0x01810000 + i)).Define(); err != nil {
			break
		}
	}
	wants(t, err, tpm.ErrNoSpace)
}

// A storage root key that is there already is taken as it is, also an RSA one; what is
// none is not.
func TestAdopt(t *testing.T) {
	t.Parallel()
	put := func(template tpm2.TPMTPublic) *tpmtest.Chip {
		chip := tpmtest.Start(t)
		chip.Talk(t, func(c gotpm.TPM) error {
			r, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(template)}.Execute(c)
			if err != nil {
				return err
			}
			_, err = tpm2.EvictControl{
				Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: r.ObjectHandle, Name: r.Name}, PersistentHandle: tpm.SRKHandle,
			}.Execute(c)
			return err
		})
		return chip
	}
	p := tpmtest.Between(t, put(tpm2.RSASRKTemplate))
	a := open(t, p.Path())
	if must[tpm.Info](t)(a.Info()).SRKMade {
		t.Error("it was made")
	}
	for _, op := range newBoard(t, a).operations() {
		if err := op.do(a); err != nil {
			t.Errorf("%s: %v", op.name, err)
		}
	}
	if bytes.Contains(p.Seen(), []byte("secret")) {
		t.Error("the secret went over the bus in clear")
	}
	_, err := tpm.Open(tpm.Config{Path: put(attest.KeyTemplate(false)).Path()})
	wants(t, err, tpm.ErrForeign)
}
