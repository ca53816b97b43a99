// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fulmar/fleet/ingest/pictures"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"fulmar/fleet/ca"
	"fulmar/fleet/ingest"
	"fulmar/fleet/registry"
	"fulmar/fleet/store"
	"fulmar/schema"
)

// hall is a gateway with real TLS, registry, ingest and disk.
type hall struct {
	ca   *ca.Authority
	reg  *registry.Registry
	in   *ingest.Ingest
	db   *store.DB
	gate *Gateway
	addr string
	dir  string
	stop func()
}

// between sits between gateway and ingest and may fail on demand.
type between struct {
	Ingester
	fail atomic.Bool
	pass func() // called after a commit, before the gateway hears of it
}

var errBroken = errors.New("disk is gone")

func (b *between) Publish(ctx context.Context, k ingest.BoardKey, topic string, p []byte) (*schema.Ack, bool, error) {
	if b.fail.Load() {
		return nil, false, errBroken
	}
	a, r, err := b.Ingester.Publish(ctx, k, topic, p)
	if b.pass != nil {
		b.pass()
	}
	return a, r, err
}

func open(t testing.TB, wrap func(Ingester) Ingester) *hall {
	t.Helper()
	return openWith(t, wrap, nil)
}

// openWith puts something between the gateway and the registry too.
func openWith(t testing.TB, wrap func(Ingester) Ingester, door func(*registry.Registry, func() *Gateway) Admitter) *hall {
	t.Helper()
	dir := t.TempDir()
	h := &hall{dir: dir}
	var err error
	fatal := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	h.ca, err = ca.Open(filepath.Join(dir, "ca"))
	fatal(err)
	h.reg, err = registry.Open(dir)
	fatal(err)
	h.db, err = store.OpenLedger(dir)
	fatal(err)
	blobs, err := pictures.New(filepath.Join(dir, "pictures"))
	fatal(err)
	log := slog.New(slog.DiscardHandler)
	h.in = ingest.New(ingest.Config{}, h.db, blobs, log)
	var in Ingester = h.in
	if wrap != nil {
		in = wrap(in)
	}
	var admit Admitter = h.reg
	if door != nil {
		admit = door(h.reg, func() *Gateway { return h.gate })
	}
	srv, err := h.ca.Server(nil)
	fatal(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	fatal(err)
	h.addr = l.Addr().String()
	h.gate, err = New(Config{Listener: l, TLS: &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*srv}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: h.ca.Pool(),
	}}, in, admit, log)
	fatal(err)
	inCtx, stopIn := context.WithCancel(context.Background())
	gateCtx, stopGate := context.WithCancel(context.Background())
	inDone, gateDone := make(chan error, 1), make(chan error, 1)
	go func() { inDone <- h.in.Run(inCtx) }()
	go func() { gateDone <- h.gate.Run(gateCtx) }()
	h.stop = sync.OnceFunc(func() {
		stopGate()
		if err := <-gateDone; err != nil {
			t.Error(err)
		}
		stopIn()
		if err := <-inDone; err != nil {
			t.Error(err)
		}
		_ = h.db.Close()
		_ = h.reg.Close()
	})
	t.Cleanup(h.stop)
	return h
}

func csr(t testing.TB) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// enrol gives a board a certificate, by the real way.
func (h *hall) enrol(t testing.TB, board string) tls.Certificate {
	t.Helper()
	ctx := context.Background()
	secret, err := h.reg.NewJoinToken(ctx, "default", "", 1, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	key, req := csr(t)
	parsed, err := ca.ParseRequest(req)
	if err != nil {
		t.Fatal(err)
	}
	_, leaf, err := h.reg.Enrol(ctx, registry.Enrolment{Secret: secret, Board: board, KeyMode: "software", KeyHash: ca.KeyHash(parsed)},
		func(tenant string) (*ca.Leaf, error) { return h.ca.Issue(req, tenant, board, schema.TrustSoftware) })
	if err != nil {
		t.Fatal(err)
	}
	return pair(t, leaf, key)
}

func pair(t testing.TB, leaf *ca.Leaf, key *ecdsa.PrivateKey) tls.Certificate {
	t.Helper()
	b, _ := pem.Decode(leaf.PEM)
	return tls.Certificate{Certificate: [][]byte{b.Bytes}, PrivateKey: key}
}

// client is a paho client as boards use it: clean, no retries of its own.
func (h *hall) options(id string, cert *tls.Certificate) *mqtt.ClientOptions {
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: h.ca.Pool(), ServerName: "localhost"}
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	}
	return mqtt.NewClientOptions().AddBroker("ssl://" + h.addr).SetClientID(id).SetTLSConfig(cfg).SetCleanSession(true).
		SetAutoReconnect(false).SetConnectRetry(false).SetProtocolVersion(4).SetKeepAlive(30 * time.Second).SetConnectTimeout(5 * time.Second)
}

