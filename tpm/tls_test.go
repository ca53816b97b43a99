// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"math/big"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fulmar/tpm"
	"fulmar/tpm/tpmtest"
)

// fleet is a server that wants TLS 1.3 and a certificate, on a socket of its own.
type fleet struct {
	addr string
	ca   *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newFleet(tb testing.TB) *fleet {
	tb.Helper()
	k := must[*ecdsa.PrivateKey](tb)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "fleet"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		DNSNames: []string{"fleet"},
	}
	f := &fleet{key: k}
	der := must[[]byte](tb)(x509.CreateCertificate(rand.Reader, t, t, k.Public(), k))
	f.ca = must[*x509.Certificate](tb)(x509.ParseCertificate(der))
	pool := x509.NewCertPool()
	pool.AddCert(f.ca)
	l := must[net.Listener](tb)(tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: k}},
	}))
	tb.Cleanup(func() { _ = l.Close() })
	f.addr = l.Addr().String()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // one byte each way shows that both sides are through
				defer func() { _ = c.Close() }()
				b := make([]byte, 1)
				if _, err := c.Read(b); err == nil {
					_, _ = c.Write(b)
				}
			}()
		}
	}()
	return f
}

// client is the TLS side of a board whose key is k.
func (f *fleet) client(tb testing.TB, k crypto.Signer, cache tls.ClientSessionCache) *tls.Config {
	tb.Helper()
	t := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "board"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der := must[[]byte](tb)(x509.CreateCertificate(rand.Reader, t, f.ca, k.Public(), f.key))
	pool := x509.NewCertPool()
	pool.AddCert(f.ca)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: "fleet", ClientSessionCache: cache,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: k}},
	}
}

func (f *fleet) dial(c *tls.Config) (resumed bool, err error) {
	conn, err := tls.Dial("tcp", f.addr, c)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }()
	if _, err = conn.Write([]byte{1}); err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	return conn.ConnectionState().DidResume, err
}

// counted gives a TPM that counts its commands and takes its time for each signature.
func counted(tb testing.TB, delay time.Duration) (*tpm.TPM, *atomic.Int64) {
	tb.Helper()
	p, n := tpmtest.Between(tb, tpmtest.Start(tb)), new(atomic.Int64)
	p.Answer = func(cmd []byte) ([]byte, bool) {
		n.Add(1)
		if cc := binary.BigEndian.Uint32(cmd[6:]); cc == 0x15d || cc == 0x158 { // Sign, Quote
			time.Sleep(delay)
		}
		return nil, true
	}
	return open(tb, p.Path()), n
}

// A board connects with its TPM's key; a reconnect resumes and asks the TPM nothing, so
// that a storm of reconnects costs no signature.
func TestTLS(t *testing.T) {
	t.Parallel()
	a, commands := counted(t, 0)
	f := newFleet(t)
	c := f.client(t, must[*tpm.Key](t)(a.CreateKey(tpm.Signing)), tls.NewLRUClientSessionCache(1))
	before := commands.Load()
	if resumed, err := f.dial(c); err != nil || resumed || commands.Load() == before {
		t.Fatalf("the first handshake: %v, resumed %v, %d commands", err, resumed, commands.Load()-before)
	}
	before = commands.Load()
	for range 5 {
		if resumed, err := f.dial(c); err != nil || !resumed {
			t.Fatalf("a reconnect: %v, resumed %v", err, resumed)
		}
	}
	if n := commands.Load() - before; n != 0 {
		t.Errorf("5 reconnects cost %d commands", n)
	}
	// a key of another TPM under this board's certificate
	foreign := must[*tpm.Key](t)(open(t, tpmtest.Start(t).Path()).ParseKey(must[[]byte](t)(c.Certificates[0].PrivateKey.(*tpm.Key).PEM())))
	c = c.Clone()
	c.ClientSessionCache, c.Certificates[0].PrivateKey = nil, foreign
	if _, err := f.dial(c); err == nil || !strings.Contains(err.Error(), tpm.ErrForeign.Error()) {
		t.Errorf("got %v", err) // crypto/tls keeps the text of a signer's error and drops the error
	}
}

// Many connections at once, each with a signature of the one TPM.
func TestManyHandshakes(t *testing.T) {
	t.Parallel()
	a, _ := counted(t, 0)
	f := newFleet(t)
	c := f.client(t, must[*tpm.Key](t)(a.CreateKey(tpm.Signing)), nil)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			if _, err := f.dial(c); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
