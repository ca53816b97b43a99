// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"fulmar/fleet/ingest"
	"fulmar/schema"
	"fulmar/tpm"
	"fulmar/tpm/attest"
	"fulmar/tpm/tpmtest"
)

// person is somebody with a browser who has logged in.
type person struct {
	t    *testing.T
	base string
	http *http.Client
}

func (c *town) person(t *testing.T) *person {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := *c.http
	client.Jar = jar
	p := &person{t, "https://" + c.HTTPSAddr(), &client}
	p.post("/login", url.Values{"user": {"admin"}, "password": {c.password}})
	const chosen = "a much longer secret"
	p.post("/password", url.Values{"old": {c.password}, "new": {chosen}, "again": {chosen}})
	return p
}

func (p *person) text(res *http.Response, err error) string {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.ReplaceAll(html.UnescapeString(string(b)), "\u00a0", " ")
}

func (p *person) get(path string) string {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.base+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html")
	return p.text(p.http.Do(req))
}

func (p *person) post(path string, form url.Values) string {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "text/html")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	return p.text(p.http.Do(req))
}

// sees waits for words on a page: what a board sends takes a moment.
func (p *person) sees(path string, words ...string) {
	p.t.Helper()
	var body, lacks string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		body, lacks = p.get(path), ""
		for _, w := range words {
			if out, no := strings.CutPrefix(w, "!"); strings.Contains(body, out) == no {
				lacks = w
			}
		}
		if lacks == "" {
			return
		}
	}
	p.t.Fatalf("%s: %q", path, lacks)
}

// chipBoard is a board with a software TPM, as honest as the test makes it.
type chipBoard struct {
	t       *testing.T
	c       *town
	tpm     *tpm.TPM
	ak, key *tpm.Key
	client  mqtt.Client
	cert    tls.Certificate
	broker  string
	asked   chan []byte
}

func (c *town) chipBoard(t *testing.T) *chipBoard {
	t.Helper()
	x, err := tpm.Open(tpm.Config{Path: tpmtest.Start(t).Path()})
	if err != nil {
		t.Fatal(err)
	}
	b := &chipBoard{t: t, c: c, tpm: x, asked: make(chan []byte, 16)}
	if b.ak, err = x.CreateKey(tpm.Attestation); err != nil {
		t.Fatal(err)
	}
	if b.key, err = x.CreateKey(tpm.Signing); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *chipBoard) send(path string, v, into any) int {
	b.t.Helper()
	code, _, body := b.c.post(b.t, path, v, nil)
	if err := json.Unmarshal([]byte(body), into); err != nil {
		b.t.Fatalf("%d %s", code, body)
	}
	return code
}

// ask goes the way of enrolment once; the last answer's status, what it was, and the
// fingerprint it told.
func (b *chipBoard) ask() (int, *schema.EnrolReply, *schema.EnrolWait) {
	b.t.Helper()
	fatal := func(err error) {
		b.t.Helper()
		if err != nil {
			b.t.Fatal(err)
		}
	}
	ek, _, err := b.tpm.EndorsementKey()
	fatal(err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, b.key)
	fatal(err)
	report, nonce := sha256.Sum256(der), sha256.Sum256(nil)
	st, err := b.ak.Certify(b.key, nonce[:], report[:])
	fatal(err)
	wait, reply := new(schema.EnrolWait), new(schema.EnrolReply)
	code := b.send(schema.EnrolPath, schema.EnrolRequest{
		Board: "b1", CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), Mode: schema.KeyTPM, Facts: map[string]string{"model": "Test Board"},
		TPM: &schema.TPMClaim{EK: ek, AK: b.ak.Area(), Key: b.key.Area(), Certify: schema.TPMStatement(*st), Kind: "virtual", Maker: "IBM", Firmware: "1"},
	}, wait)
	if code != http.StatusAccepted || wait.Why != schema.WaitProof {
		return code, nil, wait
	}
	secret, err := b.ak.Activate(&attest.Credential{Blob: wait.Blob, Secret: wait.Secret})
	fatal(err)
	mac := hmac.New(sha256.New, secret)
	mac.Write(report[:])
	q, values := b.quote(wait.QuoteNonce, report[:])
	raw := json.RawMessage{}
	code = b.send(schema.ProvePath, schema.ProveRequest{ID: wait.ID, Proof: mac.Sum(nil), Quote: schema.TPMStatement(*q), PCRs: values}, &raw)
	if code == http.StatusOK {
		fatal(json.Unmarshal(raw, reply))
		return code, reply, nil
	}
	wait = new(schema.EnrolWait)
	fatal(json.Unmarshal(raw, wait))
	return code, nil, wait
}

