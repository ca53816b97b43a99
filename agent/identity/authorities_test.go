// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"time"

	"fulmar/schema"
)

// TestOtherAuthorities: a renewal may bring another authority beside the present one;
// one that would part the board from the server that it talks to is not taken.
func TestOtherAuthorities(t *testing.T) {
	t.Parallel()
	a, other := newAuthority(t), newAuthority(t)
	e := a.enroller(t, sha256.Sum256(a.cert.Raw))
	id := must(e.Enrol(t.Context()))
	under := func(o *authority) string {
		return pemCert(o.sign(&x509.Certificate{
			SerialNumber: big.NewInt(9), Subject: pkix.Name{CommonName: "dock-1"},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}, id.key.Signer().Public()))
	}
	for name, c := range map[string]struct {
		cas  string
		leaf string
		want string
	}{
		"only another authority": {pemCert(other.cert.Raw), under(other), "the fleet's own server is not under"},
		"signed by none of two":  {pemCert(a.cert.Raw) + pemCert(other.cert.Raw), under(newAuthority(t)), "not signed by its authority"},
		"nine authorities":       {strings.Repeat(pemCert(a.cert.Raw), maxAuthorities+1), under(a), "1 to 8"},
		"noise after one":        {pemCert(a.cert.Raw) + "noise", under(a), "1 to 8"},
	} {
		a.tamper = func(r *schema.EnrolReply) { r.CA, r.Certificate = c.cas, c.leaf }
		if _, err := e.Renew(t.Context(), id); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, wants %q", name, err, c.want)
		}
		if again := must(e.Enrol(t.Context())); len(again.cas) != 1 || !again.cas[0].Equal(a.cert) {
			t.Fatalf("%s: it was kept", name)
		}
	}
	a.tamper = func(r *schema.EnrolReply) {
		r.CA, r.Certificate = pemCert(other.cert.Raw)+pemCert(a.cert.Raw), under(other)
	}
	next := must(e.Renew(t.Context(), id))
	if len(next.cas) != 2 || len(must(e.Enrol(t.Context())).cas) != 2 || len(knownCAs(e.Dir)) != 2 {
		t.Error("the second authority is not known")
	}
}
