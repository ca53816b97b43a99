// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fulmar/internal/jointoken"
	"fulmar/schema"
)

// authority is a real certificate authority and its HTTPS server: what a fleet is
// to a board at first contact.
type authority struct {
	key    *ecdsa.PrivateKey
	cert   *x509.Certificate
	server *httptest.Server
	asked  atomic.Int64
	refuse atomic.Bool
	tamper func(*schema.EnrolReply)
	life   [2]time.Duration // of a certificate, from now; zero: an hour either way

	// What follows is for boards without a token, see tpm_test.go.
	approved atomic.Bool // a person has let everybody in who asks
	waits    atomic.Int64
	mu       sync.Mutex
	open     map[string]*claimed // challenges
	proven   []*claimed          // what was proven, oldest first
	renewals atomic.Int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{tamper: func(*schema.EnrolReply) {}}
	a.key = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "fleet"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, a.key.Public(), a.key))))
	srvKey := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	leaf := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, srvKey.Public())
	a.server = httptest.NewUnstartedServer(http.HandlerFunc(a.serve))
	a.server.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{{
		Certificate: [][]byte{leaf, a.cert.Raw}, PrivateKey: srvKey,
	}}}
	a.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	a.server.StartTLS()
	t.Cleanup(a.server.Close)
	return a
}

func (a *authority) sign(tmpl *x509.Certificate, pub any) []byte {
	return must(x509.CreateCertificate(rand.Reader, tmpl, a.cert, pub, a.key))
}

func (a *authority) serve(w http.ResponseWriter, r *http.Request) {
	a.asked.Add(1)
	if r.URL.Path == schema.ProvePath {
		a.prove(w, r)
		return
	}
	var req schema.EnrolRequest
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&req); err != nil || a.refuse.Load() {
		refused(w, "token", "this token was used")
		return
	}
	block, _ := pem.Decode([]byte(req.CSR))
	csr := must(x509.ParseCertificateRequest(block.Bytes))
	switch {
	case r.URL.Path == schema.RenewPath:
		a.renewals.Add(1)
		a.issue(w, req.Board, csr.PublicKey, schema.TrustSoftware)
	case req.Mode == schema.KeyTPM:
		a.challenge(w, &req, block.Bytes)
	case req.Token != "" || a.approved.Load():
		a.issue(w, req.Board, csr.PublicKey, schema.TrustSoftware)
	default:
		a.wait(w, sha256.Sum256(must(x509.MarshalPKIXPublicKey(csr.PublicKey))))
	}
}

func refused(w http.ResponseWriter, code, say string) {
	w.WriteHeader(http.StatusForbidden)
	_ = json.NewEncoder(w).Encode(map[string]string{"type": "urn:fulmar:problem:" + code, "title": "enrolment refused", "detail": say})
}

// wait answers that a person has to decide.
func (a *authority) wait(w http.ResponseWriter, sum [32]byte) {
	a.waits.Add(1)
	w.WriteHeader(http.StatusAccepted)
	_ = json.NewEncoder(w).Encode(schema.EnrolWait{
		Why: schema.WaitApproval, RetryAfterMs: 1000, Say: "a new board", Fingerprint: hex.EncodeToString(sum[:8]),
	})
}

func (a *authority) issue(w http.ResponseWriter, board string, key any, trust string) {
	life := a.life
	if life == [2]time.Duration{} {
		life = [2]time.Duration{-time.Hour, time.Hour}
	}
	leaf := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(3 + a.renewals.Load()), Subject: pkix.Name{CommonName: board},
		NotBefore: time.Now().Add(life[0]), NotAfter: time.Now().Add(life[1]),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, key)
	reply := schema.EnrolReply{Tenant: "default", Board: board, Broker: "127.0.0.1:8883", Certificate: pemCert(leaf), CA: pemCert(a.cert.Raw), Trust: trust}
	a.tamper(&reply)
	_ = json.NewEncoder(w).Encode(reply)
}

