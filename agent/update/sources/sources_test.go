// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fulmar/internal/merkle"
	"fulmar/ota/fetch"
	"fulmar/ota/release"
)

const piece = release.Piece

// object is content with its tree.
func object(t *testing.T, seed byte, size int) ([]byte, release.Object, *merkle.Tree) {
	t.Helper()
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	o, tree, err := release.Describe(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return b, o, tree
}

// server has one object, and asks who asks for it by a certificate.
type server struct {
	*httptest.Server
	asked atomic.Int64
}

func serve(t *testing.T, b []byte, o release.Object, tree *merkle.Tree) *server {
	s := new(server)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		switch name := strings.TrimPrefix(r.URL.Path, "/objects/"); name {
		case o.Tree.String():
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
		case o.Tree.String() + "/leaves":
			var all []byte
			for _, l := range tree.Levels()[0] {
				all = append(all, l[:]...)
			}
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(all))
		default:
			http.NotFound(w, r)
		}
	})
	s.Server = httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// fleet is how a board of it speaks with it.
func (s *server) fleet() (string, *tls.Config) {
	c := s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	c.Certificates = s.TLS.Certificates // anybody's
	return s.Listener.Addr().String(), c
}

// line is a link that notes whether it was asked, and brings nothing.
type line struct {
	asked atomic.Int64
	bring func(ctx context.Context, j *fetch.Job) error
}

func (*line) Name() string { return "line" }

func (l *line) Bring(ctx context.Context, j *fetch.Job) error {
	l.asked.Add(1)
	if l.bring != nil {
		return l.bring(ctx, j)
	}
	return errors.New("the link is down")
}

func board(t *testing.T, cfg Config, large int64) *Sources {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s, err := open(cfg, large)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func fetched(t *testing.T, s *Sources, o release.Object, want []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	path, err := s.Fetch(ctx, o, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d: %v", len(got), len(want), err)
	}
}

// TestOrder: what is small comes over the link, and by HTTPS where that brings nothing; what
// is large the other way around; a board without HTTPS has its link alone.
func TestOrder(t *testing.T) {
	t.Parallel()
	b, o, tree := object(t, 1, 5*piece+7)
	web := serve(t, b, o, tree)
	for _, c := range []struct {
		name  string
		large int64
		link  int64 // times that it is asked
	}{
		{"small", o.Size + 1, 1},
		{"large", o.Size, 0},
	} {
		web.asked.Store(0)
		l := new(line)
		fetched(t, board(t, Config{Link: l, Fleet: web.fleet}, c.large), o, b)
		if l.asked.Load() != c.link || web.asked.Load() == 0 {
			t.Errorf("%s: the link was asked %d times, HTTPS %d", c.name, l.asked.Load(), web.asked.Load())
		}
	}
	for _, large := range []int64{1, 1 << 40} { // what HTTPS does not bring comes by the link
		l := new(line)
		away := httptest.NewServer(http.NotFoundHandler())
		l.bring = (&fetch.HTTP{URL: away.URL, Client: away.Client()}).Bring
		other, c := web.fleet()
		s := board(t, Config{Link: l, Fleet: func() (string, *tls.Config) { return other, c }}, large)
		_, unknown, _ := object(t, 2, 100)
		if _, err := s.Fetch(t.Context(), unknown, nil); !errors.Is(err, fetch.ErrNotHere) || l.asked.Load() == 0 {
			t.Errorf("what nobody has: %v; the link was asked %d times", err, l.asked.Load())
		}
		away.Close()
	}
	// No fleet's HTTPS, a broker of one's own: it ends where the link says no.
	l := &line{bring: func(context.Context, *fetch.Job) error { return fetch.ErrRefused }}
	s := board(t, Config{Link: l, Fleet: func() (string, *tls.Config) { return "", nil }}, large)
	if _, err := s.Fetch(t.Context(), o, nil); !errors.Is(err, fetch.ErrRefused) {
		t.Errorf("without HTTPS: %v", err)
	}
}

// TestNoRedirect: an object is where it was asked for, and the board's certificate goes
// nowhere else.
func TestNoRedirect(t *testing.T) {
	t.Parallel()
	b, o, tree := object(t, 3, 2*piece)
	web := serve(t, b, o, tree)
	elsewhere := httptest.NewTLSServer(http.RedirectHandler(web.URL+"/objects/"+o.Tree.String(), http.StatusFound))
	defer elsewhere.Close()
	l := new(line)
	s := board(t, Config{Link: l, Fleet: func() (string, *tls.Config) {
		_, c := web.fleet()
		return elsewhere.Listener.Addr().String(), c
	}}, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := s.Fetch(ctx, o, nil); err == nil || web.asked.Load() > 0 {
		t.Errorf("%v; who was named by the redirect was asked %d times", err, web.asked.Load())
	}
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestGive: a board gives the others of its site what it has, also when it has no use for it
// any more; the fleet is asked for nothing. One that keeps silent costs nobody else.
func TestGive(t *testing.T) {
	t.Parallel()
	b, o, tree := object(t, 4, 9*piece+1)
	web := serve(t, b, o, tree)
	address := free(t)
	first := board(t, Config{Link: new(line), Fleet: web.fleet, Give: address}, 1)
	fetched(t, first, o, b)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- first.Run(ctx) }()
	reach(t, address)
	asked := web.asked.Load()
	second := func() *Sources {
		return board(t, Config{Link: new(line), Fleet: web.fleet, Peers: []string{"http://" + free(t), "http://" + address}}, 1)
	}
	fetched(t, second(), o, b)
	if err := first.Drop(o); err != nil {
		t.Fatal(err)
	}
	fetched(t, second(), o, b) // kept
	if n := web.asked.Load(); n != asked {
		t.Errorf("the fleet was asked %d times", n-asked)
	}
	// Strangers that open all the connections there are and say nothing lose them.
	for range maxConns {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	third := second()
	fetched(t, third, o, b)               // of the fleet, or of the board when they are gone
	if err := first.tidy(0); err != nil { // there is room
		t.Fatal(err)
	}
	if _, err := os.Stat(fetch.Paths(first.cfg.Dir, o.Tree)[1]); err != nil {
		t.Error(err)
	}
	if err := first.tidy(1 << 60); err != nil {
		t.Fatal(err)
	}
	fetched(t, second(), o, b)
	if web.asked.Load() == asked {
		t.Error("what was removed came from somewhere")
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
	}
	if _, err := net.Dial("tcp", address); err == nil {
		t.Error("it listens still")
	}
}

func reach(t *testing.T, address string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", address); err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatal("nothing listens")
		}
	}
}

// TestNoAddress: an address that is not there is said once, and ends with the board.
func TestNoAddress(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s := board(t, Config{Link: new(line), Fleet: func() (string, *tls.Config) { return "", nil }, Give: "192.0.2.1:7780", Log: slog.New(slog.NewTextHandler(&log, nil))}, large)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := s.Run(ctx); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "192.0.2.1:7780"); n == 0 || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("%q", log.String())
	}
}
