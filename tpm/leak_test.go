// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/binary"
	"sync/atomic"
	"testing"

	"fulmar/tpm"
	"fulmar/tpm/attest"
	"fulmar/tpm/floor"
	"fulmar/tpm/tpmtest"

	"github.com/google/go-tpm/tpm2"
)

// board is a TPM with one of everything, as bytes, so that each operation can run on a
// new connection.
type board struct {
	key, ak        []byte
	sealed, policy []byte
	approved       []byte
	approval       *attest.Approval
	wrapped        *attest.Wrapped
	credential     *attest.Credential
	dir            string
}

func newBoard(tb testing.TB, a *tpm.TPM) *board {
	tb.Helper()
	pem := must[[]byte](tb)
	k, ak := must[*tpm.Key](tb)(a.CreateKey(tpm.Signing)), must[*tpm.Key](tb)(a.CreateKey(tpm.Attestation))
	b := &board{
		key: pem(k.PEM()), ak: pem(ak.PEM()), dir: tb.TempDir(),
		sealed: pem(a.Seal([]byte("secret"), tpm.Policy{})), policy: pem(a.Seal([]byte("secret"), tpm.Policy{PCRs: attest.NewPCRs(9)})),
		wrapped:    must[*attest.Wrapped](tb)(attest.WrapTo(a.SRKArea(), []byte("secret"))),
		credential: must[*attest.Credential](tb)(attest.MakeCredential(endorsementKey(tb, a), ak.Area(), []byte("secret"))),
	}
	boss, pcrs := must[*ecdsa.PrivateKey](tb)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), attest.NewPCRs(9, 13)
	b.approved = pem(a.Seal([]byte("secret"), tpm.Policy{Authority: &boss.PublicKey}))
	b.approval = must[*attest.Approval](tb)(attest.Approve(boss, pcrs, must[[][]byte](tb)(a.ReadPCRs(pcrs)), nil))
	if err := must[*floor.Floor](tb)(b.floor(a)).Create(1); err != nil {
		tb.Fatal(err)
	}
	return b
}

func (b *board) floor(a *tpm.TPM) (*floor.Floor, error) {
	c, err := a.Counter(floor.Index)
	if err != nil {
		return nil, err
	}
	return floor.New(c, b.dir, make([]byte, 32))
}

type operation struct {
	name string
	do   func(*tpm.TPM) error
}

// operations are all that a TPM does for us.
func (b *board) operations() []operation {
	parse := func(a *tpm.TPM, pem []byte, f func(*tpm.Key) error) error {
		k, err := a.ParseKey(pem)
		if err != nil {
			return err
		}
		return f(k)
	}
	none := func(_ any, err error) error { return err }
	return []operation{
		{"info", func(a *tpm.TPM) error { return none(a.Info()) }},
		{"create a key", func(a *tpm.TPM) error { return none(a.CreateKey(tpm.Signing)) }},
		{"sign", func(a *tpm.TPM) error { return parse(a, b.key, sign) }},
		{"quote", func(a *tpm.TPM) error {
			return parse(a, b.ak, func(k *tpm.Key) error { return none(k.Quote([]byte("n"), nil, attest.BootPCRs)) })
		}},
		{"certify", func(a *tpm.TPM) error {
			return parse(a, b.ak, func(ak *tpm.Key) error {
				return parse(a, b.key, func(k *tpm.Key) error { return none(ak.Certify(k, []byte("n"), nil)) })
			})
		}},
		{"endorsement key", func(a *tpm.TPM) error { _, _, err := a.EndorsementKey(); return err }},
		{"activate", func(a *tpm.TPM) error {
			return parse(a, b.ak, func(k *tpm.Key) error { return none(k.Activate(b.credential)) })
		}},
		{"seal", func(a *tpm.TPM) error { return none(a.Seal([]byte("secret"), tpm.Policy{PCRs: attest.NewPCRs(9)})) }},
		{"unseal", func(a *tpm.TPM) error { return none(a.Unseal(b.sealed, nil)) }},
		{"unseal by policy", func(a *tpm.TPM) error { return none(a.Unseal(b.policy, nil)) }},
		{"unseal by approval", func(a *tpm.TPM) error { return none(a.Unseal(b.approved, b.approval)) }},
		{"import", func(a *tpm.TPM) error { return none(a.Import(b.wrapped)) }},
		{"raise the floor", func(a *tpm.TPM) error {
			f, err := b.floor(a)
			if err != nil {
				return err
			}
			v, err := f.Value()
			if err != nil {
				return err
			}
			return f.Raise(v + 1)
		}},
		{"read PCRs", func(a *tpm.TPM) error { return none(a.ReadPCRs(attest.NewPCRs(1, 9))) }},
		{"extend", func(a *tpm.TPM) error { return a.ExtendPCR(12, [32]byte{1}) }},
	}
}

// Nothing stays loaded after an operation, whether it did its work or any of its
// commands was refused; a chip has three slots.
func TestNothingStaysLoaded(t *testing.T) {
	t.Parallel()
	chip := tpmtest.Start(t)
	a := must[*tpm.TPM](t)(tpm.Open(tpm.Config{Path: chip.Path()}))
	b := newBoard(t, a)
	_ = a.Close()
	for _, op := range b.operations() {
		whole := false
		for n := int64(1); !whole; n++ {
			p := tpmtest.Between(t, chip)
			var left atomic.Int64
			p.Answer = func(cmd []byte) ([]byte, bool) {
				if binary.BigEndian.Uint32(cmd[6:]) != uint32(tpm2.TPMCCFlushContext) && left.Add(-1) == 0 {
					return tpmtest.Code(0x100 + 0x7f), true // a code nobody knows
				}
				return nil, true
			}
			a := must[*tpm.TPM](t)(tpm.Open(tpm.Config{Path: p.Path()}))
			left.Store(n)
			err := op.do(a)
			if whole = left.Load() > 0; whole != (err == nil) {
				t.Errorf("%s, command %d refused (%v): %v", op.name, n, !whole, err)
				whole = true
			}
			_ = a.Close()
			if l := chip.Loaded(t); l != 0 {
				t.Errorf("%s, command %d refused (%v): %d objects or sessions stay loaded", op.name, n, !whole, l)
			}
		}
	}
}

// The bus is searched after every operation with a secret; one in clear would be found.
func TestNoSecretOnTheBus(t *testing.T) {
	t.Parallel()
	p := tpmtest.Between(t, tpmtest.Start(t))
	a := open(t, p.Path())
	for _, op := range newBoard(t, a).operations() {
		if err := op.do(a); err != nil {
			t.Errorf("%s: %v", op.name, err)
		}
		if bytes.Contains(p.Seen(), []byte("secret")) {
			t.Fatalf("%s: the secret went over the bus in clear", op.name)
		}
	}
}