func (b *chipBoard) quote(nonce, report []byte) (*attest.Statement, [][]byte) {
	b.t.Helper()
	pcrs := attest.NewPCRs(schema.AttestPCRs()...)
	q, err := b.ak.Quote(nonce, report, pcrs)
	if err != nil {
		b.t.Fatal(err)
	}
	values, err := b.tpm.ReadPCRs(pcrs)
	if err != nil {
		b.t.Fatal(err)
	}
	return q, values
}

// connect says hello as of a boot and gives the question that comes with the answer.
func (b *chipBoard) connect(boot uint64) (nonce []byte) {
	b.t.Helper()
	if b.client != nil {
		b.client.Disconnect(0)
	}
	c, err := connect(b.broker, "b1", b.c.ca.Pool(), b.cert)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Disconnect(0) })
	b.client = c
	asked := make(chan []byte, 1)
	tok := c.Subscribe("f/v1/default/b1/hello/ack", 1, func(_ mqtt.Client, m mqtt.Message) {
		ack := new(schema.HelloAck)
		if err := schema.Decode(m.Payload(), ack); err == nil {
			asked <- ack.Attest
		}
	})
	if !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		b.t.Fatal(tok.Error())
	}
	b.say("hello", &schema.Hello{V: 1, Board: "b1", Release: "1.0.0", Conn: boot<<8 + uint64(time.Now().UnixNano()&0xff), Now: schema.Time{Boot: boot, Wall: time.Now().UnixMilli()}})
	select {
	case nonce = <-asked:
		return nonce
	case <-time.After(10 * time.Second):
		b.t.Fatal("no answer to the hello")
	}
	return nil
}

func (b *chipBoard) say(channel string, v any) {
	b.t.Helper()
	p, err := schema.Encode(v)
	if err != nil {
		b.t.Fatal(err)
	}
	if tok := b.client.Publish("f/v1/default/b1/"+channel, 1, false, p); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		b.t.Fatal(tok.Error())
	}
}

func (b *chipBoard) attestation(nonce []byte, boot uint64) *schema.Attestation {
	b.t.Helper()
	sum := sha256.Sum256([]byte("fulmard"))
	raw, err := schema.Encode(&schema.AttestReport{V: 1, Release: "1.0.0", Program: sum[:], Boot: boot, Kind: "virtual", Rollback: "no"})
	if err != nil {
		b.t.Fatal(err)
	}
	h := sha256.Sum256(raw)
	q, values := b.quote(nonce, h[:])
	return &schema.Attestation{V: 1, Nonce: nonce, Report: raw, Attested: q.Attested, Signature: q.Signature, PCRs: values}
}

