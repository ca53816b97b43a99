// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/agent"
	"fulmar/agent/authority"
	"fulmar/agent/config"
	"fulmar/device"
	"fulmar/fleet/ca"
	"fulmar/fleet/keyring"
	"fulmar/fleet/registry"
	"fulmar/fleet/store"
	"fulmar/internal/jointoken"
	"fulmar/trust"
)

// daemon is a real board that can be started again on its folder.
type daemon struct {
	t    *testing.T
	cfg  *config.Config
	stop func()
}

func (s *server) newDaemon(name string) *daemon {
	s.t.Helper()
	dir, err := os.MkdirTemp("", "board") // not t.TempDir: the path of a socket has at most 108 bytes
	if err != nil {
		s.t.Fatal(err)
	}
	token := filepath.Join(dir, "token")
	s.registry(func(reg *registry.Registry) error {
		secret, err := reg.NewJoinToken(s.t.Context(), registry.DefaultTenant, "", 1, time.Hour)
		if err != nil {
			return err
		}
		pin, err := ca.Pin(filepath.Join(s.dir, "ca"))
		return errors.Join(err, os.WriteFile(token, []byte(jointoken.Token{Secret: secret, CAHash: pin}.String()), 0o600))
	})
	path := filepath.Join(dir, "fulmard.yaml")
	text := fmt.Sprintf("board: %s\ndata: %s\nfleet: {address: '%s', token_file: %s}\ninfer: {mode: 'off'}\nkey: {mode: software}\nsensors: {synthetic: 1}\nlink: {reconnect_window: 1s}\n",
		name, filepath.Join(dir, "data"), s.listen, token)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	d := &daemon{t: s.t, stop: func() {}}
	if d.cfg, err = config.Load(path); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { d.stop(); _ = os.RemoveAll(dir) })
	return d
}

func (d *daemon) start() {
	d.t.Helper()
	a, err := agent.New(d.cfg, agent.Options{Release: "test", Root: device.NewRoot("/"), Log: slog.New(slog.DiscardHandler), Level: new(slog.LevelVar)})
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	d.stop = func() {
		cancel()
		if err := <-done; err != nil {
			d.t.Error(err)
		}
		d.stop = func() {}
	}
}

// keys opens what the board has on its disk.
func (d *daemon) keys() *authority.Authority {
	d.t.Helper()
	a, err := authority.Open(d.cfg.IdentityDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		d.t.Fatal(err)
	}
	return a
}

// obeys tells whether the board takes a command of the server's present keyring.
func (d *daemon) obeys(s *server) bool {
	d.t.Helper()
	k, err := keyring.Open(filepath.Join(s.dir, keyring.Dir), nil)
	if err != nil {
		d.t.Fatal(err)
	}
	c, err := k.SignCommand([]byte("c"))
	if err != nil {
		d.t.Fatal(err)
	}
	_, err = d.keys().Command(c)
	return err == nil
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not come: " + what)
		}
	}
}

// reported gives the newest words of boards on a subject, as the fleet keeps them.
func (s *server) reported(subject string) (out string) {
	s.t.Helper()
	db, err := store.OpenLedger(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // only read
	rows, err := db.Read.Query("SELECT state, text FROM report WHERE subject = ?", subject)
	if err != nil {
		s.t.Fatal(err)
	}
	defer rows.Close() //nolint:errcheck // only read
	for rows.Next() {
		var state, text string
		if err := rows.Scan(&state, &text); err != nil {
			s.t.Fatal(err)
		}
		out += state + ": " + text + "\n"
	}
	return out
}

// TestKeySetsReachBoards: over real TLS and MQTT a board gets the set as it enrols, one
// without a set (of a version before them) as it says hello, a successor as it connects
// again; a set of another root is refused and reported, and the board goes on.
func TestKeySetsReachBoards(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	d := s.newDaemon("dock-1")
	d.start()
	until(t, "the first set", func() bool { return d.keys().Version() == 1 })
	if !d.obeys(s) {
		t.Error("the board does not take a command of its fleet")
	}
	identity := filepath.Join(d.cfg.IdentityDir(), "identity.json")
	until(t, "the identity, which is written after the set", func() bool { _, err := os.Stat(identity); return err == nil })
	b, err := os.ReadFile(identity)
	if err != nil || strings.Contains(string(b), "keyset") {
		t.Errorf("the set is kept twice: %v", err)
	}

	d.stop()
	if err := os.Remove(filepath.Join(d.cfg.IdentityDir(), authority.File)); err != nil {
		t.Fatal(err)
	}
	d.start()
	until(t, "the set after a hello", func() bool { return d.keys().Version() == 1 && d.obeys(s) })

	s.stop()
	dir := filepath.Join(s.dir, keyring.Dir)
	for range 2 {
		if _, _, err := keyring.RotateCommand(dir, nil, keyring.Rotation{Stolen: true}); err != nil {
			t.Fatal(err)
		}
	}
	if d.obeys(s) {
		t.Error("the board takes a command of a set that it has not")
	}
	s.start()
	until(t, "the successors", func() bool { return d.keys().Version() == 3 && d.obeys(s) })

	// Somebody who has the server, and not its root, puts keys of his own there.
	s.stop()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	k, err := keyring.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if _, _, err := keyring.RotateCommand(dir, nil, keyring.Rotation{}); err != nil {
			t.Fatal(err)
		}
	}
	s.start()
	until(t, "the report", func() bool { return strings.Contains(s.reported("authority"), "refused: ") })
	if said := s.reported("authority"); !strings.Contains(said, trust.ErrSignatures.Error()) {
		t.Errorf("reported %q", said)
	}
	if d.keys().Version() != 3 || d.obeys(s) {
		t.Errorf("the board went over to another root: set %d", d.keys().Version())
	}
	// A damaged set: telemetry and reports go on, and the fleet hears of it.
	d.stop()
	if err := os.WriteFile(filepath.Join(d.cfg.IdentityDir(), authority.File), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.start()
	until(t, "the word on the damage", func() bool { return strings.Contains(s.reported("authority"), "damaged") })
}

// TestKeySetWithCertificates: the set comes with the first certificate and with each
// renewal, and is the one in force on the server.
func TestKeySetWithCertificates(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	b := s.newBoard("dock-2")
	dir := filepath.Join(s.dir, keyring.Dir)
	for version := uint64(1); version <= 2; version++ {
		var got []byte
		b.KeySet = func(envelope []byte) { got = envelope }
		if version == 1 {
			b.Dir = filepath.Join(t.TempDir(), "identity") // as a board that is set up anew
			s.registry(func(reg *registry.Registry) error {
				secret, err := reg.NewJoinToken(t.Context(), registry.DefaultTenant, "dock-2", 1, time.Hour)
				if err != nil {
					return err
				}
				pin, err := ca.Pin(filepath.Join(s.dir, "ca"))
				return errors.Join(err, os.WriteFile(b.TokenFile, []byte(jointoken.Token{Secret: secret, CAHash: pin}.String()), 0o600))
			})
			id, err := b.Enrol(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			b.id = id
		} else if err := b.renew(t); err != nil {
			t.Fatal(err)
		}
		set, envelope, err := keyring.Present(dir)
		if err != nil || set.Version != version || string(got) != string(envelope) {
			t.Errorf("with certificate %d came %d bytes, wants set %d of %d: %v", version, len(got), set.Version, len(envelope), err)
		}
		if _, _, err := keyring.RotateCommand(dir, nil, keyring.Rotation{}); err != nil {
			t.Fatal(err)
		}
		s.restart()
	}
}
