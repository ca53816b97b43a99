// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/audit"
	"fulmar/fleet/ca"
	"fulmar/fleet/registry"
	"fulmar/schema"
	"fulmar/tpm"
	"fulmar/tpm/attest"
	"fulmar/tpm/tpmtest"
)

var site = netip.MustParseAddr("192.0.2.1")

// hall is a desk with a real authority and registry.
type hall struct {
	*Desk
	ca  *ca.Authority
	reg *registry.Registry
	out *bytes.Buffer // the log
}

func open(t testing.TB, p Policy) *hall {
	t.Helper()
	dir := t.TempDir()
	h := &hall{out: new(bytes.Buffer)}
	h.ca = must[*ca.Authority](t)(ca.Open(filepath.Join(dir, "ca")))
	h.reg = must[*registry.Registry](t)(registry.Open(dir))
	t.Cleanup(func() { _ = h.reg.Close() })
	h.Desk = New(p, h.ca, h.reg, slog.New(slog.NewTextHandler(h.out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	return h
}

// usual lets boards in by all but a maker's certificate.
func usual() Policy { return Policy{Token: true, List: true, Approval: true} }

func must[T any](t testing.TB) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (h *hall) token(t testing.TB, board string, uses int) string {
	t.Helper()
	return must[string](t)(h.reg.NewJoinToken(t.Context(), registry.DefaultTenant, board, uses, time.Hour))
}

func newCSR(t testing.TB, name string, key crypto.Signer) string {
	t.Helper()
	der := must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key))
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	return must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
}

// board is one with a TPM.
type board struct {
	tpm     *tpm.TPM
	ak, key *tpm.Key
	ek      []byte
	certs   [][]byte
}

func newBoard(t testing.TB, chip *tpmtest.Chip) *board {
	t.Helper()
	b := &board{tpm: must[*tpm.TPM](t)(tpm.Open(tpm.Config{Path: chip.Path()}))}
	t.Cleanup(func() { _ = b.tpm.Close() })
	var err error
	if b.ek, b.certs, err = b.tpm.EndorsementKey(); err != nil {
		t.Fatal(err)
	}
	b.renew(t)
	return b
}

// renew gives it new keys in the same TPM.
func (b *board) renew(t testing.TB) {
	t.Helper()
	b.ak = must[*tpm.Key](t)(b.tpm.CreateKey(tpm.Attestation))
	b.key = must[*tpm.Key](t)(b.tpm.CreateKey(tpm.Signing))
}

func reportOf(t testing.TB, csr string) []byte {
	t.Helper()
	b, _ := pem.Decode([]byte(csr))
	sum := sha256.Sum256(b.Bytes)
	return sum[:]
}

func (b *board) claim(t testing.TB, name, token string) *schema.EnrolRequest {
	t.Helper()
	csr := newCSR(t, name, b.key)
	nonce := sha256.Sum256([]byte(token))
	st := must[*attest.Statement](t)(b.ak.Certify(b.key, nonce[:], reportOf(t, csr)))
	return &schema.EnrolRequest{
		Token: token, Board: name, CSR: csr, Mode: schema.KeyTPM, Facts: map[string]string{"model": "test"},
		TPM: &schema.TPMClaim{EK: b.ek, EKCerts: b.certs, AK: b.ak.Area(), Key: b.key.Area(), Certify: schema.TPMStatement(*st), Kind: "virtual", Maker: "IBM"},
	}
}

func (b *board) prove(t testing.TB, req *schema.EnrolRequest, w *schema.EnrolWait) *schema.ProveRequest {
	t.Helper()
	secret := must[[]byte](t)(b.ak.Activate(&attest.Credential{Blob: w.Blob, Secret: w.Secret}))
	report := reportOf(t, req.CSR)
	mac := hmac.New(sha256.New, secret)
	mac.Write(report)
	pcrs := attest.NewPCRs(schema.AttestPCRs()...)
	values := must[[][]byte](t)(b.tpm.ReadPCRs(pcrs))
	q := must[*attest.Statement](t)(b.ak.Quote(w.QuoteNonce, report, pcrs))
	return &schema.ProveRequest{ID: w.ID, Proof: mac.Sum(nil), Quote: schema.TPMStatement(*q), PCRs: values}
}

// enrol goes the whole way.
func (b *board) enrol(t testing.TB, d *Desk, name, token string) (*Answer, error) {
	t.Helper()
	req := b.claim(t, name, token)
	a, err := d.Claim(t.Context(), site, req)
	if err != nil {
		return nil, err
	}
	if a.Wait == nil || a.Wait.Why != schema.WaitProof {
		t.Fatalf("no challenge: %+v", a)
	}
	return d.Prove(t.Context(), site, b.prove(t, req, a.Wait))
}

func soft(t testing.TB, key *ecdsa.PrivateKey, name, token string) *schema.EnrolRequest {
	t.Helper()
	return &schema.EnrolRequest{Token: token, Board: name, CSR: newCSR(t, name, key), Mode: schema.KeySoftware}
}

func wants(t testing.TB, err error, code Code) {
	t.Helper()
	var r *Refusal
	if !errors.As(err, &r) || r.Code != code {
		t.Errorf("%v, wants it refused as %s", err, code)
	}
}

func approve(t testing.TB, h *hall, name string) {
	t.Helper()
	for _, q := range must[[]registry.Request](t)(h.reg.Pending(t.Context(), registry.DefaultTenant)) {
		if q.Board == name && q.Decision == "" {
			if err := h.reg.Approve(t.Context(), registry.DefaultTenant, q.ID, "admin"); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("%s does not wait", name)
}

// TestTPMByApproval: from nothing to a certificate with one approval, and again without.
func TestTPMByApproval(t *testing.T) {
	t.Parallel()
	h := open(t, usual())
	b := newBoard(t, tpmtest.Start(t))
	ek := attest.EKHash(b.ek)
	for range 2 {
		a := must[*Answer](t)(b.enrol(t, h.Desk, "b1", ""))
		if a.Wait == nil || a.Wait.Why != schema.WaitApproval || a.Wait.RetryAfterMs < 1000 || a.Wait.Fingerprint != fmt.Sprintf("%x", ek[:8]) {
			t.Fatalf("%+v", a.Wait)
		}
	}
	q := must[[]registry.Request](t)(h.reg.Pending(t.Context(), registry.DefaultTenant))
	if len(q) != 1 || q[0].Asked != 2 || q[0].From != site.String() || q[0].TPMKind != "virtual" || q[0].EKNote != "Its maker gave it no certificate." {
		t.Fatalf("%+v", q)
	}
	approve(t, h, "b1")
	a := must[*Answer](t)(b.enrol(t, h.Desk, "b1", ""))
	block, _ := pem.Decode(a.Leaf.PEM)
	cert := must[*x509.Certificate](t)(x509.ParseCertificate(block.Bytes))
	if a.Trust != schema.TrustFirstUse || len(cert.Subject.OrganizationalUnit) != 1 || cert.Subject.OrganizationalUnit[0] != schema.TrustFirstUse || !cert.PublicKey.(*ecdsa.PublicKey).Equal(b.key.Public()) {
		t.Errorf("%s, %v", a.Trust, cert.Subject)
	}
	if a = must[*Answer](t)(b.enrol(t, h.Desk, "b1", "")); a.Leaf == nil {
		t.Error("an enrolled board has to ask again")
	}
	b.renew(t) // as after a TPM2_Clear: the same EK, other keys
	if a = must[*Answer](t)(b.enrol(t, h.Desk, "b1", "")); a.Wait == nil || !strings.Contains(a.Wait.Say, "cleared or its disk is new") {
		t.Errorf("%+v", a)
	}
	s := h.Stats()
	if s.Issued != 2 || s.Waiting != 3 {
		t.Errorf("%+v", s)
	}
}

// TestForgedClaims: what does not fit together gets no challenge, and the reason.
func TestForgedClaims(t *testing.T) {
	t.Parallel()
	h := open(t, usual())
	b, other := newBoard(t, tpmtest.Start(t)), newBoard(t, tpmtest.Start(t))
	token := h.token(t, "", 99)
	for name, c := range map[string]struct {
		change func(r *schema.EnrolRequest)
		code   Code
	}{
		"no claim":                     {func(r *schema.EnrolRequest) { r.TPM = nil }, CodeRequest},
		"unknown mode":                 {func(r *schema.EnrolRequest) { r.Mode = "hsm" }, CodeRequest},
		"a path for a name":            {func(r *schema.EnrolRequest) { r.Board = "../b1" }, CodeRequest},
		"a request for another name":   {func(r *schema.EnrolRequest) { r.Board = "b2" }, CodeName},
		"no request":                   {func(r *schema.EnrolRequest) { r.CSR = "x" }, CodeCSR},
		"a request of another key":     {func(r *schema.EnrolRequest) { r.CSR = newCSR(t, "b1", newKey(t)) }, CodeClaim},
		"another request, certified":   {func(r *schema.EnrolRequest) { recertify(t, b, r, newCSR(t, "b1", newKey(t))) }, CodeClaim},
		"another token":                {func(r *schema.EnrolRequest) { r.Token = "x" }, CodeClaim},
		"an AK that signs anything":    {func(r *schema.EnrolRequest) { r.TPM.AK = b.key.Area() }, CodeClaim},
		"the AK of another TPM":        {func(r *schema.EnrolRequest) { r.TPM.AK = other.ak.Area() }, CodeClaim},
		"a statement on another key":   {func(r *schema.EnrolRequest) { r.TPM.Key = other.key.Area() }, CodeClaim},
		"an AK for a key":              {func(r *schema.EnrolRequest) { r.TPM.Key = b.ak.Area() }, CodeClaim},
		"no EK":                        {func(r *schema.EnrolRequest) { r.TPM.EK = b.ak.Area() }, CodeClaim},
		"an empty EK":                  {func(r *schema.EnrolRequest) { r.TPM.EK = nil }, CodeClaim},
		"too many certificates":        {func(r *schema.EnrolRequest) { r.TPM.EKCerts = make([][]byte, 5) }, CodeRequest},
		"a long word":                  {func(r *schema.EnrolRequest) { r.TPM.Maker = strings.Repeat("x", 65) }, CodeRequest},
		"a quote instead of a certify": {func(r *schema.EnrolRequest) { requote(t, b, r) }, CodeClaim},
	} {
		r := b.claim(t, "b1", token)
		c.change(r)
		_, err := h.Claim(t.Context(), site, r)
		var ref *Refusal
		if !errors.As(err, &ref) || ref.Code != c.code || ref.Say == "" || strings.Contains(ref.Say, "../") {
			t.Errorf("%s: %v, wants it refused as %s", name, err, c.code)
		}
	}
	if n := len(h.open.by); n != 0 {
		t.Errorf("%d challenges were made", n)
	}
	if strings.Contains(h.out.String(), token) || strings.Contains(h.out.String(), "../b1") {
		t.Error("a secret or a stranger's word is in the log")
	}
	if s := h.Stats(); s.Refused[CodeClaim] != 10 || s.Refused[CodeRequest] != 5 || s.Refused[CodeName] != 1 || s.Refused[CodeCSR] != 1 {
		t.Errorf("%v", s.Refused)
	}
}

func recertify(t testing.TB, b *board, r *schema.EnrolRequest, csr string) {
	nonce := sha256.Sum256([]byte(r.Token))
	r.CSR = csr
	r.TPM.Certify = schema.TPMStatement(*must[*attest.Statement](t)(b.ak.Certify(b.key, nonce[:], reportOf(t, csr))))
}

func requote(t testing.TB, b *board, r *schema.EnrolRequest) {
	nonce := sha256.Sum256([]byte(r.Token))
	r.TPM.Certify = schema.TPMStatement(*must[*attest.Statement](t)(b.ak.Quote(nonce[:], reportOf(t, r.CSR), attest.NewPCRs(0))))
}

// TestProofs: a challenge is good once, in time, and for the TPM and request of its
// claim alone.
func TestProofs(t *testing.T) {
	t.Parallel()
	h := open(t, usual())
	b, other := newBoard(t, tpmtest.Start(t)), newBoard(t, tpmtest.Start(t))
	token := h.token(t, "", 99)
	challenge := func(t *testing.T) (*schema.EnrolRequest, *schema.EnrolWait) {
		t.Helper()
		r := b.claim(t, "b1", token)
		a := must[*Answer](t)(h.Claim(t.Context(), site, r))
		return r, a.Wait
	}
	for name, change := range map[string]func(r *schema.EnrolRequest, w *schema.EnrolWait, p *schema.ProveRequest){
		"another proof": func(_ *schema.EnrolRequest, _ *schema.EnrolWait, p *schema.ProveRequest) { p.Proof[0] ^= 1 },
		"no proof":      func(_ *schema.EnrolRequest, _ *schema.EnrolWait, p *schema.ProveRequest) { p.Proof = nil },
		"other values":  func(_ *schema.EnrolRequest, _ *schema.EnrolWait, p *schema.ProveRequest) { p.PCRs[3][0] ^= 1 },
		"fewer values":  func(_ *schema.EnrolRequest, _ *schema.EnrolWait, p *schema.ProveRequest) { p.PCRs = p.PCRs[:8] },
		"the quote of another TPM": func(r *schema.EnrolRequest, w *schema.EnrolWait, p *schema.ProveRequest) {
			p.Quote = schema.TPMStatement(*must[*attest.Statement](t)(other.ak.Quote(w.QuoteNonce, reportOf(t, r.CSR), attest.NewPCRs(schema.AttestPCRs()...))))
		},
		"a quote of fewer PCRs": func(r *schema.EnrolRequest, w *schema.EnrolWait, p *schema.ProveRequest) {
			p.Quote = schema.TPMStatement(*must[*attest.Statement](t)(b.ak.Quote(w.QuoteNonce, reportOf(t, r.CSR), attest.NewPCRs(0, 1))))
		},
		"a quote for another nonce": func(r *schema.EnrolRequest, w *schema.EnrolWait, p *schema.ProveRequest) {
			p.Quote = schema.TPMStatement(*must[*attest.Statement](t)(b.ak.Quote(w.QuoteNonce[1:], reportOf(t, r.CSR), attest.NewPCRs(schema.AttestPCRs()...))))
		},
		"the claim's own statement": func(r *schema.EnrolRequest, _ *schema.EnrolWait, p *schema.ProveRequest) { p.Quote = r.TPM.Certify },
	} {
		r, w := challenge(t)
		p := b.prove(t, r, w)
		good := *p
		good.Proof, good.PCRs = bytes.Clone(p.Proof), slicesClone(p.PCRs)
		change(r, w, p)
		_, err := h.Prove(t.Context(), site, p)
		var ref *Refusal
		if !errors.As(err, &ref) || ref.Code != CodeProof {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := h.Prove(t.Context(), site, &good); !errors.As(err, &ref) || ref.Code != CodeChallenge {
			t.Errorf("%s: a second try at the same challenge: %v", name, err)
		}
	}
	r, w := challenge(t)
	p := b.prove(t, r, w)
	if a := must[*Answer](t)(h.Prove(t.Context(), site, p)); a.Leaf == nil {
		t.Error("no certificate")
	}
	_, err := h.Prove(t.Context(), site, p)
	wants(t, err, CodeChallenge)
	_, err = h.Prove(t.Context(), site, &schema.ProveRequest{ID: strings.Repeat("x", 1<<16)})
	wants(t, err, CodeChallenge)

	r, w = challenge(t)
	p = b.prove(t, r, w)
	h.now = func() time.Time { return time.Now().Add(challengeLife) }
	_, err = h.Prove(t.Context(), site, p)
	wants(t, err, CodeChallenge)
	h.now = time.Now

	// A foreign AK with a true claim of its own: only the TPM of the EK opens the secret.
	foreign := &board{tpm: b.tpm, ak: b.ak, key: b.key, ek: other.ek}
	r = foreign.claim(t, "b7", token)
	w = must[*Answer](t)(h.Claim(t.Context(), site, r)).Wait
	for _, k := range []*tpm.Key{b.ak, other.ak} {
		if _, err := k.Activate(&attest.Credential{Blob: w.Blob, Secret: w.Secret}); err == nil {
			t.Error("a credential for the EK of one TPM and the AK of another was opened")
		}
	}
}

func slicesClone(v [][]byte) (out [][]byte) {
	for _, b := range v {
		out = append(out, bytes.Clone(b))
	}
	return out
}

// TestTokens: good once, in time, for their board.
func TestTokens(t *testing.T) {
	t.Parallel()
	h := open(t, usual())
	one, own := h.token(t, "", 1), h.token(t, "b3", 1)
	k1 := newKey(t)
	if a := must[*Answer](t)(h.Claim(t.Context(), site, soft(t, k1, "b1", one))); a.Leaf == nil || a.Trust != schema.TrustSoftware {
		t.Fatalf("%+v", a)
	}
	if a := must[*Answer](t)(h.Claim(t.Context(), site, soft(t, k1, "b1", one))); a.Leaf == nil {
		t.Fatal("the answer was lost, and the board asks again")
	}
	for _, r := range []*schema.EnrolRequest{soft(t, newKey(t), "b2", one), soft(t, newKey(t), "b2", own), soft(t, newKey(t), "b2", strings.Repeat("a", 26))} {
		_, err := h.Claim(t.Context(), site, r)
		wants(t, err, CodeToken)
	}
	b := newBoard(t, tpmtest.Start(t))
	if a := must[*Answer](t)(b.enrol(t, h.Desk, "b3", own)); a.Leaf == nil {
		t.Error("no certificate")
	}
	// The key of b1 under another name is never a second board.
	a := must[*Answer](t)(h.Claim(t.Context(), site, soft(t, k1, "b4", h.token(t, "", 1))))
	if a.Wait == nil || !strings.Contains(a.Wait.Say, "b1") {
		t.Errorf("%+v", a)
	}
	off := open(t, Policy{Approval: true})
	if a := must[*Answer](t)(off.Claim(t.Context(), site, soft(t, newKey(t), "b1", off.token(t, "", 1)))); a.Wait == nil {
		t.Error("a token lets a board in where tokens do not")
	}
	none := open(t, Policy{Token: true})
	_, err := none.Claim(t.Context(), site, soft(t, newKey(t), "b1", ""))
	wants(t, err, CodeToken)
	tpmOnly := open(t, Policy{Token: true, NeedTPM: true})
	_, err = tpmOnly.Claim(t.Context(), site, soft(t, newKey(t), "b1", tpmOnly.token(t, "", 1)))
	wants(t, err, CodeLeast)
	if a := must[*Answer](t)(b.enrol(t, tpmOnly.Desk, "b3", tpmOnly.token(t, "", 1))); a.Leaf == nil {
		t.Error("no certificate")
	}
}

// TestRevokedStaysOut: neither its EK nor an old token brings it back.
func TestRevokedStaysOut(t *testing.T) {
	t.Parallel()
	h := open(t, usual())
	b := newBoard(t, tpmtest.Start(t))
	old := h.token(t, "b1", 1)
	if a := must[*Answer](t)(b.enrol(t, h.Desk, "b1", h.token(t, "", 1))); a.Leaf == nil {
		t.Fatal("no certificate")
	}
	if err := h.reg.Revoke(t.Context(), registry.DefaultTenant, "b1", "admin", "stolen"); err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{"b1": "", "b2": "", "b3": h.token(t, "", 1), "b4": old} {
		_, err := b.enrol(t, h.Desk, name, token)
		wants(t, err, CodeRevoked)
	}
	b.renew(t)
	_, err := b.enrol(t, h.Desk, "b1", old)
	wants(t, err, CodeRevoked)
}

// TestRate: an address that asks without end is told to wait, others are not.
func TestRate(t *testing.T) {
	t.Parallel()
	h := open(t, usual())
	now := time.Now()
	h.now = func() time.Time { return now }
	bad := &schema.EnrolRequest{Board: "b1", CSR: "x", Mode: "software"}
	for range burst {
		_, err := h.Claim(t.Context(), site, bad)
		wants(t, err, CodeCSR)
	}
	_, err := h.Claim(t.Context(), site, bad)
	wants(t, err, CodeTooMany)
	_, err = h.Prove(t.Context(), site, &schema.ProveRequest{})
	wants(t, err, CodeTooMany)
	_, err = h.Claim(t.Context(), netip.MustParseAddr("192.0.2.2"), bad)
	wants(t, err, CodeCSR)
	now = now.Add(refill)
	_, err = h.Claim(t.Context(), site, bad)
	wants(t, err, CodeCSR)
	// And the audit log holds some of them, and how many more there were.
	now = now.Add(auditWindow)
	_, err = h.Claim(t.Context(), site, bad)
	wants(t, err, CodeCSR)
	rows, last := 0, ""
	if err := h.reg.Audit().Each(context.Background(), 0, func(e audit.Entry) error { rows++; last = e.Why; return nil }); err != nil {
		t.Fatal(err)
	}
	if rows != auditRefusals+1 || !strings.Contains(last, fmt.Sprintf("%d refusals before it are not listed", burst+4-auditRefusals)) {
		t.Errorf("%d rows, the last %q", rows, last)
	}
}

// TestChallengesAreBounded: the oldest goes.
func TestChallengesAreBounded(t *testing.T) {
	t.Parallel()
	c := challenges{by: map[string]*challenge{}}
	now := time.Now()
	first := c.put(&challenge{}, now)
	var last string
	for range maxChallenges {
		last = c.put(&challenge{}, now)
	}
	if len(c.by) != maxChallenges || c.made.Len() != maxChallenges || c.take(first, now) != nil || c.take(last, now) == nil {
		t.Errorf("%d challenges", len(c.by))
	}
	c.put(&challenge{}, now.Add(challengeLife))
	if len(c.by) != 1 {
		t.Errorf("%d challenges are kept that nobody can answer", len(c.by))
	}
}
