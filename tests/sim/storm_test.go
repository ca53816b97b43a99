// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/fleet/ca"
	"fulmar/fleet/gateway"
	"fulmar/fleet/ingest"
	"fulmar/fleet/ingest/pictures"
	"fulmar/fleet/store"
	"fulmar/internal/run"
	"fulmar/link"
	"fulmar/link/linktest"
	"fulmar/schema"
)

// TestThousandSessionsComeBack: a thousand boards with real links, real TLS and
// certificates at the real gateway, whose process ends and begins anew. It tells them
// the window that its door and their number make; all of them come back within it, in
// no second more than twice the fair share, and hardly one is sent away.
// FULMAR_SIM_BOARDS says another number, FULMAR_SIM_SEEDS / 500 how often.
//
// How the draws alone spread, over other windows and later tries, is in
// link/internal/pace, in hundreds of seeds and in a soak thousands.
func TestThousandSessionsComeBack(t *testing.T) {
	t.Parallel()
	boards := 1000
	if n, err := strconv.Atoi(os.Getenv("FULMAR_SIM_BOARDS")); err == nil && n > 0 {
		boards = n
	}
	for seed := range max(1, seeds()/500) {
		synctest.Test(t, func(t *testing.T) { newStorm(t, boards, uint64(seed)).run() })
	}
}

// What the gateway's door lets in a second and core, and its shortest window: how it
// comes to the window that it tells. Were they others there, too many or too few would
// come here.
const (
	boardsPerCore = 50
	leastWindow   = 2 * time.Second
)

// storm is one gateway after another, and many boards.
type storm struct {
	t         *testing.T
	boards    int
	seed      uint64
	authority *ca.Authority
	dir       string
	ledger    *store.DB
	in        *ingest.Ingest
	gate      *gateway.Gateway
	fleet     *run.Group
	links     *run.Group
	sessions  []*link.Session

	mu     sync.Mutex
	door   *hall     // of the gateway of the moment
	fallen time.Time // when the last one ended
	dials  map[int]int
	hellos map[int]int // that the door let in, by second since then
}

func newStorm(t *testing.T, boards int, seed uint64) *storm {
	time.Sleep(dawn)
	s := &storm{t: t, boards: boards, seed: seed, dir: memoryDir(t)}
	var err error
	if s.authority, err = ca.Open(filepath.Join(s.dir, "ca")); err != nil {
		t.Fatal(err)
	}
	return s
}

// hall is a listener without a network.
type hall struct {
	come chan net.Conn
	shut chan struct{}
	once sync.Once
}

func (h *hall) Accept() (net.Conn, error) {
	select {
	case c := <-h.come:
		return c, nil
	case <-h.shut:
		return nil, net.ErrClosed
	}
}

func (h *hall) Close() error   { h.once.Do(func() { close(h.shut) }); return nil }
func (h *hall) Addr() net.Addr { return &net.TCPAddr{} }

// begin starts a fleet.
func (s *storm) begin() {
	blobs, err := pictures.New(filepath.Join(s.dir, "pictures"))
	if err != nil {
		s.t.Fatal(err)
	}
	if s.ledger, err = store.OpenLedger(s.dir); err != nil {
		s.t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	s.in = ingest.New(ingest.Config{}, s.ledger, blobs, log)
	cert, err := s.authority.Server(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	h := &hall{come: make(chan net.Conn), shut: make(chan struct{})}
	s.gate, err = gateway.New(gateway.Config{Listener: h, TLS: &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: s.authority.Pool(),
	}}, stormDoor{s.in, s}, everybody(s.boards), log)
	if err != nil {
		s.t.Fatal(err)
	}
	s.fleet = run.New(context.Background())
	s.fleet.Go("ingest", s.in.Run)
	s.fleet.Go("gateway", s.gate.Run)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.door, s.dials, s.hellos = h, map[int]int{}, map[int]int{}
}

// fall ends the fleet.
func (s *storm) fall() {
	s.mu.Lock()
	s.door, s.fallen = nil, time.Now()
	s.mu.Unlock()
	s.fleet.Stop()
	if err := s.fleet.Wait(20 * time.Second); err != nil {
		s.t.Error(err)
	}
	if err := s.ledger.Close(); err != nil {
		s.t.Error(err)
	}
}

// everybody is a registry of so many boards that knows each certificate.
type everybody int

func (everybody) Admit(context.Context, ca.Identity) (bool, error) { return true, nil }
func (n everybody) Known(context.Context) (int, error)             { return int(n), nil }

// stormDoor counts who is let in.
type stormDoor struct {
	*ingest.Ingest
	s *storm
}

func (d stormDoor) Hello(ctx context.Context, key ingest.BoardKey, h *schema.Hello) error {
	d.s.mu.Lock()
	d.s.hellos[int(time.Since(d.s.fallen)/time.Second)]++
	d.s.mu.Unlock()
	return d.Ingest.Hello(ctx, key, h)
}

// dial connects a board by TLS.
func (s *storm) dial(ctx context.Context, cert tls.Certificate) (net.Conn, error) {
	s.mu.Lock()
	s.dials[int(time.Since(s.fallen)/time.Second)]++
	h := s.door
	s.mu.Unlock()
	if h == nil {
		return nil, linktest.ErrCut
	}
	board, broker := linktest.Pipe()
	select {
	case h.come <- broker:
	case <-h.shut:
		return nil, linktest.ErrCut
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c := tls.Client(board, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: s.authority.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{cert}})
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// still is an outbox without a record: a board that has nothing to say but hello.
type still struct{ wake chan struct{} }

func (still) Read(schema.Class, uint64, int, int) ([]schema.Stored, error) { return nil, nil }
func (still) Ack(schema.Class, uint64, uint64, uint64) error               { return nil }
func (still) Cursors() []schema.Cursor                                     { return nil }
func (o still) Wake() <-chan struct{}                                      { return o.wake }

// identity makes a board's certificate, as the fleet issues them.
func (s *storm) identity(name string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		s.t.Fatal(err)
	}
	leaf, err := s.authority.Issue(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), "default", name, schema.TrustSoftware)
	if err != nil {
		s.t.Fatal(err)
	}
	b, _ := pem.Decode(leaf.PEM)
	return tls.Certificate{Certificate: [][]byte{b.Bytes}, PrivateKey: key}
}

