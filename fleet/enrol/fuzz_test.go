// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"fulmar/schema"
	"fulmar/tpm/tpmtest"
)

// FuzzClaim puts bytes of a stranger through all that is done with a claim before its
// proof. Without the TPM nothing gets a challenge; the seed, which has one, does.
func FuzzClaim(f *testing.F) {
	b := newBoard(f, tpmtest.Start(f))
	m := tpmtest.NewMaker(f)
	b.certs = [][]byte{m.Certify(f, b.ek, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))}
	seed, err := json.Marshal(b.claim(f, "b1", ""))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"board":"b1","mode":"tpm","tpm":{"ek":"AAAA"}}`))
	d := New(Policy{Maker: true, Roots: roots(f, m)}, nil, nil, slog.New(slog.DiscardHandler))
	f.Fuzz(func(t *testing.T, raw []byte) {
		req := new(schema.EnrolRequest)
		if json.Unmarshal(raw, req) != nil || checkForm(req) != nil {
			return
		}
		csr, err := parseCSR(req)
		if err != nil {
			return
		}
		ch, err := d.checkClaim(req, csr)
		if err == nil && ch.ask.Board != req.Board {
			t.Error("a challenge for another board")
		}
	})
}

// FuzzProof: whatever comes as an answer to a challenge, only the TPM's opens it.
func FuzzProof(f *testing.F) {
	b := newBoard(f, tpmtest.Start(f))
	f.Add([]byte(`{"id":"x","proof":"AAAA","quote":{"attested":"/1RDR4AY","signature":"ABgACw=="},"pcrs":["AAAA"]}`))
	ch := &challenge{ak: b.ak.Area(), secret: random(), nonce: random(), report: random()}
	f.Fuzz(func(t *testing.T, raw []byte) {
		p := new(schema.ProveRequest)
		if json.Unmarshal(raw, p) == nil && ch.verify(p) == nil {
			t.Error("opened")
		}
	})
}
