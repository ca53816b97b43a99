// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"sync"
	"testing"
	"time"

	"fulmar/tpm"
	"fulmar/tpm/attest"
	"fulmar/tpm/tpmtest"
)

func must[T any](tb testing.TB) func(T, error) T {
	return func(v T, err error) T {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return v
	}
}

func open(tb testing.TB, path string) *tpm.TPM {
	tb.Helper()
	t := must[*tpm.TPM](tb)(tpm.Open(tpm.Config{Path: path, Timeout: 10 * time.Second}))
	tb.Cleanup(func() { _ = t.Close() })
	return t
}

func wants(tb testing.TB, err, class error) {
	tb.Helper()
	if !errors.Is(err, class) {
		tb.Errorf("got %v, want %v", err, class)
	}
}

func sign(k *tpm.Key) error {
	d := sha256.Sum256([]byte("x"))
	_, err := k.Sign(nil, d[:], crypto.SHA256)
	return err
}

func TestKeys(t *testing.T) {
	t.Parallel()
	chip := tpmtest.Start(t)
	a := open(t, chip.Path())
	name := a.SRKName()
	k := must[*tpm.Key](t)(a.CreateKey(tpm.Signing))
	ak := must[*tpm.Key](t)(a.CreateKey(tpm.Attestation))
	d := sha256.Sum256([]byte("m"))
	s := must[[]byte](t)(k.Sign(nil, d[:], crypto.SHA256))
	if !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), d[:], s) {
		t.Error("the signature does not verify")
	}
	wants(t, sign(ak), tpm.ErrAuth)
	text := must[[]byte](t)(k.PEM())
	_ = a.Close()
	wants(t, sign(k), tpm.ErrGone)
	chip.Kill()
	chip.Run(t)
	b := must[*tpm.TPM](t)(tpm.Open(tpm.Config{Path: chip.Path(), SRKName: name}))
	t.Cleanup(func() { _ = b.Close() })
	k = must[*tpm.Key](t)(b.ParseKey(text))
	if err := sign(k); err != nil {
		t.Error(err)
	}
	for _, bad := range [][]byte{nil, []byte("x"), text[:len(text)/2], make([]byte, 9999)} {
		_, err := b.ParseKey(bad)
		wants(t, err, tpm.ErrDamaged)
	}
	// another board
	other := open(t, tpmtest.Start(t).Path())
	fk := must[*tpm.Key](t)(other.ParseKey(text))
	wants(t, sign(fk), tpm.ErrForeign)
	chip2 := tpmtest.Start(t)
	_, err := tpm.Open(tpm.Config{Path: chip2.Path(), SRKName: name})
	wants(t, err, tpm.ErrForeign)
}

func TestQuoteAndCertify(t *testing.T) {
	t.Parallel()
	a := open(t, tpmtest.Start(t).Path())
	k := must[*tpm.Key](t)(a.CreateKey(tpm.Signing))
	ak := must[*tpm.Key](t)(a.CreateKey(tpm.Attestation))
	ak2 := must[*tpm.Key](t)(a.CreateKey(tpm.Attestation))
	pcrs := attest.NewPCRs(8, 14)
	zero := [][]byte{make([]byte, 32), make([]byte, 32)}
	n, r := []byte("nonce"), []byte("report")
	q := must[*attest.Statement](t)(ak.Quote(n, r, pcrs))
	c := must[attest.Clock](t)(attest.VerifyQuote(ak.Area(), *q, n, r, pcrs, zero))
	if c.Resets == 0 && c.Millis == 0 {
		t.Error("no clock")
	}
	check := func(class error, ak []byte, s attest.Statement, n, r []byte, p attest.PCRs, v [][]byte) {
		t.Helper()
		_, err := attest.VerifyQuote(ak, s, n, r, p, v)
		wants(t, err, class)
	}
	check(attest.ErrNonce, ak.Area(), *q, []byte("other"), r, pcrs, zero)
	check(attest.ErrNonce, ak.Area(), *q, n, []byte("other"), pcrs, zero)
	check(attest.ErrSignature, ak2.Area(), *q, n, r, pcrs, zero)
	check(attest.ErrKey, k.Area(), *q, n, r, pcrs, zero)
	check(attest.ErrPCRs, ak.Area(), *q, n, r, attest.NewPCRs(8, 13), zero)
	check(attest.ErrPCRs, ak.Area(), *q, n, r, pcrs, [][]byte{zero[0], n})
	check(attest.ErrPCRs, ak.Area(), *q, n, r, pcrs, [][]byte{zero[0], append(make([]byte, 31), 1)})
	check(attest.ErrSignature, ak.Area(), attest.Statement{Attested: q.Attested[:40], Signature: q.Signature}, n, r, pcrs, zero)
	check(attest.ErrMalformed, ak.Area(), attest.Statement{Attested: q.Attested, Signature: q.Signature[:20]}, n, r, pcrs, zero)
	check(attest.ErrMalformed, ak.Area(), attest.Statement{Attested: make([]byte, 9999)}, n, r, pcrs, zero)
	st := must[*attest.Statement](t)(ak.Certify(k, n, r))
	if p := must[*ecdsa.PublicKey](t)(attest.VerifyCertify(ak.Area(), k.Area(), *st, n, r)); !p.Equal(k.Public()) {
		t.Error("another key")
	}
	_, err := attest.VerifyCertify(ak.Area(), must[*tpm.Key](t)(a.CreateKey(tpm.Signing)).Area(), *st, n, r)
	wants(t, err, attest.ErrSubject)
	_, err = attest.VerifyCertify(ak.Area(), k.Area(), *q, n, r)
	wants(t, err, attest.ErrMalformed)
}

