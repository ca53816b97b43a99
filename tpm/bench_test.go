// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"testing"
	"time"

	"fulmar/tpm"
	"fulmar/tpm/attest"
)

// delays are what a signature takes longer than on swtpm: nothing, and what was
// published of chips (50 and 95 of 100 ECDSA P-256 signatures).
func delays() []time.Duration {
	return []time.Duration{0, 200 * time.Millisecond, 600 * time.Millisecond}
}

func handshakes(b *testing.B, k crypto.Signer, cache tls.ClientSessionCache) {
	f := newFleet(b)
	c := f.client(b, k, cache)
	if cache != nil {
		must[bool](b)(f.dial(c))
	}
	b.ResetTimer()
	for range b.N {
		if resumed, err := f.dial(c); err != nil || resumed != (cache != nil) {
			b.Fatal(resumed, err)
		}
	}
}

// TLS 1.3, mutual, connection and one byte each way.
func BenchmarkHandshakeSoftwareKey(b *testing.B) {
	handshakes(b, must[*ecdsa.PrivateKey](b)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), nil)
}

func BenchmarkHandshakeTPMKey(b *testing.B) {
	for _, d := range delays() {
		b.Run("sign+"+d.String(), func(b *testing.B) {
			a, _ := counted(b, d)
			handshakes(b, must[*tpm.Key](b)(a.CreateKey(tpm.Signing)), nil)
		})
	}
}

func BenchmarkHandshakeTPMKeyResumed(b *testing.B) {
	a, n := counted(b, 600*time.Millisecond)
	k := must[*tpm.Key](b)(a.CreateKey(tpm.Signing))
	f := newFleet(b)
	c := f.client(b, k, tls.NewLRUClientSessionCache(1))
	must[bool](b)(f.dial(c))
	before := n.Load()
	b.ResetTimer()
	for range b.N {
		if resumed, err := f.dial(c); err != nil || !resumed {
			b.Fatal(resumed, err)
		}
	}
	b.ReportMetric(float64(n.Load()-before)/float64(b.N), "commands/op")
}

func BenchmarkSign(b *testing.B) {
	for _, d := range delays() {
		b.Run("sign+"+d.String(), func(b *testing.B) {
			a, _ := counted(b, d)
			k := must[*tpm.Key](b)(a.CreateKey(tpm.Signing))
			for b.Loop() {
				if err := sign(k); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkQuoteAndVerify(b *testing.B) {
	for _, d := range delays() {
		b.Run("sign+"+d.String(), func(b *testing.B) {
			a, _ := counted(b, d)
			ak := must[*tpm.Key](b)(a.CreateKey(tpm.Attestation))
			values := must[[][]byte](b)(a.ReadPCRs(attest.BootPCRs))
			nonce := make([]byte, 32)
			for b.Loop() {
				q := must[*attest.Statement](b)(ak.Quote(nonce, nil, attest.BootPCRs))
				must[attest.Clock](b)(attest.VerifyQuote(ak.Area(), *q, nonce, nil, attest.BootPCRs, values))
			}
		})
	}
}

func BenchmarkSealAndUnseal(b *testing.B) {
	a, _ := counted(b, 0)
	key := make([]byte, 32)
	for b.Loop() {
		must[[]byte](b)(a.Unseal(must[[]byte](b)(a.Seal(key, tpm.Policy{})), nil))
	}
}

// What the fleet does for each attestation. Run with -cpu 1 it is what a core does;
// without, what the machine does.
func BenchmarkFleetVerifiesQuote(b *testing.B) {
	a, _ := counted(b, 0)
	ak := must[*tpm.Key](b)(a.CreateKey(tpm.Attestation))
	pcrs := attest.PCRs(0xffff)
	values := must[[][]byte](b)(a.ReadPCRs(pcrs))
	q := must[*attest.Statement](b)(ak.Quote(make([]byte, 32), make([]byte, 32), pcrs))
	start := time.Now()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := attest.VerifyQuote(ak.Area(), *q, make([]byte, 32), make([]byte, 32), pcrs, values); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "quotes/s")
}

// The bare signature, ECDSA P-256 over SHA-256.
func BenchmarkFleetVerifiesSignature(b *testing.B) {
	k := must[*ecdsa.PrivateKey](b)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	d := sha256.Sum256([]byte("report"))
	sig := must[[]byte](b)(ecdsa.SignASN1(rand.Reader, k, d[:]))
	start := time.Now()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if !ecdsa.VerifyASN1(&k.PublicKey, d[:], sig) {
				b.Error("refused")
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "signatures/s")
}
