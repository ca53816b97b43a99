// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"fulmar/fleet/registry/proofs"
	"fulmar/schema"
	"fulmar/tpm/attest"
)

// page is a Book of one board.
type page struct {
	area []byte
	p    proofs.Proof
}

func (b *page) AK(context.Context, string, string) ([]byte, string, error) {
	return b.area, schema.TrustMaker, nil
}

func (b *page) Get(context.Context, string, string) (proofs.Proof, error) { return b.p, nil }

func (b *page) Keep(_ context.Context, _, _ string, p proofs.Proof) error {
	b.p = p
	return nil
}

func (b *page) Refuse(ctx context.Context, tenant, board string, p proofs.Proof, _ string) error {
	return b.Keep(ctx, tenant, board, p)
}

// statement is what a TPM with the key would sign: for the fuzzer, which must not
// need one.
func statement(tb testing.TB, k *ecdsa.PrivateKey, nonce, report []byte, values [][]byte) (attested, signature []byte) {
	tb.Helper()
	sum := sha256.Sum256(report)
	attested = tpm2.Marshal(tpm2.TPMSAttest{
		Magic: tpm2.TPMGeneratedValue, Type: tpm2.TPMSTAttestQuote,
		ExtraData: tpm2.TPM2BData{Buffer: attest.Qualify(nonce, sum[:])}, ClockInfo: tpm2.TPMSClockInfo{Clock: 1, ResetCount: 1},
		Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &tpm2.TPMSQuoteInfo{
			PCRSelect: attest.NewPCRs(schema.AttestPCRs()...).Selection(), PCRDigest: tpm2.TPM2BDigest{Buffer: attest.Digest(values)},
		}),
	})
	sum = sha256.Sum256(attested)
	r, s, err := ecdsa.Sign(rand.Reader, k, sum[:])
	if err != nil {
		tb.Fatal(err)
	}
	return attested, tpm2.Marshal(tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgECDSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
		Hash: tpm2.TPMAlgSHA256, SignatureR: tpm2.TPM2BECCParameter{Buffer: r.Bytes()}, SignatureS: tpm2.TPM2BECCParameter{Buffer: s.Bytes()},
	})})
}

func area(tb testing.TB, k *ecdsa.PrivateKey) []byte {
	tb.Helper()
	raw, err := k.PublicKey.Bytes() // 4, x, y
	if err != nil {
		tb.Fatal(err)
	}
	t := attest.KeyTemplate(true)
	t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: raw[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: raw[33:]},
	})
	return tpm2.Marshal(t)
}

// FuzzAnswer: no bytes are believed that the key did not sign for this question, also
// where they carry its nonce, and none break anything.
func FuzzAnswer(f *testing.F) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	values := make([][]byte, len(schema.AttestPCRs()))
	for i := range values {
		values[i] = make([]byte, 32)
	}
	raw, err := schema.Encode(&schema.AttestReport{V: schema.Version, Program: make([]byte, 32)})
	if err != nil {
		f.Fatal(err)
	}
	b := &page{area: area(f, k)}
	c := New(b, b, slog.New(slog.DiscardHandler))
	// The nonce is the same in each run, so that the fuzzer sees the same paths again.
	fixed := sha256.Sum256([]byte("nonce"))
	ask := func() []byte {
		c.Hello("t", "b", &schema.Hello{Conn: 1})
		if c.Ask(context.Background(), "t", "b", 1) == nil {
			return nil
		}
		c.boards[key{"t", "b"}].nonce = fixed[:]
		return fixed[:]
	}
	answer := func(nonce []byte) []byte {
		a := &schema.Attestation{V: schema.Version, Nonce: nonce, Report: raw, PCRs: values}
		a.Attested, a.Signature = statement(f, k, nonce, raw, values)
		p, err := schema.Encode(a)
		if err != nil {
			f.Fatal(err)
		}
		return p
	}
	c.Answer(context.Background(), "t", "b", 1, answer(ask()))
	if c.Stats().Good != 1 {
		f.Fatalf("the right one is not believed: %+v", c.Stats())
	}
	f.Add(answer(make([]byte, 32)), uint64(1))
	f.Add([]byte{}, uint64(0))
	f.Fuzz(func(t *testing.T, payload []byte, conn uint64) {
		b.p = proofs.Proof{}
		nonce := ask()
		if nonce == nil {
			t.Fatal("not asked")
		}
		a := new(schema.Attestation)
		if schema.Decode(payload, a) == nil {
			a.Nonce = nonce
			if p, err := schema.Encode(a); err == nil {
				c.Answer(t.Context(), "t", "b", conn, p)
			}
		}
		c.Answer(t.Context(), "t", "b", conn, payload)
		if c.Stats().Good != 1 || !b.p.Good.IsZero() {
			t.Fatal("believed")
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	values := make([][]byte, len(schema.AttestPCRs()))
	for i := range values {
		values[i] = make([]byte, 32)
	}
	raw, err := schema.Encode(&schema.AttestReport{V: schema.Version, Program: make([]byte, 32)})
	if err != nil {
		b.Fatal(err)
	}
	a := &schema.Attestation{V: schema.Version, Nonce: make([]byte, 32), Report: raw, PCRs: values}
	a.Attested, a.Signature = statement(b, k, a.Nonce, raw, values)
	ak := area(b, k)
	for b.Loop() {
		if _, why, err := check(proofs.Proof{}, ak, said{}, a, time.Time{}); why != "" {
			b.Fatal(err)
		}
	}
}
