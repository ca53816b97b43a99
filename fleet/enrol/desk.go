// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"fulmar/fleet/ca"
	"fulmar/fleet/registry"
	"fulmar/fleet/registry/limit"
	"fulmar/schema"
	"fulmar/tpm/attest"
)

const (
	// burst and refill bound the requests of one address: a site of 300 boards that all
	// come at once, two requests each, and then 20 a second. One costs under 1 ms.
	burst  = 1000
	refill = 50 * time.Millisecond
	// A board that waits for a person asks again after askAgain, later where many wait:
	// each asking is two requests and a commit.
	askAgain     = 10 * time.Second
	askAgainEach = 100 * time.Millisecond
)

// Issuer signs certificates of boards.
type Issuer interface {
	Issue(csr []byte, tenant, board, trust string) (*ca.Leaf, error)
	Verify(cert *x509.Certificate) (ca.Identity, error)
}

// Desk enrols boards.
type Desk struct {
	policy Policy
	issuer Issuer
	reg    *registry.Registry
	log    *slog.Logger
	now    func() time.Time // the fleet's clock; tests have their own

	open  challenges
	rate  *limit.Limiter[netip.Addr]
	book  *book
	count struct{ issued, renewed, waiting atomic.Uint64 }
}

// Stats are counters since the start.
type Stats struct {
	Issued  uint64 // first certificates, and those of boards that enrolled again
	Renewed uint64
	Waiting uint64 // answers that a person has to decide
	Refused map[Code]uint64
}

// Stats tells the counters.
func (d *Desk) Stats() Stats {
	s := Stats{Issued: d.count.issued.Load(), Renewed: d.count.renewed.Load(), Waiting: d.count.waiting.Load(), Refused: map[Code]uint64{}}
	for c, n := range d.book.counts {
		s.Refused[c] = n.Load()
	}
	return s
}

// New makes a desk.
func New(p Policy, issuer Issuer, reg *registry.Registry, log *slog.Logger) *Desk {
	return &Desk{
		policy: p, issuer: issuer, reg: reg, log: log, now: time.Now,
		open: challenges{by: map[string]*challenge{}}, rate: limit.New[netip.Addr](burst, refill), book: newBook(),
	}
}

// Answer is what a board gets: a certificate, or Wait.
type Answer struct {
	Wait   *schema.EnrolWait // nil with a certificate
	Tenant string
	Board  string
	Trust  string
	Leaf   *ca.Leaf
}

// Claim takes a first request. With a software key it is decided at once; with a TPM the
// answer is a challenge. A refused one's error is a [*Refusal].
func (d *Desk) Claim(ctx context.Context, from netip.Addr, req *schema.EnrolRequest) (*Answer, error) {
	return d.settle(ctx, from, req.Board, func() (*Answer, error) {
		if err := checkForm(req); err != nil {
			return nil, err
		}
		csr, err := parseCSR(req)
		if err != nil {
			return nil, err
		}
		if req.Mode == schema.KeySoftware {
			if d.policy.NeedTPM {
				return nil, refuse(CodeLeast, nil, "This fleet takes only boards that keep their key in a TPM")
			}
			return d.admit(ctx, from, req.Token, []byte(req.CSR), registry.Enrolment{
				Board: req.Board, KeyMode: req.Mode, Facts: req.Facts, KeyHash: ca.KeyHash(csr), Trust: schema.TrustSoftware,
			})
		}
		ch, err := d.checkClaim(req, csr)
		if err != nil {
			return nil, err
		}
		ch.secret, ch.nonce, ch.ask.Secret = random(), random(), req.Token
		cred, err := attest.MakeCredential(req.TPM.EK, ch.ak, ch.secret)
		if err != nil {
			return nil, refuse(CodeClaim, err, "No challenge can be made for this endorsement key")
		}
		return &Answer{Wait: &schema.EnrolWait{
			Why: schema.WaitProof, Say: "The TPM has to answer a challenge.", Fingerprint: fingerprint(&ch.ask),
			ID: d.open.put(ch, d.now()), Blob: cred.Blob, Secret: cred.Secret, QuoteNonce: ch.nonce,
		}}, nil
	})
}

// Prove takes the answer to a challenge.
func (d *Desk) Prove(ctx context.Context, from netip.Addr, p *schema.ProveRequest) (*Answer, error) {
	var ch *challenge
	if len(p.ID) <= maxChallenge {
		ch = d.open.take(p.ID, d.now())
	}
	if ch == nil {
		return d.settle(ctx, from, "", func() (*Answer, error) {
			return nil, refuse(CodeChallenge, nil, "The challenge is unknown, was used or is over five minutes old; enrol again from the start")
		})
	}
	return d.settle(ctx, from, ch.ask.Board, func() (*Answer, error) {
		if err := ch.verify(p); err != nil {
			return nil, err
		}
		return d.admit(ctx, from, ch.ask.Secret, ch.csr, ch.ask)
	})
}