// Four goroutines do all there is at once, on one TPM.
func TestFourAtOnce(t *testing.T) {
	t.Parallel()
	a := open(t, tpmtest.Start(t).Path())
	b := newBoard(t, a)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for range 4 {
				for i := range b.operations() {
					op := b.operations()[(i+4*g)%len(b.operations())]
					if op.name == "raise the floor" && g > 0 || op.name == "extend" {
						continue // the floor has one owner, and the policies are for these PCRs
					}
					if err := op.do(a); err != nil {
						t.Errorf("%s: %v", op.name, err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

// A TPM that answers badly: the class is told, and the next operation works again.
func TestBadAnswers(t *testing.T) {
	t.Parallel()
	p := tpmtest.Between(t, tpmtest.Start(t))
	var mu sync.Mutex
	var answer func() ([]byte, bool)
	var change func([]byte) []byte
	const ccSign = 0x15d
	p.Answer = func(cmd []byte) ([]byte, bool) {
		mu.Lock()
		defer mu.Unlock()
		if answer != nil && binary.BigEndian.Uint32(cmd[6:]) == ccSign {
			return answer()
		}
		return nil, true
	}
	p.Change = func(cmd, rsp []byte) []byte {
		mu.Lock()
		defer mu.Unlock()
		if change != nil && binary.BigEndian.Uint32(cmd[6:]) == ccSign {
			return change(rsp)
		}
		return rsp
	}
	a := must[*tpm.TPM](t)(tpm.Open(tpm.Config{Path: p.Path(), Timeout: 900 * time.Millisecond}))
	t.Cleanup(func() { _ = a.Close() })
	k := must[*tpm.Key](t)(a.CreateKey(tpm.Signing))
	left := 0
	code := func(rc uint32) func() ([]byte, bool) { return func() ([]byte, bool) { return tpmtest.Code(rc), true } }
	for _, c := range []struct {
		name   string
		answer func() ([]byte, bool)
		change func([]byte) []byte
		want   error
	}{
		{"retry for ever", code(0x922), nil, tpm.ErrBusy},
		{"lockout", code(0x921), nil, tpm.ErrLockout},
		{"failure mode", code(0x101), nil, tpm.ErrFailure},
		{"wrong authorization", code(0x98e), nil, tpm.ErrAuth},
		{"wrong authorization, not counted", code(0x9a2), nil, tpm.ErrAuth},
		{"no ticket", code(0x2e0), nil, tpm.ErrAuth},
		{"policy not met", code(0x99d), nil, tpm.ErrPolicy},
		{"PCRs changed", code(0x128), nil, tpm.ErrPolicy},
		{"integrity", code(0x1df), nil, tpm.ErrForeign},
		{"handle", code(0x18b), nil, tpm.ErrMissing},
		{"a handle after a reset", code(0x910), nil, tpm.ErrMissing},
		{"not written", code(0x14a), nil, tpm.ErrMissing},
		{"NV is full", code(0x14b), nil, tpm.ErrNoSpace},
		{"slots are full", code(0x902), nil, tpm.ErrNoSpace},
		{"sessions are full", code(0x903), nil, tpm.ErrNoSpace},
		{"retry of NV for ever", code(0x920), nil, tpm.ErrBusy},
		{"testing for ever", code(0x90a), nil, tpm.ErrBusy},
		{"yielding for ever", code(0x908), nil, tpm.ErrBusy},
		{"hang", func() ([]byte, bool) { time.Sleep(1200 * time.Millisecond); return nil, false }, nil, tpm.ErrTimeout},
		{"cut", func() ([]byte, bool) { return nil, false }, nil, tpm.ErrGone},
		{"truncated", nil, func(b []byte) []byte { return b[:30] }, tpm.ErrProtocol},
		{"huge", nil, func(b []byte) []byte { b[2] = 0xff; return b }, tpm.ErrProtocol},
		{"garbage", nil, func(b []byte) []byte { copy(b[14:], "garbage garbage"); return b }, tpm.ErrProtocol},
		{"a wrong signature", nil, func(b []byte) []byte { b[30] ^= 1; return b }, tpm.ErrProtocol},
		{"three retries", func() ([]byte, bool) {
			if left++; left <= 3 {
				return tpmtest.Code([]uint32{0x922, 0x908, 0x90A}[left-1]), true
			}
			return nil, true
		}, nil, nil},
		{"600 ms", func() ([]byte, bool) { time.Sleep(600 * time.Millisecond); return nil, true }, nil, nil},
	} {
		mu.Lock()
		answer, change = c.answer, c.change
		mu.Unlock()
		if err := sign(k); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		mu.Lock()
		answer, change = nil, nil
		mu.Unlock()
		if err := sign(k); err != nil {
			t.Errorf("after %s: %v", c.name, err)
		}
	}
}
