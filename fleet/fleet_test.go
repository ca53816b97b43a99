// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"fulmar/fleet/entrance"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"fulmar/fleet/ca"
	"fulmar/fleet/registry"
	"fulmar/schema"
)

// childDir makes the test binary serve a fleet, to be killed.
const childDir = "FULMAR_FLEET_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		cfg := Config{Data: dir, Listen: "127.0.0.1:0", MQTT: "127.0.0.1:0"}
		s, err := New(cfg, func(string) {}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
		if err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Stdout.WriteString(s.MQTTAddr() + "\n")
		_ = s.Run(context.Background())
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// town is a fleet that serves.
type town struct {
	*Server
	dir, password string
	http          *http.Client
	stop          func()
}

func serve(t *testing.T) *town {
	t.Helper()
	return serveIn(t, t.TempDir())
}

func serveIn(t *testing.T, dir string) *town {
	t.Helper()
	c := &town{dir: dir}
	s, err := New(Config{Data: c.dir, Listen: "127.0.0.1:0", MQTT: "127.0.0.1:0"}, func(pw string) { c.password = pw }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c.Server = s
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	c.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(c.stop)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.ca.Pool(), MinVersion: tls.VersionTLS13}, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	c.http = &http.Client{Transport: tr, Timeout: 20 * time.Second}
	return c
}

func (c *town) get(t *testing.T, path, token string) (int, string) {
	t.Helper()
	req, _ := http.NewRequest(http.MethodGet, "https://"+c.HTTPSAddr()+path, nil)
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

// soon gets a path until the answer has something in it: a look at the fleet may be a
// second old.
func (c *town) soon(t *testing.T, path, token, has string) string {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		status, body := c.get(t, path, token)
		if status == http.StatusOK && strings.Contains(body, has) {
			return body
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %d %s, wants %s in it", path, status, body, has)
		}
	}
}

func newCSR(t *testing.T) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key, csrOf(t, key)
}

func csrOf(t *testing.T, key crypto.Signer) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// post sends an enrolment request, with a certificate for renewing.
func (c *town) post(t *testing.T, path string, req any, cert *tls.Certificate) (int, schema.EnrolReply, string) {
	t.Helper()
	b, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	client := c.http
	if cert != nil {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: c.ca.Pool(), MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*cert}}}
		defer tr.CloseIdleConnections()
		client = &http.Client{Transport: tr, Timeout: 20 * time.Second}
	}
	res, err := client.Post("https://"+c.HTTPSAddr()+path, "application/json", bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, _ := io.ReadAll(res.Body)
	var reply schema.EnrolReply
	_ = json.Unmarshal(raw, &reply)
	return res.StatusCode, reply, string(raw)
}

// connect brings a board in with the certificate it was given.
func connect(addr, board string, pool *x509.CertPool, cert tls.Certificate) (mqtt.Client, error) {
	o := mqtt.NewClientOptions().AddBroker("ssl://" + addr).SetClientID(board).SetAutoReconnect(false).SetProtocolVersion(4).SetConnectTimeout(5 * time.Second).
		SetTLSConfig(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}})
	c := mqtt.NewClient(o)
	tok := c.Connect()
	tok.WaitTimeout(10 * time.Second)
	return c, tok.Error()
}

func certOf(t *testing.T, chain string, key *ecdsa.PrivateKey) tls.Certificate {
	t.Helper()
	b, _ := pem.Decode([]byte(chain))
	if b == nil {
		t.Fatal("no certificate in the reply")
	}
	return tls.Certificate{Certificate: [][]byte{b.Bytes}, PrivateKey: key}
}

