// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package rig is a fleet that gives objects, and boards that fetch them, for tests and
// measurements: the real gateway, caster and fetcher, without a database.
package rig

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
	"time"

	"fulmar/fleet/ca"
	"fulmar/fleet/gateway"
	"fulmar/fleet/ingest"
	"fulmar/fleet/objects"
	"fulmar/ota/release"
	"fulmar/schema"
)

// Tenant is that of all boards.
const Tenant = "default"

// Config shapes a fleet.
type Config struct {
	Dir     string // of its authority and its objects
	Caster  objects.Config
	Ingest  gateway.Ingester // nil: takes everything and keeps nothing
	Listen  string           // "" a free port of the loopback
	Log     *slog.Logger
	NoGiver bool // a fleet without objects
}

// Fleet is one server.
type Fleet struct {
	CA      *ca.Authority
	Store   *objects.Store
	Caster  *objects.Caster
	Gateway *gateway.Gateway
	Addr    string

	mu       sync.Mutex
	entitled map[release.Hash]map[string]int64 // by tree and board; "" all boards

	key  *ecdsa.PrivateKey
	csr  []byte
	stop func() error
}

// nobody lets everybody in who has a certificate.
type nobody struct{}

func (nobody) Admit(context.Context, ca.Identity) (bool, error) { return true, nil }

// Void is an ingester that keeps nothing.
type Void struct{}

// Publish takes a message.
func (Void) Publish(context.Context, ingest.BoardKey, string, []byte) (*schema.Ack, bool, error) {
	return nil, false, nil
}

// Hello takes a hello.
func (Void) Hello(context.Context, ingest.BoardKey, *schema.Hello) error { return nil }

// Presence takes a presence.
func (Void) Presence(context.Context, ingest.BoardKey, schema.Presence) error { return nil }

// Newer refuses a newer version.
func (Void) Newer(context.Context, ingest.BoardKey, uint8) error { return ingest.ErrNewer }

// Start starts a fleet.
func Start(cfg Config) (_ *Fleet, err error) {
	f := &Fleet{entitled: map[release.Hash]map[string]int64{}}
	if f.CA, err = ca.Open(filepath.Join(cfg.Dir, "ca")); err != nil {
		return nil, err
	}
	if f.Store, err = objects.Open(filepath.Join(cfg.Dir, "objects"), 0); err != nil {
		return nil, err
	}
	if f.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, f.key)
	if err != nil {
		return nil, err
	}
	f.csr = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	srv, err := f.CA.Server(nil)
	if err != nil {
		return nil, err
	}
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, err
	}
	f.Addr = l.Addr().String()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Ingest == nil {
		cfg.Ingest = Void{}
	}
	late := &giver{f: f}
	gc := gateway.Config{Listener: l, TLS: &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*srv}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: f.CA.Pool(),
	}}
	if !cfg.NoGiver {
		gc.Objects = late
	}
	if f.Gateway, err = gateway.New(gc, cfg.Ingest, nobody{}, cfg.Log); err != nil {
		return nil, err
	}
	cc := cfg.Caster
	cc.Store, cc.Gate, cc.Tell, cc.Log = f.Store, f.Gateway.Pieces(), f.Gateway.TellOTA, cfg.Log
	if cc.Entitled == nil {
		cc.Entitled = f.Entitled
	}
	f.Caster = objects.NewCaster(cc)
	late.Caster = f.Caster
	f.run(cfg.Log)
	return f, nil
}

// giver is the caster, which is made after the gateway that it uses.
type giver struct {
	*objects.Caster
	f *Fleet
}

func (f *Fleet) run(log *slog.Logger) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- f.Gateway.Run(ctx) }()
	go func() { ended <- f.Caster.Run(ctx) }()
	f.stop = sync.OnceValue(func() error {
		cancel()
		err := errors.Join(<-ended, <-ended)
		f.Store.Close()
		if err != nil {
			log.Error("fleet ended", "err", err)
		}
		return err
	})
}

// Stop ends it.
func (f *Fleet) Stop() error { return f.stop() }

// Entitle gives a board the right to an object; "" gives it to all.
func (f *Fleet) Entitle(o release.Object, board string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.entitled[o.Tree] == nil {
		f.entitled[o.Tree] = map[string]int64{}
	}
	f.entitled[o.Tree][board] = o.Size
}

// Entitled tells whether a board has it.
func (f *Fleet) Entitled(_, board string, tree release.Hash) (int64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if size, ok := f.entitled[tree][board]; ok {
		return size, true
	}
	size, ok := f.entitled[tree][""]
	return size, ok
}

// Board gives the TLS of a board.
func (f *Fleet) Board(name string) (*tls.Config, error) {
	leaf, err := f.CA.Issue(f.csr, Tenant, name, schema.TrustSoftware)
	if err != nil {
		return nil, err
	}
	b, _ := pem.Decode(leaf.PEM)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: f.CA.Pool(), ServerName: "localhost",
		Certificates: []tls.Certificate{{Certificate: [][]byte{b.Bytes}, PrivateKey: f.key}},
	}, nil
}

// Dial gives a way for a board to connect.
func (f *Fleet) Dial(name string) (func(ctx context.Context) (net.Conn, error), error) {
	cfg, err := f.Board(name)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		c, err := (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", f.Addr)
		if err != nil {
			return nil, fmt.Errorf("board %s: %w", name, err)
		}
		return c, nil
	}, nil
}
