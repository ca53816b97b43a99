// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
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

// do sends a request of a program.
func (c *town) do(t *testing.T, method, path, token, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, "https://"+c.HTTPSAddr()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

func (c *town) apiToken(t *testing.T, scope registry.Scope) string {
	t.Helper()
	s, err := c.reg.NewAPIToken(t.Context(), registry.DefaultTenant, scope, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ask enrols without a token and gives the answer as it is.
func (c *town) ask(t *testing.T, path string, req any) (int, schema.EnrolReply, schema.EnrolWait, string) {
	t.Helper()
	status, reply, body := c.post(t, path, req, nil)
	var wait schema.EnrolWait
	if status == http.StatusAccepted {
		if err := json.Unmarshal([]byte(body), &wait); err != nil {
			t.Fatal(err)
		}
	}
	return status, reply, wait, body
}

// TestKeeping: a board asks, a program with the right to approves it, it delivers, is
// revoked while connected, stays out, is wiped, and all of it stands in the audit log.
func TestKeeping(t *testing.T) {
	t.Parallel()
	c := serve(t)
	admin, read := c.apiToken(t, registry.ScopeAdmin), c.apiToken(t, registry.ScopeRead)
	key, csr := newCSR(t)
	req := schema.EnrolRequest{Board: "b1", CSR: csr, Mode: schema.KeySoftware, Facts: map[string]string{"model": "test"}}
	status, _, wait, body := c.ask(t, schema.EnrolPath, req)
	if status != http.StatusAccepted || wait.Why != schema.WaitApproval || len(wait.Fingerprint) != 16 {
		t.Fatalf("%d %s", status, body)
	}
	_, body = c.do(t, "GET", "/api/v1/requests", read, "")
	var list struct{ Requests []struct{ ID int64 } }
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list.Requests) != 1 || !strings.Contains(body, wait.Fingerprint) || !strings.Contains(body, `"from":"127.0.0.1"`) {
		t.Fatalf("%v %s", err, body)
	}
	approve := fmt.Sprintf("/api/v1/requests/%d/approve", list.Requests[0].ID)
	for token, want := range map[string]int{"": 401, "fk1_wrong": 401, read: 403} {
		for _, r := range [][2]string{{"POST", approve}, {"POST", "/api/v1/boards/b1/revoke"}, {"DELETE", "/api/v1/boards/b1?confirm=b1"}} {
			if status, body := c.do(t, r[0], r[1], token, ""); status != want {
				t.Errorf("%v with a token of %d characters: %d %s", r, len(token), status, body)
			}
		}
	}
	for path, want := range map[string]int{
		"/api/v1/requests/999/approve": 404, "/api/v1/requests/x/approve": 404, "/api/v1/boards/b9/revoke": 404, "/api/v1/boards/..%2Fb1/revoke": 404, "/api/v1/requests/1/love": 404,
	} {
		if status, body := c.do(t, "POST", path, admin, ""); status != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, body := c.do(t, "POST", approve, admin, `{"why": 5}`); status != 400 {
		t.Errorf("%d %s", status, body)
	}
	if status, body := c.do(t, "POST", approve, admin, ""); status != http.StatusNoContent {
		t.Fatalf("%d %s", status, body)
	}
	status, reply, _, body := c.ask(t, schema.EnrolPath, req)
	if status != http.StatusOK || reply.Trust != schema.TrustSoftware {
		t.Fatalf("%d %s", status, body)
	}
	cert := certOf(t, reply.Certificate, key)
	board, err := connect(c.MQTTAddr(), "b1", c.ca.Pool(), cert)
	if err != nil {
		t.Fatal(err)
	}
	if tok := board.Publish("f/v1/default/b1/t/host", 1, false, batch(t, 1)); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	if status, body := c.do(t, "GET", "/api/v1/boards", read, ""); status != 200 || !strings.Contains(body, `"board":"b1","trust":"software","fingerprint":"`+wait.Fingerprint+`"`) {
		t.Errorf("%d %s", status, body)
	}
	if status, body := c.do(t, "POST", "/api/v1/boards/b1/revoke", admin, `{"why": "stolen"}`); status != http.StatusNoContent {
		t.Fatalf("%d %s", status, body)
	}
	for began := time.Now(); board.IsConnectionOpen(); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > 5*time.Second {
			t.Fatal("the session goes on after the board was revoked")
		}
	}
	c.staysOut(t, req, cert)
	if status, _ := c.do(t, "DELETE", "/api/v1/boards/b1?confirm=b2", admin, ""); status != 400 {
		t.Error("wiped without its name")
	}
	if status, body := c.do(t, "DELETE", "/api/v1/boards/b1?confirm=b1", admin, `{"why":"sold"}`); status != http.StatusNoContent {
		t.Fatalf("%d %s", status, body)
	}
	if status, body := c.do(t, "GET", "/api/v1/overview", read, ""); status != 200 || strings.Contains(body, "b1") {
		t.Errorf("the fleet still knows a wiped board: %s", body)
	}
	if status, _ := c.do(t, "DELETE", "/api/v1/boards/b1?confirm=b1", admin, ""); status != 404 {
		t.Error("wiped twice")
	}
	var got []string
	if err := c.reg.Audit().Each(t.Context(), 0, func(e audit.Entry) error { got = append(got, e.What+" by "+strings.Fields(e.Who)[0]); return nil }); err != nil {
		t.Fatal(err)
	}
	want := "audit-key by server, user-add by server, api-token by server, api-token by server, ask by board, approve by token, enrol by board, revoke by token, " +
		"refuse-enrol by address, refuse-enrol by address, refuse-enrol by address, forget by token, wipe by token"
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("got\n%s\nwants\n%s", s, want)
	}
	if _, _, err := c.reg.Audit().Verify(t.Context(), audit.Head{}); err != nil {
		t.Error(err)
	}
	if status, body := c.do(t, "GET", "/metrics", read, ""); status != 200 || !strings.Contains(body, `fulmar_fleet_enrol_refused_total{reason="revoked"} 3`) || !strings.Contains(body, "fulmar_fleet_sessions_shut_total 1") {
		t.Errorf("%d %s", status, body)
	}
}

// TestSaidAtOnce: what lets boards in looks at the fleet, enrols one, and may say at once
// where it stands, not only when the fleet is looked at anew.
func TestSaidAtOnce(t *testing.T) {
	t.Parallel()
	c := serve(t)
	admin := c.apiToken(t, registry.ScopeAdmin)
	for i := range 5 {
		if status, body := c.do(t, "GET", "/api/v1/boards", admin, ""); status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
		token, err := c.reg.NewJoinToken(t.Context(), registry.DefaultTenant, "", 1, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		board := fmt.Sprintf("b%d", i)
		_, csr := newCSR(t)
		if status, _, _, body := c.ask(t, schema.EnrolPath, schema.EnrolRequest{Token: token, Board: board, CSR: csr, Mode: schema.KeySoftware}); status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
		if status, body := c.do(t, "GET", "/api/v1/boards/"+board+"/meta", admin, ""); status != http.StatusOK {
			t.Errorf("%s: %d %s", board, status, body)
		}
	}
}

// staysOut: a revoked board neither enrols nor renews, also over a resumed TLS session.
func (c *town) staysOut(t *testing.T, req schema.EnrolRequest, cert tls.Certificate) {
	t.Helper()
	if status, _, _, body := c.ask(t, schema.EnrolPath, req); status != http.StatusForbidden || !strings.Contains(body, "urn:fulmar:problem:revoked") {
		t.Errorf("enrols: %d %s", status, body)
	}
	cfg := &tls.Config{RootCAs: c.ca.Pool(), MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientSessionCache: tls.NewLRUClientSessionCache(4)}
	b, _ := json.Marshal(req)
	for i := range 2 {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}, Timeout: 20 * time.Second}
		res, err := client.Post("https://"+c.HTTPSAddr()+schema.RenewPath, "application/json", bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != http.StatusForbidden || !strings.Contains(string(body), "revoked") || res.TLS.DidResume != (i == 1) {
			t.Errorf("renews: %d %s, resumed %v", res.StatusCode, body, res.TLS.DidResume)
		}
	}
}

// TestFromElsewhere: a page of another site cannot approve or wipe with a session.
func TestFromElsewhere(t *testing.T) {
	t.Parallel()
	c := serve(t)
	for _, r := range [][2]string{{"POST", "/api/v1/requests/1/approve"}, {"DELETE", "/api/v1/boards/b1?confirm=b1"}} {
		req, _ := http.NewRequest(r[0], "https://"+c.HTTPSAddr()+r[1], nil)
		req.Header.Set("Sec-Fetch-Site", "cross-site")
		req.Header.Set("Authorization", "Bearer "+c.apiToken(t, registry.ScopeAdmin))
		res, err := c.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("%v: %d", r, res.StatusCode)
		}
	}
}

