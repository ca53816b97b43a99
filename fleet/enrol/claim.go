// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"time"

	"fulmar/fleet/ca"
	"fulmar/fleet/registry"
	"fulmar/schema"
	"fulmar/tpm/attest"
)

const (
	maxFacts     = 32
	maxFact      = 4 * schema.MaxName // bytes of a value
	maxChallenge = 64                 // characters of a challenge's name
)

// checkForm holds a request to the form asked for.
func checkForm(req *schema.EnrolRequest) error {
	bad := func(say string) error { return refuse(CodeRequest, nil, "%s", say) }
	switch {
	case schema.CheckBoard(req.Board) != nil:
		return bad("The board's name wants 1 to 64 of a-z 0-9 - _ . and begins with a letter or digit")
	case req.Mode != schema.KeySoftware && req.Mode != schema.KeyTPM:
		return bad("The key's mode wants to be software or tpm")
	case len(req.Facts) > maxFacts:
		return bad("At most 32 facts are taken")
	case len(req.Token) > 64:
		return bad("The token is too long")
	}
	for k, v := range req.Facts {
		if len(k) > schema.MaxName || len(v) > maxFact {
			return bad("A fact is too long")
		}
	}
	return nil
}

// parseCSR reads the certificate request of a board.
func parseCSR(req *schema.EnrolRequest) (*x509.CertificateRequest, error) {
	csr, err := ca.ParseRequest([]byte(req.CSR))
	if err != nil {
		return nil, err
	}
	if cn := csr.Subject.CommonName; cn != "" && cn != req.Board {
		return nil, refuse(CodeName, nil, "The certificate request is for another name than the board's")
	}
	return csr, nil
}

// checkClaim checks all of a claim that can be checked before its proof, and gives the
// challenge without its secrets.
func (d *Desk) checkClaim(req *schema.EnrolRequest, csr *x509.CertificateRequest) (*challenge, error) {
	c := req.TPM
	if c == nil {
		return nil, refuse(CodeRequest, nil, "Mode tpm wants a claim of the TPM")
	}
	if len(c.EKCerts) > schema.MaxEKCerts || len(c.Kind) > schema.MaxName || len(c.Maker) > schema.MaxName || len(c.Firmware) > schema.MaxName {
		return nil, refuse(CodeRequest, nil, "The claim of the TPM holds too many certificates, or too long words")
	}
	if _, err := attest.CheckEK(c.EK); err != nil {
		return nil, refuse(CodeClaim, err, "The endorsement key is none by a template of the TCG")
	}
	if _, err := attest.CheckKey(c.AK, true); err != nil {
		return nil, refuse(CodeClaim, err, "The attestation key is not a restricted signing key of a TPM, ECDSA P-256")
	}
	nonce, report := sha256.Sum256([]byte(req.Token)), sha256.Sum256(csr.Raw)
	key, err := attest.VerifyCertify(c.AK, c.Key, attest.Statement(c.Certify), nonce[:], report[:])
	switch {
	case errors.Is(err, attest.ErrSubject), errors.Is(err, attest.ErrKey):
		return nil, refuse(CodeClaim, err, "The TPM's statement is not about the board's key, or that key is not fixed in a TPM")
	case err != nil:
		return nil, refuse(CodeClaim, err, "The TPM's statement about the board's key does not hold for this request")
	}
	if pub, ok := csr.PublicKey.(*ecdsa.PublicKey); !ok || !pub.Equal(key) {
		return nil, refuse(CodeClaim, nil, "The certificate request is for another key than the one in the TPM")
	}
	chained, note, err := d.maker(c, d.now())
	if err != nil {
		return nil, err
	}
	ek := attest.EKHash(c.EK)
	listed, err := d.policy.Listed.has(ek, req.Board, d.now())
	if err != nil {
		d.log.Error("the list of endorsement keys stays as it was read before", "error", err.Error())
	}
	trust := schema.TrustFirstUse
	switch {
	case chained:
		trust = schema.TrustMaker
	case listed:
		trust = schema.TrustListed
	}
	return &challenge{
		csr: []byte(req.CSR), report: report[:], ak: c.AK,
		ask: registry.Enrolment{
			Board: req.Board, KeyMode: req.Mode, Facts: req.Facts, KeyHash: ca.KeyHash(csr), Trust: trust,
			TPM:    &registry.TPM{EKHash: ek, AK: c.AK, Kind: c.Kind, Maker: c.Maker, Firmware: c.Firmware, Note: note},
			Listed: listed && d.policy.List, Chained: chained && d.policy.Maker,
		},
	}, nil
}

// maker looks at the certificates of the endorsement key. A certificate that cannot be
// of this key, or that a maker we know did not sign, is refused. One that is out of its
// time, or of a maker we do not know, proves nothing, and note says so.
func (d *Desk) maker(c *schema.TPMClaim, at time.Time) (chained bool, note string, err error) {
	if len(c.EKCerts) == 0 {
		return false, "Its maker gave it no certificate.", nil
	}
	if d.policy.Roots == nil {
		return false, "It has a maker's certificate, and this fleet was told of no maker (enrol.ek_roots).", nil
	}
	between, err := attest.Intermediates(c.EKCerts[1:], nil)
	if err != nil {
		return false, "", refuse(CodeMaker, err, "The certificates behind that of the endorsement key cannot be read")
	}
	cert, err := attest.VerifyEK(c.EKCerts[0], c.EK, d.policy.Roots.pool, between, at)
	if err == nil {
		return true, "Its maker's certificate is good: " + clip(cert.Issuer.String()) + ".", nil
	}
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return false, "Its maker's certificate is not accepted: " + clip(invalid.Detail) + ".", nil
	case !errors.As(err, &unknown):
		return false, "", refuse(CodeMaker, err, "The certificate of the endorsement key is not acceptable: of another key, too long, or not made for one")
	}
	for _, der := range c.EKCerts {
		if x, err := x509.ParseCertificate(der); err == nil && d.policy.Roots.forged(x) {
			return false, "", refuse(CodeMaker, unknown, "The certificate of the endorsement key names a maker that did not sign it")
		}
	}
	return false, "Its certificate is of a maker that this fleet was not told of: " + clip(unknown.Cert.Issuer.String()) + ".", nil
}

// clip bounds what comes out of a certificate.
func clip(s string) string {
	if len(s) > 200 {
		s = s[:200] + "..."
	}
	return s
}