// TestTrust: a board with a TPM asks, a person lets it in on the page, it proves what
// it runs, lies, is found out, and is shut out on the page.
func TestTrust(t *testing.T) {
	t.Parallel()
	c := serve(t)
	p, b := c.person(t), c.chipBoard(t)
	code, _, wait := b.ask()
	if code != http.StatusAccepted || wait.Why != schema.WaitApproval {
		t.Fatalf("a new board: %d %+v", code, wait)
	}
	body := p.get("/")
	for _, want := range []string{"b1 asks to join", wait.Fingerprint, "Which TPM that is, the fingerprint alone tells", "Test Board", "127.0.0.1"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	form := regexp.MustCompile(`action="(/requests/\d+)"`).FindStringSubmatch(body)
	if form == nil {
		t.Fatal("no form to decide with")
	}
	if body = p.post(form[1], url.Values{"decision": {"approve"}, "back": {"/"}}); !strings.Contains(body, "Approved by admin") {
		t.Fatal("the page does not say that it was approved")
	}
	code, reply, _ := b.ask()
	if code != http.StatusOK || reply.Trust != schema.TrustFirstUse {
		t.Fatalf("after the approval: %d %+v", code, reply)
	}
	leaf, _ := pem.Decode([]byte(reply.Certificate))
	b.cert, b.broker = tls.Certificate{Certificate: [][]byte{leaf.Bytes}, PrivateKey: b.key}, reply.Broker
	p.sees("/boards/b1", "Claimed: what it runs is its own word", wait.Fingerprint, "!asks to join")

	nonce := b.connect(1)
	if len(nonce) != 32 {
		t.Fatalf("asked with %d bytes", len(nonce))
	}
	old := b.attestation(nonce, 1)
	b.say("at", old)
	p.sees("/boards/b1", "Bound: its TPM signed what it says it runs", "virtual: whoever runs the machine", "fulmard 1.0.0", "does not resist it", "0 since its first proof")
	if again := b.connect(1); again != nil {
		t.Error("asked anew within a day, for nothing new")
	}

	nonce = b.connect(2)
	old.Nonce = nonce // an old quote under the new question
	b.say("at", old)
	p.sees("/boards/b1", "Its newest proof was not believed", "an old proof was sent again, or the report was changed", "Proofs not believed</dt><dd>1, the newest")
	b.say("t/host", sampleBatch(t)) // the link goes on
	p.sees("/", "The proof of its TPM was not believed")
	if code, body := c.get(t, "/metrics", c.token(t)); code != 200 || !strings.Contains(body, "fulmar_fleet_attestations_refused_total 1") || !strings.Contains(body, "fulmar_fleet_attestations_good_total 1") {
		t.Errorf("metrics: %d", code)
	}
	b.say("at", b.attestation(b.connect(2), 2))
	p.sees("/boards/b1", "Bound: its TPM signed what it says it runs", "!was not believed")

	for _, boot := range []uint64{1, 2} { // boots that were over come back: another board has its disk
		c.clones.Heard(ingest.BoardKey{Tenant: "default", Board: "b1"}, boot)
	}
	p.sees("/", "Two boards use this identity: a disk was copied")
	p.sees("/boards/b1", "They take turns")

	gone := make(chan struct{})
	go func() {
		for b.client.IsConnected() {
			time.Sleep(10 * time.Millisecond)
		}
		close(gone)
	}()
	if body = p.post("/boards/b1/revoke", url.Values{"confirm": {"b1"}, "why": {"stolen"}}); !strings.Contains(body, "<h2>Shut out</h2>") {
		t.Error("the page does not say that it is shut out")
	}
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Fatal("a board that was shut out is still connected")
	}
	if code, _, _ = b.ask(); code != http.StatusForbidden {
		t.Errorf("a board that was shut out asks again: %d", code)
	}
	p.sees("/", "shut out: its certificate was revoked", "!b1 asks to join")
	p.post("/boards/b1/forget", url.Values{"confirm": {"b1"}})
	if code, _, wait = b.ask(); code != http.StatusAccepted || wait.Why != schema.WaitApproval {
		t.Errorf("a board that was forgotten asks: %d %+v", code, wait)
	}
	p.sees("/", "b1 asks to join")
}

// token gives one for programs that read.
func (c *town) token(t *testing.T) string {
	t.Helper()
	s, err := c.reg.NewAPIToken(t.Context(), "default", "read", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sampleBatch(t *testing.T) *schema.Message {
	t.Helper()
	m := new(schema.Message)
	if err := schema.Decode(bytes.Clone(batch(t, 1)), m); err != nil {
		t.Fatal(err)
	}
	return m
}