func batch(t *testing.T, seq uint64) []byte {
	t.Helper()
	now := schema.Time{Boot: 1, Mono: time.Now().UnixNano(), Wall: time.Now().UnixMilli()}
	rec, err := schema.EncodeRecord(&schema.Record{Kind: schema.KindSamples, Time: now, Samples: &schema.Samples{Series: []string{"cpu.load_percent"}, Value: []float64{float64(seq)}}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := schema.Encode(&schema.Message{V: 1, Board: "b1", Class: schema.ClassMetric, Epoch: 1, Sent: now, Records: []schema.SeqRecord{{Seq: seq, Payload: rec}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestBoardToAPI: enrol over HTTPS, deliver over MQTT, read over the API, renew.
func TestBoardToAPI(t *testing.T) {
	t.Parallel()
	c := serve(t)
	ctx := context.Background()
	// As the command line does it: another handle on the same file.
	reg, err := registry.Open(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	secret, err := reg.NewJoinToken(ctx, "default", "", 1, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	api, err := reg.NewAPIToken(ctx, "default", registry.ScopeRead, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	key, csr := newCSR(t)
	req := schema.EnrolRequest{Token: secret, Board: "b1", CSR: csr, Mode: "software", Facts: map[string]string{"model": "test"}}
	for name, bad := range map[string]any{
		"wrong token": schema.EnrolRequest{Token: "x", Board: "b1", CSR: csr, Mode: "software"},
		"bad name":    schema.EnrolRequest{Token: secret, Board: "../b1", CSR: csr, Mode: "software"},
		"bad csr":     schema.EnrolRequest{Token: secret, Board: "b1", CSR: "x", Mode: "software"},
		"no JSON":     "x",
		"too long":    schema.EnrolRequest{Token: secret, Board: "b1", CSR: strings.Repeat("x", 65<<10), Mode: "software"},
	} {
		if status, _, body := c.post(t, schema.EnrolPath, bad, nil); status/100 != 4 || strings.Contains(body, secret) || strings.Contains(body, "../b1") {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	status, reply, body := c.post(t, schema.EnrolPath, req, nil)
	if status != http.StatusOK || reply.Tenant != "default" || reply.Broker != c.MQTTAddr() {
		t.Fatalf("enrol: %d %s", status, body)
	}
	_, other := newCSR(t)
	if status, _, _ := c.post(t, schema.EnrolPath, schema.EnrolRequest{Token: secret, Board: "b2", CSR: other, Mode: "software"}, nil); status != http.StatusForbidden {
		t.Fatalf("token used twice: %d", status)
	}
	cert := certOf(t, reply.Certificate, key)
	board, err := connect(reply.Broker, "b1", c.ca.Pool(), cert)
	if err != nil {
		t.Fatal(err)
	}
	for seq := range uint64(5) {
		if tok := board.Publish("f/v1/default/b1/t/host", 1, false, batch(t, seq+1)); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
			t.Fatal(tok.Error())
		}
	}
	body = c.soon(t, "/api/v1/check", api, `"samples":{"cpu.load_percent":5}`)
	if !strings.Contains(body, `"made":5,"arrived":5,"lost":0,"waiting":0,"duplicates":0`) {
		t.Fatalf("check: %s", body)
	}
	for path, want := range map[string]int{
		"/api/v1/overview": 200, "/api/v1/boards/b1/series?points=10": 200, "/api/v1/detections": 200,
		"/api/v1/boards/b9/series": 404, "/api/v1/boards/b1/series?points=x": 400, "/api/v1/detections?limit=9999": 400,
		"/api/v1/boards/b1/series?series=%22%3Cscript%3E": 400, "/api/v1/detections/b1/event/1/1/picture": 404, "/api/v1/nothing": 404, "/metrics": 200,
	} {
		status, body := c.get(t, path, api)
		if status != want || strings.Contains(body, "<script") || strings.Contains(body, "u003cscript") {
			t.Errorf("%s: %d %s", path, status, body)
		}
		if status, _ := c.get(t, path, ""); want != 404 && status != 401 {
			t.Errorf("%s without a token: %d", path, status)
		}
		if status, _ := c.get(t, path, "fk1_wrong"); want != 404 && status != 401 {
			t.Errorf("%s with a wrong token: %d", path, status)
		}
	}
	// Renewal: the old certificate shows who asks.
	key2, csr2 := newCSR(t)
	if status, _, _ := c.post(t, schema.RenewPath, schema.EnrolRequest{Board: "b1", CSR: csr2, Mode: "software"}, nil); status != http.StatusForbidden {
		t.Fatalf("renewal without a certificate: %d", status)
	}
	if status, _, _ := c.post(t, schema.RenewPath, schema.EnrolRequest{Board: "b2", CSR: csr2, Mode: "software"}, &cert); status != http.StatusForbidden {
		t.Fatalf("renewal for another board: %d", status)
	}
	status, reply, body = c.post(t, schema.RenewPath, schema.EnrolRequest{Board: "b1", CSR: csr2, Mode: "software"}, &cert)
	if status != http.StatusOK {
		t.Fatalf("renew: %d %s", status, body)
	}
	next, err := connect(c.MQTTAddr(), "b1", c.ca.Pool(), certOf(t, reply.Certificate, key2))
	if err != nil {
		t.Fatal(err)
	}
	next.Disconnect(0)
	if _, err := connect(c.MQTTAddr(), "b1", c.ca.Pool(), cert); err == nil {
		t.Fatal("the replaced certificate still opens the door")
	}
	began := time.Now()
	c.stop()
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("the stop took %v", d)
	}
}

// TestEvents: a stream tells of a change, and ends when the fleet stops.
func TestEvents(t *testing.T) {
	t.Parallel()
	c := serve(t)
	api, err := c.reg.NewAPIToken(context.Background(), "default", registry.ScopeRead, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	req, _ := http.NewRequest(http.MethodGet, "https://"+c.HTTPSAddr()+"/api/v1/events", nil)
	req.Header.Set("Authorization", "Bearer "+api)
	res, err := (&http.Client{Transport: c.http.Transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	until := func(want string) {
		t.Helper()
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), want) {
				return
			}
		}
		t.Fatalf("the stream ended before %q: %v", want, lines.Err())
	}
	until("event: reset")
	key, csr := newCSR(t)
	leaf, err := c.ca.Issue([]byte(csr), "default", "b1", schema.TrustSoftware)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := c.reg.NewJoinToken(context.Background(), "default", "", 1, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.reg.Enrol(context.Background(), registry.Enrolment{Secret: secret, Board: "b1"}, func(string) (*ca.Leaf, error) { return leaf, nil }); err != nil {
		t.Fatal(err)
	}
	board, err := connect(c.MQTTAddr(), "b1", c.ca.Pool(), certOf(t, string(leaf.PEM), key))
	if err != nil {
		t.Fatal(err)
	}
	defer board.Disconnect(0)
	board.Publish("f/v1/default/b1/t/host", 1, false, batch(t, 1)).WaitTimeout(10 * time.Second)
	until(`data: {"boards":["b1"]}`)
	c.stop()
}

// TestSessions: the cookie, the one-time password, and posts from elsewhere.
func TestSessions(t *testing.T) {
	t.Parallel()
	c := serve(t)
	a := entrance.New(c.reg.Accounts())
	if len(c.password) < 20 {
		t.Fatal("no one-time password at the first start")
	}
	with := func(cookie *http.Cookie) *http.Request {
		r, _ := http.NewRequest(http.MethodGet, "https://x/", nil)
		r.RemoteAddr = "192.0.2.1:9"
		if cookie != nil {
			r.AddCookie(cookie)
		}
		return r
	}
	login := func(pw string) *http.Cookie {
		t.Helper()
		w := &recorder{h: http.Header{}}
		if err := a.Login(w, with(nil), "admin", pw, ""); err != nil {
			t.Fatal(err)
		}
		ck, err := sessionCookie(w.h)
		if err != nil || !ck.Secure || !ck.HttpOnly || ck.SameSite != http.SameSiteStrictMode || ck.Path != "/" || ck.Domain != "" {
			t.Fatalf("cookie %+v, %v", ck, err)
		}
		return ck
	}
	ck := login(c.password)
	if s, ok := a.Session(with(ck)); !ok || !s.MustChange {
		t.Fatalf("%+v %v", s, ok)
	}
	if _, err := a.Reader(with(ck)); err == nil {
		t.Fatal("the API opens before the password is changed")
	}
	w := &recorder{h: http.Header{}}
	if err := a.SetPassword(w, with(ck), c.password, "a much longer secret"); err != nil {
		t.Fatal(err)
	}
	if _, ok := a.Session(with(ck)); ok {
		t.Fatal("the old session goes on")
	}
	ck = login("a much longer secret")
	if tenant, err := a.Reader(with(ck)); err != nil || tenant != "default" {
		t.Fatal(err)
	}
	a.Logout(&recorder{h: http.Header{}}, with(ck))
	if _, ok := a.Session(with(ck)); ok {
		t.Fatal("the session outlives the logout")
	}
	for _, h := range [][2]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://evil.example"}} {
		req, _ := http.NewRequest(http.MethodPost, "https://"+c.HTTPSAddr()+"/login", strings.NewReader("password=x"))
		req.Header.Set(h[0], h[1])
		res, err := c.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("post with %s %s: %d", h[0], h[1], res.StatusCode)
		}
	}
}

// sessionCookie gives the cookie of the session among those that are set.
func sessionCookie(h http.Header) (*http.Cookie, error) {
	for _, line := range h.Values("Set-Cookie") {
		if c, err := http.ParseSetCookie(line); err != nil || c.Name == cookieName {
			return c, err
		}
	}
	return nil, errors.New("no session")
}

type recorder struct{ h http.Header }

func (r *recorder) Header() http.Header         { return r.h }
func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }
func (r *recorder) WriteHeader(int)             {}

func TestOneServerPerFolderAndPort(t *testing.T) {
	t.Parallel()
	c := serve(t)
	quiet := slog.New(slog.DiscardHandler)
	if _, err := New(Config{Data: c.dir, Listen: "127.0.0.1:0", MQTT: "127.0.0.1:0"}, func(string) {}, quiet); err == nil || !strings.Contains(err.Error(), "another fulmar-fleet") {
		t.Errorf("second server on the folder: %v", err)
	}
	_, err := New(Config{Data: t.TempDir(), Listen: c.HTTPSAddr(), MQTT: "127.0.0.1:0"}, func(string) { t.Error("password made by a start that failed") }, quiet)
	if err == nil || !strings.Contains(err.Error(), "is taken") {
		t.Errorf("port taken: %v", err)
	}
}

// TestKilled kills the serving process ten times in the middle of deliveries:
// what was acknowledged is there, once, and the files open again.
func TestKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// One start in this process to enrol the board.
	s, err := New(Config{Data: dir, Listen: "127.0.0.1:0", MQTT: "127.0.0.1:0"}, func(string) {}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	key, csr := newCSR(t)
	leaf, err := s.ca.Issue([]byte(csr), "default", "b1", schema.TrustSoftware)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := s.reg.NewJoinToken(context.Background(), "default", "", 1, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.reg.Enrol(context.Background(), registry.Enrolment{Secret: secret, Board: "b1"}, func(string) (*ca.Leaf, error) { return leaf, nil }); err != nil {
		t.Fatal(err)
	}
	pool, cert := s.ca.Pool(), certOf(t, string(leaf.PEM), key)
	_ = s.close()

	acked, sent := uint64(0), uint64(0)
	for round := range 10 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		addr, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatalf("round %d: the fleet does not start again: %v", round, err)
		}
		board, err := connect(strings.TrimSpace(addr), "b1", pool, cert)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		kill := time.AfterFunc(time.Duration(30+round*17)*time.Millisecond, func() { _ = cmd.Process.Kill() })
		for {
			sent = max(sent, acked+1)
			tok := board.Publish("f/v1/default/b1/t/host", 1, false, batch(t, acked+1))
			if !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
				break // not acknowledged: the same number again in the next round
			}
			acked++
		}
		kill.Stop()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		board.Disconnect(0)
	}
	c, err := New(Config{Data: dir, Listen: "127.0.0.1:0", MQTT: "127.0.0.1:0"}, func(string) {}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	var rows, arrived, heard uint64
	if err := c.ledger.Read.QueryRow("SELECT (SELECT count(*) FROM telemetry), arrived, heard FROM stream").Scan(&rows, &arrived, &heard); err != nil {
		t.Fatal(err)
	}
	if rows < acked || rows > sent || rows != arrived || arrived != heard {
		t.Fatalf("%d acknowledged, %d sent: %d rows, %d arrived, %d heard", acked, sent, rows, arrived, heard)
	}
	var check string
	if err := c.ledger.Read.QueryRow("PRAGMA integrity_check").Scan(&check); err != nil || check != "ok" {
		t.Fatalf("integrity: %s %v", check, err)
	}
	if acked < 20 {
		t.Fatalf("only %d messages went through ten rounds", acked)
	}
	t.Logf("%d messages acknowledged through 10 kills", acked)
}
