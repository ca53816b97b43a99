// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package attest_test

import (
	"crypto/x509"
	"testing"
	"time"

	"fulmar/tpm/attest"
)

func FuzzVerify(f *testing.F) {
	f.Add([]byte{0, 35, 0, 11}, []byte("\xffTCG\x80\x18"), []byte{0, 24, 0, 11, 0, 0, 0, 0})
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
	})
}