// TestTwoBoardsOneIdentity: a copied disk is found out, and told.
func TestTwoBoardsOneIdentity(t *testing.T) {
	t.Parallel()
	c := serve(t)
	secret, err := c.reg.NewJoinToken(t.Context(), registry.DefaultTenant, "", 1, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	key, csr := newCSR(t)
	_, reply, body := c.post(t, schema.EnrolPath, schema.EnrolRequest{Token: secret, Board: "b1", CSR: csr, Mode: schema.KeySoftware}, nil)
	cert := certOf(t, reply.Certificate, key)
	for i, boot := range []uint64{1, 2, 1, 2, 1} {
		board, err := connect(c.MQTTAddr(), "b1", c.ca.Pool(), cert)
		if err != nil {
			t.Fatal(err, body)
		}
		p, err := schema.Encode(&schema.Hello{V: 1, Board: "b1", Conn: uint64(i + 1), Now: schema.Time{Boot: boot}})
		if err != nil {
			t.Fatal(err)
		}
		if tok := board.Publish("f/v1/default/b1/hello", 1, false, p); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
			t.Fatal(tok.Error())
		}
		if two := len(c.clones.Clones("default")); two != map[bool]int{true: 1}[i >= 3] {
			t.Errorf("after hello %d: %d", i+1, two)
		}
	}
	n := 0
	if err := c.reg.Audit().Each(t.Context(), 0, func(e audit.Entry) error {
		if e.What == "clone" {
			n++
		}
		return nil
	}); err != nil || n != 1 || c.twins.Load() != 1 {
		t.Errorf("told %d times, %v", n, err)
	}
}