func (s *storm) run() {
	s.begin()
	ctx, stop := context.WithCancel(context.Background())
	s.links = run.New(ctx)
	for i := range s.boards {
		name := fmt.Sprintf("b%d", i)
		cert, jitter := s.identity(name), mathrand.New(mathrand.NewPCG(s.seed, uint64(i)))
		l, err := link.New(link.Config{
			Tenant: "default", Board: name, Clock: schema.NewClock(uint64(i+1), time.Minute), Jitter: jitter.Float64,
			Dial: func(ctx context.Context) (net.Conn, error) { return s.dial(ctx, cert) },
		}, still{make(chan struct{})}, nil)
		if err != nil {
			s.t.Fatal(err)
		}
		s.sessions = append(s.sessions, l)
		s.links.Go(name, l.Run)
	}
	time.Sleep(3 * time.Minute) // up, for longer than the minute that makes a connection a stable one
	if n := s.up(); n != s.boards {
		s.t.Errorf("%d of %d boards are up after three minutes", n, s.boards)
	}
	s.fall()
	s.begin()
	s.comeBack()
	stop()
	if err := s.links.Wait(time.Minute); err != nil {
		s.t.Error(err)
	}
	s.fall()
	time.Sleep(time.Minute)
}

func (s *storm) up() (n int) {
	for _, l := range s.sessions {
		if l.Status().Up() {
			n++
		}
	}
	return n
}

// comeBack watches the boards find the new gateway.
func (s *storm) comeBack() {
	// As the gateway says it to each of them.
	window := max(time.Duration(s.boards)*time.Second/time.Duration(boardsPerCore*runtime.GOMAXPROCS(0)), leastWindow)
	fair := float64(s.boards) / window.Seconds()
	time.Sleep(window + 2*time.Second)
	in := s.up()
	time.Sleep(window)
	s.mu.Lock()
	defer s.mu.Unlock()
	most := func(by map[int]int) (n, sum int) {
		for _, k := range by {
			n, sum = max(n, k), sum+k
		}
		return n, sum
	}
	mostDials, dials := most(s.dials)
	mostHellos, hellos := most(s.hellos)
	st := s.gate.Stats()
	s.t.Logf("%d boards over %v: a fair share is %.0f a second; at most %d came in one, at most %d were let in; %d dials, %d sent away; %d up after the window",
		s.boards, window, fair, mostDials, mostHellos, dials, st.SentAway, in)
	if float64(mostDials) > 2*fair || float64(mostHellos) > 2*fair {
		s.t.Errorf("a second held %d dials and %d that were let in, wants at most twice the share of %.0f", mostDials, mostHellos, fair)
	}
	if hellos != s.boards || in < s.boards*9/10 || s.up() != s.boards || dials > s.boards*11/10 {
		s.t.Errorf("%d boards: %d let in, %d dials, %d up after the window, %d after twice as long", s.boards, hellos, dials, in, s.up())
	}
}
