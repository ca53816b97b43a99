// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"fulmar/schema"
)

// Bounds of one question to the fleet.
const (
	enrolTimeout   = 20 * time.Second // TLS and one request
	maxEnrolReply  = 64 << 10         // bytes: two certificates and some names
	maxCredential  = 1024             // bytes: 52 and 256 to 384 for the keys there are
	maxQuoteNonce  = 64
	maxSentence    = 500 // bytes of the fleet's own words that are kept
	problemExcerpt = 300
)

// waiting says that a person has to decide.
type waiting struct {
	say         string
	after       time.Duration
	fingerprint string
}

func (w *waiting) Error() string {
	return fmt.Sprintf("waiting for somebody to let this board in; its fingerprint is %s: %s", w.fingerprint, w.say)
}

// refusal is an answer of the fleet that is no.
type refusal struct {
	status string
	code   string // of the problem, "token"
	say    string
	after  time.Duration // the fleet asks to wait so long
}

func (r *refusal) Error() string {
	return fmt.Sprintf("fleet refused the enrolment (%s): %s", r.status, r.say)
}

func newClient(c *tls.Config) *http.Client {
	return &http.Client{Timeout: enrolTimeout, Transport: &http.Transport{TLSClientConfig: c, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute}}
}

// request makes a request for a certificate, and gives the DER of its CSR.
func (e *Enroller) request(key Key) (*schema.EnrolRequest, []byte, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: e.Board},
	}, key.Signer())
	if err != nil {
		return nil, nil, fmt.Errorf("sign certificate request: %w", err)
	}
	return &schema.EnrolRequest{
		Board: e.Board, Mode: key.Mode(), Facts: e.Facts,
		CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
	}, csr, nil
}

// ask asks for a certificate: a board with a TPM says what it has, is challenged, and
// proves it.
func (e *Enroller) ask(ctx context.Context, client *http.Client, c contact, key Key) (*schema.EnrolReply, error) {
	req, csr, err := e.request(key)
	if err != nil {
		return nil, err
	}
	req.Token = c.secret
	finger := fingerprint(key)
	chip, proves := key.(*TPMKey)
	if proves {
		if req.TPM, err = chip.claim(ctx, c.secret, csr); err != nil {
			return nil, err
		}
		finger = fingerprintOf(req.TPM.EK)
	}
	a, err := post(ctx, client, e.Fleet, schema.EnrolPath, req)
	if err == nil && a.wait != nil && a.wait.Why == schema.WaitProof && proves {
		var proof *schema.ProveRequest
		if proof, err = chip.prove(ctx, a.wait, csr); err == nil {
			a, err = post(ctx, client, e.Fleet, schema.ProvePath, proof)
		}
	}
	switch {
	case err != nil:
		return nil, err
	case a.reply != nil:
		return a.reply, nil
	case a.wait.Why == schema.WaitApproval:
		if f := a.wait.Fingerprint; f != "" && f != finger {
			e.Log.Error("the fleet shows another fingerprint for this board; do not approve it", "fleet", printable(f, maxSentence), "board", finger)
		}
		return nil, &waiting{printable(a.wait.Say, maxSentence), time.Duration(a.wait.RetryAfterMs) * time.Millisecond, finger}
	}
	return nil, errors.New("the fleet asks for a proof that this board cannot give, or for a second one")
}

// answer is what the fleet said: one of the two.
type answer struct {
	reply *schema.EnrolReply
	wait  *schema.EnrolWait
}

func post(ctx context.Context, client *http.Client, fleet, path string, body any) (*answer, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+fleet+path, bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("ask for a certificate: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s for a certificate: %w", fleet, err)
	}
	defer resp.Body.Close()
	if b, err = io.ReadAll(io.LimitReader(resp.Body, maxEnrolReply)); err != nil {
		return nil, fmt.Errorf("ask %s for a certificate: %w", fleet, err)
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusAccepted {
		s, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		code, say := problem(b)
		return nil, &refusal{resp.Status, code, say, time.Duration(min(max(s, 0), 3600)) * time.Second}
	}
	a, err := parseAnswer(resp.StatusCode, b)
	if err != nil {
		return nil, fmt.Errorf("enrolment reply of %s: %w", fleet, err)
	}
	return a, nil
}

// parseAnswer reads an answer of status 200 or 202. What a reply says is checked by
// newIdentity.
func parseAnswer(status int, b []byte) (*answer, error) {
	a := &answer{}
	var into any
	if status == http.StatusOK {
		a.reply = new(schema.EnrolReply)
		into = a.reply
	} else {
		a.wait = new(schema.EnrolWait)
		into = a.wait
	}
	if err := json.Unmarshal(b, into); err != nil {
		return nil, fmt.Errorf("is not JSON: %w", err)
	}
	w := a.wait
	switch {
	case w == nil:
	case w.Why != schema.WaitProof && w.Why != schema.WaitApproval:
		return nil, fmt.Errorf("waits for %q, which this version does not know", printable(w.Why, maxSentence))
	case w.RetryAfterMs < 0 || w.RetryAfterMs > time.Hour.Milliseconds():
		return nil, fmt.Errorf("asks to come back in %d ms", w.RetryAfterMs)
	case w.Why == schema.WaitProof && (len(w.ID) == 0 || len(w.ID) > schema.MaxName || len(w.Blob) == 0 || len(w.Blob) > maxCredential ||
		len(w.Secret) == 0 || len(w.Secret) > maxCredential || len(w.QuoteNonce) == 0 || len(w.QuoteNonce) > maxQuoteNonce):
		return nil, fmt.Errorf("has a challenge with fields of %d, %d, %d and %d bytes", len(w.ID), len(w.Blob), len(w.Secret), len(w.QuoteNonce))
	}
	return a, nil
}

// printable is a text of the fleet as it may go into a log or a report, at most limit
// bytes of it.
func printable(s string, limit int) string {
	s = strings.ToValidUTF8(s[:min(len(s), limit)], "?") // never longer than it was
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// problem takes code and sentence out of a problem+json body.
func problem(b []byte) (code, say string) {
	var p struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Detail string `json:"detail"`
	}
	say = string(b)
	if json.Unmarshal(b, &p) == nil && (p.Detail != "" || p.Title != "") {
		say = p.Title
		if p.Detail != "" {
			say += ": " + p.Detail
		}
		code, _ = strings.CutPrefix(p.Type, "urn:fulmar:problem:")
	}
	return code, printable(say, problemExcerpt)
}

// fingerprint is what a person compares for a key without a TPM: its first 16 hex
// digits of the SHA-256 of its PKIX form. For a key in a TPM the endorsement key's
// stands, which only an enrolment asks for: "".
func fingerprint(k Key) string {
	pub, ok := k.Signer().Public().(*ecdsa.PublicKey)
	if !ok || k.Mode() != schema.KeySoftware {
		return ""
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return ""
	}
	return fingerprintOf(der)
}

func fingerprintOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}