// Test200: 200 boards enrol at once, some with a TPM, by one token, from one address. None
// is lost and none is there twice.
func Test200(t *testing.T) {
	t.Parallel()
	const all, withTPM = 200, 12
	c := serve(t)
	secret, err := c.reg.NewJoinToken(t.Context(), registry.DefaultTenant, "", all, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	tpmtest.Need(t, "swtpm")
	type board struct {
		req   schema.EnrolRequest
		prove func(w *schema.EnrolWait) any
	}
	boards := make([]board, all)
	for i := range boards {
		name := fmt.Sprintf("b%d", i)
		if i < withTPM {
			boards[i].req, boards[i].prove = tpmBoard(t, name, secret)
			continue
		}
		_, csr := newCSR(t)
		boards[i].req = schema.EnrolRequest{Token: secret, Board: name, CSR: csr, Mode: schema.KeySoftware}
	}
	began := time.Now()
	var wg sync.WaitGroup
	for _, b := range boards {
		wg.Go(func() {
			status, reply, wait, body := c.ask(t, schema.EnrolPath, b.req)
			if b.prove != nil && status == http.StatusAccepted {
				status, reply, _, body = c.ask(t, schema.ProvePath, b.prove(&wait))
			}
			if status != http.StatusOK || reply.Board != b.req.Board || (reply.Trust == schema.TrustSoftware) != (b.prove == nil) {
				t.Errorf("%s: %d %s", b.req.Board, status, body)
			}
		})
	}
	wg.Wait()
	t.Logf("%d boards, %d with a TPM, in %v", all, withTPM, time.Since(began))
	got, err := c.reg.Boards(context.Background(), registry.DefaultTenant)
	if err != nil || len(got) != all {
		t.Fatalf("%d boards are enrolled, wants %d, %v", len(got), all, err)
	}
	_, csr := newCSR(t)
	if status, _, _, body := c.ask(t, schema.EnrolPath, schema.EnrolRequest{Token: secret, Board: "more", CSR: csr, Mode: schema.KeySoftware}); status != http.StatusForbidden {
		t.Errorf("the token was used less often than boards came in: %d %s", status, body)
	}
}

// tpmBoard makes the claim of a board with a TPM of its own, and what answers the challenge.
func tpmBoard(t *testing.T, name, token string) (schema.EnrolRequest, func(*schema.EnrolWait) any) {
	t.Helper()
	fatal := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	chip, err := tpm.Open(tpm.Config{Path: tpmtest.Start(t).Path()})
	fatal(err)
	t.Cleanup(func() { _ = chip.Close() })
	ek, _, err := chip.EndorsementKey()
	fatal(err)
	ak, err := chip.CreateKey(tpm.Attestation)
	fatal(err)
	key, err := chip.CreateKey(tpm.Signing)
	fatal(err)
	csr := csrOf(t, key)
	der, _ := pem.Decode([]byte(csr))
	report, nonce := sha256.Sum256(der.Bytes), sha256.Sum256([]byte(token))
	st, err := ak.Certify(key, nonce[:], report[:])
	fatal(err)
	req := schema.EnrolRequest{
		Token: token, Board: name, CSR: csr, Mode: schema.KeyTPM,
		TPM: &schema.TPMClaim{EK: ek, AK: ak.Area(), Key: key.Area(), Certify: schema.TPMStatement(*st), Kind: "virtual"},
	}
	return req, func(w *schema.EnrolWait) any {
		secret, err := ak.Activate(&attest.Credential{Blob: w.Blob, Secret: w.Secret})
		pcrs := attest.NewPCRs(schema.AttestPCRs()...)
		values, err2 := chip.ReadPCRs(pcrs)
		q, err3 := ak.Quote(w.QuoteNonce, report[:], pcrs)
		if err != nil || err2 != nil || err3 != nil {
			t.Error(err, err2, err3)
			return nil
		}
		mac := hmac.New(sha256.New, secret)
		mac.Write(report[:])
		return schema.ProveRequest{ID: w.ID, Proof: mac.Sum(nil), Quote: schema.TPMStatement(*q), PCRs: values}
	}
}

// TestWipeWhileSending: a board that goes on sending while it is wiped leaves nothing.
func TestWipeWhileSending(t *testing.T) {
	t.Parallel()
	c := serve(t)
	secret, err := c.reg.NewJoinToken(t.Context(), registry.DefaultTenant, "", 1, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	key, csr := newCSR(t)
	_, reply, _ := c.post(t, schema.EnrolPath, schema.EnrolRequest{Token: secret, Board: "b1", CSR: csr, Mode: schema.KeySoftware}, nil)
	board, err := connect(c.MQTTAddr(), "b1", c.ca.Pool(), certOf(t, reply.Certificate, key))
	if err != nil {
		t.Fatal(err)
	}
	sending, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for seq := uint64(1); ; seq++ {
			tok := board.Publish("f/v1/default/b1/t/host", 1, false, batch(t, seq))
			if !tok.WaitTimeout(10*time.Second) || tok.Error() != nil || !board.IsConnectionOpen() {
				return
			}
			if seq == 20 {
				close(sending)
			}
		}
	}()
	<-sending
	if status, body := c.do(t, "DELETE", "/api/v1/boards/b1?confirm=b1", c.apiToken(t, registry.ScopeAdmin), ""); status != http.StatusNoContent {
		t.Fatalf("%d %s", status, body)
	}
	<-ended
	var n int
	if err := c.ledger.Read.QueryRow("SELECT (SELECT count(*) FROM board) + (SELECT count(*) FROM telemetry)").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows are left, %v", n, err)
	}
}

// TestRevokedByAnotherProcess: a server in a process of its own hears of what this one
// does with the file, as the command line does.
func TestRevokedByAnotherProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, err := ca.Open(filepath.Join(dir, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	reg, err := registry.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	secret, err := reg.NewJoinToken(t.Context(), registry.DefaultTenant, "", 1, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	key, csr := newCSR(t)
	_, leaf, err := reg.Enrol(t.Context(), registry.Enrolment{Secret: secret, Board: "b1", KeyHash: [32]byte{1}},
		func(tenant string) (*ca.Leaf, error) { return a.Issue([]byte(csr), tenant, "b1", schema.TrustSoftware) })
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	board, err := connect(strings.TrimSpace(addr), "b1", a.Pool(), certOf(t, string(leaf.PEM), key))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := reg.Revoke(t.Context(), registry.DefaultTenant, "b1", "admin", "stolen"); err != nil {
		t.Fatal(err)
	}
	for ; board.IsConnectionOpen(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 5*time.Second {
			t.Fatal("the session goes on after the board was revoked")
		}
	}
	t.Logf("ended after %v", time.Since(began))
}