func (h *hall) connect(t testing.TB, id string, cert *tls.Certificate) mqtt.Client {
	t.Helper()
	c := mqtt.NewClient(h.options(id, cert))
	if err := finish(c.Connect()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Disconnect(0) })
	return c
}

func finish(tok mqtt.Token) error {
	if !tok.WaitTimeout(10 * time.Second) {
		return errors.New("no answer in 10 s")
	}
	return tok.Error()
}

func payload(t testing.TB, board string, seq uint64) (topic string, p []byte) {
	t.Helper()
	now := schema.Time{Boot: 1, Mono: time.Now().UnixNano(), Wall: time.Now().UnixMilli()}
	rec, err := schema.EncodeRecord(&schema.Record{Kind: schema.KindSamples, Time: now, Samples: &schema.Samples{Series: []string{"cpu.load_percent"}, Value: []float64{1}}})
	if err != nil {
		t.Fatal(err)
	}
	p, err = schema.Encode(&schema.Message{V: 1, Board: board, Class: schema.ClassMetric, Epoch: 1, Sent: now, Records: []schema.SeqRecord{{Seq: seq, Payload: rec}}})
	if err != nil {
		t.Fatal(err)
	}
	return schema.MessageTopic("default", board, schema.ClassMetric).String(), p
}