func (a *authority) enroller(t *testing.T, hash [32]byte) *Enroller {
	t.Helper()
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	s := jointoken.Token{Secret: strings.Repeat("A", 26), CAHash: hash}.String()
	if err := os.WriteFile(token, []byte(s+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return &Enroller{
		Dir: filepath.Join(dir, "identity"), Fleet: a.server.Listener.Addr().String(), TokenFile: token,
		Board: "dock-1", Mode: schema.KeySoftware, Log: slog.New(slog.DiscardHandler),
	}
}

func TestEnrol(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	e := a.enroller(t, sha256.Sum256(a.cert.Raw))
	id, err := e.Enrol(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if id.Board != "dock-1" || id.Tenant != "default" {
		t.Errorf("enrolled as %s of %s", id.Board, id.Tenant)
	}
	st, err := os.Stat(filepath.Join(e.Dir, "board.key"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v %v, wants mode 0600", st.Mode(), err)
	}
	if got := StoredBoard(e.Dir); got != "dock-1" {
		t.Errorf("the stored identity is of %q", got)
	}
	asked := a.asked.Load()
	again, err := e.Enrol(t.Context())
	if err != nil || again.leaf.SerialNumber.Cmp(id.leaf.SerialNumber) != 0 || a.asked.Load() != asked {
		t.Errorf("a second start asked the fleet again or failed: %v", err)
	}
	next, err := e.Renew(t.Context(), id)
	if err != nil || next.Board != id.Board {
		t.Errorf("renewal: %v", err)
	}
}

// TestWrongServer: a server with another authority gets no token, even one with a
// valid certificate for the name.
func TestWrongServer(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	e := a.enroller(t, [32]byte{1, 2, 3})
	var said error
	ctx, cancel := context.WithCancel(t.Context())
	e.Say = func(s Status) { said = s.Err; cancel() }
	if _, err := e.Enrol(ctx); err == nil {
		t.Fatal("enrolled with a server the token does not name")
	}
	if said == nil || !strings.Contains(said.Error(), "not the fleet that the join token or the pin names") {
		t.Errorf("said %v", said)
	}
	if a.asked.Load() != 0 {
		t.Error("the token was sent to it")
	}
}

func TestBadReplies(t *testing.T) {
	t.Parallel()
	other := newAuthority(t)
	for name, c := range map[string]struct {
		tamper func(*schema.EnrolReply)
		refuse bool
		want   string
	}{
		"refused":         {refuse: true, want: "this token was used"},
		"other authority": {tamper: func(r *schema.EnrolReply) { r.CA = pemCert(other.cert.Raw) }, want: "not signed by its authority"},
		"wholly another's": {tamper: func(r *schema.EnrolReply) {
			block, _ := pem.Decode([]byte(r.Certificate))
			leaf := must(x509.ParseCertificate(block.Bytes))
			r.Certificate, r.CA = pemCert(other.sign(leaf, leaf.PublicKey)), pemCert(other.cert.Raw)
		}, want: "authority is not the one"},
		"another's name": {tamper: func(r *schema.EnrolReply) { r.Board = "dock-2" }, want: "names this board dock-2"},
		"no certificate": {tamper: func(r *schema.EnrolReply) { r.Certificate = "" }, want: "not a PEM certificate"},
		"other key":      {tamper: func(r *schema.EnrolReply) { r.Certificate = pemCert(other.cert.Raw) }, want: "for another key"},
		"bad name":       {tamper: func(r *schema.EnrolReply) { r.Board = "a/b" }, want: "enrolment reply"},
		"bad broker":     {tamper: func(r *schema.EnrolReply) { r.Broker = "x" }, want: "not host:port"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAuthority(t)
			a.refuse.Store(c.refuse)
			if c.tamper != nil {
				a.tamper = c.tamper
			}
			e := a.enroller(t, sha256.Sum256(a.cert.Raw))
			var said error
			ctx, cancel := context.WithCancel(t.Context())
			e.Say = func(s Status) { said = s.Err; cancel() }
			if _, err := e.Enrol(ctx); err == nil {
				t.Fatal("enrolled")
			}
			if said == nil || !strings.Contains(said.Error(), c.want) {
				t.Errorf("said %v, wants %q in it", said, c.want)
			}
		})
	}
}

// TestNoStoredBoard: what is no identity names nobody, and looking for one makes nothing.
func TestNoStoredBoard(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	e := a.enroller(t, sha256.Sum256(a.cert.Raw))
	if got := StoredBoard(e.Dir); got != "" {
		t.Errorf("an empty folder names %q", got)
	}
	if _, err := os.Stat(e.Dir); !os.IsNotExist(err) {
		t.Errorf("the look made something: %v", err)
	}
	must(e.Enrol(t.Context()))
	if err := os.Remove(filepath.Join(e.Dir, softFile)); err != nil {
		t.Fatal(err)
	}
	if got := StoredBoard(e.Dir); got != "" {
		t.Errorf("an identity without its key names %q", got)
	}
	must(openSoftKey(filepath.Join(e.Dir, softFile))) // another one
	if got := StoredBoard(e.Dir); got != "" {
		t.Errorf("an identity of another key names %q", got)
	}
	for _, junk := range []string{"", "{", `{"board":"../x"}`, "[]", strings.Repeat(" ", maxIdentity) + `{"board":"dock-1"}`} {
		if err := os.WriteFile(filepath.Join(e.Dir, File), []byte(junk), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := StoredBoard(e.Dir); got != "" {
			t.Errorf("%.20q names %q", junk, got)
		}
	}
}

func TestBrokenKeyFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "board.key")
	if err := os.WriteFile(path, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openSoftKey(path); err == nil || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("got %v", err)
	}
}

func pemCert(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
