// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"fulmar/agent/identity"
	"fulmar/fleet"
	"fulmar/fleet/backup"
	"fulmar/fleet/ca"
	"fulmar/fleet/registry"
	"fulmar/internal/jointoken"
	"fulmar/schema"
)

// server is a fleet's server that can be started again on its folder and ports.
type server struct {
	t            *testing.T
	dir          string
	listen, mqtt string
	stop         func()
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

func newServer(t *testing.T) *server {
	s := &server{t: t, dir: filepath.Join(t.TempDir(), "fleet"), listen: free(t), mqtt: free(t)}
	s.start()
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *server) start() {
	s.t.Helper()
	srv, err := fleet.New(fleet.Config{Data: s.dir, Listen: s.listen, MQTT: s.mqtt}, func(string) {}, slog.New(slog.DiscardHandler))
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	s.stop = func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
		s.stop = func() {}
	}
}

func (s *server) restart() {
	s.t.Helper()
	s.stop()
	s.start()
}

func (s *server) registry(do func(*registry.Registry) error) {
	s.t.Helper()
	reg, err := registry.Open(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := errors.Join(do(reg), reg.Close()); err != nil {
		s.t.Fatal(err)
	}
}

// board is one that enrolled.
type board struct {
	*identity.Enroller
	id *identity.Identity
}

func (s *server) newBoard(name string) *board {
	s.t.Helper()
	token := filepath.Join(s.t.TempDir(), "token")
	s.registry(func(reg *registry.Registry) error {
		secret, err := reg.NewJoinToken(s.t.Context(), registry.DefaultTenant, "", 1, time.Hour)
		if err != nil {
			return err
		}
		pin, err := ca.Pin(filepath.Join(s.dir, "ca"))
		if err != nil {
			return err
		}
		return os.WriteFile(token, []byte(jointoken.Token{Secret: secret, CAHash: pin}.String()), 0o600)
	})
	b := &board{Enroller: &identity.Enroller{Dir: filepath.Join(s.t.TempDir(), "identity"), Fleet: s.listen, TokenFile: token, Board: name, Mode: schema.KeySoftware, Log: slog.New(slog.DiscardHandler)}}
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	var err error
	if b.id, err = b.Enrol(ctx); err != nil {
		s.t.Fatalf("board %s: %v", name, err)
	}
	return b
}

// in tells whether the fleet lets the board in, and the board trusts the fleet.
func (b *board) in(t *testing.T) error {
	t.Helper()
	o := mqtt.NewClientOptions().AddBroker("ssl://" + b.id.Broker).SetClientID(b.id.Board).SetAutoReconnect(false).SetProtocolVersion(4).
		SetConnectTimeout(5 * time.Second).SetTLSConfig(b.id.TLS(b.id.Broker))
	c := mqtt.NewClient(o)
	tok := c.Connect()
	if !tok.WaitTimeout(10 * time.Second) {
		return errors.New("no answer")
	}
	if tok.Error() == nil {
		c.Disconnect(0)
	}
	return tok.Error()
}

func (b *board) renew(t *testing.T) error {
	t.Helper()
	next, err := b.Renew(t.Context(), b.id)
	if err == nil {
		b.id = next
	}
	return err
}

// TestAuthorityFollows: boards go from one authority to the next by renewing; one that
// slept through it has to enrol anew, and says why.
func TestAuthorityFollows(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	dir := filepath.Join(s.dir, "ca")
	awake, asleep := s.newBoard("awake"), s.newBoard("asleep")
	if err := ca.Next(dir, "", nil); err != nil {
		t.Fatal(err)
	}
	s.restart()
	if err := awake.renew(t); err != nil {
		t.Fatal(err)
	}
	fresh := s.newBoard("fresh") // enrols while there are two
	for range 2 {                // there and back: nobody who was told is lost
		if err := ca.Switch(dir, nil); err != nil {
			t.Fatal(err)
		}
		s.restart()
		for _, b := range []*board{awake, fresh} {
			if err := errors.Join(b.in(t), b.renew(t), b.in(t)); err != nil {
				t.Fatalf("board %s: %v", b.id.Board, err)
			}
		}
	}
	if err := asleep.in(t); err != nil {
		t.Errorf("back at the first authority, who slept is out: %v", err)
	}
	if err := ca.Switch(dir, nil); err != nil {
		t.Fatal(err)
	}
	s.restart()
	if err := asleep.in(t); err == nil {
		t.Error("a board that was never told of an authority trusts it")
	}
	if err := errors.Join(awake.renew(t), fresh.renew(t), ca.Drop(dir)); err != nil {
		t.Fatal(err)
	}
	s.restart()
	for _, b := range []*board{awake, fresh} {
		if err := errors.Join(b.in(t), b.renew(t), b.in(t)); err != nil {
			t.Errorf("board %s after the drop: %v", b.id.Board, err)
		}
		// What is on its disk is enough after a restart.
		if id, err := b.Enrol(t.Context()); err != nil || id.Board != b.id.Board {
			t.Error(err)
		}
	}
	if err := asleep.renew(t); err == nil {
		t.Error("a board renews under an authority that it does not know")
	}
	last := s.newBoard("last")
	if err := last.in(t); err != nil {
		t.Error(err)
	}
}

// TestSinceTheBackup: what a board did between backup and loss.
func TestSinceTheBackup(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	quiet, renewed := s.newBoard("quiet"), s.newBoard("renewed")
	out := filepath.Join(t.TempDir(), "backup")
	w, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Write(t.Context(), w, backup.Plan{Data: s.dir}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	before := *renewed
	for range 2 { // an hour of clock skew is taken off the start, so the end tells which is newer
		time.Sleep(1100 * time.Millisecond) // certificates have seconds
		if err := errors.Join(renewed.renew(t), renewed.in(t)); err != nil {
			t.Fatal(err)
		}
	}
	enrolled := s.newBoard("enrolled")
	s.stop()
	s.dir = filepath.Join(t.TempDir(), "other")
	r, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if res, err := backup.Restore(t.Context(), r, s.dir, nil); err != nil || res.Boards != 2 {
		t.Fatal(res, err)
	}
	s.start()
	for _, b := range []*board{quiet, renewed} {
		if err := errors.Join(b.in(t), b.renew(t), b.in(t)); err != nil {
			t.Errorf("board %s: %v", b.id.Board, err)
		}
	}
	if err := before.in(t); err == nil {
		t.Error("the certificate before the renewal is good again")
	}
	if err := enrolled.in(t); err == nil {
		t.Error("a board that the restored registry does not know comes in")
	}
	// It is let in again as a new board is, with the key that it has.
	s.registry(func(reg *registry.Registry) error {
		secret, err := reg.NewJoinToken(t.Context(), registry.DefaultTenant, "", 1, time.Hour)
		if err != nil {
			return err
		}
		pin, err := ca.Pin(filepath.Join(s.dir, "ca"))
		return errors.Join(err, os.WriteFile(enrolled.TokenFile, []byte(jointoken.Token{Secret: secret, CAHash: pin}.String()), 0o600),
			os.Remove(filepath.Join(enrolled.Dir, "identity.json")))
	})
	if enrolled.id, err = enrolled.Enrol(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := enrolled.in(t); err != nil {
		t.Error(err)
	}
	if !strings.HasPrefix(enrolled.id.Board, "enrolled") {
		t.Error(enrolled.id.Board)
	}
}