// verify checks that the TPM with the EK of the claim holds its AK, and that this AK
// speaks now.
func (c *challenge) verify(p *schema.ProveRequest) error {
	mac := hmac.New(sha256.New, c.secret)
	mac.Write(c.report)
	if !hmac.Equal(mac.Sum(nil), p.Proof) {
		return refuse(CodeProof, nil, "The challenge was not opened by the TPM that the claim names")
	}
	if _, err := attest.VerifyQuote(c.ak, attest.Statement(p.Quote), c.nonce, c.report, attest.NewPCRs(schema.AttestPCRs()...), p.PCRs); err != nil {
		return refuse(CodeProof, err, "The quote does not hold for this challenge and the values sent with it")
	}
	return nil
}

// Renew gives a board its next certificate; cert is the one it showed in the handshake,
// which may have expired.
func (d *Desk) Renew(ctx context.Context, from netip.Addr, cert *x509.Certificate, req *schema.EnrolRequest) (*Answer, error) {
	return d.settle(ctx, from, req.Board, func() (*Answer, error) {
		if err := checkForm(req); err != nil {
			return nil, err
		}
		unknown := func(why error) error {
			return refuse(CodeCert, why, "The certificate is unknown, replaced or not this board's; enrol again")
		}
		if cert == nil {
			return nil, unknown(nil)
		}
		id, err := d.issuer.Verify(cert)
		if err != nil || id.Board != req.Board {
			return nil, unknown(err)
		}
		csr, err := parseCSR(req)
		if err != nil {
			return nil, err
		}
		leaf, trust, err := d.reg.Renew(ctx, id, ca.KeyHash(csr), func(trust string) (*ca.Leaf, error) {
			return d.issuer.Issue([]byte(req.CSR), id.Tenant, id.Board, trust)
		})
		if errors.Is(err, registry.ErrUnknown) {
			return nil, unknown(nil)
		}
		if err != nil {
			return nil, err
		}
		d.count.renewed.Add(1)
		return &Answer{Tenant: id.Tenant, Board: id.Board, Trust: trust, Leaf: leaf}, nil
	})
}

// settle holds an address to its rate and does what every end has in common.
func (d *Desk) settle(ctx context.Context, from netip.Addr, board string, do func() (*Answer, error)) (*Answer, error) {
	if schema.CheckBoard(board) != nil {
		board = "" // not the board's word into the logs
	}
	var a *Answer
	err := refuse(CodeTooMany, nil, "Too many requests from this address; wait some seconds")
	if d.rate.Take(limit.Source(from), d.now()) {
		a, err = do()
	}
	var r *Refusal
	if err = refusal(err); errors.As(err, &r) {
		d.note(ctx, from, board, r)
	}
	if err != nil {
		return nil, err
	}
	if a.Leaf != nil {
		d.log.Info("certificate issued", "tenant", a.Tenant, "board", a.Board, "trust", a.Trust, "serial", a.Leaf.Serial, "remote", from)
	}
	return a, nil
}

// admit has the registry decide about a board that has proven what it asks with.
func (d *Desk) admit(ctx context.Context, from netip.Addr, secret string, csr []byte, e registry.Enrolment) (*Answer, error) {
	e.From, e.Ask = from.String(), d.policy.Approval
	if e.Secret = ""; d.policy.Token {
		e.Secret = secret
	}
	tenant, leaf, err := d.reg.Enrol(ctx, e, func(tenant string) (*ca.Leaf, error) {
		return d.issuer.Issue(csr, tenant, e.Board, e.Trust)
	})
	var w *registry.Waiting
	if errors.As(err, &w) {
		d.count.waiting.Add(1)
		return &Answer{Tenant: tenant, Board: e.Board, Wait: &schema.EnrolWait{
			Why: schema.WaitApproval, Say: w.Say + " A person has to decide at the fleet.", Fingerprint: fingerprint(&e),
			RetryAfterMs: max(askAgain, time.Duration(w.Among)*askAgainEach).Milliseconds(),
		}}, nil
	}
	if err != nil {
		return nil, err
	}
	d.count.issued.Add(1)
	return &Answer{Tenant: tenant, Board: e.Board, Trust: e.Trust, Leaf: leaf}, nil
}

// fingerprint is what a person compares.
func fingerprint(e *registry.Enrolment) string {
	if e.TPM != nil {
		return hex.EncodeToString(e.TPM.EKHash[:8])
	}
	return hex.EncodeToString(e.KeyHash[:8])
}