func (h *hall) rows(t testing.TB) (n int) {
	t.Helper()
	if err := h.db.Read.QueryRow("SELECT count(*) FROM telemetry").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestStoredBeforePuback: when the token is done, the row is there.
func TestStoredBeforePuback(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	cert := h.enrol(t, "b1")
	c := h.connect(t, "b1", &cert)
	for seq := range uint64(20) {
		topic, p := payload(t, "b1", seq+1)
		if err := finish(c.Publish(topic, 1, false, p)); err != nil {
			t.Fatal(err)
		}
		if n := h.rows(t); n != int(seq)+1 {
			t.Fatalf("after PUBACK of %d there are %d rows", seq+1, n)
		}
	}
}

// TestNoPubackWithoutCommit: a store that fails gives no PUBACK but an end of the
// connection, and the same message goes through afterwards.
func TestNoPubackWithoutCommit(t *testing.T) {
	t.Parallel()
	var mid *between
	h := open(t, func(in Ingester) Ingester { mid = &between{Ingester: in}; return mid })
	cert := h.enrol(t, "b1")
	lost := make(chan error, 1)
	o := h.options("b1", &cert)
	o.OnConnectionLost = func(_ mqtt.Client, err error) { lost <- err }
	c := mqtt.NewClient(o)
	if err := finish(c.Connect()); err != nil {
		t.Fatal(err)
	}
	mid.fail.Store(true)
	topic, p := payload(t, "b1", 1)
	if err := finish(c.Publish(topic, 1, false, p)); err == nil {
		t.Fatal("PUBACK for a message that was not stored")
	}
	select {
	case <-lost:
	case <-time.After(5 * time.Second):
		t.Fatal("the connection goes on after a message was not stored")
	}
	mid.fail.Store(false)
	c = h.connect(t, "b1", &cert)
	if err := finish(c.Publish(topic, 1, false, p)); err != nil || h.rows(t) != 1 {
		t.Fatalf("second try: %v, %d rows", err, h.rows(t))
	}
	if f := h.gate.Stats().Failed; f != 1 {
		t.Errorf("%d failures counted, want 1", f)
	}
}

// TestCutBetweenCommitAndPuback: the message is stored, its PUBACK lost; sent
// again it is a duplicate without effect.
func TestCutBetweenCommitAndPuback(t *testing.T) {
	t.Parallel()
	var mid *between
	h := open(t, func(in Ingester) Ingester { mid = &between{Ingester: in}; return mid })
	cert := h.enrol(t, "b1")
	mid.pass = sync.OnceFunc(func() {
		h.gate.mu.Lock()
		s := h.gate.sessions[ingest.BoardKey{Tenant: "default", Board: "b1"}]
		h.gate.mu.Unlock()
		cutOff(s.client)
	})
	topic, p := payload(t, "b1", 1)
	c := h.connect(t, "b1", &cert)
	if err := finish(c.Publish(topic, 1, false, p)); err == nil {
		t.Fatal("PUBACK over a connection that was cut")
	}
	c = h.connect(t, "b1", &cert)
	if err := finish(c.Publish(topic, 1, false, p)); err != nil {
		t.Fatal(err)
	}
	if n, d := h.rows(t), h.in.Stats().Duplicates; n != 1 || d != 1 {
		t.Fatalf("%d rows and %d duplicates, want 1 and 1", n, d)
	}
}

// TestDoor: who has no good certificate, or not this board's, stays outside.
func TestDoor(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	cert := h.enrol(t, "b1")
	refused := func(name, id string, cert *tls.Certificate, change func(*mqtt.ClientOptions)) {
		t.Helper()
		o := h.options(id, cert)
		if change != nil {
			change(o)
		}
		c := mqtt.NewClient(o)
		if err := finish(c.Connect()); err == nil {
			t.Errorf("%s: let in", name)
			c.Disconnect(0)
		}
	}
	refused("no certificate", "b1", nil, nil)
	other, err := ca.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	key, req := csr(t)
	leaf, err := other.Issue(req, "default", "b1", schema.TrustSoftware)
	if err != nil {
		t.Fatal(err)
	}
	alien := pair(t, leaf, key)
	refused("wrong authority", "b1", &alien, nil)
	if leaf, err = h.ca.Issue(req, "default", "b9", schema.TrustSoftware); err != nil {
		t.Fatal(err)
	}
	unknown := pair(t, leaf, key)
	refused("signed but not enrolled", "b9", &unknown, nil)
	if leaf, err = h.ca.Issue(req, "default", "b1", schema.TrustSoftware); err != nil {
		t.Fatal(err)
	}
	second := pair(t, leaf, key)
	refused("another certificate for an enrolled board", "b1", &second, nil)
	refused("name of another board", "b2", &cert, nil)
	srv, err := h.ca.Server(nil)
	if err != nil {
		t.Fatal(err)
	}
	refused("the server's certificate", "b1", srv, nil)
	refused("TLS 1.2", "b1", &cert, func(o *mqtt.ClientOptions) {
		o.TLSConfig.MinVersion, o.TLSConfig.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	})
	refused("will on a foreign topic", "b1", &cert, func(o *mqtt.ClientOptions) { o.SetBinaryWill("f/v1/default/b2/st", []byte{1}, 1, false) })
	refused("no keep-alive", "b1", &cert, func(o *mqtt.ClientOptions) { o.SetKeepAlive(0) })
	h.connect(t, "b1", &cert).Disconnect(10) // the right one
	if err := h.reg.Revoke(context.Background(), "default", "b1", "admin", ""); err != nil {
		t.Fatal(err)
	}
	refused("revoked", "b1", &cert, nil)
}

// TestTopics: a board writes only what is its own, and hears only what is for it.
func TestTopics(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	one, two := h.enrol(t, "b1"), h.enrol(t, "b2")
	_, p := payload(t, "b2", 1)
	for _, topic := range []string{
		"f/v1/default/b2/t/host", "f/v1/default/b1/hello/ack", "f/v1/default/b1/ack", "f/v1/default/b1/c/1", "f/v1/default/b1/tw/d", "f/v1/default/b1/keys", "f/v1/default/b2/tw/r", "f/v1/default/b2/c/1/r", "f/v1/default/b1/c/1/x", "f/v1/other/b1/t/host",
		"x", "f/v1/default/b1/t/../host",
	} {
		c := h.connect(t, "b1", &one)
		if err := finish(c.Publish(topic, 1, false, p)); err == nil {
			t.Errorf("write to %s: acknowledged", topic)
		}
		c.Disconnect(0)
	}
	if n := h.rows(t); n != 0 {
		t.Fatalf("%d rows stored", n)
	}
	c := h.connect(t, "b2", &two)
	for topic, want := range map[string]byte{
		"f/v1/default/b2/hello/ack": 1, "f/v1/default/b2/ack": 1, "f/v1/default/b2/c/+": 1,
		"f/v1/default/b2/tw/d": 1, "f/v1/default/b2/keys": 1, "f/v1/default/b2/ota/d": 1,
		"f/v1/default/b1/hello/ack": 0x80, "f/v1/default/#": 0x80, "#": 0x80, "$SYS/#": 0x80, "f/v1/default/+/c/#": 0x80,
		"f/v1/default/b2/c/#": 0x80, "f/v1/default/b2/c/+/r": 0x80, "f/v1/default/b2/tw/+": 0x80, "f/v1/default/b2/tw/r": 0x80,
		"f/v1/default/b1/tw/d": 0x80, "f/v1/default/b1/keys": 0x80, "f/v1/default/b1/c/+": 0x80, "f/v1/default/+/tw/d": 0x80, "f/v1/default/+/keys": 0x80,
		"f/v1/default/b2/t/#": 0x80,
	} {
		tok := c.Subscribe(topic, 1, nil).(*mqtt.SubscribeToken)
		_ = finish(tok)
		if got := tok.Result()[topic]; got != want {
			t.Errorf("subscribe %s: %#x, want %#x", topic, got, want)
		}
	}
	// paho reports a shared one under its inner filter.
	tok := c.Subscribe("$share/x/f/v1/default/b2/c/+", 1, nil).(*mqtt.SubscribeToken)
	_ = finish(tok)
	for filter, got := range tok.Result() {
		if got != 0x80 {
			t.Errorf("shared subscription %s granted: %#x", filter, got)
		}
	}
}

// TestTakeover: the same board twice: the newer connection stands, and the end of
// the older one does not make the board offline.
func TestTakeover(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	cert := h.enrol(t, "b1")
	lost := make(chan error, 1)
	o := h.options("b1", &cert)
	o.OnConnectionLost = func(_ mqtt.Client, err error) { lost <- err }
	first := mqtt.NewClient(o)
	if err := finish(first.Connect()); err != nil {
		t.Fatal(err)
	}
	h.hello(t, first, 1)
	second := h.connect(t, "b1", &cert)
	select {
	case <-lost:
	case <-time.After(5 * time.Second):
		t.Fatal("the older connection goes on")
	}
	h.hello(t, second, 2)
	topic, p := payload(t, "b1", 1)
	if err := finish(second.Publish(topic, 1, false, p)); err != nil {
		t.Fatal(err)
	}
	if !h.online(t) || h.gate.Stats().TakenOver != 1 {
		t.Fatalf("online %v, taken over %d", h.online(t), h.gate.Stats().TakenOver)
	}
	second.Disconnect(10)
	for end := time.Now().Add(5 * time.Second); h.online(t); time.Sleep(10 * time.Millisecond) { // real sockets
		if time.Now().After(end) {
			t.Fatal("still online after the connection ended")
		}
	}
	if n := h.gate.Stats().Connected; n != 0 {
		t.Errorf("%d connected", n)
	}
}

func (h *hall) online(t testing.TB) (on bool) {
	t.Helper()
	if err := h.db.Read.QueryRow("SELECT online FROM board WHERE name = 'b1'").Scan(&on); err != nil {
		t.Fatal(err)
	}
	return on
}

// hello says hello as a board does and checks the answer.
func (h *hall) hello(t testing.TB, c mqtt.Client, conn uint64) {
	t.Helper()
	got := make(chan []byte, 1)
	if err := finish(c.Subscribe("f/v1/default/b1/hello/ack", 1, func(_ mqtt.Client, m mqtt.Message) { got <- m.Payload() })); err != nil {
		t.Fatal(err)
	}
	p, err := schema.Encode(&schema.Hello{V: 1, Board: "b1", Release: "test", Conn: conn, Now: schema.Time{Boot: 7}, Facts: map[string]string{"os": "linux"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := finish(c.Publish("f/v1/default/b1/hello", 1, false, p)); err != nil {
		t.Fatal(err)
	}
	select {
	case b := <-got:
		var a schema.HelloAck
		if err := schema.Decode(b, &a); err != nil || a.Conn != conn || a.Mode != schema.AckPuback || a.ReconnectMs <= 0 || time.Since(time.UnixMilli(a.Wall)) > time.Minute {
			t.Fatalf("hello/ack %+v, %v", a, err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("no hello/ack")
	}
}

// TestMalformed: an enrolled board that sends nonsense is answered (so that it
// does not send it for ever), counted, and harms nobody.
func TestMalformed(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	cert := h.enrol(t, "b1")
	c := h.connect(t, "b1", &cert)
	for _, topic := range []string{"t/host", "e/event", "blob/x", "st", "hello"} {
		for _, p := range [][]byte{nil, {0xff}, []byte(`{"a":1}`), make([]byte, schema.MaxPayload)} {
			if err := finish(c.Publish("f/v1/default/b1/"+topic, 1, false, p)); err != nil {
				t.Fatalf("%s: %v", topic, err)
			}
		}
	}
	if s := h.gate.Stats(); s.Refused != 20 || s.Failed != 0 {
		t.Errorf("%+v", s)
	}
	if err := finish(c.Publish("f/v1/default/b1/t/host", 1, false, make([]byte, schema.MaxPayload+2*packetOverhead))); err == nil {
		t.Error("a packet over the limit is acknowledged")
	}
	c = h.connect(t, "b1", &cert)
	topic, p := payload(t, "b1", 1)
	if err := finish(c.Publish(topic, 1, false, p)); err != nil {
		t.Fatal(err)
	}
}

// TestRawNoise: bytes that are no MQTT, before and after TLS.
func TestRawNoise(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	cert := h.enrol(t, "b1")
	for _, b := range [][]byte{{}, []byte("GET / HTTP/1.1\r\n\r\n"), {0x16, 3, 1, 0xff, 0xff}, {0x30, 0xff, 0xff, 0xff, 0x7f}} {
		raw, err := net.Dial("tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = raw.Write(b)
		_ = raw.Close()
		c, err := tls.Dial("tcp", h.addr, &tls.Config{RootCAs: h.ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(b)
		_ = c.Close()
	}
	h.connect(t, "b1", &cert).Disconnect(10)
}

// BenchmarkGateway measures messages a second from 50 boards, each waiting for its
// PUBACK, stored (hook) and, for comparison, without storing (plain).
func BenchmarkGateway(b *testing.B) {
	for _, mode := range []string{"stored", "plain"} {
		b.Run(mode, func(b *testing.B) {
			const boards = 50
			h := open(b, func(in Ingester) Ingester {
				if mode == "plain" {
					return nowhere{in}
				}
				return in
			})
			clients := make([]mqtt.Client, boards)
			for i := range clients {
				cert := h.enrol(b, fmt.Sprintf("b%d", i))
				clients[i] = h.connect(b, fmt.Sprintf("b%d", i), &cert)
			}
			each := b.N/boards + 1
			b.ResetTimer()
			var wg sync.WaitGroup
			for i, c := range clients {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for seq := range each {
						topic, p := payload(b, fmt.Sprintf("b%d", i), uint64(seq)+1)
						if err := finish(c.Publish(topic, 1, false, p)); err != nil {
							b.Error(err)
							return
						}
					}
				}()
			}
			wg.Wait()
			b.ReportMetric(float64(each*boards)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

type nowhere struct{ Ingester }

func (nowhere) Publish(context.Context, ingest.BoardKey, string, []byte) (*schema.Ack, bool, error) {
	return nil, false, nil
}
