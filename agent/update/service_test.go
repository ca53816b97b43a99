// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package update

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"fulmar/agent/config"
	"fulmar/agent/update/admit"
	"fulmar/agent/update/floor"
	"fulmar/agent/update/gate"
	"fulmar/agent/update/sources"
	"fulmar/link"
	"fulmar/ota"
	"fulmar/ota/fetch"
	"fulmar/ota/install/installtest"
	"fulmar/ota/install/programs"
	"fulmar/ota/record"
	"fulmar/ota/slot"
	"fulmar/schema"
	"fulmar/trust"
)

// elf is as much of a program as an installer looks at.
func elf(text string) string {
	h := make([]byte, 64)
	copy(h, "\x7fELF\x02\x01\x01")
	h[16], h[18] = 2, 62
	if runtime.GOARCH == "arm64" {
		h[18] = 183
	}
	return string(h) + text
}

// board is the data of a board on which a worker of version 1.0 is on trial, by an update.
type board struct {
	cfg    config.Config
	slots  string
	before string // the slot of fulmard, and of the worker before
	token  string
	// rootfs is fulmar-rootfs' socket, objects where objects lie; "": none, and anywhere.
	rootfs, objects string
	report          func(schema.Report) // nil: nobody hears them
}

func newBoard(t *testing.T) *board {
	b := &board{cfg: config.Default(), slots: filepath.Join(t.TempDir(), "fulmar")}
	b.cfg.Data = t.TempDir()
	b.cfg.Updates.Slots = b.slots
	seed := t.TempDir()
	err := errors.Join(os.Mkdir(b.slots, 0o755), os.Mkdir(b.cfg.OTADir(), 0o700))
	for name, text := range map[string]string{"release": "0.9\n", slot.Agent: elf("fulmard 0.9"), slot.Worker: elf("infer 0.9")} {
		err = errors.Join(err, os.WriteFile(filepath.Join(seed, name), []byte(text), 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	store := slot.Open(b.slots)
	if _, err := store.Seed(seed); err != nil {
		t.Fatal(err)
	}
	st, err := store.Begin()
	if err == nil {
		_, err = store.Confirm(st.Current)
	}
	if err != nil {
		t.Fatal(err)
	}
	b.before = st.Current
	p := programs.New(programs.Options{Slots: store, Dir: b.cfg.OTADir(), Self: b.before})
	c, paths := installtest.Files(t, programs.Worker, "1.0", map[string]string{slot.Worker: elf("infer 1.0")})
	if b.token, err = p.Installer(programs.Worker).Stage(t.Context(), c, paths); err == nil {
		_, err = p.Installer(programs.Worker).Switch(t.Context(), b.token)
	}
	if err != nil || !p.Owns(b.token) {
		t.Fatalf("%v; owned %v", err, p.Owns(b.token))
	}
	return b
}

// record puts files in the place of both copies of the record.
func (b *board) record(t *testing.T, text []byte) {
	for _, name := range []string{"record.a", "record.b"} {
		if err := os.WriteFile(filepath.Join(b.cfg.OTADir(), name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// service is fulmard's, from its start until the test or stop ends it.
func (b *board) service(t *testing.T) (s *Service, stop func()) {
	t.Helper()
	objects, err := sources.Open(sources.Config{
		Dir: cmp.Or(b.objects, t.TempDir()), Link: fetch.NewMQTT(Line{Session: func() *link.Session { return nil }}),
		Fleet: func() (string, *tls.Config) { return "", nil }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	s = New(Config{
		Fetch: objects, Rootfs: cmp.Or(b.rootfs, "/nowhere"),
		Config: func() config.Config { return b.cfg }, Slot: b.before, Clock: schema.NewClock(1, time.Hour),
		Keys:  func() (*trust.KeySet, error) { return nil, errors.New("no key set") },
		Learn: func([]byte) (bool, error) { return false, nil },
		Now:   func() (uint64, bool) { return 0, false },
		Name:  func() (string, string) { return "default", "dock-9" },
		Floor: floor.New(nil, b.cfg.FloorDir(), func() bool { return false }),
		Read:  func() gate.Reading { return gate.Reading{Throttled: -1} }, Ask: func(*admit.Board) {},
		Send: func(context.Context, schema.Channel, []byte) error { return link.ErrDown },
		Report: func(r schema.Report) error {
			if b.report != nil {
				b.report(r)
			}
			return nil
		},
		Runs: func(string) []byte { return nil }, Level: func() uint8 { return 0 },
		ModelsChanged: func() {}, ConfigChanged: func() {}, RestartWorker: func(context.Context) error { return nil }, Restart: func(string) {},
		Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	return s, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// ready waits until orders may come.
func ready(t *testing.T, s *Service) {
	t.Helper()
	select {
	case <-s.begun:
	case <-time.After(10 * time.Second):
		t.Fatal("orders may never come")
	}
}

// TestLostRecord: when the record of updates is lost, the slot on trial is nobody's any more,
// so that it proves itself as one of a package does; what is in force stays. With the record
// whole, or for a component that it knows again, nothing is let go of.
func TestLostRecord(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	s, stop := b.service(t) // of no record at all yet: that is not a lost one
	ready(t, s)
	if _, err := s.Bundle(t.Context(), strings.NewReader("x"), "anna"); err == nil || strings.Contains(err.Error(), "not read yet") {
		t.Errorf("a bundle: %v", err)
	}
	if !s.Owns(b.token) || s.updater.Status().Lost {
		t.Error("a record that is begun lets go of the slot")
	}
	stop()
	s, stop = b.service(t)
	ready(t, s)
	if !s.Owns(b.token) {
		t.Error("a whole record lets go of the slot")
	}
	for what, st := range map[string]*ota.Status{
		"known": {Components: map[string]*record.Component{programs.Worker: {}}}, "waiting": {Waiting: []ota.Job{{Component: programs.Worker}}},
		"in work": {Work: &ota.Job{Component: programs.Worker}},
	} {
		if s.parts.forsake(t.Context(), st); !s.Owns(b.token) {
			t.Errorf("the slot of a component that is %s is let go of", what)
		}
	}
	stop()

	b.record(t, []byte("damaged"))
	s, stop = b.service(t)
	ready(t, s)
	if !s.updater.Status().Lost || s.Owns(b.token) {
		t.Errorf("lost %v, owned %v", s.updater.Status().Lost, s.Owns(b.token))
	}
	store := slot.Open(b.slots)
	st, _, err := store.State()
	if err != nil || st.Current != b.token || !st.Trial {
		t.Errorf("in force is %+v, %v", st, err)
	}
	if err := errors.Join(store.Verify(b.token), store.Verify(b.before)); err != nil {
		t.Errorf("what is in force, and what it would go back to: %v", err)
	}
	stop()

	// A power cut between the new record and the letting go: the next start makes up for it.
	c := newBoard(t)
	c.record(t, []byte("damaged"))
	s, stop = c.service(t)
	ready(t, s)
	stop()
	p := programs.New(programs.Options{Slots: slot.Open(c.slots), Dir: c.cfg.OTADir(), Self: c.before})
	comp, paths := installtest.Files(t, programs.Worker, "1.1", map[string]string{slot.Worker: elf("infer 1.1")})
	token, err := p.Installer(programs.Worker).Stage(t.Context(), comp, paths)
	if err == nil {
		_, err = p.Installer(programs.Worker).Switch(t.Context(), token)
	}
	if err != nil || !p.Owns(token) {
		t.Fatal(err)
	}
	s, stop = c.service(t)
	ready(t, s)
	if s.Owns(token) {
		t.Error("owned for ever")
	}
	stop()
}

// TestNotBegun: no order comes before the record is read, by whichever way.
func TestNotBegun(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	if err := os.Mkdir(filepath.Join(b.cfg.OTADir(), "record.a"), 0o700); err != nil { // cannot be read
		t.Fatal(err)
	}
	s, stop := b.service(t)
	defer stop()
	for deadline := time.Now().Add(10 * time.Second); s.updater.Status().Trouble == ""; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the record is read")
		}
	}
	if _, err := s.Bundle(t.Context(), strings.NewReader("x"), "anna"); err == nil || !strings.Contains(err.Error(), "not read yet") {
		t.Errorf("a bundle: %v", err)
	}
	if !s.Owns(b.token) {
		t.Error("a disk that cannot be read lets go of the slot")
	}
}
