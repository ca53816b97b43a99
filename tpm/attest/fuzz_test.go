// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package attest_test

import (
	"crypto/x509"
	"testing"
	"time"

	"fulmar/tpm/attest"

	"github.com/google/go-tpm/tpm2"
)

func FuzzVerify(f *testing.F) {
	f.Add([]byte{0, 35, 0, 11}, []byte("\xffTCG\x80\x18"), []byte{0, 24, 0, 11, 0, 0, 0, 0})
	for _, e := range attest.EKTemplates() {
		f.Add(tpm2.Marshal(e.Public), tpm2.Marshal(attest.KeyTemplate(true)), []byte{1})
	}
	f.Add(tpm2.Marshal(tpm2.ECCSRKTemplate), []byte{0x30, 0}, []byte{0x30, 3})
	f.Fuzz(func(t *testing.T, area, attested, sig []byte) {
		s := attest.Statement{Attested: attested, Signature: sig}
		if _, err := attest.VerifyQuote(area, s, nil, nil, attest.NewPCRs(8), nil); err == nil {
			t.Error("accepted")
		}
		_, _ = attest.VerifyCertify(area, attested, s, nil, nil)
		_, _ = attest.MakeCredential(area, attested, []byte{1})
		if _, err := attest.VerifyEK(sig, area, x509.NewCertPool(), nil, time.Unix(0, 0)); err == nil {
			t.Error("accepted")
		}
		_, _ = attest.TPMSignature(sig)
		if _, err := attest.CheckEK(area); err == nil {
			if c, err := attest.MakeCredential(area, attested, sig); err == nil && len(c.Blob) == 0 {
				t.Error("an empty credential")
			}
		}
		if w, err := attest.WrapTo(area, []byte{1}); err == nil && len(w.Seed) == 0 {
			t.Error("wrapped to nobody")
		}
		_, _ = attest.Intermediates([][]byte{area, attested, sig}, nil)
	})
}
